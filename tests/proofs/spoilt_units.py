"""A search for units that is broken in one place."""

from __future__ import annotations

from torch import Tensor

from workers.families.gan.dissection import Dissection
from workers.families.gan.find_units import FindUnits


class _SignsSwapped(Dissection):
    def order(self, weights: Tensor, effects: Tensor) -> list[int]:
        return super().order(-weights, -effects)


class UnitsWithSignsSwapped(FindUnits):
    """Takes the units that speak against an attribute for those that draw it."""

    search = _SignsSwapped
