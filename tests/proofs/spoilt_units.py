"""A search for units that is broken in one place."""

from __future__ import annotations

from torch import Tensor

from workers.families.gan.dissection import Dissection
from workers.families.gan.find_units import FindUnits


class _SignsSwapped(Dissection):
    def chosen(self, weights: Tensor) -> tuple[int, ...]:
        return super().chosen(-weights)


class UnitsWithSignsSwapped(FindUnits):
    """Takes the units that speak against an attribute for those that draw it."""

    search = _SignsSwapped
