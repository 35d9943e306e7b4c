"""Pictures in CIE L*a*b* and back: lightness beside what colour there is. sRGB with the white of D65 (IEC 61966-2-1)."""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
_KAPPA, _EPSILON = 903.2962962962963, 0.008856451679035631
_HALF_LIGHT, _MOST_COLOUR = 50.0, 110.0


def to_lab(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return lightness (N, 1, H, W), from -1 to 1, and colour (N, 2, H, W), about so, of pictures in the range of Tanh."""
    rgb = (images.float() + 1) / 2
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mixed(linear, _TO_XYZ) / _white(images)
    f = torch.where(xyz > _EPSILON, xyz.clamp(min=_EPSILON) ** (1 / 3), (_KAPPA * xyz + 16) / 116)
    x, y, z = f.unbind(1)
    light, colour = 116 * y - 16, torch.stack([500 * (x - y), 200 * (y - z)], 1)
    return light[:, None] / _HALF_LIGHT - 1, colour / _MOST_COLOUR


def from_lab(light: Tensor, colour: Tensor) -> Tensor:
    """Return pictures in the range of Tanh, cut where no screen shows such a colour."""
    y = ((light.float() + 1) * _HALF_LIGHT + 16) / 116
    a, b = (_MOST_COLOUR * colour[:, place : place + 1].float() for place in range(2))
    f = torch.cat([y + a / 500, y, y - b / 200], 1)
    xyz = torch.where(f**3 > _EPSILON, f**3, (116 * f - 16) / _KAPPA) * _white(light)
    back = torch.linalg.inv(torch.tensor(_TO_XYZ, dtype=torch.float64)).tolist()
    linear = _mixed(xyz, back).clamp(0, 1)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb * 2 - 1


def _mixed(maps: Tensor, weights: tuple[tuple[float, ...], ...] | list[list[float]]) -> Tensor:
    return torch.einsum("ij,njhw->nihw", torch.tensor(weights, device=maps.device, dtype=maps.dtype), maps)


def _white(images: Tensor) -> Tensor:
    return torch.tensor(_WHITE, device=images.device).reshape(1, 3, 1, 1)
