"""Möbius maps of the unit sphere Sᴰ, and their mixtures along one axis.

A Möbius map along the unit vector e moves every point on its meridian: with the height t = x·e it is the fractional
linear map t -> (t (1 + r²) - 2 r) / (1 - 2 r t + r²) at fixed azimuth. Its mixtures over r are monotone in t,
therefore invertible. For D > 1, averages over maps with different axes, brought back to the sphere by normalisation,
are not: as |w_1| -> 1 the image of a small disc around w_1 sweeps over the whole sphere while the other maps hardly
move, and y ↦ ρ y + (1 - ρ) c with ρ < 1/2 sees a cap of directions twice. Compose maps instead.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flows.transforms.elementwise import soft_clip
from flows.transforms.roots import increasing_root

LIMIT = 0.99  # of |w|: areas change by at most the factor (1.99 / 0.01)ᴰ


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


class Height(NamedTuple):
    """A monotone map of heights that fixes ±1, at given points t."""

    height: Tensor  # T(t)
    log_slope: Tensor  # log dT/dt
    log_ratio: Tensor  # log (1 - T²) / (1 - t²), which ends at log dT/dt at t = ±1


def height_mixture(t: Tensor, parameters: Tensor) -> Height:  # (...), (..., 2 K)
    """The mixture T = Σ_k ρ_k t_k of K Möbius maps of the height, t_k = (t (1 + r_k²) - 2 r_k) / (1 - 2 r_k t + r_k²).

        1 ∓ T = (1 ∓ t) Σ_k ρ_k (1 ± r_k)² / n_k,   dT/dt = Σ_k ρ_k (1 - r_k²)² / n_k²,   n_k = 1 - 2 r_k t + r_k²

    All terms of all sums are positive: nothing cancels at the poles. Infinitely differentiable on the whole sphere,
    where it concentrates or dilutes mass at both poles and in rings. Cost O(V K).

    Args:
        t: heights in [-1, 1].
        parameters: logits of ρ_k, then unconstrained r_k, softly limited to 0.99; zero is the identity.
    """
    logits, radii = parameters.chunk(2, -1)
    weights, r, t = torch.softmax(logits, -1), soft_clip(radii, LIMIT), t.unsqueeze(-1)
    norm = (1 - r).square() + 2 * r * (1 - t)
    norm = torch.where(r < 0, (1 + r).square() - 2 * r * (1 + t), norm)
    slope = (weights * ((1 - r) * (1 + r) / norm).square()).sum(-1)
    above, below = ((weights * (1 + sign * r).square() / norm).sum(-1) for sign in (1, -1))
    t = t.squeeze(-1)
    height = torch.where(t > 0, 1 - (1 - t) * above, (1 + t) * below - 1)
    return Height(height, torch.log(slope), torch.log(above) + torch.log(below))


def height_mixture_inverse(t: Tensor, parameters: Tensor) -> Height:  # (...), (..., 2 K)
    """The inverse of `height_mixture`, by bracketed root finding, with its own slopes."""

    def function(s: Tensor) -> tuple[Tensor, Tensor]:
        value = height_mixture(s, parameters)
        return value.height, torch.exp(value.log_slope)

    root = increasing_root(function, t, -torch.ones_like(t), torch.ones_like(t)).clamp(-1, 1)
    value = height_mixture(root, parameters)
    return Height(root, -value.log_slope, -value.log_ratio)


def zonal(
    x: Tensor, axis: Tensor, parameters: Tensor, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (..., n), (..., n), (..., 2 K) -> (..., n), (...)
    """Move every point along its meridian through ±`axis`, its height by `height_mixture`.

        y = T(t) e + √[(1 - T²) / (1 - t²)] (x - t e),   t = x·e,   log|det| = log T' + (D/2 - 1) log[(1 - T²)/(1 - t²)]

    With K = 1 it is the `mobius` map of w = r e. Smooth everywhere, the poles ±e included.

    Args:
        x: unit vectors.
        axis: the unit vector e.
        parameters: those of `height_mixture`.
        inverse: apply the inverse map.

    Symmetries: rotations and reflections of Rⁿ that fix the axis.
    """
    t = (x * axis).sum(-1)
    moved = (height_mixture_inverse if inverse else height_mixture)(t.clamp(-1, 1), parameters)
    across = x - t.unsqueeze(-1) * axis
    y = moved.height.unsqueeze(-1) * axis + torch.exp(moved.log_ratio / 2).unsqueeze(-1) * across
    log_det = moved.log_slope + ((x.shape[-1] - 1) / 2 - 1) * moved.log_ratio
    return y / y.norm(dim=-1, keepdim=True), log_det
