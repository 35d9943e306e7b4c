"""FCN: a classifier made convolutional, with skips from finer maps (Long, Shelhamer, Darrell 2015, arXiv:1411.4038).

`modern` pads the input to a multiple of 32 and crops once at the end; `caffe` keeps the reference's
padding of 100 and its crops, so that original weights fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.base import ServingSpec, Source, TrainState
from workers.families.config import TORCHVISION, WEIGHTS
from workers.families.precision import full_precision
from workers.families.segmentation.config import STRIDE, FcnConfig, FcnModel
from workers.families.segmentation.originals import renamed
from workers.families.segmentation.recipe import SegmentationRecipe
from workers.families.transfer import copy_weights

# Section 4.1: VGG-16's stages as (channels, convolutions).
_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_HIDDEN_KERNEL = 7
# The first convolution's own 1 makes it the reference's 100, for which its crops are made (Shelhamer et al. 2017).
_CAFFE_PADDING = 99
# Where the reference cuts its maps: pool4 and pool3 when they are added, and the last map by variant.
_CAFFE_POOL4, _CAFFE_POOL3 = 5, 9
_CAFFE_LAST = {"32s": 19, "16s": 27, "8s": 31}


class FcnNetwork(nn.Module):
    """Normalised images (N, 3, H, W) of any size in, scores (N, C, H, W) out."""

    def __init__(self, model: FcnModel, num_classes: int) -> None:
        super().__init__()
        self.is_caffe = model.style == "caffe"
        self.variant = model.variant
        stages = _VGG16 if model.body == "vgg16" else model.stages
        self.stages = nn.ModuleList(_stages(stages, model))
        padding = 0 if self.is_caffe else _HIDDEN_KERNEL // 2
        self.hidden = nn.Sequential(
            nn.Conv2d(stages[-1][0], model.hidden, _HIDDEN_KERNEL, padding=padding),
            nn.ReLU(inplace=True),
            nn.Dropout2d(model.dropout),
            nn.Conv2d(model.hidden, model.hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout2d(model.dropout),
        )
        self.score = nn.Conv2d(model.hidden, num_classes, 1)
        num_skips = {"32s": 0, "16s": 1, "8s": 2}[model.variant]
        self.skips = nn.ModuleList(nn.Conv2d(stages[3 - n][0], num_classes, 1) for n in range(num_skips))
        self.doubles = nn.ModuleList(self._upsampling(num_classes, 2) for _ in range(num_skips))
        self.last = self._upsampling(num_classes, STRIDE >> num_skips)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        maps = self._maps(images)
        scores = self.score(self.hidden(maps[-1]))
        for n, (skip, double) in enumerate(zip(self.skips, self.doubles, strict=True)):
            finer, scores = skip(maps[3 - n]), double(scores)
            offset = (_CAFFE_POOL4, _CAFFE_POOL3)[n] if self.is_caffe else 0
            scores = scores + _crop(finer, offset, scores.shape[-2], scores.shape[-1])
        scores = _crop(self.last(scores), _CAFFE_LAST[self.variant] if self.is_caffe else 0, height, width)
        return scores.float()

    def _maps(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        if self.is_caffe:
            images = functional.pad(images, (_CAFFE_PADDING,) * 4)
        else:
            images = functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def _upsampling(self, channels: int, factor: int) -> nn.ConvTranspose2d:
        padding = 0 if self.is_caffe else factor // 2
        return _Upsampling(channels, channels, 2 * factor, stride=factor, padding=padding, bias=False)


class _Upsampling(nn.ConvTranspose2d):
    """Computes in the type of its weights: oneDNN's bf16 gradients of few channels are wrong (`workers.engine.kernels`)."""

    def forward(self, scores: Tensor, output_size: list[int] | None = None) -> Tensor:
        with full_precision(scores.device):
            return super().forward(scores.to(self.weight.dtype), output_size)


def bilinear_kernel(size: int) -> Tensor:
    """Return the (size, size) kernel with which a transposed convolution interpolates linearly."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - centre).abs() / factor
    return torch.outer(line, line)


def _stages(stages: tuple[tuple[int, int], ...], model: FcnModel) -> list[nn.Module]:
    built: list[nn.Module] = []
    channels = 3
    for width, count in stages:
        layers: list[nn.Module] = []
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not model.batch_norm))
            layers += [nn.BatchNorm2d(width)] if model.batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = width
        built.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
    return built


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            with torch.no_grad():
                module.weight.zero_()
                diagonal = torch.arange(module.in_channels)
                module.weight[diagonal, diagonal] = bilinear_kernel(module.kernel_size[0])
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _crop(maps: Tensor, offset: int, height: int, width: int) -> Tensor:
    return maps[..., offset : offset + height, offset : offset + width]


class Fcn(SegmentationRecipe[FcnConfig]):
    """Trains and serves an FCN."""

    def new_network(self) -> FcnNetwork:
        return FcnNetwork(self.config.model, self.num_classes)

    @classmethod
    def load_serving_module(cls, config: FcnConfig, spec: ServingSpec) -> FcnNetwork:
        return FcnNetwork(config.model, len(spec.constants["classes"]))

    def load_source(self, state: TrainState, source: Source) -> None:
        """Start from a coarser variant, as 16s from 32s and 8s from 16s, or from one of the same stride, or from VGG-16.

        Layers over other classes, and the last up-sampling of another stride, start anew.
        """
        network = state.modules["network"]
        tensors = source.part("network") if source.origin.kind == "checkpoint" else source.tensors
        if source.origin.kind in (TORCHVISION, WEIGHTS):
            tensors = renamed(tensors, network, self.config.model)
        fresh = _new_skips(network, tensors)
        if "score.weight" not in tensors or tensors["score.weight"].shape[0] != self.num_classes:
            fresh = ["last.", "score.", "skips.", "doubles."]
            own = network.state_dict()["hidden.0.weight"]
            if tensors.get("hidden.0.weight", own.new_empty(0)).shape != own.shape:
                fresh.append("hidden.")
        elif tensors["last.weight"].shape != network.state_dict()["last.weight"].shape:
            fresh.append("last.")
        copy_weights(network.state_dict(), tensors, name=source.origin.name, fresh=tuple(fresh))


def _new_skips(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes of what the source lacks, after making new skips silent.

    Section 4.2: a new skip's scores start at zero, so that training begins with the source's predictions.
    """
    assert isinstance(network, FcnNetwork)
    new = [n for n in range(len(network.skips)) if f"skips.{n}.weight" not in tensors]
    for n in new:
        nn.init.zeros_(network.skips.get_submodule(str(n)).weight)  # type: ignore[arg-type]
    return [f"{part}.{n}." for n in new for part in ("skips", "doubles")]
