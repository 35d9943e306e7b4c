"""Turns a bundle's network into every form this host can build, each with the reason where it cannot.

Packages are built with the thread count they will be served with, and hold the weights: nothing in them
points back to the machine that built them.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from torch import Tensor, nn

from services.core.target import FP32, INT8, ServingTarget
from workers.engine.processor import has_fast_bf16, has_fast_int8, is_int8_saturating
from workers.families.base import Network
from workers.serving import quantisation, winograd
from workers.serving.alignment import aligning_environment
from workers.serving.bundle import Parts, golden_instances
from workers.serving.flops import flops_of
from workers.serving.form import (
    Form,
    LowPrecision,
    load_eager,
    load_stored,
    memory_format_of,
    prepare,
)
from workers.serving.norms import with_folded_norms

log = structlog.get_logger()

_REASON_CHARACTERS = 300
_LEAST_GOLDEN = 4
_COMPILER = {
    # Their directory is fixed before ours can be named, below the machine's own for temporary files.
    "aot_inductor.precompile_headers": False,
    # The processor says what it has; to compile a program that tries it takes a fifth of a build.
    "cpp.vec_isa_ok": True,
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form of the network, loaded; `path` is its file, None for eager weights."""

    form: Form
    network: Network
    path: Path | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A form that will not be served, and why."""

    form: Form
    reason: str


class FormUnavailable(Exception):
    """The form cannot be built on this host; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Exporter:
    """Builds forms of one network for one target, into `directory`."""

    parts: Parts
    target: ServingTarget
    directory: Path

    def build(
        self, forms: tuple[Form, ...], *, on_start: Callable[[Form], None] = lambda form: None
    ) -> tuple[list[Candidate], list[Rejection]]:
        """Build each form, telling `on_start` first; a form that fails is rejected with its reason."""
        candidates: list[Candidate] = []
        rejections: list[Rejection] = []
        for form in forms:
            on_start(form)
            try:
                candidates.append(self._build(form))
            # An exporter can fail in any way on a network it does not know; eager weights always remain.
            except Exception as err:  # noqa: BLE001
                reason = f"{err}" if isinstance(err, FormUnavailable) else f"{type(err).__name__}: {err}"
                log.info("form_unavailable", form=form, reason=reason[:_REASON_CHARACTERS])
                rejections.append(Rejection(form, reason[:_REASON_CHARACTERS]))
        return candidates, rejections

    def _build(self, form: Form) -> Candidate:
        if form is Form.EAGER:
            module = copy.deepcopy(self.parts.module)
            network = load_eager(module, memory_format=self._memory_format, device=self._device)
            return Candidate(form, network, None)
        path = self.directory / f"{form}.pt2"
        self._require(form)
        program = self._program(self._computing(form))
        if form is Form.EXPORT:
            torch.export.save(program, path)
        else:
            self._compile(program, path)
        network = load_stored(form, path, memory_format=self._memory_format, device=self._device)
        return Candidate(form, network, path)

    def _compile(self, program: torch.export.ExportedProgram, path: Path) -> None:
        from torch._inductor import config as inductor

        # Nothing stays behind: neither a pool of compilers nor a cache in a directory others can guess.
        variables = {
            "TORCHINDUCTOR_CACHE_DIR": str(self.directory / "compiler"),
            **aligning_environment(self.directory),
        }
        options = {"freezing": self._device.type == "cpu", **_COMPILER}
        # Where gradients are enabled, inductor leaves freezing out without a word.
        with torch.no_grad(), inductor.patch(compile_threads=1), _environment(variables):
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)

    def _require(self, form: Form) -> None:
        if self.parts.handler.is_any_size:
            raise FormUnavailable("the network is asked about inputs of any size, and stored forms are of one")
        if form.is_rounded and self.target.precision == FP32:
            raise FormUnavailable("the platform is set to serve in fp32 alone")
        if form.is_native and shutil.which("g++") is None:
            raise FormUnavailable("no C++ compiler (g++) on this host")
        if form is Form.AOTI_BF16 and self._device.type == "cpu" and not has_fast_bf16():
            raise FormUnavailable("this processor has no bf16 instructions")
        if form is Form.AOTI_INT8:
            self._require_int8()
        if form is Form.AOTI_WINOGRAD:
            self._require_winograd()

    def _require_int8(self) -> None:
        if self.target.precision != INT8:
            raise FormUnavailable("the platform is not set to serve in int8")
        if self._device.type != "cpu":
            raise FormUnavailable("int8 is for processors, not for GPUs")
        if not has_fast_int8():
            raise FormUnavailable("int8 is for x86 processors with AVX2")
        if len(self.parts.golden.inputs) < _LEAST_GOLDEN:
            raise FormUnavailable(f"fewer than {_LEAST_GOLDEN} golden inputs to calibrate int8 with, and to judge it")
        if flops_of(self.parts.module, self._example) < quantisation.LEAST_FLOPS:
            raise FormUnavailable("the network is too small for int8 to pay")

    def _require_winograd(self) -> None:
        if self._device.type != "cpu":
            raise FormUnavailable("minimal filtering is for processors, not for GPUs")
        if has_fast_bf16() and self.target.precision != FP32:
            raise FormUnavailable("this processor has bf16 instructions, which are faster than minimal filtering")
        if flops_of(self.parts.module, self._example) < winograd.LEAST_FLOPS:
            raise FormUnavailable("the network is too small for minimal filtering to pay")

    def _computing(self, form: Form) -> nn.Module:
        """Return a copy of the network that computes as the form does."""
        module = copy.deepcopy(self.parts.module)
        if form is Form.AOTI_BF16:
            module = LowPrecision(module)
        prepared = prepare(module, memory_format=self._memory_format, device=self._device)
        if form.is_native:
            prepared = with_folded_norms(prepared, self._example)
        if form is Form.AOTI_INT8:
            calibration = self._calibration(prepared)
            return quantisation.quantise(prepared, calibration, is_saturating=is_int8_saturating())
        return self._with_winograd(prepared) if form is Form.AOTI_WINOGRAD else prepared

    def _with_winograd(self, module: nn.Module) -> nn.Module:
        filtered, gain = winograd.with_winograd(module, self._example)
        if gain < winograd.LEAST_GAIN:
            raise FormUnavailable(f"minimal filtering would gain {gain - 1:.0%} at most")
        return filtered

    def _calibration(self, module: nn.Module) -> list[Tensor]:
        """Return what the network gets for every other golden input; the gate asks the rest, too."""
        seen: list[Tensor] = []

        def recording(x: Tensor) -> Tensor | tuple[Tensor, ...]:
            x = x.contiguous(memory_format=self._memory_format)
            seen.extend(torch.split(x, 1))
            outputs: Tensor | tuple[Tensor, ...] = module(x)
            return outputs

        self.parts.handler.predict(golden_instances(self.parts.golden)[::2], recording)
        return seen

    def _program(self, module: nn.Module) -> torch.export.ExportedProgram:
        with torch.no_grad():
            return torch.export.export(module, (self._example,))

    @property
    def _example(self) -> Tensor:
        example = torch.zeros(1, *self.parts.spec.input_shape, device=self._device)
        return example.contiguous(memory_format=self._memory_format)

    @property
    def _device(self) -> torch.device:
        return torch.device(self.target.device)

    @property
    def _memory_format(self) -> torch.memory_format:
        return memory_format_of(self.parts.module, self.parts.spec.input_shape)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
