"""The export child's work with the real compiler: a package that passes the gate and needs nothing of its builder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from services.agent.archive_check import check_archive
from services.core.target import ServingTarget
from tests.builders.classification_bundle import write_classification_bundle
from tests.builders.detection_bundle import write_detection_bundle
from tests.builders.toy_serving import CATALOG as TOYS
from tests.builders.toy_serving import SIDE, write_toy_bundle
from tests.stack.install import find_program, required_parts
from workers.engine.frames import Frame, FrameKind, FrameReader, FrameWriter
from workers.engine.processor import has_fast_int8
from workers.families.catalog import CATALOG
from workers.serving.build import BuildPlan, build, build_archive
from workers.serving.bundle import golden_instances, open_bundle, read_parts
from workers.serving.export import Exporter
from workers.serving.form import Form

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def compiler() -> Path:
    with required_parts():
        return find_program("g++", package="g++")


@pytest.fixture(scope="module")
def built(compiler: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Frame], Path]:
    """Build as the child does, then leave only the archive, unpacked somewhere else."""
    work = tmp_path_factory.mktemp("build")
    plan = {
        "bundle_dir": str(write_detection_bundle(work / "bundle")),
        "out_path": str(work / "archive.mar"),
        "target": {"device": "cpu", "threads": torch.get_num_threads()},
        "model": {"name": "digits", "version": 1},
        "forms": ["aoti_bf16", "aoti_fp32"],
    }
    read_fd, write_fd = os.pipe()
    build_archive(plan, FrameWriter(write_fd))
    os.close(write_fd)
    reader = FrameReader(read_fd)
    frames: list[Frame] = []
    while not reader.is_closed:
        frames += reader.read(timeout_seconds=5)
    os.close(read_fd)
    check_archive(work / "archive.mar")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(work / "archive.mar") as archive:
        archive.extractall(elsewhere)
    shutil.rmtree(work)
    return frames, elsewhere


def test_the_final_frame_tells_the_form_and_why_not_another(built):
    frames, _ = built
    final = frames[-1]

    assert final.kind is FrameKind.FINAL
    assert final.fields["form"] in ("aoti_bf16", "aoti_fp32")
    assert final.fields["parity"]["scores"] <= 0.05
    assert all("milliseconds" in line or line["reason"] for line in final.fields["candidates"])
    assert {line["form"] for line in final.fields["candidates"]} == {"aoti_bf16", "aoti_fp32"}


def test_the_package_answers_without_its_build_directory(built):
    _, directory = built

    served = open_bundle(directory)

    assert served.form.is_native
    served.check(count=3)


def test_a_batch_is_answered_like_single_instances(built):
    _, directory = built
    served = open_bundle(directory, catalog=CATALOG)
    instances = golden_instances(served.golden)

    together = served.handler.predict(instances, served.network)

    assert together == [served.handler.predict([one], served.network)[0] for one in instances]


def test_the_package_holds_weights_as_its_kernels_read_them(built):
    _, directory = built

    loader = torch._C._aoti.AOTIModelPackageLoader(str(directory / "model.pt2"), "model", False, 1, -1)

    names = loader.get_constant_fqns()
    # A bias that is added as it is keeps its name.
    assert [name for name in names if name.startswith("_frozen_param")]
    assert [name for name in names if name.endswith("weight")] == []


def test_the_package_puts_its_weights_at_the_start_of_a_cache_line(built):
    _, directory = built

    with zipfile.ZipFile(directory / "model.pt2") as package:
        (library,) = [package.read(name) for name in package.namelist() if name.endswith(".so")]

    assert b"\0aligned_alloc\0" in library
    assert b"\0malloc\0" not in library


_CHECK = """
import sys
from pathlib import Path

import torch

from workers.serving.bundle import open_bundle

torch.set_num_threads(1)
served = open_bundle(Path(sys.argv[1]))
served.check(count=8)
assert not any(name.startswith("torchao") for name in sys.modules)
print(served.form)
"""


def test_an_int8_package_answers_like_the_trainer_without_what_it_was_quantised_with(compiler, tmp_path):
    bundle = write_classification_bundle(tmp_path / "bundle", recipe="classification/train", count=8)
    forms = (Form.AOTI_INT8, Form.EAGER)
    plan = BuildPlan(bundle, tmp_path / "archive.mar", ServingTarget(precision="int8"), {}, forms)
    with open(os.devnull, "wb") as sink:
        choice = build(plan, FrameWriter(sink.fileno())).choice
    with zipfile.ZipFile(tmp_path / "archive.mar") as archive:
        archive.extractall(tmp_path / "served")

    (line,) = [line for line in choice.record if line["form"] == "aoti_int8"]
    if has_fast_int8():
        assert 0 < line["differences"]["scores"] <= 0.02
    else:
        assert line["reason"] == "int8 is for x86 processors with AVX2"
    command = [sys.executable, "-c", _CHECK, str(tmp_path / "served")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == [
        "aoti_int8" if has_fast_int8() else "eager"
    ]


class Redrawn(nn.Module):
    """Names a colour as the toy does, behind an up-sampling of equal widths whose norm has seen data."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.up = nn.Conv2d(3, 32, 1), nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1, bias=False)
        self.norm, self.name = nn.BatchNorm2d(32), nn.Conv2d(32, 3, 1)
        nn.init.uniform_(self.norm.weight, 0.2, 3.0)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.name(torch.relu(self.norm(self.up(torch.relu(self.lift(x)))))).amax((2, 3))


def test_a_package_scales_the_right_channels_of_a_transposed_convolution(compiler, tmp_path):
    torch.manual_seed(0)
    toy = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=TOYS)
    parts = replace(toy, module=Redrawn().eval().requires_grad_(False))
    x = torch.randn(1, 3, SIDE, SIDE)

    candidates, _ = Exporter(parts, ServingTarget(precision="fp32"), tmp_path).build((Form.AOTI_FP32, Form.EAGER))

    compiled, eager = (candidate.network(x) for candidate in candidates)
    assert isinstance(eager, Tensor)
    assert (compiled - eager).abs().max() <= 1e-4 * eager.abs().max()


class Heavy(nn.Module):
    """Names a colour as the toy does, behind convolutions that minimal filtering is for."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.mix = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1)
        self.norm, self.name = nn.BatchNorm2d(64), nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.name(torch.relu(self.norm(self.mix(self.lift(x))))).mean((2, 3))


def test_a_package_by_minimal_filtering_answers_batches_like_the_eager_network(compiler, tmp_path):
    torch.manual_seed(0)
    toy = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=TOYS)
    parts = replace(toy, module=Heavy().eval().requires_grad_(False))
    x = torch.randn(2, 3, SIDE, SIDE)

    candidates, _ = Exporter(parts, ServingTarget(precision="fp32"), tmp_path).build((Form.AOTI_WINOGRAD, Form.EAGER))

    filtered, eager = (candidate.network(x) for candidate in candidates)
    torch.testing.assert_close(filtered, eager, atol=1e-5, rtol=1e-5)
    assert [candidate.form for candidate in candidates] == [Form.AOTI_WINOGRAD, Form.EAGER]
