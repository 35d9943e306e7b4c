"""`trainyard deploy`, `deployments show` and `predict`, against an endpoint that answers as a family does."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from services.client.cli import main
from tests.builders.galleries import deployed, report, trained
from tests.integration.client.conftest import Server

LABELS = {"labels": [{"score": 0.9, "label": "seven", "label_id": 7}, {"label_id": 1, "score": 0.05, "label": "one"}]}


class Endpoint(ThreadingHTTPServer):
    """Answers each instance with `answer`; tests set it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answer: dict[str, Any] = {}
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
        content = json.dumps({"predictions": [self.server.answer] * count, "model": model}).encode()
        self.send_response(200)
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


def run(server: Server, *arguments: str) -> Result:
    runner = CliRunner(env={"TRAINYARD_TOKEN": server.token})
    return runner.invoke(main, [*arguments, "--server", server.address])


def picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(buffer, "PNG")
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
    assert "leave out --draw" in people.stderr
    assert json.loads(machine.stdout)["predictions"][0]["result"] == LABELS
    assert not (tmp_path / "out.png").exists()


def test_all_samples_of_an_answer_are_drawn_on_one_sheet(server: Server, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = {"images": [encoded(40 * number) for number in range(1, 7)], "seeds": [0, 1, 2, 3, 4, 5]}

    result = run(server, "predict", "asked", "--param", "n=6", "--draw", str(tmp_path / "s.png"))

    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "s.png") as page:
        assert [page.getpixel((x, y)) for y in (4, 14) for x in (4, 14, 24)] == [
            (40 * number, 0, 0) for number in range(1, 7)
        ]


def test_drawings_of_many_images_go_beside_the_file_that_was_named(
    server: Server, endpoint: Endpoint, image: Path, tmp_path: Path
) -> None:
    endpoint.answer = {"overlay": encoded(7)}

    result = run(server, "predict", "asked", str(image), str(image), "--draw", str(tmp_path / "one.png"))

    assert result.exit_code == 0, result.output
    assert (tmp_path / "one-1.png").read_bytes() == (tmp_path / "one-2.png").read_bytes() == picture(7)
    assert not (tmp_path / "one.png").exists()
    assert f"drawn in {tmp_path / 'one-2.png'}" in result.stdout
