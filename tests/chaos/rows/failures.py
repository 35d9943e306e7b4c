"""Rows about trainers that fail by themselves: each failure has its class, its sentence, its log and its retry."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from services.client.errors import ApiError
from services.core.states import TERMINAL, FailureReason, JobState
from services.db import workers
from tests.chaos.ground import Ground, ground, until
from tests.chaos.measure import median, percentile, terminal_events
from tests.chaos.row import Registry, Result, Stage

REGISTRY = Registry()
# Above the 5 s after which a loader looks by itself whether its processes live.
STALL_SECONDS = 8.0


@REGISTRY.row(
    2,
    "trainer killed by SIGKILL or SIGSEGV",
    "classified 100 %; retried within back-off + 1 s; the worker is the same process; the result is right",
)
def trainer_dies(stage: Stage) -> Result:
    seeds = range(stage.count(10, short=2))
    signals, retries, right = [], [], 0
    with ground(stage, workers=("a",)) as here:
        expected = here.uninterrupted_sha256(steps=60, pace_ms=5)
        worker = here.stack.processes["a"].pid
        for seed in seeds:
            number = (signal.SIGKILL, signal.SIGSEGV)[seed % 2]
            job_id = here.submit(steps=60, pace_ms=5)
            here.until_step(job_id, stage.rng("dies", seed).randrange(1, 50))
            here.child_of(job_id).send_signal(number)
            done = here.until_state(job_id, *TERMINAL)
            first = here.attempts(job_id)[0]
            signals.append((first.failure_reason, first.signal) == (FailureReason.CRASH, number))
            retries.append(_retry_seconds(here, job_id))
            right += done.state is JobState.SUCCEEDED and here.weights_sha256(job_id) == expected
        is_same = here.stack.processes["a"].poll() is None and here.stack.processes["a"].pid == worker
    value = {
        "classified": f"{sum(signals)}/{len(signals)}",
        "retry_seconds_max": round(max(retries), 3),
        "equal_weights": f"{right}/{len(seeds)}",
        "worker_survived": is_same,
    }
    # Back-off of the test timings: 0.2 s with 20 % of jitter, then the re-dispatch of a job nobody asked for again.
    passed = all(signals) and max(retries) <= 0.24 + 1.0 + 1.0 and right == len(seeds) and is_same
    return Result(value, passed, seeds)


@REGISTRY.row(
    21,
    "disk full under the spool, and under the database",
    "no corrupt checkpoint; goes on within 60 s of space; no acknowledged job lost; submits refused cleanly",
)
def disk_full(stage: Stage) -> Result:
    """Files of a process may not grow past a size: what a full disk answers to a write, without filling one."""
    # Small enough to refuse the checkpoint of a ballast, large enough for every other file.
    model = {"ballast_mib": 8}
    with ground(stage, workers=("a",), environ={"TRAINYARD_TIMINGS__DISK_FULL_DELAY": "1"}) as here:
        warm = _warm_parent(here, "a")
        before = resource.prlimit(warm.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(warm.pid, resource.RLIMIT_FSIZE, (4 << 20, before[1]))
        job_id = here.submit(steps=12, pace_ms=5, model=model)
        until(lambda: "requeued" in here.kinds(job_id), what="the first refusal", show=here.log_tail)
        failure = here.attempts(job_id)[0].failure_reason
        is_clean = not here.checkpoints(job_id)
        resource.prlimit(warm.pid, resource.RLIMIT_FSIZE, before)
        freed = time.monotonic()
        done = here.until_state(job_id, *TERMINAL)
        recovered = time.monotonic() - freed
        lost, refused = _fill_database(here)
    value = {
        "class": failure,
        "recovered_seconds": round(recovered, 2),
        "attempts_charged": done.attempt,
        "submits_refused_cleanly": refused,
        "acknowledged_lost": lost,
    }
    passed = failure is FailureReason.DISK_FULL and is_clean and done.state is JobState.SUCCEEDED
    return Result(value, passed and recovered <= 60 and done.attempt == 1 and lost == 0 and refused > 0)


def _fill_database(here: Ground) -> tuple[int, int]:
    """Let the API server's database file grow no more for a while; return acknowledged jobs lost and submits refused."""
    api = here.stack.processes["api"].pid
    before = resource.prlimit(api, resource.RLIMIT_FSIZE)
    resource.prlimit(api, resource.RLIMIT_FSIZE, (1, before[1]))
    acknowledged, refused, unclean = [], 0, []
    for _ in range(5):
        try:
            acknowledged.append(here.submit())
        except ApiError as err:
            is_clean = err.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
            refused += is_clean
            unclean += [] if is_clean else [f"{err.code}: {err.message}"]
    assert not unclean, unclean
    resource.prlimit(api, resource.RLIMIT_FSIZE, before)
    acknowledged += [here.submit() for _ in range(3)]
    here.until_over(acknowledged)
    return sum(state is not JobState.SUCCEEDED for state in here.states(acknowledged).values()), refused


@REGISTRY.row(
    22,
    "a trainer takes more memory than its share",
    "classified 10/10; the worker survives; the step time of its neighbour stays within 5 %",
)
def over_memory(stage: Stage) -> Result:
    seeds = range(stage.count(10, short=1))
    limit = 1200 << 20
    environ = {"TRAINYARD_WORKER_SLOTS": "2", "TRAINYARD_WORKER_MEMORY_LIMIT_BYTES": str(limit)}
    with ground(stage, workers=("a",), environ=environ) as here:
        # The neighbour's pace is set by its sleep: what its steps take beyond that is what disturbs it.
        neighbour = here.submit(steps=10**5, every=10**5, pace_ms=50)
        here.until_step(neighbour, 20)
        calm = here.step_ms(neighbour)
        seen = []
        for _ in seeds:
            faults = {"how": "memory", "at_step": 2, "memory_mib": 4096, "tokens": ()}
            job_id = here.submit(steps=50, faults=faults, max_attempts=1)
            done = here.until_state(job_id, *TERMINAL)
            seen.append(done.failure_reason)
        disturbed = here.step_ms(neighbour, after=len(calm))
        is_alive = here.stack.processes["a"].poll() is None and here.job(neighbour).attempt == 1
    right = sum(reason is FailureReason.HOST_OUT_OF_MEMORY for reason in seen)
    change = median(disturbed) / median(calm) - 1
    value = {
        "classified": f"{right}/{len(seen)}",
        "worker_survived": is_alive,
        "neighbour_step_change": round(change, 4),
    }
    return Result(value, right == len(seen) and is_alive and abs(change) <= 0.05, seeds)


@REGISTRY.row(
    23,
    "the device has not the memory for a batch",
    "succeeds within 3 tries; the same effective batch; memory of the failed try is free again; a recipe that cannot "
    "cut a batch fails with a sentence",
)
def device_memory(stage: Stage) -> Result:
    with ground(stage, workers=("a",)) as here:
        whole = here.submit(steps=30, every=10)
        cut = here.submit(steps=30, every=10, model={"most_rows": 2}, max_attempts=1)
        stuck = here.submit(model={"most_rows": 2, "is_divisible": False})
        here.until_over([whole, cut, stuck])
        tries = len(here.attempts(cut))
        losses = [
            [e.payload["scalars"]["train/loss"] for e in here.events(one) if e.kind == "step"] for one in (whole, cut)
        ]
        difference = max(abs(a - b) / abs(a) for a, b in zip(losses[0], losses[1][-30:], strict=True))
        told = [e.payload["message"] for e in here.events(cut) if e.kind == "requeued"]
        refused, done = here.job(stuck), here.job(cut)
        left = [one for one in here.family("a") if "workers.warm" not in " ".join(one.cmdline())]
    value = {
        "tries": tries,
        "charged": done.attempt,
        "largest_loss_difference": f"{difference:.1e}",
        "told": told[-1] if told else "",
        "refusal": refused.failure_message,
        "trainers_left": len(left),
    }
    is_explained = refused.failure_reason is FailureReason.OUT_OF_MEMORY and "cut a batch" in (
        refused.failure_message or ""
    )
    passed = done.state is JobState.SUCCEEDED and tries <= 3 and done.attempt == 1 and difference < 1e-3
    return Result(value, passed and is_explained and not left and refused.state is JobState.FAILED)


@REGISTRY.row(
    24,
    "a loader process is killed, gets SIGBUS, or hangs",
    "classified 100 %; a hang is found within the stall limit + 5 s, with the stacks of its threads",
)
def loader_dies(stage: Stage) -> Result:
    expected = {
        "kill": (FailureReason.CRASH, "loader process"),
        "bus": (FailureReason.SHARED_MEMORY, "shared memory"),
        "hang": (FailureReason.STALL, "stacks"),
    }
    seen: dict[str, Any] = {}
    with ground(stage, workers=("a",), environ={"TRAINYARD_TIMINGS__STALL_FLOOR": str(STALL_SECONDS)}) as here:
        found = {}
        for how in expected:
            faults = {"how": how, "where": "loader", "at_step": 6}
            found[how] = here.submit(steps=12, pace_ms=5, faults=faults, runtime={"loader_workers": 1})
        here.until_over(list(found.values()))
        right = 0
        for how, job_id in found.items():
            first = here.attempts(job_id)[0]
            seen[how] = {"class": first.failure_reason, "message": first.failure_message}
            reason, word = expected[how]
            is_right = first.failure_reason is reason and word in (first.failure_message or "")
            right += is_right and here.job(job_id).state is JobState.SUCCEEDED
        hang = next(e.payload for e in here.events(found["hang"]) if e.kind == "requeued")
        first = here.attempts(found["hang"])[0]
        last_step = max(
            e.create_time for e in here.events(found["hang"]) if e.kind == "step" and e.token == first.token
        )
        assert first.end_time is not None
        noticed = (first.end_time - last_step).total_seconds()
    seen |= {
        "hang_noticed_seconds": round(noticed, 2),
        "has_stacks": "most recent call first" in hang.get("log_tail", ""),
    }
    return Result(seen, right == 3 and noticed <= STALL_SECONDS + 5 and seen["has_stacks"])


@REGISTRY.row(
    25,
    "the loss is no longer a number",
    "NON_FINITE_LOSS at step k or k + 1; no checkpoint with such weights; no retry; the last good one stays",
)
def not_a_number(stage: Stage) -> Result:
    import torch

    from workers.engine.tensorfile import read_tensors

    steps, kept, finite, retries = [], [], 0, 0
    places = [7, 13] if stage.is_short else [3, 7, 13, 20]
    with ground(stage, workers=("a",)) as here:
        found = {
            at: here.submit(steps=30, pace_ms=5, faults={"how": "nan", "at_step": at, "tokens": ()}) for at in places
        }
        here.until_over(list(found.values()))
        for at, job_id in found.items():
            job = here.job(job_id)
            retries += len(here.attempts(job_id)) - 1
            steps.append(job.failure_reason is FailureReason.NON_FINITE_LOSS and _is_step(job.failure_message, at))
            for row in here.checkpoints(job_id):
                file = stage.directory / f"{row.id}.safetensors"
                here.store.get_file(f"{row.prefix}model.safetensors", file)
                finite += all(bool(torch.isfinite(value).all()) for value in read_tensors(file).values())
                kept.append(row.step)
    value = {
        "classified_at_step": f"{sum(steps)}/{len(places)}",
        "checkpoints": kept,
        "finite_checkpoints": f"{finite}/{len(kept)}",
        "retries": retries,
    }
    return Result(value, all(steps) and finite == len(kept) and retries == 0 and bool(kept))


def _is_step(message: str | None, at: int) -> bool:
    # The fault is in the update after `at` steps, which is step at + 1.
    return any(f"step {step}" in (message or "") for step in (at + 1, at + 2))


@REGISTRY.row(
    27,
    "a GPU falls off the bus",
    "GPU_LOST; the next claim is on another device, 100 %; the attempt is not charged; its slot is closed within 5 s",
)
def gpu_lost(stage: Stage) -> Result:
    """GPUs of a fake NVML: the fault is what the driver says, and the trainer computes on the CPU."""
    machine = stage.directory / "gpus.json"
    gpus = [{"uuid": f"GPU-{n}", "name": "Fake", "memory": 1 << 34, "is_lost": False} for n in range(3)]
    _write(machine, gpus)
    cpu = {"device": "cpu"}
    environ = {"TRAINYARD_WORKER_SLOTS": "3", "TRAINYARD_WORKER_DEVICE": "cuda"}
    with ground(stage, workers=("a",), chaos=[f"pynvml:gpus={machine}"], environ=environ) as here:
        said = here.submit(steps=20, pace_ms=10, runtime=cpu, faults={"how": "gpu", "at_step": 8})
        here.until_over([said])
        first_closed = _quarantined(here)
        # Of this job only the first device was out of use: the one it went on with may be the next to be lost.
        is_elsewhere = _device_of(here, said) not in {f"cuda:{uuid[-1]}" for uuid in first_closed}
        silent = here.submit(steps=400, pace_ms=10, runtime=cpu)
        here.until_step(silent, 10)
        gone = next(gpu for gpu in gpus if f"cuda:{gpu['uuid'][-1]}" == _device_of(here, silent))
        gone["is_lost"] = True
        _write(machine, gpus)
        here.child_of(silent).kill()
        killed = time.monotonic()
        until(lambda: len(_quarantined(here)) == 2, what="the second device out of use", show=here.log_tail)
        closed_seconds = time.monotonic() - killed
        later = [here.submit(steps=4, runtime=cpu) for _ in range(6)]
        here.until_over([silent, *later])
        used = {_device_of(here, job_id) for job_id in [*later, silent]}
        lost = {f"cuda:{uuid[-1]}" for uuid in _quarantined(here)}
        reasons = [here.attempts(one)[0].failure_reason for one in (said, silent)]
        charged = [here.job(one).attempt for one in (said, silent)]
    value = {
        "classes": reasons,
        "attempts_charged": charged,
        "quarantined": sorted(lost),
        "used_afterwards": sorted(used),
        "slot_closed_seconds": round(closed_seconds, 2),
    }
    passed = reasons == [FailureReason.GPU_LOST] * 2 and charged == [1, 1] and len(first_closed) == 1
    return Result(value, passed and is_elsewhere and not used & lost and closed_seconds <= 5)


@REGISTRY.row(
    28,
    "a poison job whose trainer dies at its start, every time",
    "at most max_attempts starts; fails with its class; the others wait no longer than without it",
)
def poison(stage: Stage) -> Result:
    count = stage.count(20, short=4)
    with ground(stage, workers=("a",), environ={"TRAINYARD_WORKER_SLOTS": "2"}) as here:
        calm = _waits(here, [here.submit(steps=2) for _ in range(count)])
        faults = {"how": "exit", "where": "build", "tokens": ()}
        poisoned = [here.submit(faults=faults, max_attempts=3) for _ in range(3)]
        disturbed = _waits(here, [here.submit(steps=2) for _ in range(count)])
        here.until_over(poisoned)
        starts = [len(here.attempts(job_id)) for job_id in poisoned]
        jobs = [here.job(job_id) for job_id in poisoned]
        ends = [terminal_events(here.events(job_id)) for job_id in poisoned]
    slower = percentile(disturbed, 0.95) - percentile(calm, 0.95)
    value = {
        "starts": starts,
        "classes": [job.failure_reason for job in jobs],
        "wait_p95_seconds": {
            "calm": round(percentile(calm, 0.95), 2),
            "with_poison": round(percentile(disturbed, 0.95), 2),
        },
    }
    passed = max(starts) <= 3 and all(job.failure_reason is FailureReason.CRASH for job in jobs)
    # Nine short attempts share the slots with the others; a job that blocked its slot would cost its whole patience.
    return Result(value, passed and all(end == ["failed"] for end in ends) and slower <= 9 * 1.0)


def _waits(here: Ground, job_ids: list[str]) -> list[float]:
    here.until_over(job_ids)
    jobs = [here.job(job_id) for job_id in job_ids]
    return [(job.start_time - job.create_time).total_seconds() for job in jobs if job.start_time is not None]


def _retry_seconds(here: Ground, job_id: str) -> float:
    first, second = here.attempts(job_id)[:2]
    assert first.end_time is not None
    return (second.start_time - first.end_time).total_seconds()


def _warm_parent(here: Ground, name: str) -> psutil.Process:
    return next(one for one in here.family(name) if "workers.warm" in " ".join(one.cmdline()))


def _quarantined(here: Ground) -> list[str]:
    with here.database.read() as session:
        return [device.uuid for device in workers.list_devices(session) if device.is_quarantined]


def _device_of(here: Ground, job_id: str) -> str:
    return str(_slots(here)[job_id])


def _slots(here: Ground) -> dict[str, str]:
    """Return the slot of each job's latest attempt, as the worker's log tells it."""
    found = {}
    for line in here.log_text("a").splitlines():
        if '"attempt_started"' in line:
            fields = json.loads(line)
            found[fields["job"]] = fields["slot"]
    return found


def _write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place: a worker may read it at any moment.
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document))
    part.rename(path)
