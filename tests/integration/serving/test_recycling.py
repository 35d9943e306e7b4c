"""A worker process that holds too much memory is replaced while its deployment goes on answering."""

from __future__ import annotations

from pathlib import Path

from services.core.states import DeploymentState
from tests.chaos.rows.serving import Load, backends
from tests.integration.serving.yard import ServingYard, wait_for


def test_a_heavy_worker_is_replaced_under_load(tmp_path: Path) -> None:
    # Less than any worker needs: the first look finds one to replace.
    yard = ServingYard(tmp_path, {"TRAINYARD_SERVING_MEMORY_LIMIT_BYTES": str(1 << 20)})
    model = yard.publish(seed=0)
    yard.deploy("digits", model)
    with yard.agent() as agent:
        yard.wait_state("digits", DeploymentState.READY)
        first = backends(agent)[0].pid
        load = Load(yard, model)
        with load.running():
            wait_for(lambda: first not in [one.pid for one in backends(agent)], bool)
            wait_for(lambda: len(backends(agent)), lambda count: count == 1)
            wait_for(lambda: len(load.calls), lambda count: count > 20)

    assert "worker_over_memory" in (yard.root / "agent.log").read_text()
    # What the ended process was working on is lost, nothing else.
    assert len(load.failures()) <= 2, load.failures()
