"""What the agent remembers between two looks at TorchServe: since when, how often restarted, proven or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.agent import backend, metrics
from services.agent.client import Version
from services.agent.plan import Limits, Seen, Trial
from services.core.clock import MonotonicClock

_RESTART_WINDOW_SECONDS = 600.0


def _nothing_has(_sha256: str) -> bool:
    return False


@dataclass(slots=True)
class _Memory:
    since: float
    has_workers: bool = False
    is_verified: bool = False
    demoted_at: float | None = None
    pids: dict[str, int] = field(default_factory=dict)
    restarts: list[float] = field(default_factory=list)
    recycled_at: float | None = None


@dataclass(slots=True)
class Watch:
    """Turns TorchServe's own description into `Seen`. Forgets everything when TorchServe starts anew."""

    limits: Limits
    clock: MonotonicClock = time.monotonic
    measure: Callable[[int], int] = backend.resident_bytes
    has_come_up: Callable[[str], bool] = _nothing_has
    """Tells by its digest whether an archive was proven here before."""
    _memories: dict[tuple[str, str], _Memory] = field(default_factory=dict)
    _failures: dict[Trial, tuple[float, str]] = field(default_factory=dict)
    _rests: dict[Trial, tuple[float, str]] = field(default_factory=dict)
    _slow_starts: dict[Trial, int] = field(default_factory=dict)

    def look(self, models: Mapping[str, Sequence[Version]]) -> dict[str, list[Seen]]:
        """Take in what is registered now."""
        keys = {(name, version.version) for name, versions in models.items() for version in versions}
        self._memories = {key: memory for key, memory in self._memories.items() if key in keys}
        return {name: [self._see(name, version) for version in versions] for name, versions in models.items()}

    def forget(self) -> None:
        """Begin again with an empty TorchServe; archives that failed get another chance there."""
        self._memories.clear()
        self._failures.clear()
        self._rests.clear()
        self._slow_starts.clear()

    def note_verified(self, name: str, version: str) -> None:
        self._memories[name, version].is_verified = True
        self._slow_starts = {trial: count for trial, count in self._slow_starts.items() if trial[0] != name}

    def note_recycled(self, name: str, version: str) -> None:
        self._memories[name, version].recycled_at = self.clock()

    def note_failed(self, trial: Trial, reason: str) -> None:
        self._failures[trial] = (self.clock(), reason)

    def failures(self) -> dict[Trial, str]:
        """Return why trials were given up; old ones are dropped, to be tried again."""
        fresh = self.clock() - self.limits.retry_failed_seconds
        self._failures = {key: value for key, value in self._failures.items() if value[0] > fresh}
        return {key: reason for key, (_, reason) in self._failures.items()}

    def note_slow(self, trial: Trial, reason: str) -> float:
        """Let a trial rest, the longer the oftener it was slow, and return for how many seconds."""
        times = self._slow_starts.get(trial, 0)
        self._slow_starts[trial] = times + 1
        seconds = min(self.limits.retry_slow_seconds * 2.0**times, self.limits.retry_failed_seconds)
        self._rests[trial] = (self.clock() + seconds, f"{reason}; it is tried again after {seconds:.0f} seconds")
        return seconds

    def rests(self) -> dict[Trial, str]:
        """Return why trials rest now; those that have rested are dropped, to be tried again."""
        now = self.clock()
        self._rests = {trial: value for trial, value in self._rests.items() if value[0] > now}
        return {trial: reason for trial, (_, reason) in self._rests.items()}

    def _see(self, name: str, version: Version) -> Seen:
        now = self.clock()
        memory = self._memories.setdefault((name, version.version), _Memory(since=now))
        if version.min_workers and not memory.has_workers:
            # Its own load begins here: what others took before is not its slowness.
            memory.has_workers, memory.since = True, now
        self._count_restarts(memory, version, now)
        memory.demoted_at = None if version.is_default else (memory.demoted_at or now)
        sha256 = version.file.removesuffix(".mar")
        return Seen(
            version=version.version,
            sha256=sha256,
            min_workers=version.min_workers,
            ready_workers=sum(worker.is_ready for worker in version.workers),
            is_default=version.is_default,
            pending=version.pending,
            is_verified=memory.is_verified,
            has_come_up=not memory.is_verified and self.has_come_up(sha256),
            waiting_seconds=now - memory.since,
            restarts=len(memory.restarts),
            demoted_seconds=0.0 if memory.demoted_at is None else now - memory.demoted_at,
            heavy_pid=self._heavy_pid(version),
            is_recycling=memory.recycled_at is not None and now - memory.recycled_at < self.limits.start_seconds,
        )

    def _heavy_pid(self, version: Version) -> int:
        if not self.limits.worker_bytes:
            return 0
        ready = [worker.pid for worker in version.workers if worker.is_ready and worker.pid]
        return next((pid for pid in ready if self.measure(pid) > self.limits.worker_bytes), 0)

    @staticmethod
    def _count_restarts(memory: _Memory, version: Version, now: float) -> None:
        for worker in version.workers:
            known = memory.pids.get(worker.id, 0)
            if worker.pid and known and worker.pid != known:
                memory.restarts.append(now)
                metrics.WORKER_RESTARTS.inc()
            if worker.pid:
                memory.pids[worker.id] = worker.pid
        memory.restarts = [moment for moment in memory.restarts if moment > now - _RESTART_WINDOW_SECONDS]
