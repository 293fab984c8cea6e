"""Möbius maps of the unit sphere Sᴰ, and their mixtures along one axis.

A Möbius map along the unit vector e moves every point on its meridian: with the height t = x·e it is the fractional
linear map t -> (t (1 + r²) - 2 r) / (1 - 2 r t + r²) at fixed azimuth. Its mixtures over r are monotone in t,
therefore invertible. For D > 1, averages over maps with different axes, brought back to the sphere by normalisation,
are not: as |w_1| -> 1 the image of a small disc around w_1 sweeps over the whole sphere while the other maps hardly
move, and y ↦ ρ y + (1 - ρ) c with ρ < 1/2 sees a cap of directions twice. Compose maps instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flows.transforms.heights import LIMIT, HeightTransform


def into_ball(v: Tensor, limit: float = LIMIT) -> Tensor:  # (..., n) -> (..., n)
    """The smooth map w = c v / √(1 + |v|²) of all vectors into the open ball |w| < c."""
    return limit * v / torch.sqrt(1 + v.square().sum(-1, keepdim=True))


def mobius(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:  # (..., n), (..., n) -> (..., n), (...)
    """The conformal map of Sᴰ that carries the mass around w / |w| all over the sphere; w = 0 is the identity.

        h_w(x) = (1 - |w|²) / |x - w|² · (x - w) - w,    log|det| = D log[(1 - |w|²) / |x - w|²],    D = n - 1

    The inverse is h_{-w}, in closed form. Rounding errors grow like the largest slope, (1 + |w|) / (1 - |w|).

    Args:
        x: unit vectors, any D >= 1.
        w: points of the open ball |w| < 1, from `into_ball`, say.

    Symmetries: h_{Rw}(R x) = R h_w(x) for orthogonal R.
    References: Rezende et al. (2020), 2002.02428, eq. (18).
    """
    if x.shape[-1] != w.shape[-1] or x.shape[-1] < 2:
        raise ValueError(f"expected x and w with n >= 2 components each, got {tuple(x.shape)} and {tuple(w.shape)}")
    away = x - w
    factor = (1 - w.square().sum(-1, keepdim=True)) / away.square().sum(-1, keepdim=True)
    y = factor * away - w
    return y / y.norm(dim=-1, keepdim=True), (x.shape[-1] - 1) * torch.log(factor.squeeze(-1))


def zonal(
    x: Tensor, axis: Tensor, transform: HeightTransform, parameters: Tensor, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (..., n), (..., n), (..., n_parameters) -> (..., n), (...)
    """Move every point along its meridian through ±`axis`, its height t = x·e by a monotone map T.

        y = T(t) e + √[(1 - T²) / (1 - t²)] (x - t e),   log|det| = log T' + (D/2 - 1) log[(1 - T²) / (1 - t²)]

    With `HeightMixture(1)` it is the `mobius` map of w = r e. As smooth on the whole sphere, its poles ±e included,
    as T is on [-1, 1].

    Args:
        x: unit vectors.
        axis: the unit vector e.
        transform: T.
        parameters: those of `transform`, for every point.
        inverse: apply the inverse map.

    Symmetries: rotations and reflections of Rⁿ that fix the axis.
    """
    t = (x * axis).sum(-1)
    moved = (transform.inverse if inverse else transform.forward)(t.clamp(-1, 1), parameters)
    across = x - t.unsqueeze(-1) * axis
    y = moved.height.unsqueeze(-1) * axis + torch.exp(moved.log_ratio / 2).unsqueeze(-1) * across
    log_det = moved.log_slope + ((x.shape[-1] - 1) / 2 - 1) * moved.log_ratio
    return y / y.norm(dim=-1, keepdim=True), log_det
