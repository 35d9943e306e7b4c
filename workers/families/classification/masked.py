"""Makes the encoder of a masked autoencoder the body of a Vision Transformer (He et al., CVPR 2022, appendix A.1).

Both are the same blocks around the same class token; they differ in names, in how grey pixels are scaled, and in that
the positions of one are fixed and those of the other go on learning from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from workers.families.classification.config import Data, VitModel
from workers.families.positions import wave_positions

_ENCODER, _DECODER = "encoder.", "decoder."
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "norm1": "ln_1.",
    "attn.qkv": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj.",
    "norm2": "ln_2.",
    "mlp.fc1": "mlp.0.",
    "mlp.fc2": "mlp.3.",
}
_ENDS = {
    "class_token": "class_token",
    "embed.weight": "conv_proj.weight",
    "embed.bias": "conv_proj.bias",
    "norm.weight": "encoder.ln.weight",
    "norm.bias": "encoder.ln.bias",
}


def body_tensors(tensors: Mapping[str, Tensor], model: VitModel, data: Data) -> dict[str, Tensor]:
    """Return the tensors of a `MaeNetwork` by the names of a `Classifier` around torchvision's ViT, without its head.

    The decoder is left out; names that no encoder has stay as they are, for whoever compares them.
    """
    prefix = "body.net." if data.channels == 1 else "body."
    body = {
        prefix + _renamed(name.removeprefix(_ENCODER)): value
        for name, value in tensors.items()
        if not name.startswith(_DECODER)
    }
    rows = data.image_size // model.patch
    positions = wave_positions(model.dim, rows, rows)
    # The class token has none.
    body[f"{prefix}encoder.pos_embedding"] = torch.cat([torch.zeros(1, 1, model.dim), positions], 1)
    if data.channels == 1:
        body |= _of_grey(body, f"{prefix}conv_proj")
    return body


def _renamed(name: str) -> str:
    """Return what torchvision calls a tensor of timm's transformer."""
    found = _BLOCK.fullmatch(name)
    if found and found[2] in _PARTS:
        return f"encoder.layers.encoder_layer_{found[1]}.{_PARTS[found[2]]}{found[3]}"
    return _ENDS.get(name, name)


def _of_grey(body: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the embedding of patches for grey from 0 to 1 in three equal channels, made of one for grey from -1 to 1."""
    weight, bias = (body.get(f"{name}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 4 or weight.shape[1] != 1:
        return {}  # for whoever compares names and shapes
    # W (2 x - 1) + b = 2 W x + (b - sum of W).
    shifted = bias.double() - weight.double().sum((1, 2, 3))
    return {f"{name}.weight": (2 * weight / 3).expand(-1, 3, -1, -1), f"{name}.bias": shifted.to(bias.dtype)}
