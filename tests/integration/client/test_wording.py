"""What is wrong with a command is said with the options and arguments it was given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from services.client.cli import main
from tests.integration.client.conftest import Server

SUBMIT = ("jobs", "submit", "detection/yolo_v1", "--dataset", "squares", "--preset", "tiny")


@pytest.fixture(scope="module")
def squares(server: Server, coco_folder: Path) -> None:
    assert run(server, "datasets", "import", str(coco_folder)).exit_code == 0


def run(server: Server, *arguments: str) -> Result:
    result = CliRunner(env={"TRAINYARD_TOKEN": server.token}).invoke(main, [*arguments, "--server", server.address])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_value_that_cannot_be_set_is_named_with_what_its_preset_has(server: Server, squares: None) -> None:
    refused = run(server, *SUBMIT, "--set", "limits.max_steps=0").stderr
    tiny = json.loads(run(server, "recipes", "show", "detection/yolo_v1", "--json").stdout)["presets"]
    steps = next(preset for preset in tiny if preset["name"] == "tiny")["config"]["limits"]["max_steps"]

    assert refused.startswith("error: --set limits.max_steps: ")
    assert f"Default: {steps}." in refused


def test_a_key_in_the_wrong_section_is_answered_with_one_that_can_be_set(server: Server, squares: None) -> None:
    refused = run(server, *SUBMIT, "--set", "max_steps=7").stderr

    assert refused == "error: --set max_steps: there is no 'max_steps' here; did you mean --set limits.max_steps?\n"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        pytest.param(("--processes", "99"), "--processes", id="a field of a message"),
        pytest.param(("--title", "t" * 200), "--title", id="an option of another name"),
        pytest.param(("--priority", "101"), "--priority", id="an option of the same name"),
        pytest.param(("--model", "No Id"), "--model", id="an id"),
        pytest.param(("--init-from", "model/x/y"), "--init-from", id="what to start from"),
        pytest.param(("--preset", "huge"), "--preset", id="a preset"),
    ],
)
def test_a_wrong_option_of_a_job_is_named(
    server: Server, squares: None, arguments: tuple[str, str], option: str
) -> None:
    assert run(server, *SUBMIT, *arguments).stderr.startswith(f"error: {option}: ")


def test_a_device_without_its_worker_is_answered_with_the_option(server: Server, squares: None) -> None:
    refused = run(server, *SUBMIT, "--set", "runtime.device=cuda").stderr

    assert "say --resources gpu, or the device" in refused


def test_a_recipe_that_needs_weights_asks_for_init_from_as_it_is_typed(server: Server, squares: None) -> None:
    refused = run(server, "jobs", "submit", "classification/finetune", "--dataset", "squares", "--preset", "tiny")

    line = next(line for line in refused.stderr.splitlines() if "starts from other weights" in line)
    assert line.startswith("error: --init-from: classification/finetune starts from other weights: ")
    assert "(MODEL/VERSION)" in line
    assert "(JOB/CHECKPOINT)" in line
    assert "projects/" not in line


@pytest.mark.parametrize("option", ["--priority", "--processes"])
def test_a_number_that_no_message_holds_is_refused_without_a_traceback(
    server: Server, squares: None, option: str
) -> None:
    refused = run(server, *SUBMIT, option, "99999999999")

    assert refused.exit_code == 2
    assert "99999999999 is too large for any number of a request" in refused.stderr


def test_machines_read_the_fields_of_the_request(server: Server, squares: None) -> None:
    refused = run(server, *SUBMIT, "--processes", "99", "--json").stderr

    assert json.loads(refused)["error"]["violations"][0]["field"] == "resources.processes"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        pytest.param(("--name", "No Id"), "--name", id="an id"),
        pytest.param(("--val-fraction", "1.5"), "--val-fraction", id="a share"),
        pytest.param(("--family", "faces"), "--family", id="a family"),
    ],
)
def test_a_wrong_option_of_an_import_is_named(
    server: Server, coco_folder: Path, arguments: tuple[str, str], option: str
) -> None:
    assert run(server, "datasets", "import", str(coco_folder), *arguments).stderr.startswith(f"error: {option}: ")


def test_a_wrong_address_is_named_as_the_argument(server: Server) -> None:
    refused = run(server, "datasets", "import", "http://example.com/d.zip", "--name", "d").stderr

    assert refused.startswith("error: PATH|URL: must be an https address")


def test_places_in_the_data_are_no_options(server: Server, coco_folder: Path, tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "family/c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").write_bytes((coco_folder / "images/train/train-1.png").read_bytes())

    refused = run(server, "datasets", "import", str(tmp_path), "--name", "mixed").stderr

    assert refused.startswith("error: family: is no split")


def folders(place: Path, count: int, *, images: int) -> Path:
    for label in range(count):
        (place / f"{label:02d}").mkdir(parents=True)
        for number in range(images):
            colour = (8 * label, 9 * number, 60)
            Image.new("RGB", (8, 8), colour).save(place / f"{label:02d}" / f"{number}.png")
    return place


@pytest.mark.parametrize(
    ("count", "images", "arguments", "is_hinted"),
    [
        pytest.param(20, 3, (), True, id="many folders of a few pictures may be people"),
        pytest.param(19, 3, (), False, id="few folders are classes"),
        pytest.param(20, 21, (), False, id="many pictures a folder are classes"),
        pytest.param(20, 3, ("--family", "classification"), False, id="who says the family knows"),
        pytest.param(20, 3, ("--family", "face"), False, id="people are people already"),
    ],
)
def test_folders_that_may_be_people_are_hinted_at(
    server: Server, tmp_path: Path, count: int, images: int, arguments: tuple[str, ...], is_hinted: bool
) -> None:
    source = folders(tmp_path / "some", count, images=images)

    result = run(server, "datasets", "import", str(source), *arguments)

    assert result.exit_code == 0, result.output
    hint = "hint: taken as classification; if the folders are people, import with --family face"
    assert (hint in result.stdout.splitlines()) is is_hinted
