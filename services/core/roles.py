"""What a token may do in its project; each role may do everything the one before may."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """Roles from least to most."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)
