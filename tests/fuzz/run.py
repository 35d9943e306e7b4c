"""Calls every rpc with whatever the strategies make up, and keeps what is wrong with the answers."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.judge import Outcome, faults, outcome_of
from tests.fuzz.messages import requests, weighted
from tests.fuzz.rpcs import Rpc, every_rpc
from tests.fuzz.target import Target, settle

THREADS = 4
UNARY_SECONDS = 20.0
STREAM_SECONDS = 0.15
UPLOAD_SECONDS = 30.0
ROUNDS = 5
MAX_READ = 20
MAX_KEPT = 50

BAD_TOKENS = (
    "Bearer ",
    "Bearer x",
    "Basic eDp5",
    "Bearer ty_default_fuzz_" + "0" * 48,
    "Bearer " + "a" * 3000,
    "bearer",
)


@dataclass
class Findings:
    """What all calls together showed; several threads add to it."""

    calls: int = 0
    by_code: Counter[str] = field(default_factory=Counter)
    by_rpc: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    slowest_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rpc: Rpc, sent: Sequence[bytes], outcome: Outcome, wrong: list[str], seconds: float) -> None:
        with self._lock:
            self.calls += 1
            self.by_code[outcome.code.name] += 1
            self.by_rpc[rpc.path][outcome.code.name] += 1
            if rpc.is_unary:
                self.slowest_seconds = max(self.slowest_seconds, seconds)
            for fault in wrong:
                self.faults["leak" if fault.startswith("leaks") else "internal"] += 1
                if len(self.examples) < MAX_KEPT:
                    body = [one[:400].hex() for one in sent[:3]]
                    self.examples.append({"rpc": rpc.path, "fault": fault[:400], "sent": body})


def fuzz(target: Target, *, calls: int, seed_number: int = 0) -> dict[str, Any]:
    """Make about `calls` calls, the same number to every rpc, and return the report."""
    rpcs = every_rpc()
    findings = Findings()
    each = max(1, -(-calls // len(rpcs) // ROUNDS))
    sizes = []
    for number in range(ROUNDS):
        _round(target, rpcs, each, findings, seed_number * ROUNDS + number)
        sizes.append(settle(target) if target.lives() else 0)
    return {
        "calls": findings.calls,
        "rpcs": len(rpcs),
        "by_code": dict(sorted(findings.by_code.items())),
        "internal": findings.faults["internal"],
        "leaks": findings.faults["leak"],
        "crashes": int(0 in sizes),
        "rss_bytes": sizes,
        # From the first round, which fills caches and pools, to the last.
        "rss_growth_bytes": sizes[-1] - sizes[0],
        "slowest_unary_seconds": round(findings.slowest_seconds, 3),
        "by_rpc": {path: dict(sorted(codes.items())) for path, codes in sorted(findings.by_rpc.items())},
        "examples": findings.examples,
    }


def _round(target: Target, rpcs: Sequence[Rpc], each: int, findings: Findings, seed_number: int) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        # Consumed, so that a mistake of the strategies fails the run.
        list(threads.map(lambda rpc: _fuzz_one(target, rpc, each, findings, seed_number), rpcs))


def _fuzz_one(target: Target, rpc: Rpc, calls: int, findings: Findings, seed_number: int) -> None:
    with grpc.insecure_channel(target.address) as channel:
        # Mostly with the right token: without one, a request is refused before it is looked at.
        headers = weighted((8, st.just(f"Bearer {target.token}")), (1, st.none()), (1, st.sampled_from(BAD_TOKENS)))

        @seed(seed_number)
        @settings(
            max_examples=calls,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(requests(rpc, target.vocabulary), headers)
        def call(sent: list[bytes], header: str | None) -> None:
            begin = time.monotonic()
            outcome = _call(channel, rpc, sent, header)
            wrong = faults(outcome, [*sent, (header or "").encode()], target.secrets)
            if rpc.is_unary and outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                wrong.append(f"no answer within {UNARY_SECONDS:g} s")
            findings.add(rpc, sent, outcome, wrong, time.monotonic() - begin)

        call()


def _call(channel: grpc.Channel, rpc: Rpc, sent: list[bytes], header: str | None) -> Outcome:
    """Make one call of raw bytes and return how it ended; of a stream, its beginning is enough."""
    options: dict[str, Any] = {"metadata": (("authorization", header),) if header is not None else ()}
    try:
        if rpc.is_unary:
            said = channel.unary_unary(rpc.path)(sent[0], timeout=UNARY_SECONDS, **options)
            return Outcome(grpc.StatusCode.OK, said.decode(errors="replace"))
        if not rpc.is_server_streaming:
            said = channel.stream_unary(rpc.path)(iter(sent), timeout=UPLOAD_SECONDS, **options)
            return Outcome(grpc.StatusCode.OK, said.decode(errors="replace"))
        if rpc.is_client_streaming:
            stream = channel.stream_stream(rpc.path)(iter(sent), timeout=STREAM_SECONDS, **options)
        else:
            stream = channel.unary_stream(rpc.path)(sent[0], timeout=STREAM_SECONDS, **options)
        read = [part for _, part in zip(range(MAX_READ), stream, strict=False)]
        stream.cancel()
        return Outcome(
            grpc.StatusCode.OK, b"".join(read).decode(errors="replace") if "Download" not in rpc.path else ""
        )
    except grpc.RpcError as err:
        return outcome_of(err)
