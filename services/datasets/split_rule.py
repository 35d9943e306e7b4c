"""How much of a dataset is set aside for evaluation."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field


class SplitRule(BaseModel):
    """How much is set aside for evaluation where the source has no val split; another seed picks others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    val_fraction: float = Field(0.1, gt=0, lt=1)
    seed: int = 0

    def rank(self, key: str) -> bytes:
        """Return where a key stands in the draw."""
        return hashlib.sha256(f"{self.seed}:{key}".encode()).digest()

    def draw(self, keys: set[str], *, least: int = 1) -> set[str]:
        """Return the share of `keys` to set aside: `least` at least, with as many left, where there are enough.

        Never all, and none of a single key.
        """
        if len(keys) < 2:
            return set()
        least = min(least, len(keys) // 2)
        count = min(len(keys) - least, max(least, round(len(keys) * self.val_fraction)))
        return set(sorted(keys, key=self.rank)[:count])
