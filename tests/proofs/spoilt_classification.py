"""Classification recipes with one part spoilt: a proof that they pass proves nothing."""

from __future__ import annotations

from torch import nn
from torchvision.models import VisionTransformer

from workers.families.base import Source, TrainState
from workers.families.classification.config import MobileConfig, VitConfig
from workers.families.classification.finetune import Finetune
from workers.families.classification.network import Classifier
from workers.families.classification.recipes import Mobile, Vit


class VitWithoutPositions(Vit):
    """Sees a bag of patches."""

    @classmethod
    def build_network(cls, config: VitConfig, num_classes: int) -> Classifier:
        network = super().build_network(config, num_classes)
        for module in network.modules():
            if isinstance(module, VisionTransformer):
                nn.init.zeros_(module.encoder.pos_embedding).requires_grad_(False)
        return network


class MobileWithoutMixing(Mobile):
    """Its pointwise convolutions stay as drawn and are nearly nothing: stages past the stem pass nothing on."""

    @classmethod
    def build_network(cls, config: MobileConfig, num_classes: int) -> Classifier:
        network = super().build_network(config, num_classes)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
                nn.init.zeros_(module.weight).requires_grad_(False)
        return network


class FinetuneOfNothing(Finetune):
    """Forgets what it starts from."""

    def load_source(self, state: TrainState, source: Source) -> None:
        pass
