"""TorchServe's REST as the agent uses it: management with tokens, and one prediction to try a model out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from services.agent import config
from services.core.clock import Deadline
from services.core.errors import Code, EndpointUnavailable, PlatformError

_CONNECT_SECONDS = 2.0
_MANAGE_SECONDS = 60.0
_PING_SECONDS = 2.0
_WRITING_SECONDS = 1.0
_WRITING_POLL_SECONDS = 0.01
_PAGE_SIZE = 100
_SHARE_OF_LIFE = 0.5
# TorchServe answers 400 where others say 401.
_UNAUTHORISED = (400, 401, 403)


class TorchServeUnavailable(EndpointUnavailable):
    """TorchServe does not answer."""


class TorchServeRefused(PlatformError):
    """TorchServe refused a request."""

    code = Code.FAILED_PRECONDITION
    reason = "TORCHSERVE_REFUSED"

    def __init__(self, message: str | None = None, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token of TorchServe and when it ends."""

    value: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class Keys:
    """What TorchServe writes into key_file.json at every start and every rotation."""

    management: Token
    inference: Token
    api: str

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read the key file; wait a moment for one that TorchServe is writing, since it empties the file and fills it.

        Raises:
            TorchServeUnavailable: it is not there yet, or stays half written.
        """
        deadline = Deadline(_WRITING_SECONDS)
        while True:
            try:
                document = json.loads(path.read_bytes())
                return cls(_token(document["management"]), _token(document["inference"]), document["API"]["key"])
            except OSError as err:
                raise TorchServeUnavailable("TorchServe has not written its keys yet") from err
            except (ValueError, KeyError) as err:
                if deadline.is_over:
                    raise TorchServeUnavailable("TorchServe's keys are half written") from err
            time.sleep(_WRITING_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Worker:
    """One backend worker; `pid` is 0 until it has told it."""

    id: str
    pid: int
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version of a model; `file` is its name in the model store."""

    version: str
    file: str
    min_workers: int
    workers: tuple[Worker, ...]
    pending: int
    is_default: bool


class TorchServeClient:
    """Talks to one TorchServe. Keys are read again after every start and renewed at half their life."""

    def __init__(
        self, *, management_url: str, inference_url: str, key_file: Path, batch_size: int, startup_seconds: int
    ) -> None:
        self.batch_size = batch_size
        self._startup_seconds = startup_seconds
        self._key_file = key_file
        self._keys: tuple[int, Keys] | None = None
        timeout = httpx.Timeout(_MANAGE_SECONDS, connect=_CONNECT_SECONDS)
        self._management = httpx.Client(base_url=management_url, timeout=timeout, trust_env=False)
        self._inference = httpx.Client(base_url=inference_url, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._management.close()
        self._inference.close()

    def forget_keys(self) -> None:
        """Drop the keys: TorchServe started anew and will have written others."""
        self._keys = None

    @property
    def inference_token(self) -> Token:
        return self._known_keys().inference

    def renew_tokens(self, now: datetime) -> bool:
        """Rotate both tokens when half their life is over; the old ones end at once. Return whether it was due."""
        half = config.TOKEN_MINUTES * 60 * _SHARE_OF_LIFE
        tokens = (self._known_keys().management, self._known_keys().inference)
        if all(t.expire_time is None or (t.expire_time - now).total_seconds() > half for t in tokens):
            return False
        for kind in ("management", "inference"):
            response = self._send(
                self._management, "GET", "/token", params={"type": kind}, token=self._known_keys().api
            )
            self._check(response)
            self._keys = None
        return True

    def models(self) -> dict[str, tuple[Version, ...]]:
        """Return every registered version of every model, by model name."""
        return {name: self._versions(name) for name in self._names()}

    def register(self, file: str, *, name: str) -> None:
        """Register a file of the model store under `name`, without workers; one that is there already is fine."""
        params = {
            "url": file,
            "model_name": name,
            "initial_workers": 0,
            "batch_size": self.batch_size,
            "max_batch_delay": config.BATCH_DELAY_MILLISECONDS,
            "response_timeout": config.RESPONSE_SECONDS,
            "startup_timeout": self._startup_seconds,
        }
        response = self._manage("POST", "/models", params=params)
        if response.status_code != httpx.codes.CONFLICT:
            self._check(response)

    def scale(self, name: str, version: str, *, workers: int) -> None:
        """Ask for a number of workers; they start while the agent goes on, so one model cannot hold up another."""
        params = {"min_worker": workers, "max_worker": workers, "synchronous": "false"}
        self._check(self._manage("PUT", f"/models/{name}/{version}", params=params))

    def set_default(self, name: str, version: str) -> None:
        self._check(self._manage("PUT", f"/models/{name}/{version}/set-default"))

    def unregister(self, name: str, version: str) -> None:
        """Remove one version and its workers; the default only when it is the last."""
        self._check(self._manage("DELETE", f"/models/{name}/{version}"))

    def predict(self, name: str, version: str, body: bytes) -> Mapping[str, Any]:
        """Return the answer of one version to one raw input."""

        def send() -> httpx.Response:
            token = self.inference_token.value
            return self._send(self._inference, "POST", f"/predictions/{name}/{version}", content=body, token=token)

        document: Mapping[str, Any] = self._check(self._with_fresh_keys(send))
        return document

    def answers(self) -> bool:
        """Tell whether TorchServe answers its health check, with the token it asks for; one sick model is no matter."""

        def send() -> httpx.Response:
            token = self.inference_token.value
            return self._send(self._inference, "GET", "/ping", token=token, timeout=_PING_SECONDS)

        try:
            return self._with_fresh_keys(send).status_code not in _UNAUTHORISED
        except TorchServeUnavailable:
            return False

    def _names(self) -> Iterator[str]:
        after: int | None = 0
        while after is not None:
            page = self._check(self._manage("GET", "/models", params={"limit": _PAGE_SIZE, "next_page_token": after}))
            yield from (model["modelName"] for model in page["models"])
            after = int(page["nextPageToken"]) if page.get("nextPageToken") else None

    def _versions(self, name: str) -> tuple[Version, ...]:
        response = self._manage("GET", f"/models/{name}/all")
        if response.status_code == httpx.codes.NOT_FOUND:
            return ()
        default = self._check(self._manage("GET", f"/models/{name}"))[0]["modelVersion"]
        return tuple(_version(described, default) for described in self._check(response))

    def _manage(self, method: str, path: str, *, params: Mapping[str, Any] | None = None) -> httpx.Response:
        def send() -> httpx.Response:
            token = self._known_keys().management.value
            return self._send(self._management, method, path, params=params, token=token)

        return self._with_fresh_keys(send)

    def _with_fresh_keys(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        response = send()
        if response.status_code in _UNAUTHORISED and "Token Authorization" in response.text:
            # Another start of TorchServe, or another agent's rotation: the key file knows.
            self.forget_keys()
            response = send()
        return response

    def _send(self, client: httpx.Client, method: str, path: str, *, token: str, **arguments: Any) -> httpx.Response:
        try:
            return client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **arguments)
        except httpx.HTTPError as err:
            raise TorchServeUnavailable(f"TorchServe does not answer: {type(err).__name__}") from err

    def _known_keys(self) -> Keys:
        # Held in a name of its own: a prober's thread may ask while the agent's rotates.
        known, written = self._keys, _when_written(self._key_file)
        # Somebody else may rotate one token, and no call of ours be refused for it that would tell.
        if known is None or known[0] != written:
            known = self._keys = written, Keys.read(self._key_file)
        return known[1]

    @staticmethod
    def _check(response: httpx.Response) -> Any:
        if not response.is_success:
            raise TorchServeRefused(
                f"TorchServe answered {response.status_code}: {response.text[:500]}", status=response.status_code
            )
        # A rotated token is acknowledged by an empty line.
        return response.json() if response.content.strip() else None


def _when_written(path: Path) -> int:
    """Return when a file was last written, in nanoseconds; -1 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return -1


def _token(document: Mapping[str, str]) -> Token:
    return Token(document["key"], datetime.fromisoformat(document["expiration time"]).astimezone(UTC))


def _version(described: Mapping[str, Any], default: str) -> Version:
    workers = tuple(
        Worker(worker["id"], max(0, int(worker.get("pid", 0))), worker["status"] == "READY")
        for worker in described.get("workers", ())
    )
    queue = described.get("jobQueueStatus") or {}
    return Version(
        version=described["modelVersion"],
        file=described["modelUrl"],
        min_workers=described["minWorkers"],
        workers=workers,
        pending=int(queue.get("pendingRequests", 0)),
        is_default=described["modelVersion"] == default,
    )
