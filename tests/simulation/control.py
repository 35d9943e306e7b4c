"""Controllers in virtual time: the product's own dispatcher, reaper and collectors, on the simulation's parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from services.controller.dispatcher import Dispatcher
from services.controller.effects import Effects
from services.controller.reaping import Reaping
from services.controller.retention import DELETE_CHECKPOINT, CheckpointRemover, Retention
from services.controller.sweep import Sweep
from services.core.errors import BrokerUnavailable, DatabaseUnavailable, StoreUnavailable
from services.core.settings import Timings
from tests.simulation.parts import Broker, FlakyDatabase, FlakyStore
from tests.simulation.world import Crashed, World

COLLECT_AGE = timedelta(hours=1)
DISPATCH_SECONDS = 10.0
REAP_SECONDS = 7.0
COLLECT_SECONDS = 97.0
TIMINGS = Timings(lease_ttl=30.0, retry_base=10.0)
_OUTSIDE = (BrokerUnavailable, DatabaseUnavailable, StoreUnavailable)


class Controller:
    """One controller that believes it leads, whatever the others believe."""

    def __init__(self, name: str, world: World, database: FlakyDatabase, store: FlakyStore, broker: Broker) -> None:
        self._name = name
        self._world = world
        self._stopped_until = 0.0
        reaping = Reaping(database, TIMINGS, clock=world.monotonic)
        dispatcher = Dispatcher(database, broker, redispatch_after_seconds=30.0, preempt_after_seconds=60.0)
        self._effects = Effects(database, {DELETE_CHECKPOINT: CheckpointRemover(database, store)})
        self._retention = Retention(database, changed_within_seconds=1e6)
        self._sweep = Sweep(database, store, age=COLLECT_AGE, clock=world.wall_clock)
        self._every(DISPATCH_SECONDS, dispatcher.tick_jobs)
        self._every(REAP_SECONDS, reaping.tick)
        self._every(COLLECT_SECONDS, self.collect)

    def stop(self, seconds: float) -> None:
        """Stand still."""
        self._world.say(self._name, "stands still", seconds=round(seconds))
        self._stopped_until = max(self._stopped_until, self._world.time + seconds)

    def collect(self) -> None:
        self._retention.tick()
        self._effects.tick()
        self._sweep.tick()

    def _every(self, seconds: float, tick: Callable[[], object]) -> None:
        def run() -> None:
            if self._world.time >= self._stopped_until:
                try:
                    tick()
                except (*_OUTSIDE, Crashed):
                    # The loops of a real one log it and come again; after a crash another one leads.
                    pass
            self._world.at(self._world.rng.uniform(0.9, 1.1) * seconds, run)

        self._world.at(self._world.rng.uniform(0, seconds), run)
