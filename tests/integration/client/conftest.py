"""A real API server in this process, over SQLite and local files, and a little dataset to feed it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from PIL import Image

from services.api.compose import Api
from services.client.cli import main
from services.client.sdk import Trainyard
from services.core.settings import Settings
from services.db.database import Database
from services.storage.open import open_store
from tests.stack.identity import admit

Run = Callable[..., Result]


@dataclass(slots=True)
class Server:
    """One API server on a thread of its own; `stop` and `start` again keep address and data."""

    settings: Settings
    database: Database
    port: int = 0
    token: str = ""
    """An administrator's of the default project."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _stopping: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(is_up)))
        self._thread.start()
        assert is_up.wait(20)

    def stop(self) -> None:
        assert self._stopping is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def close(self) -> None:
        self.stop()
        self._loop.close()
        self.database.dispose()

    async def _serve(self, is_up: threading.Event) -> None:
        self._stopping = asyncio.Event()
        api = Api(self.settings, self.database, open_store(self.settings))
        self.port = await api.start("127.0.0.1", self.port)
        is_up.set()
        await self._stopping.wait()
        await api.stop(grace_seconds=0.2)


@pytest.fixture(scope="module")
def quiet_log() -> Iterator[None]:
    """Keep the server's log out of the output that a test reads."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def server(quiet_log: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = Settings(state_dir=tmp_path_factory.mktemp("state"))
    database = Database(settings.resolved_database_url)
    database.migrate()
    running = Server(settings, database)
    running.token = admit(database)
    running.start()
    yield running
    running.close()


@pytest.fixture
def client(server: Server) -> Iterator[Trainyard]:
    with Trainyard(server.address, token=server.token) as made:
        yield made


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a COCO folder of four small pictures with one box each."""
    folder = tmp_path_factory.mktemp("coco") / "squares"
    for split, count in (("train", 3), ("val", 1)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            name = f"{split}-{number}.png"
            picture = Image.new("RGB", (64, 64), (40 * number, 90, 200 if split == "val" else 10))
            picture.paste((255, 255, 255), (8, 8, 40, 40))
            picture.save(folder / "images" / split / name)
            images.append({"id": number, "file_name": name, "width": 64, "height": 64})
            annotations.append(
                {"id": number, "image_id": number, "category_id": 7, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
            )
        document = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "square"}]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TRAINYARD_SERVER", server.address)
    monkeypatch.setenv("TRAINYARD_TOKEN", server.token)

    def call(*arguments: str) -> Result:
        result = CliRunner().invoke(main, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
