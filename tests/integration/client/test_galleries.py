"""`trainyard galleries`, from an empty gallery to a forgotten face."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from services.client.cli import main
from services.client.draw_faces import YES, load
from tests.builders.face_endpoint import FaceEndpoint, face_endpoint, shots
from tests.builders.galleries import deployed, report, trained
from tests.integration.client.conftest import Server


@pytest.fixture(scope="module")
def endpoint(server: Server) -> Iterator[FaceEndpoint]:
    with face_endpoint() as endpoint:
        deployed(server.database, trained(server.database))
        report(server.database, endpoint.url)
        yield endpoint


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return folders of pictures of three people, and single ones of two of them and of a stranger."""
    folder = tmp_path_factory.mktemp("people")
    for person, name in enumerate(("Ada Lovelace", "bob", "eve")):
        (folder / "known" / name).mkdir(parents=True)
        for number, shot in enumerate(shots(person, 2)):
            (folder / "known" / name / f"{number}.png").write_bytes(shot)
    for person in (0, 1, 5):
        (folder / f"{person}.png").write_bytes(shots(person, seed=4)[0])
    return folder


def run(server: Server, *arguments: str, is_json: bool = False) -> Result:
    runner = CliRunner(env={"TRAINYARD_TOKEN": server.token})
    given = ["galleries", *arguments, "--server", server.address]
    return runner.invoke(main, [*given, "--json"] if is_json else given)


def test_a_gallery_is_made_filled_asked_moved_and_emptied(
    server: Server, endpoint: FaceEndpoint, people: Path, tmp_path: Path
) -> None:
    def answer(*arguments: str) -> Any:
        result = run(server, *arguments, is_json=True)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    made = answer("create", "staff", "--deployment", "faces", "--keep-images", "--pinned")
    assert (made["keep_images"], made["is_pinned"]) == (True, True)
    assert len(answer("enrol-folder", "staff", str(people / "known"))["identities"]) == 3
    listed = answer("identities", "staff")["identities"]
    drawing, pair = tmp_path / "matches.png", tmp_path / "pair.png"
    known = answer("identify", "staff", str(people / "0.png"), "--draw", str(drawing))["answers"][0]
    same = answer("verify", "staff", str(people / "0.png"), "--identity", "ada-lovelace", "--draw", str(pair))
    different = answer("verify", "staff", str(people / "0.png"), str(people / "1.png"))
    spoken = run(server, "identify", "staff", str(people / "1.png"), str(people / "5.png")).stdout

    assert [one["display_name"] for one in listed] == ["eve", "bob", "Ada Lovelace"]
    assert known["matches"][0]["identity"].endswith("/identities/ada-lovelace")
    assert (known["is_unknown"], known["compared_count"], known["drawn"]) == (False, 3, str(drawing))
    assert (same["is_same"], different["is_same"]) == (True, False)
    assert YES in load(drawing).get_flattened_data()
    assert load(pair).size[0] > 0
    assert "1.png: bob, of 3 compared" in spoken
    assert "5.png: unknown, of 3 compared" in spoken

    assert answer("enrol", "staff", "bob", str(people / "1.png"), "--replace", "--name", "Bob")["display_name"] == "Bob"
    assert answer("reenrol", "staff")["needs_images_count"] == 0
    assert answer("unpin", "staff")["is_pinned"] is False
    assert "follows deployment faces" in run(server, "unpin", "staff").stdout
    assert "stays with faces/1" in run(server, "pin", "staff").stdout
    assert answer("pin", "staff")["is_pinned"] is True
    assert answer("remove", "staff", "bob", "eve") == {"removed": ["bob", "eve"]}
    assert [(one["identity_count"], one["state"]) for one in answer("list")["galleries"]] == [
        (1, "GALLERY_STATE_READY")
    ]
    assert "ready" in run(server, "list").stdout
    assert answer("delete", "staff") == {"identity_count": 1}
    assert "no galleries" in run(server, "list").stdout


def test_what_cannot_be_done_says_why(server: Server, endpoint: FaceEndpoint, people: Path, tmp_path: Path) -> None:
    (tmp_path / "Ada-1").mkdir()
    (tmp_path / "ada 1").mkdir()

    missing = run(server, "identify", "nowhere", str(people / "0.png"))
    twice = run(server, "enrol-folder", "staff", str(tmp_path))
    nobody = run(server, "verify", "staff", str(people / "0.png"))

    assert (missing.exit_code, "no gallery 'nowhere'" in missing.stderr) == (1, True)
    assert (twice.exit_code, "both become identity ada-1" in twice.stderr) == (1, True)
    assert (nobody.exit_code, "--identity" in nobody.stderr) == (2, True)
