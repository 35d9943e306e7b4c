"""`/metrics` and `/readyz` on one port: whether TorchServe answers is asked at the moment somebody wants to know.

TorchServe's own health check wants a token that no prober has, so the agent asks in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

PATH = "/readyz"
_PLAIN = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store"))

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def serve(host: str, port: int, is_ready: Callable[[], bool]) -> WSGIServer:
    """Answer on a thread of its own until `shutdown` of what is returned."""
    server = make_server(host, port, make_app(is_ready), ThreadingWSGIServer, handler_class=_Silent)
    threading.Thread(target=server.serve_forever, name="readiness", daemon=True).start()
    return server


def make_app(is_ready: Callable[[], bool]) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """Return the WSGI application: 200 or 503 at `/readyz`, the process's metrics elsewhere."""
    metrics = make_wsgi_app()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        ready = is_ready()
        start_response("200 OK" if ready else "503 Service Unavailable", list(_PLAIN))
        return [b"ready\n" if ready else b"TorchServe does not answer\n"]

    return app


class _Silent(WSGIRequestHandler):
    """A probe every few seconds is not worth a line."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        del format, args
