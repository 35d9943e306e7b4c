"""The bars of the serving comparison, and which of them a model's figures clear. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST_RATIO = 3.0
"""Requests a second over those of the stock handler, at eight callers."""
MOST_LOSS = 0.3
"""Share of the requests a second that a busy neighbour process may take, not reached."""


def serving_verdict(figures: Mapping[str, Any], *, has_equal_answers: bool) -> dict[str, bool]:
    """Return by bar whether one model's figures, as they are written, clear it.

    `has_equal_answers`: every served answer was the eager fp32 network's, within the family's tolerance.
    """
    return {
        "ratio": figures["ratio"] >= LEAST_RATIO,
        "p99": figures["p99_ours"] <= figures["p99_stock"],
        "loss_beside_busy_process": figures["loss_beside_busy_process"] < MOST_LOSS,
        "answers": has_equal_answers,
    }


def serving_lines(serving: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line a model for people: that it passed, or every bar it misses with the figures."""
    return [f"serving {name} as {figures['form']}: {_missed(figures) or 'passed'}" for name, figures in serving.items()]


def _missed(figures: Mapping[str, Any]) -> str:
    explained = {
        "ratio": f"{figures['ratio']} times the stock handler's requests/s, the bar is {LEAST_RATIO:g}",
        "p99": f"p99 {figures['p99_ours']} ms, the stock handler's is {figures['p99_stock']} ms",
        "loss_beside_busy_process": (
            f"{figures['loss_beside_busy_process']:.1%} lost beside a busy process, the bar is {MOST_LOSS:.0%}"
        ),
        "answers": f"answers differ from the eager fp32 network's: {figures['largest_differences']}",
    }
    missed = [explained[bar] for bar, is_cleared in figures["passed"].items() if not is_cleared]
    return f"MISSED {'; '.join(missed)}" if missed else ""
