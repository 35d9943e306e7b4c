"""What a dead attempt left on disk goes to the next one of its job on this host, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from services.db.job_records import Lease
from workers.salvage import KEEP_SECONDS, Salvage, link_copy

JOB = "01jobjobjob"


def lease(token: int) -> Lease:
    return Lease(JOB, "default", token, 1, "w")


def leave(attempts: Path, token: int, *steps: int, job: str = JOB) -> Path:
    attempt = attempts / f"{job}-{token}"
    for step in steps:
        ready = attempt / "spool" / f"step-{step}.ready"
        ready.mkdir(parents=True)
        save_file({"weight": np.full(4, step, dtype=np.float32)}, ready / "model.safetensors")
        (ready / "state.json").write_text(json.dumps({"step": step, "metric": step / 10}))
    return attempt


@pytest.fixture
def salvage(tmp_path: Path) -> Salvage:
    return Salvage(tmp_path / "salvage")


def test_the_newest_checkpoint_past_the_committed_one_is_taken(salvage: Salvage, tmp_path: Path) -> None:
    salvage.keep(leave(tmp_path, 3, 5, 20, 10))

    taken = salvage.take(lease(4), after_step=10, into=tmp_path / "spool")

    assert taken is not None
    assert (taken.step, taken.metric) == (20, 2.0)
    assert taken.path == tmp_path / "spool" / "step-20.ready"
    assert [digest.name for digest in taken.digests()] == ["model.safetensors", "state.json"]


def test_what_is_committed_already_is_left_and_goes(salvage: Salvage, tmp_path: Path) -> None:
    salvage.keep(leave(tmp_path, 3, 20))

    assert salvage.take(lease(4), after_step=20, into=tmp_path / "spool") is None
    assert salvage.take(lease(5), after_step=0, into=tmp_path / "spool") is None


def test_nothing_of_another_job_or_a_later_token_is_taken(salvage: Salvage, tmp_path: Path) -> None:
    salvage.keep(leave(tmp_path, 3, 20, job="01other"))
    salvage.keep(leave(tmp_path, 9, 30))

    assert salvage.take(lease(4), after_step=0, into=tmp_path / "spool") is None
    assert salvage.take(lease(10), after_step=0, into=tmp_path / "spool") is not None


@pytest.mark.parametrize("spoil", ["cut", "no document"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(salvage: Salvage, tmp_path: Path, spoil: str) -> None:
    salvage.keep(leave(tmp_path, 3, 10))
    bad = leave(tmp_path, 4, 20) / "spool" / "step-20.ready"
    if spoil == "cut":
        file = bad / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    else:
        (bad / "state.json").unlink()
    salvage.keep(tmp_path / f"{JOB}-4")

    taken = salvage.take(lease(5), after_step=0, into=tmp_path / "spool")

    assert taken is not None
    assert taken.step == 10


def test_an_unfinished_checkpoint_is_not_kept(salvage: Salvage, tmp_path: Path) -> None:
    attempt = leave(tmp_path, 3)
    (attempt / "spool" / "step-9.tmp").mkdir(parents=True)

    salvage.keep(attempt)

    assert salvage.take(lease(4), after_step=-1, into=tmp_path / "spool") is None


def test_nobody_s_checkpoints_go_after_a_day(salvage: Salvage, tmp_path: Path) -> None:
    salvage.keep(leave(tmp_path, 3, 20))
    old = (tmp_path / "salvage" / f"{JOB}-3").stat().st_mtime - KEEP_SECONDS - 1
    os.utime(tmp_path / "salvage" / f"{JOB}-3", (old, old))

    salvage.prune()

    assert salvage.take(lease(4), after_step=0, into=tmp_path / "spool") is None


def test_a_checkpoint_that_another_worker_drops_meanwhile_gives_way_to_the_one_before(
    salvage: Salvage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salvage.keep(leave(tmp_path, 3, 20))
    salvage.keep(leave(tmp_path, 4, 30))
    found = Salvage._of_job

    def found_then_dropped(self: Salvage, of: Lease) -> list[Path]:
        paths = sorted(found(self, of))
        shutil.rmtree(paths[-1].parent)
        return paths

    monkeypatch.setattr(Salvage, "_of_job", found_then_dropped)
    taken = salvage.take(lease(5), after_step=0, into=tmp_path / "spool")

    assert taken is not None
    assert taken.step == 20


def test_a_linked_copy_outlives_its_source(tmp_path: Path) -> None:
    source = leave(tmp_path, 1, 5) / "spool" / "step-5.ready"
    link_copy(source, tmp_path / "resume")

    for file in source.iterdir():
        file.unlink()

    assert json.loads((tmp_path / "resume" / "state.json").read_text())["step"] == 5
