"""The command line against a real server: what it prints, what it exits with, what a machine reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from services.client.cli import main
from services.db import datasets, deployments, jobs, projects, workers
from tests.builders.galleries import deployed, report, trained
from tests.integration.client.conftest import Run, Server, document
from tests.stack.builders import new_dataset, queued_job
from tests.stack.identity import admit


@pytest.fixture(scope="module")
def imported(server: Server, coco_folder: Path) -> dict[str, Any]:
    arguments = ["datasets", "import", str(coco_folder), "--server", server.address, "--json"]
    result = CliRunner(env={"TRAINYARD_TOKEN": server.token}).invoke(main, arguments)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_a_folder_is_imported_under_its_own_name(imported: dict[str, Any]) -> None:
    assert imported["name"] == "projects/default/datasets/squares"
    assert imported["classes"] == ["square"]
    assert imported["format"] == "DATASET_FORMAT_COCO"
    assert imported["splits"]["train"]["counts"]["images"] == 3


def test_datasets_are_listed_for_people_and_for_machines(run: Run, imported: dict[str, Any]) -> None:
    lines = run("datasets", "list").stdout.splitlines()

    assert lines[0].split() == ["DATASET", "VERSION", "FAMILY", "CLASSES", "IMAGES", "SIZE", "CREATED"]
    assert lines[1].startswith("squares  1        detection  1        3 train + 1 val")
    assert document(run("datasets", "list", "--json"))["datasets"][0]["version_id"] == imported["version_id"]


def test_one_version_of_a_dataset_is_shown_and_one_it_has_not_is_refused(run: Run, imported: dict[str, Any]) -> None:
    shown = document(run("datasets", "show", "squares", "--version", "1", "--json"))
    result = run("datasets", "show", "squares", "--version", "7")

    assert shown["version_id"] == imported["version_id"]
    assert result.exit_code == 1
    assert "7" in result.stderr


def test_people_are_counted_where_a_dataset_has_no_classes(run: Run, server: Server) -> None:
    counts = {"train": {"images": 9, "identities": 3}, "val": {"images": 4, "identities": 2}}
    with server.database.write() as session:
        datasets.insert(session, new_dataset(dataset_id="faces", family="face", classes=[], counts=counts))

    (row,) = (line for line in run("datasets", "list").stdout.splitlines() if line.startswith("faces "))

    assert "  5 people  " in row
    assert "9 train + 4 val" in row


def test_what_there_is_of_each_class_is_shown(run: Run, imported: dict[str, Any]) -> None:
    lines = run("datasets", "show", imported["name"].rpartition("/")[2]).stdout.splitlines()

    place = lines.index("boxes of each class:")
    assert lines[place + 1] == "  square  3 train + 1 val"


def test_of_many_classes_the_first_are_shown(run: Run, server: Server) -> None:
    names = [f"c{number}" for number in range(23)]
    found = {"splits": {"train": {"images_per_class": dict.fromkeys(names, 4)}, "val": {"images_per_class": {"c0": 1}}}}
    with server.database.write() as session:
        many = new_dataset(dataset_id="many", family="classification", classes=names, counts={}, report=found)
        datasets.insert(session, many)

    lines = run("datasets", "show", "many").stdout.splitlines()

    place = lines.index("images of each class:")
    assert lines[place + 1 : place + 3] == ["  c0   4 train + 1 val", "  c1   4 train + 0 val"]
    assert lines[place + 20 :] == ["  c19  4 train + 0 val", "  and 3 more"]


def test_an_unknown_dataset_is_named(run: Run) -> None:
    result = run("datasets", "show", "nothing")

    assert result.exit_code == 1
    assert "nothing" in result.stderr
    assert result.stdout == ""


def test_a_dataset_that_is_none_is_refused_with_the_files_at_fault(run: Run, coco_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "images" / "train" / "half.png").write_bytes((coco_folder / "images/train/train-1.png").read_bytes()[:60])
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "half.png", "width": 64, "height": 64}],
                "annotations": [
                    {"id": 1, "image_id": 1, "category_id": 7, "bbox": [8, 8, 32, 32], "area": 9, "iscrowd": 0}
                ],
                "categories": [{"id": 7, "name": "square"}],
            }
        )
    )

    result = run("datasets", "import", str(folder))

    assert result.exit_code == 1
    assert "half.png" in result.stderr


def test_a_path_is_checked_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    result = run("datasets", "import", str(tmp_path / "gone"))

    assert result.exit_code == 1
    assert "gone does not exist" in result.stderr


def test_recipes_are_listed_and_shown_with_every_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "detection/yolo_v1" in run("recipes", "list").stdout

    monkeypatch.setenv("COLUMNS", "250")
    shown = run("recipes", "show", "detection/yolo_v1", "--preset", "tiny").stdout

    assert "runtime.seed" in shown
    assert "Seeds initial weights, data order and augmentation. (>= 0, < 2147483648)" in shown


@pytest.mark.parametrize("columns", [80, 200])
def test_a_recipe_is_shown_within_the_terminal_with_what_its_presets_change(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    presets = document(run("recipes", "show", "style/gatys", "--json"))["presets"]
    tiny, scales = (dict(flat(each["config"])) for each in presets if each["name"] in ("tiny", "scales"))

    lines = run("recipes", "show", "style/gatys", "--preset", "tiny").stdout.splitlines()

    head, table = " ".join(" ".join(lines[: lines.index("")]).split()), lines[lines.index("") + 1 :]
    assert "preset: tiny; change a value with --set KEY=VALUE" in head
    changed = head.partition("preset scales has other values of ")[2].partition(" preset ")[0].split(", ")
    assert changed == [key for key in tiny if tiny[key] != scales[key]]
    assert "image.scales" in changed
    assert max(map(len, table)) <= columns
    start, end = table[0].index("VALUE"), table[0].index("MEANING")
    first = next(number for number, line in enumerate(table) if line.startswith("schedule.milestones"))
    last = next(number for number, line in enumerate(table) if line.startswith("schedule.name"))
    shown = "".join(line[start:end].strip() for line in table[first:last])
    assert json.loads(shown) == tiny["schedule.milestones"]


def flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a config by their keys with dots."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_an_unknown_preset_is_answered_with_the_known_ones(run: Run) -> None:
    result = run("recipes", "show", "detection/yolo_v1", "--preset", "huge")

    assert result.exit_code == 1
    assert "has no preset 'huge'; use one of full" in result.stderr


def test_a_job_is_submitted_with_typed_overrides(run: Run, imported: dict[str, Any]) -> None:
    result = run(
        "jobs", "submit", "detection/yolo_v1", "--dataset", "squares", "--preset", "tiny",
        "--set", "limits.max_steps=70", "--set", "runtime.precision=fp32", "--title", "try", "--json",
    )  # fmt: skip

    job = document(result)
    assert job["config"]["limits"]["max_steps"] == 70
    assert job["config"]["runtime"]["precision"] == "fp32"
    assert (job["display_name"], job["state"], job["dataset"]) == ("try", "JOB_STATE_QUEUED", imported["name"])


def test_every_mistake_of_a_submission_is_named_with_its_field(run: Run, imported: dict[str, Any]) -> None:
    arguments = ["jobs", "submit", "detection/yolo_v1", "--dataset", "squares", "--preset", "tiny"]
    arguments += ["--set", "limits.max_steps=0", "--set", "optim.nonsense=1"]

    people, machine = run(*arguments), run(*arguments, "--json")

    assert people.exit_code == machine.exit_code == 1
    assert "error: --set limits.max_steps: " in people.stderr
    assert "error: --set optim.nonsense: " in people.stderr
    assert machine.stdout == ""
    error = json.loads(machine.stderr)["error"]
    assert error["code"] == "INVALID_ARGUMENT"
    assert {each["field"] for each in error["violations"]} == {"config.limits.max_steps", "config.optim.nonsense"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["jobs", "submit", "detection/yolo_v1", "--dataset", "d", "--set", "nothing"], id="half a --set"),
        pytest.param(["jobs", "submit", "detection/yolo_v1"], id="no dataset"),
        pytest.param(["jobs", "list", "--state", "odd"], id="an unknown state"),
        pytest.param(["nonsense"], id="an unknown command"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_queued_job_is_cancelled_and_listed_so(run: Run, imported: dict[str, Any]) -> None:
    job = document(run("jobs", "submit", "detection/yolo_v1", "--dataset", "squares", "--preset", "tiny", "--json"))
    job_id = job["name"].rpartition("/")[2]

    assert run("jobs", "cancel", job_id, "--reason", "typo").stdout == f"{job_id} is cancelled\n"

    assert job_id in run("jobs", "list", "--state", "cancelled").stdout
    assert job_id not in run("jobs", "list", "--state", "queued").stdout
    assert "typo" in run("jobs", "logs", job_id).stdout


def test_a_job_is_paused_listed_so_and_resumed(run: Run, imported: dict[str, Any]) -> None:
    submit = (
        "jobs",
        "submit",
        "detection/yolo_v1",
        "--dataset",
        "squares",
        "--preset",
        "tiny",
        "--preemptible",
        "--json",
    )
    job = document(run(*submit))
    job_id = job["name"].rpartition("/")[2]

    assert job["is_preemptible"] is True
    assert run("jobs", "pause", job_id, "--reason", "lunch").stdout == f"{job_id} is paused\n"
    assert job_id in run("jobs", "list", "--state", "paused").stdout
    assert run("jobs", "resume", job_id).stdout == f"{job_id} is queued\n"
    assert "lunch" in run("jobs", "logs", job_id).stdout

    run("jobs", "cancel", job_id)
    refused = run("jobs", "pause", job_id, "--json")
    assert json.loads(refused.stderr)["error"]["code"] == "FAILED_PRECONDITION"


def test_watching_a_cancelled_job_ends_with_1(run: Run, imported: dict[str, Any]) -> None:
    job = document(run("jobs", "submit", "detection/yolo_v1", "--dataset", "squares", "--preset", "tiny", "--json"))
    run("jobs", "cancel", job["name"])

    people, machine = run("jobs", "watch", job["name"]), run("jobs", "watch", job["name"], "--json")

    assert people.exit_code == machine.exit_code == 1
    assert people.stdout.splitlines()[-1] == "cancelled"
    records = [json.loads(line) for line in machine.stdout.splitlines()]
    assert [record["event"]["seq"] for record in records[:-1]] == list(range(1, len(records)))
    assert records[-1]["job"]["state"] == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "show"],
        ["jobs", "cancel"],
        ["jobs", "watch"],
        ["jobs", "logs"],
        ["jobs", "artifacts"],
        ["checkpoints", "list"],
        ["models", "show"],
        ["deployments", "show"],
        ["deployments", "delete"],
        ["deploy"],
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_an_error_with_exit_code_1(run: Run, arguments: list[str]) -> None:
    people, machine = run(*arguments, "nothing"), run(*arguments, "nothing", "--json")

    assert people.exit_code == machine.exit_code == 1
    assert people.stderr.startswith("error: ")
    assert json.loads(machine.stderr)["error"]["code"] == "NOT_FOUND"


def test_empty_lists_say_what_to_do(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client works in the project of its token.
    monkeypatch.setenv("TRAINYARD_TOKEN", admit(server.database, "empty"))

    assert "import one with" in run("datasets", "list").stdout
    assert "submit one with" in run("jobs", "list").stdout
    assert "deploy MODEL" in run("deployments", "list").stdout
    assert document(run("models", "list", "--json")) == {"model_versions": []}


def test_an_image_that_is_no_file_is_named_before_any_call(run: Run) -> None:
    result = run("predict", "d", "gone.png")

    assert result.exit_code == 1
    assert "gone.png is no file" in result.stderr


def test_no_platform_is_answered_with_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_SERVER", "127.0.0.1:1")

    result = CliRunner().invoke(main, ["jobs", "list"])

    assert result.exit_code == 1
    assert "no platform answers at 127.0.0.1:1: start one with `trainyard up`" in result.stderr


def test_a_platform_that_is_down_is_not_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER", "TOKEN", "TOKEN_FILE"):
        monkeypatch.delenv(f"TRAINYARD_{name}", raising=False)
    monkeypatch.setenv("TRAINYARD_STATE_DIR", str(tmp_path))

    result = CliRunner().invoke(main, ["jobs", "list"])

    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: no platform runs in {tmp_path}: start one with `trainyard up`, or name one"
    )


def test_an_import_tells_what_it_left_out(run: Run, tmp_path: Path) -> None:
    for name, colour in (("cat", 40), ("dog", 90)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (colour, 60 * number, 9)).save(tmp_path / "pets" / name / f"{number}.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "pets" / "dog" / "2.bmp")
    (tmp_path / "pets" / "owl").mkdir()

    lines = run("datasets", "import", str(tmp_path / "pets")).stdout.splitlines()

    assert "note: left out images that are no JPEG, PNG or WEBP (.bmp): 1" in lines
    assert "note: left out folders that are empty or links: owl" in lines


def test_an_import_ends_with_a_small_training_that_can_be_typed(
    run: Run, server: Server, coco_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_TOKEN", admit(server.database, "hinted"))

    command = run("datasets", "import", str(coco_folder)).stdout.splitlines()[-1].removeprefix("next: trainyard ")

    assert command == "jobs submit detection/yolo_v1 --dataset squares --preset tiny --watch"
    assert document(run(*command.removesuffix(" --watch").split(), "--json"))["state"] == "JOB_STATE_QUEUED"


def attempts_of(shown: str) -> list[str]:
    lines = shown.splitlines()
    return lines[next(number for number, line in enumerate(lines) if line.startswith("ATTEMPT ")) + 1 :]


def test_every_attempt_has_its_own_number_and_those_that_count_are_told(run: Run, server: Server) -> None:
    job = queued_job(server.database)
    for is_charged in (True, False, True):
        with server.database.write() as session:
            lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
            jobs.requeue(session, lease, is_charged=is_charged)

    shown, logs = run("jobs", "show", job.id).stdout, run("jobs", "logs", job.id).stdout

    assert ["attempts", "3", "(2", "of", "3", "counted)"] in [line.split() for line in shown.splitlines()]
    assert [line.split()[0] for line in attempts_of(shown)] == ["1", "2", "3"]
    assert [f"running, attempt {number} on a" in logs for number in (1, 2, 3)] == [True] * 3


def test_an_attempt_that_was_given_back_says_so(run: Run, server: Server) -> None:
    job = queued_job(server.database)
    with server.database.write() as session:
        jobs.requeue(session, jobs.claim(session, job.id, worker_id="a", ttl_seconds=60), is_charged=False)

    (line,) = attempts_of(run("jobs", "show", job.id).stdout)

    assert "requeued" in line
    assert line.endswith("given back, counts towards no limit: its worker was stopped, or the job was paused")


def test_a_paused_job_that_ran_is_listed_with_its_attempts(run: Run, server: Server) -> None:
    job, fresh = queued_job(server.database), queued_job(server.database)
    for _ in range(2):
        with server.database.write() as session:
            lease = jobs.claim(session, job.id, worker_id="a", ttl_seconds=60)
            jobs.requeue(session, lease, is_charged=False)
    run("jobs", "pause", job.id)

    header, *rows = run("jobs", "list").stdout.splitlines()

    place = header.index("ATTEMPTS")
    counts = {row.split()[0]: row[place:].split()[0] for row in rows}
    assert (counts[job.id], counts[fresh.id]) == ("2", "0")


def test_a_queued_job_says_why_it_waits(run: Run, server: Server, imported: dict[str, Any]) -> None:
    submit = ("jobs", "submit", "detection/yolo_v1", "--dataset", "squares", "--preset", "tiny", "--resources", "gpu")
    first, second = (document(run(*submit, "--json"))["name"].rpartition("/")[2] for _ in range(2))
    info = workers.WorkerInfo(id="w", host="h", boot_id="b", pid=1, slots=1, queues=["train.cpu", "train.gpu"])

    def reason() -> str:
        facts = [line.partition(" ") for line in run("jobs", "show", second).stdout.splitlines()]
        return next((value.strip() for name, _, value in facts if name == "waits"), "")

    assert reason().startswith("no worker takes jobs of the queue train.gpu; start one whose TRAINYARD_WORKER_QUEUES")
    assert "\nwaits: no worker takes jobs of the queue train.gpu" in run(*submit).stdout

    with server.database.write() as session:
        workers.heartbeat(session, info)
    assert reason() == ""
    assert document(run("jobs", "show", second, "--json"))["waiting"]["free_slots"] == 1

    with server.database.write() as session:
        workers.heartbeat(session, replace(info, is_disk_full=True))
    assert reason() == "the disk of 1 worker is full; free space there, and the job starts by itself"
    assert document(run("jobs", "show", second, "--json"))["waiting"]["full_disks"] == 1

    with server.database.write() as session:
        workers.heartbeat(session, info)
        lease = jobs.claim(session, first, worker_id="w", ttl_seconds=60)
    assert reason().startswith("all of train.gpu is taken (1 running at most)")

    with server.database.write() as session:
        projects.set_quotas(session, "default", {"max_running_jobs": 1})
    assert reason() == "its project runs as many jobs as its quota allows"

    with server.database.write() as session:
        projects.set_quotas(session, "default", {"max_running_jobs": None})
        jobs.requeue(session, lease, is_charged=False)
    for job_id in (first, second):
        run("jobs", "cancel", job_id)
    assert document(run("jobs", "show", second, "--json"))["waiting"] is None


def test_a_deployment_is_gone_when_its_deletion_was_waited_for(run: Run, server: Server) -> None:
    version = trained(server.database, recipe="classification/train")
    deployed(server.database, version, "leaving")
    report(server.database, "http://127.0.0.1:1", "leaving")

    early = run("deployments", "delete", "leaving", "--wait", "--timeout", "0")
    needed = run("models", "delete", f"{version.model_id}/{version.version}")

    def report_none() -> None:
        endpoint = {"inference_url": "u", "grpc_address": "a", "token": "t", "token_expire_time": None}
        with server.database.write() as session:
            deployments.report_replica(session, "agent-leaving", **endpoint, observed=[])

    agent = threading.Timer(0.5, report_none)
    agent.start()
    gone = run("deployments", "delete", "leaving", "--wait")
    agent.join()
    freed = run("models", "delete", f"{version.model_id}/{version.version}")

    assert early.exit_code == needed.exit_code == 1
    assert "still being taken down" in early.stderr
    assert "try again in a moment" in needed.stderr
    assert gone.stdout == "leaving is gone\n"
    assert freed.exit_code == 0
