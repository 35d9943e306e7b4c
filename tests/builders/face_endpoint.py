"""A serving process that answers embeddings, in the wire form of TorchServe with our handler.

Its network is real, if small: the picture's coarse light and dark, turned by a rotation that belongs to the
model version, so that pictures of one person are alike, and embeddings of two versions are not.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tests.builders.faces import Shot, draw_face, draw_person

THRESHOLD = 0.97
_SIDE = 8


class FaceEndpoint(ThreadingHTTPServer):
    """Answers as one model version; tests move it to another one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.model, self.version = "faces", 1
        self.asked = 0
        self.landmarks: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def embed(self, content: bytes) -> list[float] | None:
        try:
            picture = Image.open(io.BytesIO(content)).convert("L").resize((_SIDE, _SIDE))
        except UnidentifiedImageError:
            return None
        pixels = np.asarray(picture, np.float64).ravel()
        turn, _ = np.linalg.qr(np.random.default_rng(self.version).normal(size=(pixels.size, pixels.size)))
        vector = turn @ (pixels - pixels.mean())
        return list(vector / np.linalg.norm(vector))


class _Answering(BaseHTTPRequestHandler):
    server: FaceEndpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        pictures = [body]
        if body[:1] == b"{":
            instances = json.loads(body)["instances"]
            pictures = [base64.b64decode(one["image"]["b64"]) for one in instances]
            self.server.landmarks = [one.get("landmarks") for one in instances]
        answers = [self._answer(picture) for picture in pictures]
        if len(answers) == 1 and "error" in answers[0]:
            self._send(400, {"code": 400, "type": "BadRequest", "message": answers[0]["error"]})
        else:
            model = {"name": self.server.model, "version": self.server.version, "recipe": "face/triplet"}
            self._send(200, {"predictions": answers, "model": model})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, picture: bytes) -> dict[str, Any]:
        embedding = self.server.embed(picture)
        if embedding is None:
            return {"error": "the image cannot be decoded; send a JPEG or PNG"}
        return {"embedding": embedding, "dim": len(embedding), "threshold": THRESHOLD}

    def _send(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def face_endpoint() -> Iterator[FaceEndpoint]:
    server = FaceEndpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shots(person: int, count: int = 1, *, seed: int = 0) -> list[bytes]:
    """Return PNG pictures of one drawn person, a little different each."""
    one = draw_person(np.random.default_rng([17, person]))
    found = []
    for number in range(count):
        rng = np.random.default_rng([23, person, seed, number])
        shot = Shot(is_smiling=False, has_glasses=False, background=(110, 120, 130), noise=6.0)
        file = io.BytesIO()
        draw_face(one, shot, size=48, rng=rng).save(file, "PNG")
        found.append(file.getvalue())
    return found
