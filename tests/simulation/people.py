"""Those who submit, watch and steer jobs, patiently, through a server that may have to be asked again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from services.core.errors import DatabaseUnavailable, PreconditionFailed
from services.core.states import TERMINAL, JobState
from services.db import jobs
from services.db.session import Session
from tests.simulation.parts import FlakyDatabase
from tests.simulation.plan import Fault
from tests.simulation.world import Crashed, World
from tests.stack.builders import make_dataset, new_job
from tests.stack.evidence import Stream, Submission

RETRY_SECONDS = 4.0
LOOK_SECONDS = 20.0


class People:
    """Everybody outside the platform."""

    def __init__(self, world: World, database: FlakyDatabase) -> None:
        self._world = world
        self._database = database
        self.submissions: list[Submission] = []
        self.job_ids: list[tuple[str, str]] = []
        """(project, job id) of every job acknowledged."""
        self._datasets: dict[str, str] = {}
        self._seen: dict[str, list[tuple[int, str]]] = {}
        self.unanswered = 0
        """Submissions nobody acknowledged yet."""

    @property
    def streams(self) -> list[Stream]:
        return [Stream(job_id, seen) for job_id, seen in self._seen.items()]

    def arrive(self) -> None:
        """Ask for all jobs of the plan, at random times while faults last."""
        plan, rng = self._world.plan, self._world.rng
        for number in range(plan.jobs):
            project = f"project-{rng.randrange(plan.projects)}"
            self.unanswered += 1
            self._world.at(rng.uniform(0, 0.4) * plan.fault_seconds, lambda n=number, p=project: self._submit(n, p))
        if Fault.STEERING in plan.faults:
            for _ in range(plan.jobs):
                self._world.at(rng.uniform(0.1, 1.0) * plan.fault_seconds, self._steer)

    def finish_watching(self) -> None:
        """Read every stream to the end of its history."""
        for _, job_id in self.job_ids:
            while self._read(job_id):
                pass

    def resume_all(self) -> None:
        for project, job_id in self.job_ids:
            self._insist(lambda session, p=project, j=job_id: jobs.resume(session, p, j))

    def _submit(self, number: int, project: str) -> None:
        rng = self._world.rng
        dataset = self._database_of(project)
        if dataset is None:
            self._world.at(RETRY_SECONDS, lambda: self._submit(number, project))
            return
        new = new_job(
            dataset,
            project=project,
            request_id=f"request-{number}",
            priority=rng.choice((-5, 0, 0, 5)),
            is_preemptible=rng.random() < 0.5,
            spec={"config": {"limits": {"max_steps": rng.choice((40, 60, 100))}}},
        )
        self._send(new)

    def _send(self, new: jobs.NewJob) -> None:
        try:
            with self._database.write() as session:
                job, _ = jobs.insert(session, new)
        except (DatabaseUnavailable, Crashed):
            # No answer: the same request again, which may be stored already.
            self._world.at(RETRY_SECONDS, lambda: self._send(new))
            return
        self.submissions.append(Submission(new.project, new.request_id, job.id))
        if job.id in self._seen:
            return
        self.unanswered -= 1
        self._world.names[job.id] = new.request_id.replace("request", "job")
        self._world.say("people", "submitted", job=job.id, priority=new.priority)
        self.job_ids.append((new.project, job.id))
        self._seen[job.id] = []
        self._world.at(LOOK_SECONDS, lambda: self._watch(job.id))
        if self._world.happens(Fault.DOUBLED_MESSAGES, 0.5):
            self._world.at(RETRY_SECONDS, lambda: self._send(new))

    def _database_of(self, project: str) -> str | None:
        """Return the project's dataset, made at its first use."""
        if project not in self._datasets:
            try:
                with self._database.write() as session:
                    dataset = make_dataset(session, project=project)
            except (DatabaseUnavailable, Crashed):
                return None
            self._datasets[project] = dataset.id
        return self._datasets[project]

    def _watch(self, job_id: str) -> None:
        with suppress(DatabaseUnavailable):
            self._read(job_id)
        self._world.at(self._world.rng.uniform(0.5, 2) * LOOK_SECONDS, lambda: self._watch(job_id))

    def _read(self, job_id: str) -> bool:
        seen = self._seen[job_id]
        after = seen[-1][0] if seen else 0
        with self._database.read() as session:
            events = jobs.events_after(session, job_id, after, self._world.rng.randint(1, 20))
        seen += [(event.seq, event.kind) for event in events]
        return bool(events) and events[-1].seq > after

    def _steer(self) -> None:
        if not self.job_ids:
            return
        project, job_id = self._world.rng.choice(self.job_ids)
        wish = self._world.rng.choice(("cancel", "pause", "pause", "resume"))
        acts: dict[str, Callable[[Session], jobs.Job]] = {
            "cancel": lambda session: jobs.cancel(session, project, job_id, "not wanted"),
            "pause": lambda session: jobs.pause(session, project, job_id, "later"),
            "resume": lambda session: jobs.resume(session, project, job_id),
        }
        self._world.say("people", f"ask to {wish}", job=job_id)
        # Nobody would resume a job that is paused after everybody was.
        self._insist(acts[wish], until_calm=wish == "pause")
        if wish == "pause":
            again = self._world.rng.uniform(5, 120)
            self._world.at(again, lambda: self._insist(acts["resume"]))

    def _insist(self, act: Callable[[Session], jobs.Job], *, until_calm: bool = False) -> None:
        if until_calm and self._world.is_calm:
            return
        try:
            with self._database.write() as session:
                act(session)
        except PreconditionFailed:
            return
        except (DatabaseUnavailable, Crashed):
            self._world.at(RETRY_SECONDS, lambda: self._insist(act, until_calm=until_calm))

    def all_ended(self) -> bool:
        if self.unanswered or not self.job_ids:
            return False
        with self._database.read() as session:
            states: list[JobState] = [jobs.get(session, project, job_id).state for project, job_id in self.job_ids]
        return all(state in TERMINAL for state in states)
