"""Makes one TorchServe serve what deployments ask for: look, plan, act, again until nothing is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services.agent import backend
from services.agent.archive_check import ArchiveRejected
from services.agent.client import TorchServeClient, TorchServeRefused
from services.agent.model_store import ModelStore
from services.agent.plan import (
    Action,
    GiveUp,
    Install,
    Limits,
    MakeDefault,
    Pause,
    Recycle,
    Registered,
    Remove,
    Scale,
    Verify,
    Wanted,
    observe,
    plan,
)
from services.agent.watch import Watch
from services.agent.worker_log import failure_reason
from services.core.answers import same_answer
from services.core.errors import IntegrityError, NotFound, StoreUnavailable
from services.db.deployments import Observed

log = structlog.get_logger()

_MAX_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one reconciliation saw at its end; `is_settled` is False while something only needs time."""

    observed: tuple[Observed, ...]
    is_settled: bool


@dataclass(slots=True)
class Reconciler:
    """One TorchServe's. Called from one thread."""

    client: TorchServeClient
    models: ModelStore
    model_log: Path
    limits: Limits = field(default_factory=Limits)
    watch: Watch = field(init=False)
    _known: dict[str, Wanted] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Watch(self.limits, has_come_up=self.models.has_come_up)

    def begin_again(self) -> None:
        """Forget what was true of a TorchServe that has ended."""
        self.watch.forget()
        self.client.forget_keys()

    def reconcile(self, wanted: Sequence[Wanted]) -> Outcome:
        """Act until nothing is due, and return what to report.

        Raises:
            TorchServeUnavailable: TorchServe does not answer; what it serves is unknown.
        """
        registered: Registered = {}
        troubles: dict[str, str] = {}
        for _ in range(_MAX_ROUNDS):
            registered = self.watch.look(self.client.models())
            given_up = self.watch.failures().keys() | self.watch.rests().keys()
            actions = plan(wanted, registered, given_up, self.limits)
            actions = [action for action in actions if _name_of(action) not in troubles]
            if not actions:
                break
            for action in actions:
                self._try(action, registered, troubles)
        self.models.sweep([one.sha256 for one in wanted] + [s.sha256 for v in registered.values() for s in v])
        return self._outcome(wanted, registered, troubles)

    def _try(self, action: Action, registered: Registered, troubles: dict[str, str]) -> None:
        """Carry out one action; what may pass is noted and tried again, what cannot is given up on."""
        name = _name_of(action)
        try:
            self._act(action, registered)
        except (ArchiveRejected, IntegrityError) as err:
            log.error("archive_refused", model=name, reason=str(err))
            if isinstance(action, Install | Verify):
                self.watch.note_failed(action.wanted.trial, str(err))
            troubles[name] = str(err)
        except (StoreUnavailable, NotFound, TorchServeRefused) as err:
            log.warning("action_failed", action=type(action).__name__, model=name, reason=str(err))
            troubles[name] = str(err)

    def _act(self, action: Action, registered: Registered) -> None:
        log.info("action", action=type(action).__name__, model=_name_of(action))
        match action:
            case Install(wanted):
                file = self.models.fetch(key=wanted.key, sha256=wanted.sha256)
                self.client.register(file, name=wanted.name)
            case Scale(name, version, workers):
                self.client.scale(name, version, workers=workers)
            case Verify(wanted, version):
                self._verify(wanted, version)
            case MakeDefault(name, version):
                self.client.set_default(name, version)
            case Recycle(name, version, pid):
                log.warning("worker_over_memory", model=name, pid=pid, limit_bytes=self.limits.worker_bytes)
                self.watch.note_recycled(name, version)
                backend.end(pid)
            case Remove(name, version):
                self.client.unregister(name, version)
            case GiveUp(wanted, reason):
                self._give_up(wanted, reason, registered)
            case Pause(wanted, reason):
                seconds = self.watch.note_slow(wanted.trial, reason)
                log.warning("version_slow", model=wanted.name, reason=reason, retry_seconds=seconds)

    def _verify(self, wanted: Wanted, version: str) -> None:
        smoke = self.models.smoke(wanted.sha256)
        answer = self.client.predict(wanted.name, version, smoke.body)["predictions"][0]
        if not same_answer(smoke.answer, answer):
            raise ArchiveRejected(
                "the golden input gets another answer over TorchServe than when the archive was built"
            )
        self.models.note_come_up(wanted.sha256)
        self.watch.note_verified(wanted.name, version)

    def _give_up(self, wanted: Wanted, reason: str, registered: Registered) -> None:
        versions = [seen.version for seen in registered[wanted.name] if seen.sha256 == wanted.sha256]
        told = failure_reason(self.model_log, name=wanted.name, version=versions[0])
        reason = f"{reason}: {told}" if told else reason
        again = f"`trainyard deploy MODEL --name {wanted.deployment_id}`"
        reason += f"; it is tried again after {self.limits.retry_failed_seconds:.0f} seconds, or at once by {again}"
        log.error("version_given_up", model=wanted.name, reason=reason)
        self.watch.note_failed(wanted.trial, reason)

    def _outcome(self, wanted: Sequence[Wanted], registered: Registered, troubles: dict[str, str]) -> Outcome:
        failures = self.watch.failures()
        rests = {trial[0]: reason for trial, reason in self.watch.rests().items()}
        told = {**rests, **troubles}
        observed = []
        for one in wanted:
            seen = observe(one, registered.get(one.name, ()), failures.get(one.trial))
            if one.name in told and not seen.is_ready and not seen.is_failed:
                seen = seen._replace(message=told[one.name])
            observed.append(seen)
        is_steady = all(seen.is_failed or (seen.is_ready and not seen.message) for seen in observed)
        observed += self._going(wanted, registered)
        return Outcome(tuple(observed), is_settled=is_steady and not troubles and self._is_clean(registered))

    def _going(self, wanted: Sequence[Wanted], registered: Registered) -> list[Observed]:
        """Report what is no longer wanted but still there, so that its deletion waits for it."""
        names = {one.name for one in wanted}
        self._known = {name: one for name, one in self._known.items() if name in registered and name not in names}
        going = [Observed(one.uid, one.sha256, False, "being removed") for one in self._known.values()]
        self._known |= {one.name: one for one in wanted}
        return going

    @staticmethod
    def _is_clean(registered: Registered) -> bool:
        return all(len(versions) == 1 for versions in registered.values())


def _name_of(action: Action) -> str:
    return action.wanted.name if isinstance(action, Install | Verify | GiveUp | Pause) else action.name
