"""What one run of the simulation is made of; equal plans run alike, event by event."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field


class Fault(enum.StrEnum):
    """What may go wrong while faults last."""

    WORKER_CRASH = "worker-crash"
    WORKER_STOPPED = "worker-stopped"
    """A worker stands still, often longer than its lease, and goes on as if nothing had been."""
    TRAINER_CRASH = "trainer-crash"
    DRAIN = "drain"
    CONTROLLER_STOPPED = "controller-stopped"
    DATABASE_ERRORS = "database-errors"
    """Single transactions fail before their commit, or after it with their answer lost."""
    DATABASE_OUTAGE = "database-outage"
    CLOCK_JUMPS = "clock-jumps"
    LOST_MESSAGES = "lost-messages"
    DOUBLED_MESSAGES = "doubled-messages"
    BROKER_OUTAGE = "broker-outage"
    STORE_ERRORS = "store-errors"
    SPOILED_OBJECTS = "spoiled-objects"
    STEERING = "steering"
    """People cancel, pause and resume jobs at any time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes, faults and the seed of everything random."""

    seed: int
    workers: int = 3
    controllers: int = 2
    jobs: int = 6
    projects: int = 2
    fault_seconds: float = 250.0
    patience_seconds: float = 3 * 3600.0
    """How long after the last fault every job has ended; of it a clock set back by an hour takes one."""
    faults: frozenset[Fault] = field(default_factory=lambda: frozenset(Fault))

    def command(self) -> str:
        """Return the command that runs this plan again and prints what happened."""
        faults = " ".join(f"--fault {fault}" for fault in sorted(self.faults)) or "--no-faults"
        sizes = f"--workers {self.workers} --controllers {self.controllers} --jobs {self.jobs}"
        return (
            f"python -m tests.simulation --seed {self.seed} {sizes} --projects {self.projects} "
            f"--fault-seconds {self.fault_seconds:g} {faults}"
        )


def plan_of(seed: int) -> Plan:
    """Return a plan of random sizes with most of the faults."""
    rng = random.Random(f"plan-{seed}")
    faults = frozenset(fault for fault in Fault if rng.random() < 0.8)
    return Plan(
        seed=seed,
        workers=rng.randint(1, 4),
        controllers=rng.choice((1, 2, 2, 3)),
        jobs=rng.randint(2, 6),
        projects=rng.randint(1, 3),
        faults=faults,
    )
