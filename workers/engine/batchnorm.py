"""Batch normalisation over the batch of all processes, on CPUs and GPUs, with parts of any size.

torch's own is for GPUs alone and takes every process's loss for equally heavy, which uneven parts are not. Moments
are gathered as (count, mean, sum of squared deviations) and combined as Chan et al. (1979) do, in fp64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from workers.engine.crew import Crew


def share_batch_norm(module: nn.Module, crew: Crew, *, share: float) -> None:
    """Make every batch norm inside `module` see the whole batch in training; parameters and names stay.

    `share` is this process's part of the batch: how heavy its loss is in that of all.
    """
    for part in module.modules():
        shared = _SHARED.get(type(part))
        if shared is not None:
            # The class alone: hooks, references and compiled forwards of the module hold on to the object.
            part.__class__ = shared
            part.crew, part.share = crew, share  # type: ignore[assignment]


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    crew: Crew
    share: float

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return super().forward(values)
        normalised: Tensor = self._normalised(values)
        return normalised

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _normalised(self, values: Tensor) -> Tensor:
        self._check_input_dim(values)  # type: ignore[no-untyped-call]
        out, mean, deviation, count = _Normalise.apply(values, self.weight, self.bias, self.eps, self.crew, self.share)
        if self.track_running_stats:
            self._track(mean, deviation / (count - 1).clamp(min=1))
        return out  # type: ignore[no-any-return]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, crew: Crew, share: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the normalised values, and of the whole batch each channel's mean, squared deviations and count."""
        mean, deviation, count = _moments(values, crew)
        moments = mean.float(), (deviation / count).float()
        out = functional.batch_norm(values, *moments, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(values, weight, *moments)
        # How heavy this process's values are in the whole batch, in rows of its own loss.
        ctx.heft = share * float(count)
        ctx.eps, ctx.crew, ctx.share = eps, crew, share
        ctx.mark_non_differentiable(mean, deviation, count)
        return out, mean, deviation, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, variance = ctx.saved_tensors
        # As if the moments were constants; what they add needs the sums over the whole batch.
        direct, own_slope, own_sum = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        both = torch.stack([own_sum, own_slope]).float().mul_(ctx.share)
        ctx.crew.sum_(both)
        level, slope = (both / ctx.heft).unbind()
        scale = torch.rsqrt(variance + ctx.eps)
        factor = scale if weight is None else scale * weight.float()
        steep = factor * scale * slope
        flat = factor * level - steep * mean
        wide = [1, -1, *[1] * (values.dim() - 2)]
        of_values = torch.addcmul(direct, values, steep.view(wide), value=-1).sub_(flat.view(wide)).to(values.dtype)
        if weight is None:
            return of_values, None, None, None, None, None
        return of_values, own_slope.to(weight.dtype), own_sum.to(weight.dtype), None, None, None


def _moments(values: Tensor, crew: Crew) -> tuple[Tensor, Tensor, Tensor]:
    own_count = values.numel() // values.shape[1]
    # The kernel behind torch's own batch norm: many times as fast on CPUs as reducing over all dimensions but one.
    mean, variance = torch.ops.aten.batch_norm_update_stats(values.float(), None, None, 0.0)
    own = torch.stack([variance.double() * own_count, mean.double(), torch.full_like(mean, own_count).double()])
    deviations, means, counts = crew.gather(own).unbind(1)
    count = counts.sum(0)
    whole = (means * counts).sum(0) / count
    return whole, (deviations + counts * (means - whole).square()).sum(0), count[0]


class _Shared1d(_SharedBatchNorm, nn.BatchNorm1d): ...


class _Shared2d(_SharedBatchNorm, nn.BatchNorm2d): ...


class _Shared3d(_SharedBatchNorm, nn.BatchNorm3d): ...


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
    nn.BatchNorm3d: _Shared3d,
}
