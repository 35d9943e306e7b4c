from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from services.core.target import ServingTarget
from tests.builders.toy_serving import CATALOG, ToyNetwork, write_toy_bundle
from workers.families.base import Golden
from workers.serving import export
from workers.serving.bundle import Parts, golden_instances, read_parts
from workers.serving.export import Exporter
from workers.serving.form import Form, LowPrecision, load_eager, memory_format_of

CPU = torch.device("cpu")


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((1, 2, 3)), x


def test_convolutions_over_images_are_channels_last_and_nothing_else_is():
    assert memory_format_of(ToyNetwork(4), (3, 8, 8)) is torch.channels_last
    assert memory_format_of(ToyNetwork(4), (8,)) is torch.contiguous_format
    assert memory_format_of(nn.Linear(4, 4), (3, 8, 8)) is torch.contiguous_format


def test_low_precision_answers_nearly_the_same_in_fp32():
    torch.manual_seed(0)
    network = ToyNetwork(4).eval()
    x = torch.randn(2, 3, 16, 16)
    exact = network(x)

    rough = LowPrecision(network)(x)

    assert rough.dtype is torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)


def test_a_network_of_several_outputs_keeps_them():
    network = load_eager(TwoOutputs(), memory_format=torch.contiguous_format, device=CPU)

    means, images = network(torch.ones(2, 3, 4, 4))

    assert means.shape == (2,)
    assert images.shape == (2, 3, 4, 4)


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_answers_batches_like_the_eager_network(tmp_path):
    parts = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=CATALOG)
    x = torch.randn(3, *parts.spec.input_shape)

    (exported, eager), _ = Exporter(parts, ServingTarget(), tmp_path).build((Form.EXPORT, Form.EAGER))

    torch.testing.assert_close(exported.network(x), eager.network(x))


def test_a_form_that_cannot_be_built_here_is_rejected_with_its_reason(tmp_path: Path, monkeypatch):
    parts = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=CATALOG)
    monkeypatch.setattr(export.shutil, "which", lambda name: None)

    candidates, rejections = Exporter(parts, ServingTarget(), tmp_path).build((Form.AOTI_FP32, Form.EAGER))

    assert [candidate.form for candidate in candidates] == [Form.EAGER]
    assert [(one.form, one.reason) for one in rejections] == [(Form.AOTI_FP32, "no C++ compiler (g++) on this host")]


def wide_parts(directory: Path) -> Parts:
    """Return a network that is large enough for int8 to pay, with four golden inputs."""
    return read_parts(write_toy_bundle(directory / "bundle", width=256), catalog=CATALOG)


def rejections_of(
    parts: Parts, directory: Path, forms: tuple[Form, ...], precision: str = "int8"
) -> list[tuple[Form, str]]:
    candidates, rejections = Exporter(parts, ServingTarget(precision=precision), directory).build(forms)
    assert candidates == []
    return [(one.form, one.reason) for one in rejections]


@pytest.fixture
def any_processor(monkeypatch):
    """One that has all instructions, and a compiler beside it."""
    monkeypatch.setattr(export, "has_fast_int8", lambda: True)
    monkeypatch.setattr(export, "has_fast_bf16", lambda: True)
    monkeypatch.setattr(export.shutil, "which", lambda name: name)


def test_int8_needs_instructions_for_it(tmp_path, monkeypatch, any_processor):
    monkeypatch.setattr(export, "has_fast_int8", lambda: False)

    rejections = rejections_of(wide_parts(tmp_path), tmp_path, (Form.AOTI_INT8,))

    assert rejections == [(Form.AOTI_INT8, "int8 is for x86 processors with AVX2")]


@pytest.mark.usefixtures("any_processor")
def test_int8_is_not_for_networks_that_are_quick_anyway(tmp_path):
    parts = read_parts(write_toy_bundle(tmp_path / "bundle"), catalog=CATALOG)

    rejections = rejections_of(parts, tmp_path, (Form.AOTI_INT8,))

    assert rejections == [(Form.AOTI_INT8, "the network is too small for int8 to pay")]


@pytest.mark.usefixtures("any_processor")
def test_int8_needs_inputs_to_calibrate_with_and_others_to_be_judged_by(tmp_path):
    parts = wide_parts(tmp_path)
    golden = Golden(parts.golden.inputs[:3], parts.golden.answers[:3])

    ((form, reason),) = rejections_of(replace(parts, golden=golden), tmp_path, (Form.AOTI_INT8,))

    assert form is Form.AOTI_INT8
    assert "fewer than 4 golden inputs" in reason


@pytest.mark.usefixtures("any_processor")
def test_int8_is_calibrated_with_every_other_golden_input(tmp_path, monkeypatch):
    parts = wide_parts(tmp_path)
    calibrations: list[list[Tensor]] = []
    every: list[Tensor] = []

    def calibrated(module: nn.Module, calibration: list[Tensor], **options: bool) -> nn.Module:
        calibrations.append(calibration)
        raise RuntimeError("enough is known")

    def recorded(x: Tensor) -> Tensor:
        every.append(x)
        return torch.zeros(len(x), 3)

    monkeypatch.setattr(export.quantisation, "quantise", calibrated)
    rejections_of(parts, tmp_path, (Form.AOTI_INT8,))
    parts.handler.predict(golden_instances(parts.golden), recorded)

    ((first, third),) = calibrations
    assert torch.equal(torch.cat([first, third]), every[0][[0, 2]])


@pytest.mark.usefixtures("any_processor")
def test_a_platform_that_serves_in_fp32_has_no_rounded_form(tmp_path):
    forms = (Form.AOTI_INT8, Form.AOTI_BF16)

    rejections = rejections_of(wide_parts(tmp_path), tmp_path, forms, precision="fp32")

    assert rejections == [(form, "the platform is set to serve in fp32 alone") for form in forms]


def with_network(parts: Parts, network: nn.Module) -> Parts:
    return replace(parts, module=network.eval().requires_grad_(False))


def test_minimal_filtering_is_not_built_where_bf16_is_faster(tmp_path, monkeypatch, any_processor):
    heavy = with_network(wide_parts(tmp_path), nn.Conv2d(3, 2048, 3, padding=1))
    forms = (Form.AOTI_WINOGRAD,)

    ((_, with_bf16),) = rejections_of(heavy, tmp_path, forms, precision="auto")
    ((_, in_fp32_alone),) = rejections_of(heavy, tmp_path, forms, precision="fp32")
    monkeypatch.setattr(export, "has_fast_bf16", lambda: False)
    ((_, without_bf16),) = rejections_of(heavy, tmp_path, forms, precision="auto")

    assert with_bf16 == "this processor has bf16 instructions, which are faster than minimal filtering"
    assert in_fp32_alone == without_bf16 == "minimal filtering would gain 0% at most"


@pytest.mark.usefixtures("any_processor")
def test_minimal_filtering_is_not_for_networks_that_are_quick_anyway(tmp_path):
    quick = with_network(wide_parts(tmp_path), nn.Conv2d(3, 64, 3, padding=1))

    rejections = rejections_of(quick, tmp_path, (Form.AOTI_WINOGRAD,), precision="fp32")

    assert rejections == [(Form.AOTI_WINOGRAD, "the network is too small for minimal filtering to pay")]


@pytest.mark.usefixtures("any_processor")
def test_int8_is_for_those_who_ask_for_it(tmp_path):
    rejections = rejections_of(wide_parts(tmp_path), tmp_path, (Form.AOTI_INT8,), precision="auto")

    assert rejections == [(Form.AOTI_INT8, "the platform is not set to serve in int8")]
