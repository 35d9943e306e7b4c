"""How well pictures were repainted: what is left of the distance in style, and what was lost of the content."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.families.similarity import structural_similarity
from workers.families.style.recipe import Critic, Maps

_EXACT = 1e-12


@dataclass(slots=True)
class Score:
    """Sums over pictures; `others` are the Gram matrices of style pictures that nothing was learned from."""

    critic: Critic
    grams: Maps
    others: Maps | None = None
    _count: int = 0
    _sums: dict[str, float] = field(default_factory=dict)

    def add(self, painted: Tensor, content: Tensor) -> None:
        """Take in pictures and what they were made of, uint8 (N, 3, H, W) each."""
        critic, seen = self.critic, self.critic.seen(painted)
        ours, theirs = critic.constant(seen), critic.constant(critic.seen(content))
        with torch.no_grad():
            parts = critic.weighted(seen, ours, theirs, self.grams)
            self._note("loss", torch.stack(list(parts.values())).sum(), len(painted))
            self._note("content", critic.content(ours, theirs), len(painted))
            self._note(
                "size",
                torch.stack([theirs[name].square().mean() for name in critic.content_layers]).sum(),
                len(painted),
            )
            for name, grams in (("style", self.grams), ("others", self.others)):
                if grams is not None:
                    self._note(name, critic.style(ours, grams), len(painted))
                    self._note(f"{name}_before", critic.style(theirs, grams), len(painted))
            self._note("ssim", similarity(painted, content), len(painted))
        self._count += len(painted)

    def figures(self) -> dict[str, float]:
        """Return the mean loss, the share of the content pictures' own distance in style that is left, the relative
        error of the content's features, and the structural similarity to the content.
        """
        sums = self._sums
        found = {
            "eval/loss": sums["loss"] / self._count,
            "eval/style_share": sums["style"] / max(sums["style_before"], _EXACT),
            "eval/content_error": sums["content"] / max(sums["size"], _EXACT),
            "eval/ssim": sums["ssim"] / self._count,
        }
        if self.others is not None:
            found["eval/style_share_held_out"] = sums["others"] / max(sums["others_before"], _EXACT)
        return found

    def _note(self, name: str, mean: Tensor, count: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(mean) * count


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean structural similarity of uint8 pictures (N, 3, H, W)."""
    return structural_similarity(one.cpu(), other.cpu(), data_range=255.0).mean()
