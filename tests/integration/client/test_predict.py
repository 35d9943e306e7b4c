"""`trainyard deploy`, `deployments show` and `predict`, against an endpoint that answers as a family does."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from services.client.cli import main
from services.client.pack import PathInvalid
from services.client.pictures import save_reply
from services.client.sdk import Trainyard
from tests.builders.galleries import deployed, report, trained
from tests.builders.gan_networks import DCGAN, serve
from tests.integration.client.conftest import Server
from workers.families.base import Instance, InstanceInvalid
from workers.families.instances import image_bytes, refuse_unknown

LABELS = {"labels": [{"score": 0.9, "label": "seven", "label_id": 7}, {"label_id": 1, "score": 0.05, "label": "one"}]}


class Endpoint(ThreadingHTTPServer):
    """Answers each instance with `answer`, or refuses all of them with `refusal`; tests set it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answer: dict[str, Any] = {}
        self.refusal = ""
        self.calls_before_refusal = 0
        self.job_id = ""
        """The job whose model it serves."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        count = len(json.loads(body)["instances"]) if body[:1] == b"{" else 1
        model = {"name": "faces", "version": 1, "recipe": "classification/train"}
        answer = {"predictions": [self.server.answer] * count, "model": model}
        refusal = {"code": 400, "type": "BadRequest", "message": self.server.refusal}
        self.server.calls_before_refusal -= 1
        refuses = bool(self.server.refusal) and self.server.calls_before_refusal < 0
        content = json.dumps(refusal if refuses else answer).encode()
        self.send_response(400 if refuses else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint(server: Server) -> Iterator[Endpoint]:
    made = Endpoint()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    version = trained(server.database, recipe="classification/train")
    made.job_id = version.job_id
    deployed(server.database, version, "asked")
    report(server.database, made.url, "asked")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "seven.png").write_bytes(picture(10))
    return tmp_path / "seven.png"


@pytest.fixture
def refusing(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Return the endpoint, which answers again after the test."""
    yield endpoint
    endpoint.refusal = ""
    endpoint.calls_before_refusal = 0


def run(server: Server, *arguments: str) -> Result:
    runner = CliRunner(env={"TRAINYARD_TOKEN": server.token})
    return runner.invoke(main, [*arguments, "--server", server.address])


def picture(level: int, *, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(level: int) -> dict[str, str]:
    return {"b64": base64.b64encode(picture(level)).decode()}


def test_a_deployed_classifier_is_asked_without_a_drawing(server: Server, endpoint: Endpoint) -> None:
    result = run(server, "deploy", endpoint.job_id, "--name", "asked", "--workers", "2", "--wait", "--timeout", "5")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "next: trainyard predict asked IMAGE"


def test_a_deployment_is_shown_with_what_a_direct_call_needs(server: Server, endpoint: Endpoint) -> None:
    lines = run(server, "deployments", "show", "asked").stdout.splitlines()

    url = f"{endpoint.url}/predictions/default--asked"
    assert f"  REST {url}" in lines
    assert f"  curl -H 'Authorization: Bearer let-me-in' -T IMAGE {url}" in lines


def test_a_deployment_is_shown_with_its_form_and_how_far_its_answers_are_off(
    server: Server, endpoint: Endpoint
) -> None:
    lines = run(server, "deployments", "show", "asked").stdout.splitlines()

    place = lines.index("archive cpu-t1: ready eager 9 B")
    assert lines[place + 1 : place + 5] == [
        "  farthest from the trainer's answers: lost 0, scores 0.0014",
        "  one forward when it was built: 12.4 ms",
        "  not aoti_bf16: this processor has no bf16 instructions",
        "  slower: export, 15.2 ms",
    ]


def test_labels_are_printed_one_a_line(server: Server, endpoint: Endpoint, image: Path) -> None:
    endpoint.answer = LABELS

    result = run(server, "predict", "asked", str(image))

    assert result.stdout.splitlines() == [f"{image}: answered", "  labels:", "    7  seven  0.9", "    1  one  0.05"]


def test_an_answer_that_cannot_be_drawn_is_shown_before_the_error(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path
) -> None:
    endpoint.answer = LABELS
    asked = ["predict", "asked", str(image), "--draw", str(tmp_path / "out.png")]

    people, machine = run(server, *asked), run(server, *asked, "--json")

    assert people.exit_code == machine.exit_code == 1
    assert "    7  seven  0.9" in people.stdout
    assert "leave out --draw, or ask for a picture by --param gradcam=true" in people.stderr
    assert json.loads(machine.stdout)["predictions"][0]["result"] == LABELS
    assert not (tmp_path / "out.png").exists()


def test_all_samples_of_an_answer_are_drawn_on_one_sheet(server: Server, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = {"images": [encoded(40 * number) for number in range(1, 7)], "seeds": [0, 1, 2, 3, 4, 5]}

    result = run(server, "predict", "asked", "--param", "n=6", "--draw", str(tmp_path / "s.png"))

    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "s.png") as page:
        # Eight pixels are enlarged to 96, under a caption.
        assert page.size == (3 * 96 + 2 * 6, 2 * (18 + 96) + 6)
        assert [page.getpixel((x, y)) for y in (60, 180) for x in (48, 150, 252)] == [
            (40 * number, 0, 0) for number in range(1, 7)
        ]


def test_drawings_of_many_images_go_beside_the_file_that_was_named(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path
) -> None:
    endpoint.answer = {"overlay": encoded(7)}

    result = run(server, "predict", "asked", str(image), str(image), "--draw", str(tmp_path / "one.png"))

    assert result.exit_code == 0, result.output
    assert (tmp_path / "one-1.png").read_bytes() == (tmp_path / "one-2.png").read_bytes() == picture(7, side=320)
    assert not (tmp_path / "one.png").exists()
    assert f"drawn in {tmp_path / 'one-2.png'}" in result.stdout


def test_a_model_that_needs_an_image_asks_for_the_argument(server: Server, refusing: Endpoint) -> None:
    refusing.refusal = refusal_of(lambda: image_bytes(Instance(None, {}, {})))

    refused = run(server, "predict", "asked").stderr

    assert refused == "error: no image: name the file of one as IMAGE\n"


def test_a_generator_given_an_image_names_it_and_the_option_to_use(
    server: Server, refusing: Endpoint, image: Path
) -> None:
    _, _, generator = serve(DCGAN)
    refusing.refusal = str(generator.predict([Instance(picture(1), {}, {})], lambda rows: rows)[0])

    refused = run(server, "predict", "asked", str(image)).stderr

    text = "a generator takes no image: leave it out and say what to draw with --param, such as --param n=8"
    assert refused == f"error: {image}: {text}\n"


@pytest.mark.parametrize("name", ["x.txt", "x"])
def test_a_drawing_that_is_not_named_like_a_picture_is_refused_before_any_call(
    server: Server, image: Path, tmp_path: Path, name: str
) -> None:
    refused = run(server, "predict", "nobody", str(image), "--draw", str(tmp_path / name)).stderr

    remedy = f"say {tmp_path / 'x.png'}, or a folder that is there"
    assert refused == f"error: --draw {tmp_path / name}: is not named like a picture; {remedy}\n"


@pytest.mark.parametrize(("name", "kind"), [("x.png", "PNG"), ("x.JPG", "JPEG"), ("x.webp", "WEBP")])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_picture_is_saved_in_the_format_that_its_name_says(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path, name: str, kind: str, mode: str
) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, "PNG")
    endpoint.answer = {"mask": {"b64": base64.b64encode(buffer.getvalue()).decode()}}

    result = run(server, "predict", "asked", str(image), "--draw", str(tmp_path / name))

    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / name) as drawn:
        assert drawn.format == kind
    # The pixels of a mask are the numbers of its classes: where they can, they stay as they came.
    assert kind != "PNG" or (tmp_path / name).read_bytes() == buffer.getvalue()


def test_no_folder_is_made_for_an_answer_without_pictures(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path
) -> None:
    endpoint.answer = LABELS

    result = run(server, "predict", "asked", str(image), "--out", str(tmp_path / "outs"))

    assert result.exit_code == 0, result.output
    assert not (tmp_path / "outs").exists()


@pytest.mark.parametrize("command", [("predict",), ("deployments", "show"), ("deployments", "delete")])
def test_a_model_version_is_no_deployment_and_can_become_one(server: Server, command: tuple[str, ...]) -> None:
    refused = run(server, *command, "rn/1")

    assert refused.exit_code == 2
    assert "'rn/1' is not the name of a deployment; `trainyard deploy rn/1` makes one of it" in refused.stderr


def test_an_empty_file_is_named_before_any_call(server: Server, image: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()

    refused = run(server, "predict", "asked", str(image), str(tmp_path / "empty.png")).stderr

    assert refused == f"error: {tmp_path / 'empty.png'} is an empty file; give an image\n"


@pytest.mark.parametrize(
    ("refusal", "count", "expected"),
    [
        pytest.param("the PNG is damaged", 1, "{0}: the PNG is damaged", id="one image"),
        pytest.param(
            "instance 0: is cut; instance 1: is text", 2, "{0}: is cut; {1}: is text", id="each its own fault"
        ),
        pytest.param("the PNG is damaged", 5, "{0}, {1}, {2} and 2 more: the PNG is damaged", id="one fault of many"),
        pytest.param("unknown parameter 'op'; known are n", 1, "unknown --param 'op'; known are n", id="no such key"),
        pytest.param("op must be a word, not 3", 2, "--param op must be a word, not 3", id="a wrong value"),
    ],
)
def test_what_is_wrong_with_the_input_is_said_of_what_was_given(
    server: Server, refusing: Endpoint, tmp_path: Path, refusal: str, count: int, expected: str
) -> None:
    images = [tmp_path / f"{number}.png" for number in range(count)]
    for each in images:
        each.write_bytes(picture(3))
    refusing.refusal = refusal

    refused = run(server, "predict", "asked", *map(str, images), "--param", "op=3").stderr

    assert refused == f"error: {expected.format(*images)}\n"


def test_half_a_parameter_is_answered_with_an_example_of_one(server: Server) -> None:
    refused = run(server, "predict", "asked", "--param", "n")

    assert refused.exit_code == 2
    assert "--param 'n': write KEY=VALUE, such as --param score_threshold=0.3" in refused.stderr


def test_the_folder_of_a_drawing_is_made(server: Server, endpoint: Endpoint, image: Path, tmp_path: Path) -> None:
    endpoint.answer = {"overlay": encoded(7)}
    target = tmp_path / "not" / "yet" / "x.png"

    result = run(server, "predict", "asked", str(image), "--draw", str(target))

    assert result.exit_code == 0, result.output
    assert target.read_bytes() == picture(7, side=320)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        pytest.param({"overlay": encoded(7)}, "seven.png/x.png", id="a folder that is a file"),
        pytest.param(
            {"boxes": [[1, 1, 5, 5]], "labels": ["a"], "scores": [0.9]}, "seven.png/x.png", id="boxes, below a file"
        ),
    ],
)
def test_a_drawing_that_cannot_be_saved_comes_after_the_answer(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path, answer: dict[str, Any], name: str
) -> None:
    endpoint.answer = answer

    result = run(server, "predict", "asked", str(image), "--draw", str(tmp_path / name))

    assert result.exit_code == 1
    assert result.stdout.startswith(f"{image}: ")
    assert result.stderr.startswith(f"error: --draw {tmp_path / name}: ")
    assert "Errno" not in result.stderr


def refusal_of(question: Callable[[], object]) -> str:
    """Return the words in which a family refuses an instance."""
    with pytest.raises(InstanceInvalid) as caught:
        question()
    return str(caught.value)


def test_answers_that_came_before_a_refusal_are_shown(server: Server, refusing: Endpoint, tmp_path: Path) -> None:
    refusing.answer = LABELS
    refusing.refusal, refusing.calls_before_refusal = "instance 0: the image cannot be read", 1
    images = [tmp_path / f"{number:02d}.png" for number in range(18)]
    for each in images:
        each.write_bytes(picture(10))

    result = run(server, "predict", "asked", *map(str, images))
    refusing.calls_before_refusal = 1
    machine = run(server, "predict", "asked", *map(str, images), "--json")

    assert result.exit_code == machine.exit_code == 1
    assert result.stdout.count("seven") == 16
    assert "2 of 18 images were not answered" in result.stdout
    assert f"{images[16]}: the image cannot be read" in result.stderr
    assert len(json.loads(machine.stdout)["predictions"]) == 16
    # Programs are told in the words of the API.
    assert json.loads(machine.stderr)["error"]["message"] == refusing.refusal


def test_the_one_answer_of_several_is_drawn_and_saved_as_one_of_several(
    server: Server, refusing: Endpoint, tmp_path: Path
) -> None:
    refusing.answer = {"images": [encoded(90)]}
    refusing.refusal, refusing.calls_before_refusal = "instance 0: the image cannot be read", 1
    images = [tmp_path / f"{number}.png" for number in range(17)]
    for each in images:
        each.write_bytes(picture(10))

    result = run(server, "predict", "asked", *map(str, images), "--draw", str(tmp_path / "drawn.png"))

    assert result.exit_code == 1
    assert sorted(path.name for path in tmp_path.glob("drawn*")) == sorted(f"drawn-{n}.png" for n in range(1, 17))


def test_answers_are_shown_though_their_pictures_cannot_be_saved(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path
) -> None:
    endpoint.answer = {**LABELS, "picture": encoded(90)}
    (tmp_path / "file").write_text("no folder")

    result = run(server, "predict", "asked", str(image), "--out", str(tmp_path / "file" / "below"))

    assert result.exit_code == 1
    assert "seven" in result.stdout
    assert result.stderr.startswith(f"error: --out {tmp_path / 'file' / 'below'}: ")


def test_what_failed_beside_the_error_is_said_too(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path
) -> None:
    endpoint.answer = {**LABELS, "picture": encoded(90)}
    (tmp_path / "file").write_text("no folder")
    below = tmp_path / "file" / "below"

    result = run(server, "predict", "asked", str(image), "--draw", str(below / "one.png"), "--out", str(below))

    assert result.exit_code == 1
    saving, drawing = result.stderr.splitlines()
    assert drawing.startswith("error: --draw ")
    assert saving.startswith(f"error: --out {below}: ")
    of_machine = run(
        server, "predict", "asked", str(image), "--draw", str(below / "one.png"), "--out", str(below), "--json"
    )
    assert [next(iter(json.loads(line))) for line in of_machine.stderr.splitlines()] == ["error", "error"]


def test_texts_are_asked_about_as_they_are_and_answered_in_full(
    server: Server, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.answer = {"text": f"first line\n{'long ' * 60}end\x1b[2J", "tokens": 5.0, "score": -2.5}

    done = run(server, "predict", "asked", "--text", "007", "--text", "a b " * 20, "--out", str(tmp_path / "out"))

    assert done.exit_code == 0, done.stderr
    assert "--text '007': answered\n  text:\n    first line\n    long long" in done.stdout
    assert "end\ufffd[2J\n" in done.stdout
    assert f"--text '{('a b ' * 10)}...': answered" in done.stdout
    saved = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in saved] == ["001-answer-text.txt", "002-answer-text.txt"]
    assert saved[0].read_text() == endpoint.answer["text"]


def test_a_text_that_a_model_refuses_is_named_by_how_it_begins(server: Server, refusing: Endpoint) -> None:
    refusing.refusal = "instance 0: is odd; instance 1: is too long"

    refused = run(server, "predict", "asked", "--text", "one", "--text", "two").stderr

    assert refused == "error: --text 'one': is odd; --text 'two': is too long\n"


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(lambda: refuse_unknown({"text": "hello"}, ("top_k", "gradcam")), id="no such parameter"),
        pytest.param(lambda: image_bytes(Instance(None, {"text": "hello"}, {})), id="no picture"),
    ],
)
def test_a_model_of_pictures_that_is_asked_about_a_text_says_how_it_is_asked(
    server: Server, refusing: Endpoint, question: Callable[[], object]
) -> None:
    refusing.refusal = refusal_of(question)

    refused = run(server, "predict", "asked", "--text", "hello")

    assert refused.exit_code == 1
    assert refused.stderr == "error: this model takes no text: ask it by `trainyard predict asked IMAGE`\n"


def test_pictures_and_texts_are_asked_about_from_python(
    server: Server, refusing: Endpoint, image: Path, tmp_path: Path
) -> None:
    refusing.answer = {"images": [encoded(90), encoded(40)], "text": "two"}
    with Trainyard(server.address, token=server.token) as client:
        reply = client.predict("asked", [image], {"n": 2})
        told = client.predict("asked", [{"text": "hello"}])
        with pytest.raises(PathInvalid, match=r'^hello is no file; give an image, or a text as {"text": "\.\.\."}$'):
            client.predict("asked", ["hello"])

    names = [path.name for path in save_reply(reply, tmp_path / "out")]
    run(server, "predict", "asked", "--param", "n=2", "--out", str(tmp_path / "typed"))

    assert sorted(names) == sorted(path.name for path in (tmp_path / "typed").iterdir())
    assert (tmp_path / "out" / "001-answer-images-001.png").read_bytes() == picture(40)
    assert told.predictions[0].result["text"] == "two"


def test_an_image_and_a_text_are_not_asked_about_at_once(server: Server, image: Path) -> None:
    refused = run(server, "predict", "asked", str(image), "--text", "one")

    assert refused.exit_code == 2
    assert "give one of them" in refused.stderr


def test_a_text_cannot_be_drawn_but_saved(server: Server, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = {"text": "word", "tokens": 1.0}

    done = run(server, "predict", "asked", "--text", "one", "--draw", str(tmp_path / "x.png"))

    assert done.exit_code == 1
    assert "--out FOLDER saves its text" in done.stderr
