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
    drawn = [
        run(server, *asked, "--draw", str(tmp_path / "x.txt"))
        for asked in (
            ["identify", "staff", str(people / "0.png")],
            ["verify", "staff", str(people / "0.png"), str(people / "1.png")],
        )
    ]

    assert (missing.exit_code, "no gallery 'nowhere'" in missing.stderr) == (1, True)
    assert (twice.exit_code, "both become identity ada-1" in twice.stderr) == (1, True)
    assert (nobody.exit_code, "--identity" in nobody.stderr) == (2, True)
    assert all("x.txt: is not named like a picture" in each.stderr for each in drawn)


def test_a_broken_picture_spoils_no_other_answer(
    server: Server, endpoint: FaceEndpoint, people: Path, tmp_path: Path
) -> None:
    run(server, "create", "visitors", "--deployment", "faces")
    run(server, "enrol", "visitors", "bob", str(people / "known" / "bob" / "0.png"))
    broken, good = tmp_path / "text.jpg", str(people / "1.png")
    broken.write_text("no picture")
    asked = ["identify", "visitors", good, str(broken), good]

    spoken, told = run(server, *asked), run(server, *asked, is_json=True)

    assert spoken.exit_code == told.exit_code == 1
    lines = [line for line in spoken.stdout.splitlines() if not line.startswith("  ")]
    assert [line.partition(",")[0] for line in (lines[0], lines[2])] == [f"{good}: bob"] * 2
    assert lines[1].startswith(f"{broken}: the image cannot be decoded")
    assert f"1 of 3 pictures were not compared: {broken}" in spoken.stderr
    assert ["error" in row for row in json.loads(told.stdout)["answers"]] == [False, True, False]


def test_people_whose_pictures_are_broken_keep_nobody_else_out(
    server: Server, endpoint: FaceEndpoint, people: Path, tmp_path: Path
) -> None:
    run(server, "create", "crowd", "--deployment", "faces")
    for name in ("ada", "bob", "empty", "eve"):
        (tmp_path / name).mkdir()
    for name, person in (("ada", 0), ("bob", 1), ("eve", 2)):
        for number, shot in enumerate(shots(person, 2)):
            (tmp_path / name / f"{number}.png").write_bytes(shot)
    (tmp_path / "bob" / "1.png").write_text("no picture")

    first, again = (run(server, "enrol-folder", "crowd", str(tmp_path)) for _ in range(2))

    assert first.exit_code == again.exit_code == 1
    assert f"{tmp_path / 'bob'}: {tmp_path / 'bob' / '1.png'}: the image cannot be decoded" in first.stdout
    assert f"{tmp_path / 'empty'}: no pictures" in first.stdout
    assert "2 people are enrolled\n  ada, eve; to enrol the whole folder again, add --replace" in first.stdout
    assert "2 of 4 people were not enrolled" in first.stderr
    assert f"{tmp_path / 'ada'}: is enrolled already; --replace enrols them anew" in again.stdout


@pytest.fixture(scope="module")
def club(server: Server, endpoint: FaceEndpoint, people: Path) -> str:
    """Return a gallery with one member, bob."""
    run(server, "create", "club", "--deployment", "faces")
    run(server, "enrol", "club", "bob", str(people / "known" / "bob" / "0.png"))
    return "club"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "text.jpg").write_text("no picture")
    return tmp_path / "text.jpg"


def test_somebody_enrolled_is_replaced_by_the_option_that_is_named(server: Server, club: str, people: Path) -> None:
    refused = run(server, "enrol", club, "bob", str(people / "1.png"))

    assert refused.exit_code == 1
    assert refused.stderr.rstrip().endswith("has an identity 'bob' already; add --replace to enrol it anew")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        pytest.param(("--top", "1000"), "--top", id="too many matches"),
        pytest.param(("--threshold", "3"), "--threshold", id="no cosine similarity"),
    ],
)
def test_what_is_wrong_for_every_picture_is_said_once_of_its_option(
    server: Server, club: str, people: Path, arguments: tuple[str, str], option: str
) -> None:
    refused = run(server, "identify", club, str(people / "1.png"), str(people / "0.png"), *arguments)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: {option}: must be ")
    assert len(refused.stderr.splitlines()) == 1


def test_a_wrong_id_is_named_as_the_argument(server: Server, club: str, people: Path) -> None:
    assert run(server, "enrol", club, "No Id", str(people / "1.png")).stderr.startswith("error: IDENTITY: 'No Id' is")
    assert run(server, "verify", club, str(people / "1.png"), "--identity", "No Id").stderr.startswith(
        "error: --identity: 'No Id' is"
    )


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside a good one"])
def test_a_broken_picture_is_named_where_somebody_is_enrolled(
    server: Server, club: str, people: Path, broken: Path, is_alone: bool
) -> None:
    images = [str(broken)] if is_alone else [str(people / "0.png"), str(broken)]

    refused = run(server, "enrol", club, "ada", *images).stderr

    assert refused.startswith(f"error: {broken}: the image cannot be decoded")


def test_a_broken_picture_is_named_where_two_are_compared(
    server: Server, club: str, people: Path, broken: Path
) -> None:
    refused = run(server, "verify", club, str(people / "0.png"), str(broken)).stderr

    assert refused.startswith(f"error: {broken}: the image cannot be decoded")


def test_an_empty_file_is_named_before_any_call(server: Server, club: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()

    refused = run(server, "enrol", club, "ada", str(tmp_path / "empty.jpg")).stderr

    assert refused == f"error: {tmp_path / 'empty.jpg'} is an empty file; give an image\n"


def test_the_folder_of_a_drawing_is_made(server: Server, club: str, people: Path, tmp_path: Path) -> None:
    picture, matches, pair = str(people / "1.png"), tmp_path / "a" / "m.png", tmp_path / "b" / "p.png"

    identified = run(server, "identify", club, picture, "--draw", str(matches))
    verified = run(server, "verify", club, picture, picture, "--draw", str(pair))

    assert identified.exit_code == verified.exit_code == 0, identified.output + verified.output
    assert matches.is_file()
    assert pair.is_file()


def test_a_drawing_that_cannot_be_saved_comes_after_the_answer(
    server: Server, club: str, people: Path, tmp_path: Path
) -> None:
    picture = str(people / "1.png")
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "x.png"

    identified = run(server, "identify", club, picture, "--draw", str(target))
    verified = run(server, "verify", club, picture, picture, "--draw", str(target))

    assert f"{picture}: bob" in identified.stdout
    assert "the same person" in verified.stdout
    for refused in (identified, verified):
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"error: --draw {target}: ")
