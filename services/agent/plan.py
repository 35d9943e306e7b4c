"""What to do next in one TorchServe, from what is wanted and what is seen. Pure: no clock, no network.

Level-triggered: the plan is made anew at every look, so a lost answer or a restart of either side costs
one look. A new version becomes the default only when its workers are up and its golden answer is right,
and the old one goes only after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from services.db.deployments import Observed

Trial = tuple[str, str, int]
"""Name, sha256 and generation of what was wanted: asked for once more, it is tried once more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a new version may take before the agent gives up on it."""

    start_seconds: float = 120.0
    restarts: int = 5
    loading_workers: int = 1
    """Workers that may load at a time, one per core: loading is work for a processor, and more of them all come late."""
    drain_seconds: float = 2.0
    drain_limit_seconds: float = 60.0
    retry_failed_seconds: float = 600.0
    retry_slow_seconds: float = 15.0
    """Until an archive that came up here before and was slow now is tried again; doubles, up to `retry_failed_seconds`."""
    worker_bytes: int = 0
    """Memory over which a worker process is replaced; 0: any amount is fine."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deployment with its archive: `name` is its model in TorchServe."""

    uid: str
    name: str
    key: str
    sha256: str
    size_bytes: int
    workers: int
    generation: int = 0
    deployment_id: str = ""

    @property
    def trial(self) -> Trial:
        return self.name, self.sha256, self.generation


@dataclass(frozen=True, slots=True)
class Seen:
    """One registered version, with what the agent remembers of it."""

    version: str
    sha256: str
    min_workers: int
    ready_workers: int
    is_default: bool
    pending: int = 0
    is_verified: bool = False
    has_come_up: bool = False
    """Whether its archive was proven here before, also under another TorchServe."""
    waiting_seconds: float = 0.0
    """Since its workers were asked for; of one without any, since it was registered."""
    restarts: int = 0
    demoted_seconds: float = 0.0
    heavy_pid: int = 0
    """A ready worker that holds more memory than it may; 0: none."""
    is_recycling: bool = False
    """Whether one was ended a moment ago, and its successor may still be starting."""


@dataclass(frozen=True, slots=True)
class Install:
    """Put the archive into the model store and register it, without workers."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Scale:
    """Ask for a number of workers."""

    name: str
    version: str
    workers: int


@dataclass(frozen=True, slots=True)
class Verify:
    """Send the archive's golden input and compare the answer."""

    wanted: Wanted
    version: str


@dataclass(frozen=True, slots=True)
class MakeDefault:
    """Send requests that name no version to this one."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Unregister a version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Recycle:
    """End a worker that holds too much memory; another one already answers in its place."""

    name: str
    version: str
    pid: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Remember that this archive does not come up here."""

    wanted: Wanted
    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Take an archive that came up before and is slow now away for a while, and then try it again."""

    wanted: Wanted
    reason: str


Action = Install | Scale | Verify | MakeDefault | Remove | Recycle | GiveUp | Pause
Registered = Mapping[str, Sequence[Seen]]
Failed = AbstractSet[Trial]
"""What the agent has given up on, or lets rest."""


def plan(wanted: Sequence[Wanted], registered: Registered, failed: Failed, limits: Limits) -> list[Action]:
    """Return the actions due now; an empty list while something only needs time."""
    actions: list[Action] = []
    turns = _turns([one for one in wanted if one.trial not in failed], registered, limits)
    for one in wanted:
        versions = registered.get(one.name, ())
        current = _current(one, versions)
        if one.trial in failed:
            actions += _remove_failed(one, versions)
        elif current is not None and not current.min_workers and one.name not in turns:
            continue
        else:
            actions += _bring_up(one, versions, limits)
    names = {one.name for one in wanted}
    for name, versions in registered.items():
        if name not in names:
            # The default can only go last.
            actions += [Remove(name, seen.version) for seen in sorted(versions, key=lambda seen: seen.is_default)]
    return actions


def observe(wanted: Wanted, versions: Sequence[Seen], failure: str | None) -> Observed:
    """Return what to report of one deployment."""
    current = _current(wanted, versions)
    serving = next((seen for seen in versions if seen.is_default and seen.ready_workers), None)
    if failure is not None:
        kept = "; the version before it goes on answering" if serving is not None else ""
        return Observed(wanted.uid, wanted.sha256, False, failure + kept, True, wanted.generation)
    if current is not None and current.is_verified and current.is_default and current.ready_workers:
        missing = current.ready_workers < wanted.workers
        message = f"{current.ready_workers} of {wanted.workers} workers are ready" if missing else ""
        return Observed(wanted.uid, wanted.sha256, True, message)
    if serving is not None and serving is not current:
        return Observed(wanted.uid, serving.sha256, True, "the next version is starting")
    return Observed(wanted.uid, wanted.sha256, False, _progress(wanted, current))


def _current(wanted: Wanted, versions: Sequence[Seen]) -> Seen | None:
    return next((seen for seen in versions if seen.sha256 == wanted.sha256), None)


def _turns(wanted: Sequence[Wanted], registered: Registered, limits: Limits) -> set[str]:
    """Return the names whose workers may be asked for now: those registered first, one that wants many alone."""
    loading, waiting = 0, []
    for one in wanted:
        current = _current(one, registered.get(one.name, ()))
        if current is None:
            continue
        if not current.min_workers:
            waiting.append((current.waiting_seconds, one))
        elif not current.is_verified:
            loading += max(0, one.workers - current.ready_workers)
    turns = set()
    # Who was tried in vain is registered anew, and so comes after those who have not been tried yet.
    for _, one in sorted(waiting, key=lambda each: -each[0]):
        if loading and loading + one.workers > limits.loading_workers:
            break
        loading += one.workers
        turns.add(one.name)
    return turns


def _bring_up(wanted: Wanted, versions: Sequence[Seen], limits: Limits) -> list[Action]:
    current = _current(wanted, versions)
    if current is None:
        return [Install(wanted)]
    # One at a time: a limit that every fresh worker exceeds must not end them all the time.
    if current.heavy_pid and not current.is_recycling and current.is_verified and current.is_default:
        return _recycle(wanted, current)
    if current.is_recycling and current.ready_workers < current.min_workers:
        # TorchServe takes away its newest worker, which is the one that answers just now.
        return []
    if current.min_workers != wanted.workers:
        return [Scale(wanted.name, current.version, wanted.workers)]
    if not current.is_verified:
        return _prove(wanted, current, limits)
    if not current.is_default:
        # Also back to an earlier version that was still draining.
        return [MakeDefault(wanted.name, current.version)] if current.ready_workers >= wanted.workers else []
    others = [seen for seen in versions if seen is not current]
    return [Remove(wanted.name, seen.version) for seen in others if _has_drained(seen, limits)]


def _recycle(wanted: Wanted, current: Seen) -> list[Action]:
    """One more worker first, then the heavy one goes; once its successor is up the number is as wanted again."""
    if current.min_workers <= wanted.workers:
        return [Scale(wanted.name, current.version, wanted.workers + 1)]
    if current.ready_workers < current.min_workers:
        return []
    return [Recycle(wanted.name, current.version, current.heavy_pid)]


def _prove(wanted: Wanted, current: Seen, limits: Limits) -> list[Action]:
    if current.ready_workers >= wanted.workers and current.waiting_seconds < 2 * limits.start_seconds:
        return [Verify(wanted, current.version)]
    if current.restarts >= limits.restarts:
        setting = "TRAINYARD_TIMINGS__SERVING_RESTART_LIMIT"
        return [GiveUp(wanted, f"its workers ended {current.restarts} times while starting ({setting})")]
    if current.waiting_seconds >= limits.start_seconds:
        setting = "TRAINYARD_TIMINGS__SERVING_START_LIMIT"
        reason = f"its workers were not ready after {limits.start_seconds:.0f} seconds ({setting})"
        return [Pause(wanted, reason) if current.has_come_up else GiveUp(wanted, reason)]
    return []


def _remove_failed(wanted: Wanted, versions: Sequence[Seen]) -> list[Action]:
    failing = [seen for seen in versions if seen.sha256 == wanted.sha256]
    removable = [seen for seen in failing if not seen.is_default or len(versions) == 1]
    return [Remove(wanted.name, seen.version) for seen in removable]


def _has_drained(seen: Seen, limits: Limits) -> bool:
    if seen.demoted_seconds >= limits.drain_limit_seconds:
        return True
    return seen.pending == 0 and seen.demoted_seconds >= limits.drain_seconds


def _progress(wanted: Wanted, current: Seen | None) -> str:
    if current is None:
        return "the archive is being fetched"
    if not current.min_workers:
        return "it starts once those before it have started"
    if current.is_verified:
        return "its workers are starting again"
    if current.restarts:
        return f"its workers have ended {current.restarts} times while starting"
    return f"{current.ready_workers} of {wanted.workers} workers are ready"
