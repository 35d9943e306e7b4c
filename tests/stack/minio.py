"""A real MinIO on a free port of this machine, for tests and benchmarks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.stack.install import PartMissing
from tests.stack.ports import free_port

CACHE = Path(__file__).parents[2] / ".cache" / "bin"
# The last commit of the archived project: its release tags are no versions that Go's module proxies must keep.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
_START_SECONDS = 60.0
_BUILD_SECONDS = 1800.0
_STOP_SECONDS = 10.0


class MinioUnavailable(PartMissing):
    """There is no MinIO here and none can be built; the message says what to install."""


@dataclass(slots=True)
class MinioServer:
    """One server process; it keeps its address and data over `stop` and `start`."""

    binary: Path
    directory: Path
    endpoint: str
    """`host:port`; plain http."""
    access_key: str = "trainyard-test"
    secret_key: str = "trainyard-test-secret"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the server and return once it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
        }
        command = [self.binary, "server", "--quiet", "--address", self.endpoint, self.directory / "data"]
        with (self.directory / "minio.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        self._wait()

    def stop(self) -> None:
        """End the server; what was acknowledged stays on disk."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.endpoint}/minio/health/ready", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.stop()
        said = (self.directory / "minio.log").read_text(errors="replace")[-2000:]
        raise MinioUnavailable(f"MinIO did not become ready within {_START_SECONDS:.0f} s:\n{said}")


@contextmanager
def minio_server(directory: Path) -> Iterator[MinioServer]:
    """Run a MinIO whose data lies under `directory` for as long as the context lasts."""
    server = MinioServer(minio_binary(), directory, f"127.0.0.1:{free_port()}")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def minio_binary() -> Path:
    """Return a MinIO from PATH, Go's folder or the cache, or build it once into the cache."""
    known = [shutil.which("minio"), Path.home() / "go" / "bin" / "minio", CACHE / "minio"]
    found = next((Path(path) for path in known if path is not None and Path(path).is_file()), None)
    return found or _build()


def _build() -> Path:
    go = shutil.which("go")
    if go is None:
        raise MinioUnavailable("no `minio` on PATH and no Go to build it with: install either of them")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "minio.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / "minio").is_file():
            # Built elsewhere and renamed: a build that is cut short leaves nothing that looks like a binary.
            fresh = CACHE / "building"
            env = {**os.environ, "GOBIN": str(fresh), "GOFLAGS": "-buildvcs=false"}
            built = subprocess.run(
                [go, "install", MODULE], env=env, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
            )
            if built.returncode:
                raise MinioUnavailable(f"`go install {MODULE}` failed:\n{built.stderr[-2000:]}")
            (fresh / "minio").replace(CACHE / "minio")
    return CACHE / "minio"
