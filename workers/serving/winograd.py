"""Minimal filtering: convolutions of 3 x 3 in fewer multiplications, all in fp32.

An output tile of m x m takes (m + 2)^2 products for each pair of channels instead of 9 m^2: 2.25 times fewer with m = 2,
four times with m = 4 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, sections 4.1 to
4.3, whose matrices these are). Tiles are transformed, multiplied in one batched product, and transformed back; filters
are transformed once, in double precision. A dilated convolution is one of dilation 1 on each of its interleaved grids.

Answers differ from those of direct convolutions by rounding alone, about 1e-5 of the largest output with m = 4.
Transformed filters take four times the memory of the others (1.8 times with m = 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from workers.serving.flops import flops_of
from workers.serving.norms import stored, with_norm

LEAST_FLOPS = 200_000_000
"""Of one forward. Smaller networks take two or three milliseconds a core: less than the rest of a request."""
LEAST_GAIN = 1.15
"""Estimated, of a forward: less is not worth the longer build, which compiles several loops for each shape of a convolution."""
_PACKING = 14
"""Rows of the batched product that take as long as what it does beside them for each of its factors."""
_TRANSFORM = 20
"""Multiplications that take as long as one value's way into a tile's product or out of it.

Both fitted by hand to a handful of shapes of ResNet-18 and FCN, on one thread with AVX2. They only say what is worth
building: the probe of the forms says what is served.
"""
_WORTH = 1.2
"""Least estimated gain of a convolution that is replaced."""
_aten = torch.ops.aten

_Line = Sequence[Tensor]


def _to_factors_2(d: _Line) -> list[Tensor]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _to_outputs_2(m: _Line) -> list[Tensor]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _to_factors_4(d: _Line) -> list[Tensor]:
    even, odd = d[4] - 4 * d[2], d[3] - 4 * d[1]
    even_half, odd_half = d[4] - d[2], 2 * (d[3] - d[1])
    return [
        4 * d[0] - 5 * d[2] + d[4],
        even + odd,
        even - odd,
        even_half + odd_half,
        even_half - odd_half,
        4 * d[1] - 5 * d[3] + d[5],
    ]


def _to_outputs_4(m: _Line) -> list[Tensor]:
    even, odd = m[1] + m[2], m[1] - m[2]
    even_half, odd_half = m[3] + m[4], m[3] - m[4]
    return [m[0] + even + even_half, odd + 2 * odd_half, even + 4 * even_half, odd + 8 * odd_half + m[5]]


@dataclass(frozen=True, slots=True)
class _Transforms:
    """Of one dimension: a filter of 3, a slice of m + 2 inputs, and as many products, to m outputs."""

    filters: tuple[tuple[float, float, float], ...]
    to_factors: Callable[[_Line], list[Tensor]]
    to_outputs: Callable[[_Line], list[Tensor]]


_BY_SIZE = {
    2: _Transforms(((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)), _to_factors_2, _to_outputs_2),
    4: _Transforms(
        (
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        _to_factors_4,
        _to_outputs_4,
    ),
}


class Winograd(nn.Module):
    """A convolution of 3 x 3 with stride 1: (N, C, H, W) to (N, K, H', W'), channels last."""

    filters: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, size: int, padding: Sequence[int], dilation: int) -> None:
        """`weight` is (K, C, 3, 3); `size`, 2 or 4, the side of an output tile; `padding` that of rows and columns."""
        super().__init__()
        self._size, self._padding, self._dilation = size, tuple(padding), dilation
        matrix = torch.tensor(_BY_SIZE[size].filters, dtype=torch.float64)
        filters = torch.einsum("ia,kcab,jb->jick", matrix, weight.double(), matrix).flatten(0, 1)
        self.register_buffer("filters", filters.to(weight.dtype).contiguous())
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        transforms = _BY_SIZE[self._size]
        grid, (height, width) = self._grid(x)
        # One dimension after the other: both at once save a pass, but are 36 results of one loop, slow to compile.
        lines = torch.stack(transforms.to_factors(self._slices(grid, 1)))
        factors = torch.stack(transforms.to_factors(self._slices(lines, 4)))
        products = torch.bmm(factors.flatten(2, -2).flatten(0, 1), self.filters)
        products = products.view(*factors.shape[:-1], -1)
        lines = torch.stack(transforms.to_outputs(list(products)), 5)
        tiles = torch.stack([line + self.bias for line in transforms.to_outputs(list(lines))], 2)
        return tiles.flatten(4, 6).flatten(1, 3)[:, :height, :width].permute(0, 3, 1, 2)

    def _grid(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the padded values by the dilation's grids, (N, rows, grid, columns, grid, C), and the output's size."""
        m, step = self._size, self._dilation
        rows, columns = (size + 2 * (edge - step) for size, edge in zip(x.shape[2:], self._padding, strict=True))
        below, beside = (
            (m * _tiles(size, m * step) + 2) * step - before - edge
            for size, before, edge in zip((rows, columns), x.shape[2:], self._padding, strict=True)
        )
        edges = (0, 0, self._padding[1], beside, self._padding[0], below)
        padded = functional.pad(x.permute(0, 2, 3, 1), edges)
        batch, high, wide, channels = padded.shape
        return padded.reshape(batch, high // step, step, wide // step, step, channels), (rows, columns)

    def _slices(self, x: Tensor, dim: int) -> list[Tensor]:
        """Return the first, second and each further value of every tile along a dimension."""
        m = self._size
        index: list[slice] = [slice(None)] * dim
        return [x[(*index, slice(i, x.shape[dim] - m - 1 + i, m))] for i in range(m + 2)]


def with_winograd(module: nn.Module, example: Tensor) -> tuple[nn.Module, float]:
    """Return a graph of `module` with every convolution replaced that gains, and the estimated gain of a forward.

    Batch norms behind replaced convolutions are folded into their filters. Convolutions of other sizes, strides and
    groups, and those of few channels or small maps, stay as they are.

    Args:
        module: In evaluation mode.
        example: An input, (N, C, H, W); the graph is for inputs of this shape.
    """
    with torch.no_grad():
        graph = torch.export.export(module, (example,)).module()
    assert isinstance(graph, fx.GraphModule)
    saved = 0.0
    for node in [node for node in graph.graph.nodes if node.target is _aten.conv2d.default]:
        convolution = _read(graph, node)
        if convolution is not None:
            saved += _replace(graph, node, convolution)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    total = flops_of(module, example) / 2
    return graph, total / (total - saved)


@dataclass(frozen=True, slots=True)
class _Convolution:
    """One of 3 x 3 with stride 1."""

    weight: Tensor
    bias: Tensor | None
    padding: tuple[int, int]
    dilation: int
    output_shape: tuple[int, int, int, int]

    @property
    def multiplications(self) -> float:
        batch, _, height, width = self.output_shape
        return self.weight.numel() * float(batch * height * width)

    def cost(self, size: int) -> float:
        """Return the multiplications that take as long as tiles of this size."""
        batch, _, height, width = self.output_shape
        step = size * self.dilation
        tiles = batch * self.dilation**2 * _tiles(height, step) * _tiles(width, step)
        filters, channels = self.weight.shape[:2]
        return (size + 2) ** 2 * float(
            (tiles + _PACKING) * filters * channels + _TRANSFORM * tiles * (filters + channels)
        )


def _read(graph: fx.GraphModule, node: fx.Node) -> _Convolution | None:
    defaults = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
    arguments: tuple[Any, ...] = (*node.args, *defaults[len(node.args) :])
    _, weight, bias, stride, padding, dilation, groups = arguments
    kept, kept_bias = stored(graph, weight), stored(graph, bias)
    if kept is None or (kept_bias is None and bias is not None):
        return None
    if kept.shape[2:] != (3, 3) or [*stride] != [1, 1] or groups != 1 or len({*dilation}) > 1:
        return None
    return _Convolution(kept, kept_bias, tuple(padding), dilation[0], tuple(node.meta["val"].shape))


def _replace(graph: fx.GraphModule, node: fx.Node, convolution: _Convolution) -> float:
    """Replace a convolution, with the batch norm behind it, if that pays; return the multiplications it saves."""
    size = min(_BY_SIZE, key=convolution.cost)
    saved = convolution.multiplications - convolution.cost(size)
    if convolution.multiplications < _WORTH * convolution.cost(size):
        return 0.0
    weight, bias = convolution.weight, convolution.bias
    plain = (weight, weight.new_zeros(len(weight)) if bias is None else bias, node)
    weight, bias, last = with_norm(graph, node, weight, bias) or plain
    name = f"winograd_{node.name}"
    replacement = Winograd(weight, bias, size=size, padding=convolution.padding, dilation=convolution.dilation)
    graph.add_submodule(name, replacement)
    with graph.graph.inserting_after(last):
        last.replace_all_uses_with(graph.graph.call_module(name, (node.args[0],)))
    return saved


def _tiles(length: int, size: int) -> int:
    return -(-length // size)
