"""What TorchServe calls in a backend worker: the only file that knows TorchServe.

Each request keeps its own status, so that a bad one in a batch fails alone. gRPC has no status of single
predictions: a bad request alone in its batch becomes INVALID_ARGUMENT, otherwise its body is the error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
import torch
from ts.utils.util import PredictionException

from services.core.log import configure_logging
from workers import allocator
from workers.serving.answer import Answer, answer_batch
from workers.serving.bundle import Served, open_bundle, read_record

log = structlog.get_logger()


class TorchServeEntry:
    """One backend worker: opens the unpacked archive once, then answers batches."""

    def __init__(self) -> None:
        self._served: Served | None = None

    def initialize(self, context: Any) -> None:
        """Open the archive with its own thread count and check it on golden inputs.

        An exception here ends the worker, and its text reaches TorchServe's model log.
        """
        configure_logging()
        _quieten_torchserve()
        allocator.keep_freed_memory(allocator.SERVING_BYTES)
        directory = Path(context.system_properties["model_dir"])
        torch.set_num_threads(read_record(directory).target.threads)
        torch.set_num_interop_threads(1)
        served = open_bundle(directory)
        served.check()
        self._served = served
        log.info("bundle_opened", recipe=served.recipe, form=served.form, threads=torch.get_num_threads())

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer the requests of one batch in order; statuses go through the context."""
        if self._served is None:
            raise RuntimeError("TorchServe sent a request before initialize returned")
        answers = answer_batch(self._served, [_body(request) for request in data])
        if len(answers) == 1 and answers[0].status != HTTPStatus.OK and not _is_http(context):
            # gRPC learns of errors in no other way.
            raise PredictionException(answers[0].reason, answers[0].status)
        for index, answer in enumerate(answers):
            _report(context, index, answer)
        return [answer.body for answer in answers]


def _quieten_torchserve() -> None:
    """Keep TorchServe's own worker from writing several lines a request, which its frontend parses one by one.

    They were an eighth of a worker's time. What is lost is the gauge PredictionTime, the last request's alone;
    the frontend counts requests and their latencies itself.
    """
    logging.getLogger().setLevel(logging.WARNING)


def _body(request: Mapping[str, Any]) -> bytes | bytearray:
    """Return what the caller sent: REST names it body, multipart and gRPC data."""
    value = request.get("body", request.get("data", b""))
    return value.encode() if isinstance(value, str) else bytes(value)


def _is_http(context: Any) -> bool:
    """Return whether the first request has headers of its own, beside those TorchServe makes up for its parts."""
    return any(isinstance(value, str) for value in context.get_all_request_header(0).values())


def _report(context: Any, index: int, answer: Answer) -> None:
    context.set_response_content_type(index, "application/json")
    context.set_response_status(answer.status, HTTPStatus(answer.status).phrase, index)
