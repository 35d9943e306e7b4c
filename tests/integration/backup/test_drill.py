"""The drill: a machine is lost in the middle of a job, and its backup goes on elsewhere."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from services.backup.check import PlatformCheck
from services.backup.load import Restore
from services.backup.save import Backup
from services.backup.vault import Vault
from services.core.states import JobState
from services.db import jobs
from services.storage.local import LocalStore
from tests.integration.workers.yard import Yard, canonical_scenes, open_yard, tiny_config, until

STEPS = 60


@pytest.fixture(scope="module")
def scenes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return canonical_scenes(tmp_path_factory.mktemp("scenes"))


def test_a_job_of_a_lost_machine_goes_on_from_its_checkpoint_elsewhere(tmp_path: Path, scenes_dir: Path) -> None:
    vault = Vault(LocalStore(tmp_path / "vault"))
    with open_yard(tmp_path / "lost", scenes_dir) as lost:
        worker = lost.start_worker()
        job = lost.submit(config=tiny_config(max_steps=STEPS, checkpoint_every_steps=5))
        until(lambda: lost.job(job.id).checkpoint_step >= 5, what="a checkpoint", show=lost.log_text)
        saved = Backup(lost.database, lost.store, vault).save()
        worker.kill()
    shutil.rmtree(tmp_path / "lost")

    with open_elsewhere(tmp_path / "found", vault, scenes_dir) as found:
        assert PlatformCheck(found.database, found.store).run().is_sound
        restored = found.job(job.id)
        assert restored.state is JobState.RUNNING
        assert restored.checkpoint_step >= 5
        until(lambda: reap(found) == [job.id], what="the reaper to take the job")
        found.start_worker()
        found.ring(job.id)

        ended = found.until_state(job.id, JobState.SUCCEEDED, JobState.FAILED)

        assert ended.state is JobState.SUCCEEDED
        assert ended.progress_step == STEPS
        steps = [event.payload["step"] for event in found.events(job.id) if event.kind == "step" and event.token > 1]
        assert min(steps) == restored.checkpoint_step + 1
        assert [event.seq for event in found.events(job.id)] == list(range(1, ended.event_seq + 1))
        assert PlatformCheck(found.database, found.store).run().is_sound
    assert saved.snapshot.problems == []


def open_elsewhere(state_dir: Path, vault: Vault, scenes_dir: Path) -> AbstractContextManager[Yard]:
    """Restore into a fresh state directory, and open it as a yard."""
    state_dir.mkdir()
    yard = Yard(state_dir, scenes_dir)
    try:
        Restore(yard.database, yard.store, vault).load()
    finally:
        yard.database.dispose()
    return open_yard(state_dir, scenes_dir)


def reap(yard: Yard) -> list[str]:
    with yard.database.write() as session:
        return [reaped.job_id for reaped in jobs.reap(session, limit=10)]
