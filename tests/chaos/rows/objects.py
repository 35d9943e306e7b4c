"""Rows about the object store: a checkpoint is seen completely or not at all, and its bytes are compared."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from services.controller.sweep import Sweep
from services.core.errors import IntegrityError
from services.core.states import JobState
from services.db import jobs
from services.db.job_records import Event
from services.storage.manifest import download_directory
from services.storage.open import open_store
from tests.chaos import patches
from tests.chaos.ground import Ground, ground, minio_environment, until
from tests.chaos.measure import added_share, median
from tests.chaos.proxy import proxy_to
from tests.chaos.row import Registry, Result, Stage
from tests.stack.minio import minio_server

REGISTRY = Registry()
LONG = 10**5


@REGISTRY.row(
    11,
    "MinIO killed, then hanging, during checkpoints",
    "training goes on (step time +1 % at most, median of six absences); all checkpoints that count are committed in "
    "order within 60 s of its return; 0 attempts lost",
    needs=("minio",),
)
def store_away(stage: Stage) -> Result:
    """Quiet times of the same length lie around each absence: the machine's own speed drifts by more than the bar, by
    which a single absence is off, too. So there are several, and the median of them counts.
    """
    seconds, times = (2, 1) if stage.is_short else (10, 3)
    returns: list[float] = []
    with ground(stage, store="minio", workers=("a",)) as here:
        job_id = here.submit(steps=LONG, every=20, pace_ms=25, model={"ballast_mib": 4})
        here.until_step(job_id, 60)
        windows = [here.steps_during(job_id, lambda: time.sleep(seconds))]
        for how in ("killed", "hanging") * times:
            windows.append(here.steps_during(job_id, lambda how=how: _take_away(here, how, seconds)))
            returns.append(_seconds_until_stored(here, job_id, lambda how=how: _give_back(here, how)))
            windows.append(here.steps_during(job_id, lambda: time.sleep(seconds)))
        finished = here.submit(steps=30, every=10, pace_ms=10)
        here.cancel(job_id)
        here.until_over([job_id, finished])
        steps = [row.step for row in sorted(here.checkpoints(job_id), key=lambda row: row.ordinal)]
        attempts = len(here.attempts(job_id))
        is_done = here.job(finished).state is JobState.SUCCEEDED
    added = [
        added_share(away, [*before, *after])
        for before, away, after in zip(windows[:-2:2], windows[1::2], windows[2::2], strict=True)
    ]
    value = {
        "away_seconds": seconds,
        "step_time_added": round(median(added), 4),
        "step_time_added_each": [round(one, 4) for one in added],
        "committed_after_return_seconds": [round(one, 2) for one in returns],
        "in_order": steps == sorted(set(steps)),
        "attempts": attempts,
    }
    passed = value["step_time_added"] <= 0.01 and max(returns) <= 60 and value["in_order"] and attempts == 1 and is_done
    return Result(value, bool(passed))


def _take_away(here: Ground, how: str, seconds: float) -> None:
    assert here.minio is not None
    process = here.minio._process
    assert process is not None
    if how == "killed":
        process.kill()
        process.wait()
    else:
        process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)


def _give_back(here: Ground, how: str) -> None:
    assert here.minio is not None
    if how == "killed":
        here.minio.start()
        return
    assert here.minio._process is not None
    here.minio._process.send_signal(signal.SIGCONT)


def _seconds_until_stored(here: Ground, job_id: str, give_back: Callable[[], None]) -> float:
    """Return how long after the store's return everything up to the step of before is stored."""
    step = here.job(job_id).progress_step
    give_back()
    back = time.monotonic()
    until(lambda: here.job(job_id).checkpoint_step >= step, what="the spooled checkpoint", show=here.log_tail)
    return time.monotonic() - back


@REGISTRY.row(
    12,
    "killed in an upload, or between the upload and the row, at 30 random bytes",
    "0 partial checkpoints visible; garbage 0 after collection; restore right 30/30",
    needs=("minio",),
)
def killed_in_upload(stage: Stage) -> Result:
    """The uploader runs in a process of its own behind a slow proxy, and is killed after a random number of bytes."""
    seeds = range(stage.count(30, short=3))
    with minio_server(stage.directory / "minio") as server:
        host, _, port = server.endpoint.partition(":")
        with proxy_to((host, int(port))) as proxy:
            direct = minio_environment(server)
            with ground(stage, workers=(), environ=direct, has_controller=False) as here:
                job_id = here.submit(steps=LONG)
                # Parts of the smallest size S3 allows: the largest file goes up in three.
                chaos = patches.environment(f"services.storage.minio:part_bytes={5 << 20}")
                slow = {**here.stack.environ, **chaos, **minio_environment(server, endpoint=f"127.0.0.1:{proxy.port}")}
                source = _checkpoint_files(stage.directory / "source")
                size = sum(file.stat().st_size for file in source.iterdir())
                offsets, partial, restored, killed = [], 0, 0, 0
                for seed in seeds:
                    rng = stage.rng("bytes", seed)
                    offset = int(rng.random() * 1.05 * size)
                    offsets.append(offset)
                    killed += _upload_and_kill(here, slow, proxy, job_id, source, step=seed + 1, offset=offset)
                    partial += _partial(here, job_id)
                    restored += _restores(here, job_id, source, stage.directory / f"restored-{seed}")
                visible = len(here.checkpoints(job_id))
                before = len(list(here.store.list("projects/")))
                Sweep(here.database, here.store, age=timedelta(0)).tick()
                garbage = _garbage(here, job_id)
    value = {
        "kills": f"{killed}/{len(seeds)}",
        "partial_visible": partial,
        "committed": visible,
        "restores_right": f"{restored}/{len(seeds)}",
        "objects_before_collection": before,
        "garbage_after_collection": garbage,
    }
    return Result(value, partial == 0 and garbage == 0 and restored == len(seeds) and killed > 0, seeds)


def _checkpoint_files(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name, size in (("model.safetensors", 12 << 20), ("optim.safetensors", 2 << 20), ("state.json", 4_000)):
        (directory / name).write_bytes(random.Random(name).randbytes(size))
    return directory


def _upload_and_kill(
    here: Ground, environ: dict[str, str], proxy: object, job_id: str, source: Path, *, step: int, offset: int
) -> bool:
    """Claim the job, upload and commit a checkpoint in another process, kill that after `offset` bytes; tell if so."""
    from tests.chaos.proxy import Proxy

    assert isinstance(proxy, Proxy)
    proxy.bytes_per_second = 40_000_000
    sent = proxy.sent
    with here.database.write() as session:
        lease = jobs.claim(session, job_id, worker_id=f"uploader-{step}", ttl_seconds=60)
    spool = here.stack.state_dir / f"upload-{step}"
    shutil.copytree(source, spool)
    plan = {"lease": [lease.job_id, lease.project, lease.token, lease.attempt, lease.worker_id], "step": step}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.uploader", json.dumps(plan | {"path": str(spool)})],
        env={**os.environ, **environ},
    )
    while process.poll() is None and proxy.sent - sent < offset:
        time.sleep(0.001)
    was_running = process.poll() is None
    process.kill()
    process.wait()
    with here.database.write() as session:
        jobs.requeue(session, lease, is_charged=False)
    with here.database.write() as session:
        # The uncharged returns without progress are this row's own doing; they must not end its job.
        session.execute(jobs_without_count(job_id))
    return was_running


def jobs_without_count(job_id: str) -> object:
    import sqlalchemy as sa

    from services.db import tables as t

    return sa.update(t.jobs).where(t.jobs.c.id == job_id).values(no_progress=0)


def _partial(here: Ground, job_id: str) -> int:
    """Count checkpoints with a row of which a byte is missing."""
    bad = 0
    for row in here.checkpoints(job_id)[-1:]:
        directory = here.stack.state_dir / f"look-{row.id}"
        try:
            download_directory(here.store, row.prefix, directory, row.manifest_sha256)
        except Exception:
            bad += 1
        shutil.rmtree(directory, ignore_errors=True)
    return bad


def _restores(here: Ground, job_id: str, source: Path, directory: Path) -> bool:
    """Tell whether what a resume would read is exactly what was saved, or nothing where nothing was committed."""
    found = [row for row in here.checkpoints(job_id) if row.state == "committed"]
    newest = here.job(job_id).checkpoint_step
    if not found:
        return newest == -1
    last = max(found, key=lambda row: row.step)
    download_directory(here.store, last.prefix, directory, last.manifest_sha256)
    return last.step == newest and all((directory / f.name).read_bytes() == f.read_bytes() for f in source.iterdir())


def _garbage(here: Ground, job_id: str) -> int:
    """Count objects below the job's checkpoints that no row owns."""
    prefixes = [row.prefix for row in here.checkpoints(job_id)]
    keys = [info.key for info in here.store.list("projects/") if f"/{job_id}/checkpoints/" in info.key]
    return sum(not any(key.startswith(prefix) for prefix in prefixes) for key in keys)


@REGISTRY.row(
    13,
    "a bit flips in a stored checkpoint, or its end is missing",
    "detected 100/100; the attempt falls back to the checkpoint before; never loaded",
)
def bit_flip(stage: Stage) -> Result:
    count = stage.count(100, short=10)
    with ground(stage, workers=("a",)) as here:
        job_id = here.submit(steps=60, every=10, pace_ms=5)
        until(lambda: len(here.checkpoints(job_id)) >= 3, what="three checkpoints", show=here.log_tail)
        here.until_over([job_id])
        detected = _detected(here, here.checkpoints(job_id)[0], count, stage)
        expected = here.weights_sha256(job_id)
        fallen = []
        for seed in range(1 if stage.is_short else 3):
            victim = here.submit(steps=60, every=10, pace_ms=20)
            until(lambda v=victim: len(here.checkpoints(v)) >= 2, what="two checkpoints", show=here.log_tail)
            with here.frozen("a"):
                newest = max(here.checkpoints(victim), key=lambda row: row.step)
                file = _object(here, f"{newest.prefix}model.safetensors")
                whole = file.read_bytes()
                _spoil(file, stage.rng("live", seed))
                here.child_of(victim).kill()
            here.until_over([victim])
            is_retired = any(row.id == newest.id and row.state == "corrupt" for row in here.checkpoints(victim))
            is_newer = max(row.step for row in here.checkpoints(victim) if row.token == newest.token) > newest.step
            is_salvaged = any(_says_salvaged(event) for event in here.events(victim))
            # One that nobody needed is still committed; the checker at the end reads them all.
            file.write_bytes(whole)
            fallen.append(here.weights_sha256(victim) == expected and (is_retired or is_newer or is_salvaged))
    value = {"detected": f"{detected}/{count}", "fell_back_to_right_weights": f"{sum(fallen)}/{len(fallen)}"}
    return Result(value, detected == count and all(fallen), range(count))


def _says_salvaged(event: Event) -> bool:
    return event.kind == "log" and "going on from step" in event.payload["text"]


def _detected(here: Ground, row: object, count: int, stage: Stage) -> int:
    from services.db.checkpoints import Checkpoint

    assert isinstance(row, Checkpoint)
    store = open_store(here.settings)
    found = 0
    for seed in range(count):
        rng = stage.rng("flip", seed)
        name = rng.choice([file["name"] for file in row.files])
        path = _object(here, f"{row.prefix}{name}")
        before = path.read_bytes()
        _spoil(path, rng)
        directory = stage.directory / f"flip-{seed}"
        try:
            download_directory(store, row.prefix, directory, row.manifest_sha256)
        except IntegrityError:
            found += not directory.exists()
        path.write_bytes(before)
    return found


def _object(here: Ground, key: str) -> Path:
    root = Path(urlsplit(here.settings.resolved_object_store_url).path)
    return root / "objects" / key


def _spoil(path: Path, rng: random.Random) -> None:
    body = bytearray(path.read_bytes())
    if rng.random() < 0.2:
        path.write_bytes(body[: rng.randrange(len(body))])
        return
    place = rng.randrange(len(body))
    body[place] ^= 1 << rng.randrange(8)
    path.write_bytes(body)
