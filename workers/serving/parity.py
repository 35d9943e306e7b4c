"""The gate between training and serving: a form is served only if it gives the trainer's answers.

Every form answers the golden inputs through the family's own handler, whose tolerances come with the
bundle; of those that pass, a short interleaved probe takes the fastest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from services.core.errors import Code, PlatformError
from workers.families.base import Golden, Handler, InstanceInvalid, Network
from workers.serving.bundle import golden_instances
from workers.serving.export import Candidate, Rejection
from workers.serving.form import Form

_WARM_UP_ROUNDS = 3
_PROBE_ROUNDS = 30
_PROBE_SECONDS = 6.0
_WORTH = 1.2
"""How many times faster than the next int8 has to be: it moves answers most."""
_LARGEST = 1e9  # stands for infinity, which JSON has not


class ParityFailed(PlatformError):
    """No form of the network gives the trainer's answers."""

    code = Code.FAILED_PRECONDITION
    reason = "PARITY_FAILED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the golden inputs say of one form: largest differences by quantity, and why it fails, if so."""

    differences: Mapping[str, float]
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, slots=True)
class Choice:
    """The form to serve, and the record of all that were tried."""

    candidate: Candidate
    differences: Mapping[str, float]
    milliseconds: float
    record: tuple[Mapping[str, Any], ...]


def judge(handler: Handler, network: Network, golden: Golden) -> Verdict:
    """Compare the handler's answers with this network to the trainer's, on every golden input."""
    if not golden.inputs:
        return Verdict({}, "the bundle has no golden inputs to compare with")
    largest: dict[str, float] = {}
    failure = None
    answers = handler.predict(golden_instances(golden), network)
    for number, (expected, actual) in enumerate(zip(golden.answers, answers, strict=True)):
        if isinstance(actual, InstanceInvalid):
            failure = failure or f"golden input {number} is refused: {actual}"
            continue
        report = handler.compare(expected, actual)
        for name, value in report.differences.items():
            largest[name] = max(value, largest.get(name, 0.0))
        if not report.passed:
            failure = failure or f"golden input {number} differs by {_rounded(report.differences)}"
    return Verdict(largest, failure)


def choose(
    handler: Handler, golden: Golden, candidates: Sequence[Candidate], rejections: Sequence[Rejection]
) -> Choice:
    """Return the fastest form that passes the gate.

    Raises:
        ParityFailed: none passes; the message tells each one's difference.
    """
    verdicts = {candidate.form: _judge_safely(handler, candidate, golden) for candidate in candidates}
    passing = [candidate for candidate in candidates if verdicts[candidate.form].passed]
    if not passing:
        reasons = [f"{form}: {verdict.failure}" for form, verdict in verdicts.items()]
        raise ParityFailed("No form of the network gives the trainer's answers. " + "; ".join(reasons))
    milliseconds = _probe(handler, golden, passing)
    best = min(passing, key=lambda candidate: _cost(candidate.form, milliseconds))
    record: list[Mapping[str, Any]] = [{"form": rejected.form, "reason": rejected.reason} for rejected in rejections]
    for candidate in candidates:
        verdict = verdicts[candidate.form]
        line: dict[str, Any] = {"form": candidate.form, "differences": _rounded(verdict.differences)}
        if verdict.passed:
            line["milliseconds"] = round(milliseconds[candidate.form], 3)
        else:
            line["reason"] = verdict.failure
        record.append(line)
    return Choice(best, _rounded(verdicts[best.form].differences), milliseconds[best.form], tuple(record))


def _cost(form: Form, milliseconds: Mapping[str, float]) -> float:
    return milliseconds[form] * (_WORTH if form is Form.AOTI_INT8 else 1.0)


def _judge_safely(handler: Handler, candidate: Candidate, golden: Golden) -> Verdict:
    try:
        return judge(handler, candidate.network, golden)
    except Exception as err:  # noqa: BLE001 - a compiled network may fail in any way when it first runs
        return Verdict({}, f"{type(err).__name__}: {err}")


def _probe(handler: Handler, golden: Golden, candidates: Sequence[Candidate]) -> dict[str, float]:
    """Return the least milliseconds of one forward by form, measured in turns.

    The least, because whatever else runs on the host only ever adds time, to one form more than to another.
    """
    batch = _recorded_batch(handler, golden, candidates[0].network)
    samples: dict[str, list[float]] = {candidate.form: [] for candidate in candidates}
    end = time.monotonic() + _PROBE_SECONDS
    for round_number in range(_WARM_UP_ROUNDS + _PROBE_ROUNDS):
        for candidate in candidates:
            start = time.perf_counter()
            candidate.network(batch)
            if round_number >= _WARM_UP_ROUNDS or not samples[candidate.form]:
                samples[candidate.form].append((time.perf_counter() - start) * 1000.0)
        if time.monotonic() > end:
            break
    return {form: min(times) for form, times in samples.items()}


def _recorded_batch(handler: Handler, golden: Golden, network: Network) -> Tensor:
    seen: list[Tensor] = []

    def recording(x: Tensor) -> Tensor | tuple[Tensor, ...]:
        seen.append(x)
        return network(x)

    handler.predict(golden_instances(golden)[:1], recording)
    return seen[0]


def _rounded(differences: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{min(value, _LARGEST):.4g}") for name, value in differences.items()}
