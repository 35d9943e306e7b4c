"""Fast style transfer with one part spoilt: a proof that it passes proves nothing."""

from __future__ import annotations

from torch import Tensor, nn

from workers.families.base import Placement
from workers.families.style.data import Batch
from workers.families.style.fast import Fast
from workers.families.style.losses import gram, mean_grams


class FastInTheStyleOfItsContent(Fast):
    """The Gram matrices that it is taught are those of the wrong pictures: the content's own."""

    def losses(self, network: nn.Module, batch: Batch, placement: Placement) -> dict[str, Tensor]:
        critic = self.critic_of(network, placement)
        with placement.autocast():
            painted = network(batch.images)
        content = critic.constant(batch.images)
        wrong = mean_grams([{name: gram(content[name]) for name in critic.style_layers}])
        return critic.parts(painted.float(), content, wrong)
