"""Batch norms whose statistics are fixed, folded into the convolutions before them.

Inductor folds those behind plain convolutions rightly when it freezes weights. Of a transposed one it takes the first
dimension of the weight, (in, out, ...), for the outputs: with as many inputs as outputs it scales the wrong channels
without a word, with any other number it folds nothing. So those are folded here, before it sees them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_aten = torch.ops.aten
_DEFAULTS = (None, None, None, [1, 1], [0, 0], [0, 0], 1, [1, 1])


def with_folded_norms(module: nn.Module, example: Tensor) -> nn.Module:
    """Return a graph of `module` with no batch norm behind a transposed convolution; the module itself if there is none.

    Those of several groups stay as they are.

    Args:
        module: In evaluation mode.
        example: An input, (N, C, H, W); the graph is for inputs of this shape.
    """
    if not any(isinstance(part, nn.ConvTranspose2d | fx.GraphModule) for part in module.modules()):
        return module
    with torch.no_grad():
        graph = torch.export.export(module, (example,)).module()
    assert isinstance(graph, fx.GraphModule)
    for node in [node for node in graph.graph.nodes if node.target is _aten.conv_transpose2d.input]:
        _fold(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _fold(graph: fx.GraphModule, node: fx.Node) -> None:
    arguments: tuple[Any, ...] = (*node.args, *_DEFAULTS[len(node.args) :])
    x, weight, bias, *rest = arguments
    kept, kept_bias = stored(graph, weight), stored(graph, bias)
    if kept is None or (kept_bias is None and bias is not None) or rest[3] != 1:
        return
    folded = with_norm(graph, node, kept, kept_bias, is_transposed=True)
    if folded is None:
        return
    new_weight, new_bias, last = folded
    with graph.graph.inserting_before(node):
        constants = (
            _constant(graph, f"{node.name}_weight", new_weight),
            _constant(graph, f"{node.name}_bias", new_bias),
        )
        replacement = graph.graph.call_function(_aten.conv_transpose2d.input, (x, *constants, *rest))
    last.replace_all_uses_with(replacement)


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph.register_buffer(name, value)
    return graph.graph.get_attr(name)


def with_norm(
    graph: fx.GraphModule, node: fx.Node, weight: Tensor, bias: Tensor | None, *, is_transposed: bool = False
) -> tuple[Tensor, Tensor, fx.Node] | None:
    """Return weight and bias of a convolution with the norm that alone reads it folded in, and the norm; None without one."""
    norm = next(iter(node.users)) if len(node.users) == 1 else node
    if norm.target is not _aten.batch_norm.default:
        return None
    _, *given, is_training, _, epsilon, _ = norm.args
    scale, shift, mean, variance = found = [stored(graph, argument) for argument in given]
    is_computed = any(one is None and argument is not None for one, argument in zip(found, given, strict=True))
    # Without statistics of its own, or in training, it computes those of the batch.
    if is_computed or mean is None or variance is None or is_training:
        return None
    folded = fuse_conv_bn_weights(
        weight, bias, mean, variance, cast("float", epsilon), scale, shift, transpose=is_transposed
    )
    return folded[0].detach(), folded[1].detach(), norm


def stored(graph: fx.GraphModule, argument: Any) -> Tensor | None:
    """Return a weight or statistic of the graph; None for what is computed, or not there."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    owner, _, name = str(argument.target).rpartition(".")
    return cast("Tensor", getattr(graph.get_submodule(owner), name)).detach()
