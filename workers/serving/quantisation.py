"""Post-training static quantisation: a network whose 2-d convolutions and linear layers, but the first, compute in int8.

Weights get a scale a channel, activations one a tensor, fitted to a histogram of what calibration sees (scales as in
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018,
section 2; torchao's flow over exported programs). The first product is a small part of the work, and what it rounds all
others build on: with it in fp32 a MobileNet's scores moved by .006 at most instead of .025. What calibration saw decides
how good the rest is, so nothing is served without the parity gate, which also asks inputs that calibration has not seen.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

LEAST_FLOPS = 50_000_000
"""Of one forward. Smaller networks take less than two milliseconds a core in fp32: decoding is the larger part then."""

_aten = torch.ops.aten
_SOURCES: dict[Any, Any] = {
    _aten.conv2d.default: nn.Conv2d,
    _aten.linear.default: nn.Linear,
    _aten.relu.default: nn.ReLU,
    _aten.relu_.default: nn.ReLU,
    _aten.hardtanh.default: nn.ReLU6,
    _aten.hardtanh_.default: nn.ReLU6,
    _aten.hardswish.default: nn.Hardswish,
    _aten.hardswish_.default: nn.Hardswish,
    _aten.silu.default: nn.SiLU,
    _aten.silu_.default: nn.SiLU,
    _aten.add.Tensor: operator.add,
    _aten.add_.Tensor: operator.add,
}
_PRODUCTS = (nn.Conv2d, nn.Linear)


def quantise(module: nn.Module, calibration: Sequence[Tensor], *, is_saturating: bool) -> nn.Module:
    """Return a graph of `module` in int8, fp32 outside.

    Args:
        calibration: Inputs as the network gets them, one a tensor.
        is_saturating: Where products are added in 16 bits, activations take 7 bits, so that two always fit.

    Raises:
        ValueError: there is nothing to calibrate with.
    """
    # Only a build needs it, and its import takes seconds.
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    if not calibration:
        raise ValueError("no inputs to calibrate with")
    with torch.no_grad():
        graph = torch.export.export(module, (calibration[0],)).module()
        assert isinstance(graph, fx.GraphModule)
        _name_sources(graph)
        config = x86.get_default_x86_inductor_quantization_config(reduce_range=is_saturating)
        quantizer = x86.X86InductorQuantizer().set_global(config)
        observed = quantize_pt2e.prepare_pt2e(graph, quantizer)
        for x in calibration:
            observed(x)
        return cast("nn.Module", quantize_pt2e.convert_pt2e(observed))


def _name_sources(graph: fx.GraphModule) -> None:
    """Make every operation its own source, and the first product none, so that it stays in fp32.

    The quantiser groups operations by the module they come from, and gives up where one module is called twice,
    as is the ReLU of every residual block of torchvision.
    """
    sources = {node: _SOURCES[node.target] for node in graph.graph.nodes if node.target in _SOURCES}
    first = next((node for node, source in sources.items() if source in _PRODUCTS), None)
    # Those of no known source, too: a convolution that pads by itself is more than the quantiser expects of one.
    for node in graph.graph.nodes:
        source = None if node is first else sources.get(node)
        node.meta["source_fn_stack"] = [(node.name, source)]
