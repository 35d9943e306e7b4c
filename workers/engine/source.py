"""Reads what a job starts from: a bundle, a checkpoint, uploaded weights, or a file that torchvision publishes."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from services.core.errors import IntegrityError, RequestInvalid, Violation
from workers.engine import state
from workers.engine.plan import SourcePlan
from workers.engine.tensorfile import read_tensors
from workers.families.base import Source
from workers.families.config import TORCHVISION, Origin

_FILE = "weights.safetensors"
"""Of a bundle, and of a dataset of weights."""
_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.")


Download = Callable[[str, Path], None]
"""Puts what an address holds into a file."""


def fetch(url: str, path: Path) -> None:
    """Download a file whose name ends in the first characters of its sha256."""
    torch.hub.download_url_to_file(url, str(path), hash_prefix=_digest(path.name), progress=False)


def read_source(plan: SourcePlan, *, cache_dir: Path, download: Download = fetch) -> Source:
    """Return the weights on the host.

    Raises:
        RequestInvalid: torchvision publishes no such weights, or they cannot be had here.
        IntegrityError: a file is damaged.
    """
    origin = Origin(plan.name, plan.kind, plan.recipe, plan.config)
    if plan.kind == "model":
        return _bundle(origin, plan.directory)
    if plan.kind == "weights":
        return Source(origin, read_tensors(plan.directory / _FILE))
    if plan.kind == "checkpoint":
        stored = state.read(plan.directory).files
        # What serves is the average, where there is one.
        return Source(origin, {**stored[state.MODEL], **stored.get(state.EMA, {})})
    name = plan.name.removeprefix(f"{TORCHVISION}:")
    url = _weights(name).url
    path = next(plan.directory.iterdir(), None) if plan.directory.is_dir() else None
    if path is None:
        path = _downloaded(url, cache_dir / "weights", download, name=name)
    return Source(origin, read_published(path, url.rpartition("/")[2]))


def read_published(path: Path, file: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file that was published as `file`, whose name ends in the start of its sha256.

    Raises:
        IntegrityError: it is another file.
    """
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(_digest(file) or "?"):
        raise IntegrityError(f"{path.name} is not what was published as {file}: its sha256 begins with {found[:8]}")
    # torchvision publishes no safetensors. With weights_only nothing but tensors is built, and no code runs.
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _bundle(origin: Origin, directory: Path) -> Source:
    try:
        document = json.loads((directory / "bundle.json").read_bytes())
        constants = dict(document["spec"]["constants"])
    except (OSError, ValueError, KeyError) as err:
        raise IntegrityError(f"the bundle of {origin.name} cannot be read: {err}") from err
    return Source(origin, read_tensors(directory / _FILE), constants)


def _weights(name: str) -> Any:
    try:
        return torchvision.models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as err:
        known = [
            str(one)
            for model in torchvision.models.list_models(torchvision.models)
            for one in torchvision.models.get_model_weights(model)
        ]
        close = " or ".join(difflib.get_close_matches(name, known, n=3)) or "see its documentation"
        text = f"torchvision publishes no weights {name!r}; close names: {close}"
        raise RequestInvalid(violations=[Violation("init_from", text)]) from err


def _downloaded(url: str, cache: Path, download: Download, *, name: str) -> Path:
    file = url.rpartition("/")[2]
    path = cache / file
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    try:
        download(url, path)
    except (URLError, ConnectionError, TimeoutError) as err:
        text = (
            f"the weights {name} cannot be downloaded from their publisher ({err}); where workers cannot reach it,"
            f" put {file} into the object store as weights/{TORCHVISION}/{name}"
        )
        raise RequestInvalid(violations=[Violation("init_from", text)]) from err
    return path


def _digest(file: str) -> str | None:
    match = _DIGEST.search(file)
    return match[1] if match else None
