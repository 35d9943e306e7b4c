"""What the command line deletes, and what it says where something is still needed."""

from __future__ import annotations

from services.core.states import JobState
from services.db import datasets, jobs, models
from tests.builders.galleries import deployed, trained
from tests.integration.client.conftest import Run, Server, document
from tests.stack.builders import make_job, new_checkpoint, new_dataset, new_model_version, queued_job


def test_model_versions_that_nothing_uses_are_deleted(run: Run, server: Server) -> None:
    names = []
    for _ in range(3):
        job = queued_job(server.database, model_id="waste")
        with server.database.write() as session:
            lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
            jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
        names.append(document(run("jobs", "show", job.id, "--json"))["model_version"])

    with server.database.read() as session:
        deployed(server.database, models.get(session, "default", "waste", 2), "used")

    unnumbered = run("models", "delete", "waste")
    unknown = run("models", "delete", "waste/1", "waste/7")
    some = run("models", "delete", "waste/1", "waste/2", "waste/3")
    run("deployments", "delete", "used")
    deleted = run("models", "delete", "waste/2", "waste/3", "waste/2", "--json")

    assert (unnumbered.exit_code, unknown.exit_code, some.exit_code) == (2, 1, 1)
    assert "such as waste/3" in unnumbered.stderr
    assert "no model version waste/7" in unknown.stderr
    assert some.stdout.startswith("deleted waste/1, ")
    assert "model waste/2: deployment 'used' serves it" in some.stderr
    assert document(deleted) == {"deleted": names[1:]}
    assert "waste" not in run("models", "list").stdout


def test_deployments_are_taken_down_together(run: Run, server: Server) -> None:
    version = trained(server.database, recipe="classification/train", model_id="shared")
    for name in ("one", "two", "three", "four", "five"):
        deployed(server.database, version, name)

    unknown = run("deployments", "delete", "one", "nothing")
    kept = document(run("deployments", "show", "one", "--json"))["state"]
    some = run("deployments", "delete", "one", "two", "one")
    last = run("deployments", "delete", "three", "--json")
    gone = run("deployments", "delete", "four", "five", "--wait")

    assert (unknown.exit_code, kept) == (1, "DEPLOYMENT_STATE_PENDING")
    assert "nothing" in unknown.stderr
    assert some.stdout == "one is deleting\ntwo is deleting\n"
    assert [each["name"] for each in document(last)["deployments"]] == ["projects/default/deployments/three"]
    assert gone.stdout == "four is gone\nfive is gone\n"


def test_checkpoints_of_an_ended_job_are_deleted(run: Run, server: Server) -> None:
    job = queued_job(server.database)
    with server.database.write() as session:
        lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
        found = [jobs.commit_checkpoint(session, lease, new_checkpoint(step)) for step in (1, 2, 3)]

    assert run("checkpoints", "delete", job.id).exit_code == 2
    refused = run("checkpoints", "delete", job.id, "--all")
    assert refused.exit_code == 1
    assert "has not ended" in refused.stderr

    with server.database.write() as session:
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
    assert run("checkpoints", "delete", job.id, found[2].id).stdout == f"deleted 1 checkpoint of {job.id}, 10 B\n"
    assert document(run("jobs", "show", job.id, "--json"))["checkpoint_step"] == 2
    assert run("checkpoints", "delete", job.id, "--all").stdout == f"deleted 2 checkpoints of {job.id}, 20 B\n"
    assert run("checkpoints", "list", job.id).stdout == "no checkpoints\n"
    assert (
        "has no checkpoint: it stored none yet, or they were deleted"
        in run("models", "create", f"{job.id}/best").stderr
    )


def test_datasets_are_deleted_together(run: Run, server: Server) -> None:
    with server.database.write() as session:
        made = [datasets.insert(session, new_dataset(dataset_id=f"old-{number}"))[0] for number in (1, 2, 3)]
        make_job(session, made[1].id)

    unknown = run("datasets", "delete", "old-1", "nothing")
    some = run("datasets", "delete", "old-1", "old-2", "old-3")
    last = run("datasets", "delete", "old-3", "old-3", "--json")

    assert (unknown.exit_code, some.exit_code) == (1, 1)
    assert "nothing" in unknown.stderr
    assert some.stdout == "deleted old-1\n"
    assert "old-2" in some.stderr
    assert document(last) == {"deleted": ["projects/default/datasets/old-3"]}


def test_ended_jobs_are_deleted(run: Run, server: Server) -> None:
    done, failed, waiting = (queued_job(server.database) for _ in range(3))
    with server.database.write() as session:
        lease = jobs.claim(session, done.id, worker_id="a", ttl_seconds=60)
        jobs.finish(session, lease, state=JobState.SUCCEEDED, model_version=new_model_version())
        jobs.cancel(session, "default", failed.id, "")
    model = document(run("jobs", "show", done.id, "--json"))["model_version"].split("/")[3::2]

    unknown = run("jobs", "delete", failed.id, "01nothing")
    some = run("jobs", "delete", failed.id, waiting.id, done.id)
    kept = run("jobs", "delete", done.id)
    run("models", "delete", "/".join(model))
    last = run("jobs", "delete", done.id, done.id, "--json")
    shown = run("jobs", "show", failed.id)

    assert [result.exit_code for result in (unknown, some, kept, shown)] == [1, 1, 1, 1]
    assert "01nothing" in unknown.stderr
    assert some.stdout == f"deleted {failed.id}\n"
    assert f"job {waiting.id} has not ended; cancel it first" in some.stderr
    assert f"made model {'/'.join(model)}; delete that first" in kept.stderr
    assert document(last) == {"deleted": [f"projects/default/jobs/{done.id}"]}
