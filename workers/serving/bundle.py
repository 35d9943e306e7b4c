"""Opens a bundle directory, or an archive unpacked, as a handler with its network in the stored form.

A bundle is what training leaves: `bundle.json`, `weights.safetensors`, `golden/`. An archive adds
`serving.json` and the exported network. Servers, the parity gate and tests all come through here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from services.core.errors import PlatformError
from services.core.target import AUTO, ServingTarget
from workers.engine.processor import instruction_sets
from workers.families.base import Golden, Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.catalog import CATALOG, Entry
from workers.serving.envelope import parse_request
from workers.serving.form import (
    MEMORY_FORMATS,
    Form,
    load_eager,
    load_stored,
    memory_format_of,
    prepare,
)

log = structlog.get_logger()

SERVING_FILE = "serving.json"
NETWORK_FILE = "model.pt2"
FORMAT_VERSION = 1


class BundleInvalid(PlatformError):
    """The bundle cannot be opened."""

    reason = "BUNDLE_INVALID"


class ThreadsMismatch(PlatformError):
    """The process has another thread count than the network was built for."""

    reason = "THREADS_MISMATCH"


@dataclass(frozen=True, slots=True)
class ServingRecord:
    """What `serving.json` says of the stored network and of the host it was built on."""

    form: Form = Form.EAGER
    target: ServingTarget = field(default_factory=ServingTarget)
    instruction_sets: tuple[str, ...] = ()
    torch: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Mapping[str, Any], ...] = ()
    memory_format: str = ""
    """How a stored network wants its images; empty in archives that do not say, whose network is asked."""
    smoke: Mapping[str, Any] = field(default_factory=dict)
    """A member of the archive and this form's answer to it, for whoever tries the archive over the wire."""

    def to_json(self) -> bytes:
        document = {"format_version": FORMAT_VERSION, **asdict(self)}
        # Servers of before it was known refuse archives that name it, and it says nothing to others.
        if self.target.precision == AUTO:
            del document["target"]["precision"]
        return json.dumps(document, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ServingRecord:
        document = json.loads(data)
        if document.pop("format_version") != FORMAT_VERSION:
            raise BundleInvalid("the archive has a format this server does not know: build it again")
        document |= {
            "form": Form(document["form"]),
            "target": ServingTarget(**document["target"]),
            "instruction_sets": tuple(document["instruction_sets"]),
            "candidates": tuple(document["candidates"]),
        }
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A bundle without its network, which a stored form brings itself."""

    recipe: str
    handler: Handler
    golden: Golden


@dataclass(frozen=True, slots=True)
class Parts:
    """A bundle read but not yet running: everything but the choice of a form."""

    recipe: str
    handler: Handler
    module: nn.Module
    golden: Golden

    @property
    def spec(self) -> ServingSpec:
        return self.handler.spec


@dataclass(frozen=True, slots=True)
class Served:
    """A network ready to answer, in the form really loaded."""

    recipe: str
    model: Mapping[str, Any]
    form: Form
    handler: Handler
    network: Network
    golden: Golden

    def check(self, *, count: int = 2) -> None:
        """Answer the first golden inputs, which also warms up, and refuse to serve wrong answers.

        Raises:
            BundleInvalid: an answer differs from the trainer's by more than the family allows.
        """
        expected = self.golden.answers[:count]
        actual = self.handler.predict(golden_instances(self.golden)[:count], self.network)
        for number, (want, got) in enumerate(zip(expected, actual, strict=True)):
            report = ParityReport({}, False) if isinstance(got, InstanceInvalid) else self.handler.compare(want, got)
            if not report.passed:
                raise BundleInvalid(f"golden input {number} gets a wrong answer here: {dict(report.differences)}")


def golden_instances(golden: Golden) -> list[Instance]:
    """Return the golden inputs as a server reads them: encoded bytes, or an envelope of one instance."""
    found = [instance for body in golden.inputs for instance in parse_request(body).instances]
    return [one for one in found if isinstance(one, Instance)]


def read_parts(directory: Path, *, catalog: Mapping[str, Entry] = CATALOG) -> Parts:
    """Read a bundle: its handler, its network with weights, and its golden inputs and answers.

    Raises:
        BundleInvalid: a file is missing or malformed, or the recipe is unknown here.
    """
    around = read_surroundings(directory, catalog=catalog)
    module = _read_module(directory, around.handler.spec, catalog)
    return Parts(around.recipe, around.handler, module, around.golden)


def _read_module(directory: Path, spec: ServingSpec, catalog: Mapping[str, Entry]) -> nn.Module:
    with _bundle_errors():
        bundle = json.loads((directory / "bundle.json").read_bytes())
        entry = catalog[bundle["recipe"]]
        config = entry.load_config().restore(bundle["config"])
        module = entry.load_recipe().load_serving_module(config, spec)
        module.load_state_dict(load_file(directory / "weights.safetensors"))
    return module.eval()


def read_surroundings(directory: Path, *, catalog: Mapping[str, Entry] = CATALOG) -> Surroundings:
    """Read all of a bundle but its network, and import none of what only training needs.

    Raises:
        BundleInvalid: a file is missing or malformed, or the recipe is unknown here.
    """
    with _bundle_errors():
        bundle = json.loads((directory / "bundle.json").read_bytes())
        constants = bundle["spec"]
        spec = ServingSpec(tuple(constants["input_shape"]), constants["constants"])
        handler = catalog[bundle["recipe"]].load_handler()(spec)
        return Surroundings(bundle["recipe"], handler, read_golden(directory))


@contextmanager
def _bundle_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as err:
        # One line: TorchServe's log is read line by line.
        raise BundleInvalid(f"the bundle cannot be read: {type(err).__name__}: {' '.join(str(err).split())}") from err


def read_golden(directory: Path) -> Golden:
    """Read `golden/`: encoded inputs in the order of their file names, and the trainer's answers to them."""
    answers = json.loads((directory / "golden" / "answers.json").read_bytes())
    inputs = golden_files(directory)
    if len(inputs) != len(answers):
        raise ValueError(f"{len(inputs)} golden inputs but {len(answers)} answers")
    return Golden(tuple(path.read_bytes() for path in inputs), tuple(answers))


def golden_files(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / "golden").iterdir() if path.suffix != ".json")


def read_record(directory: Path) -> ServingRecord:
    """Read `serving.json`; a plain bundle without one is served eagerly."""
    path = directory / SERVING_FILE
    return ServingRecord.from_json(path.read_bytes()) if path.exists() else ServingRecord()


def open_bundle(directory: Path, *, catalog: Mapping[str, Entry] = CATALOG) -> Served:
    """Open a bundle or an unpacked archive for serving, in its stored form where this host can run it.

    The caller sets the process's threads first (`read_record(...).target.threads`).

    Raises:
        BundleInvalid: the bundle cannot be read.
        ThreadsMismatch: a compiled network ran up to 13 times slower on another thread count than its own.
    """
    record = read_record(directory)
    if record.form.is_native and torch.get_num_threads() != record.target.threads:
        raise ThreadsMismatch(
            f"the network was built for {record.target.threads} threads, this process has {torch.get_num_threads()}"
        )
    form = _runnable_form(record)
    device = torch.device(record.target.device)
    if form is not Form.EAGER and record.memory_format:
        around = read_surroundings(directory, catalog=catalog)
        memory_format = MEMORY_FORMATS[record.memory_format]
        network = load_stored(form, directory / NETWORK_FILE, memory_format=memory_format, device=device)
        around.handler.load_eager = _eager_loader(
            directory, around.handler.spec, catalog=catalog, memory_format=memory_format, device=device
        )
        return Served(around.recipe, record.model, form, around.handler, network, around.golden)
    parts = read_parts(directory, catalog=catalog)
    memory_format = memory_format_of(parts.module, parts.spec.input_shape)
    if form is Form.EAGER:
        network = load_eager(parts.module, memory_format=memory_format, device=device)
        parts.handler.load_eager = lambda: parts.module
    else:
        network = load_stored(form, directory / NETWORK_FILE, memory_format=memory_format, device=device)
        parts.handler.load_eager = _eager_loader(
            directory, parts.spec, catalog=catalog, memory_format=memory_format, device=device
        )
    return Served(parts.recipe, record.model, form, parts.handler, network, parts.golden)


def _eager_loader(
    directory: Path,
    spec: ServingSpec,
    *,
    catalog: Mapping[str, Entry],
    memory_format: torch.memory_format,
    device: torch.device,
) -> Callable[[], nn.Module]:
    """Return what loads the weights beside a stored form into modules, the first time it is called."""

    @cache
    def load() -> nn.Module:
        # Requests are answered in inference mode, and weights that are born in it have no gradients.
        with torch.inference_mode(False):
            return prepare(_read_module(directory, spec, catalog), memory_format=memory_format, device=device)

    return load


def _runnable_form(record: ServingRecord) -> Form:
    missing = set(record.instruction_sets) - set(instruction_sets())
    if record.form.is_native and (missing or record.torch != torch.__version__):
        # Machine code with unknown instructions ends the process, so it must not even be loaded.
        log.warning("native_form_unusable", missing=sorted(missing), built_with=record.torch, here=torch.__version__)
        return Form.EAGER
    return record.form
