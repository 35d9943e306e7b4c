"""How long to wait before the next try: exponential, capped, with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """`base * 2**(n-1)` seconds before retry n, at most `cap`, spread by +-`jitter` of itself."""

    base_seconds: float = 10.0
    cap_seconds: float = 600.0
    jitter: float = 0.2

    def delay_seconds(self, retry: int, rng: random.Random) -> float:
        plain = min(self.cap_seconds, self.base_seconds * 2.0 ** min(max(retry - 1, 0), 30))
        return plain * (1.0 + self.jitter * (2.0 * rng.random() - 1.0))
