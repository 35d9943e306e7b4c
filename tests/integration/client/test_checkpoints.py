"""Checkpoints on the command line: the best one, those of a step, and what can be made of them."""

from __future__ import annotations

import json
from pathlib import Path

from services.core.states import JobState
from services.db import datasets, jobs, models
from tests.builders.galleries import trained
from tests.integration.client.conftest import Run, Server, document
from tests.stack.builders import new_checkpoint, new_dataset, new_model_version, queued_job


def test_the_checkpoint_that_did_best_is_told_and_becomes_a_model(run: Run, server: Server) -> None:
    job, unjudged = queued_job(server.database, model_id="best-of"), queued_job(server.database)
    with server.database.write() as session:
        jobs.commit_checkpoint(
            session, jobs.claim(session, unjudged.id, worker_id="b", ttl_seconds=60), new_checkpoint(1)
        )
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        made = [
            jobs.commit_checkpoint(session, lease, new_checkpoint(step, metric=metric))
            for step, metric in ((10, 0.5), (20, 0.875), (30, 0.75))
        ]
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())

    watched = run("jobs", "watch", job.id)
    listed = run("checkpoints", "list", job.id)
    created = run("models", "create", f"{job.id}/best")
    missing = run("models", "create", f"{unjudged.id}/best")

    assert (watched.exit_code, created.exit_code, missing.exit_code) == (0, 0, 1)
    told = f"step 20 did better than the last, 0.8750 instead of 0.7500: `trainyard models create {job.id}/best` makes"
    assert told in " ".join(watched.stdout.split())
    assert listed.stdout.split()[:5] == ["CHECKPOINT", "STEP", "EVAL/AP50", "SIZE", "CREATED"]
    assert [line.split()[2:4] for line in listed.stdout.splitlines()[1:]][1] == ["0.8750", "(best)"]
    assert listed.stdout.count("(best)") == 1
    assert f"no checkpoint of job '{unjudged.id}' was evaluated yet" in missing.stderr
    with server.database.read() as session:
        assert models.get(session, "default", "best-of", 2).checkpoint_id == made[1].id


def test_who_deploys_a_job_without_a_model_is_told_what_there_is(run: Run, server: Server) -> None:
    queued, failed, unjudged, judged = (queued_job(server.database) for _ in range(4))
    made = {}
    for job, metric in ((failed, None), (unjudged, None), (judged, 0.5)):
        with server.database.write() as session:
            lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
            if job is not failed:
                made[job.id] = jobs.commit_checkpoint(session, lease, new_checkpoint(1, metric=metric))
            jobs.finish(session, lease, state=JobState.FAILED)

    refused = {job.id: run("deploy", job.id).stderr for job in (queued, failed, unjudged, judged)}

    assert f"is queued and has no model; wait for it: `trainyard jobs watch {queued.id}`" in refused[queued.id]
    assert "is failed and has no model, nor a checkpoint to make one of" in refused[failed.id]
    assert f"`trainyard jobs show {failed.id}` says why" in refused[failed.id]
    for job, which in ((unjudged, made[unjudged.id].id), (judged, "best")):
        assert f"; `trainyard models create {job.id}/{which}` makes one of a checkpoint" in refused[job.id]
        assert run("models", "create", f"{job.id}/{which}").exit_code == 0


def test_a_job_starts_from_the_checkpoint_that_did_best(run: Run, server: Server, tmp_path: Path) -> None:
    with server.database.write() as session:
        counts = {"train": {"images": 4}, "val": {"images": 2}}
        datasets.insert(session, new_dataset(dataset_id="cats", family="classification", counts=counts))
    arguments = ("--dataset", "cats", "--preset", "tiny", "--json")
    source = document(run("jobs", "submit", "classification/mobilenet", *arguments, "--set", "data.channels=3"))
    job = source["name"].rpartition("/")[2]
    unjudged = run("jobs", "submit", "classification/finetune", *arguments, "--init-from", f"{job}/best")
    with server.database.write() as session:
        lease = jobs.claim(session, job, worker_id="a", ttl_seconds=60)
        best, _ = [
            jobs.commit_checkpoint(session, lease, new_checkpoint(step, metric=metric))
            for step, metric in ((5, 0.75), (6, 0.5))
        ]

    begun = run("jobs", "submit", "classification/finetune", *arguments, "--init-from", f"{job}/best")
    fetched = run("checkpoints", "download", job, str(tmp_path), "--checkpoint", "best", "--json")

    assert document(begun)["init_from"] == f"{source['name']}/checkpoints/{best.id}"
    assert document(fetched)["checkpoint"]["step"] == 5
    assert f"job '{job}' has no checkpoint: it stored none yet, or they were deleted" in unjudged.stderr


def test_a_checkpoint_is_named_with_its_job_and_by_its_step(run: Run, server: Server, tmp_path: Path) -> None:
    job = queued_job(server.database, model_id="steps")
    with server.database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        made = [
            jobs.commit_checkpoint(session, lease, new_checkpoint(step, metric=metric))
            for step, metric in ((80, 0.75), (90, 0.5))
        ]
    full = f"projects/default/jobs/{job.id}"

    def fetched(*arguments: str) -> str:
        shown = document(run("checkpoints", "download", *arguments, str(tmp_path), "--json"))["checkpoint"]
        return str(shown["name"]).removeprefix(f"{full}/checkpoints/")

    first, last = (each.id for each in made)
    names = [f"{job.id}/{first}", f"{full}/checkpoints/{first}", f"{job.id}/80", f"{job.id}/best"]
    assert [fetched(each) for each in (*names, job.id, full)] == [first] * 4 + [last] * 2
    assert fetched(job.id, "--checkpoint", "80") == first
    twice = run("checkpoints", "download", f"{job.id}/80", str(tmp_path), "--checkpoint", "80")
    wrong = run("checkpoints", "download", f"{job.id}/81", str(tmp_path))
    assert (twice.exit_code, wrong.exit_code) == (2, 1)
    assert f"job '{job.id}' has no checkpoint '81'; `trainyard checkpoints list {job.id}` shows them" in wrong.stderr
    with server.database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
    assert document(run("models", "create", f"{job.id}/80", "--json"))["checkpoint"].endswith(first)


def test_a_job_that_ended_is_not_resumed_and_says_what_can_be_done(run: Run, server: Server) -> None:
    job = queued_job(server.database)
    run("jobs", "cancel", job.id)

    people, machine = run("jobs", "resume", job.id), run("jobs", "resume", job.id, "--json")
    paused = run("jobs", "pause", job.id)

    assert people.stderr == (
        "error: the job was cancelled; only a job that waits, runs or is paused can be resumed;"
        " `trainyard models create JOB/best` keeps what it learned, and"
        " `trainyard jobs submit ... --init-from JOB/best` starts from it where the recipe allows\n"
    )
    said = json.loads(machine.stderr)["error"]["message"]
    assert "create a model version of a checkpoint of it, or a job that starts from one by init_from" in said
    assert paused.stderr.endswith("can be paused\n")


def test_a_recipe_that_takes_no_weights_names_the_one_that_does(run: Run, server: Server) -> None:
    with server.database.write() as session:
        counts = {"train": {"images": 4}, "val": {"images": 2}}
        datasets.insert(session, new_dataset(dataset_id="birds", family="classification", counts=counts))
    source = trained(server.database, recipe="classification/train")

    refused = run(
        *("jobs", "submit", "classification/mobilenet", "--dataset", "birds", "--preset", "tiny"),
        *("--init-from", f"{source.model_id}/{source.version}"),
    )

    assert refused.stderr == (
        f"error: --init-from: {source.model_id}/{source.version} is of classification/train, but"
        " classification/mobilenet starts from no other weights; classification/finetune can start from it\n"
    )


def test_of_a_job_whose_last_state_did_best_nothing_is_said(run: Run, server: Server) -> None:
    job = queued_job(server.database)
    with server.database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        for step in (10, 20):
            jobs.commit_checkpoint(session, lease, new_checkpoint(step, metric=0.5))
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())

    assert "did better" not in run("jobs", "watch", job.id).stdout
