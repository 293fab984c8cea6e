"""Rational-quadratic splines: flexible monotone maps with a closed-form inverse.

Inside a bin, θ in [0, 1] runs over its width w and η over its height h. With the mean slope δ = h/w and the
slopes d₀ = aδ, d₁ = bδ at its two knots, and the short forms θ̄ = 1 - θ, η̄ = 1 - η,

    η = θ (θ + a θ̄) / N,   N = θ² + (a + b) θθ̄ + θ̄²,   dy/dx = δ (b θ² + 2 θθ̄ + a θ̄²) / N²,
    θ/θ̄ = 2η / (r + q),    q = a η̄ - b η,               r² = q² + 4 η η̄.

Every sum has positive terms only (q < 0 uses the equal form (r - q)/(2η̄)), so neither direction cancels, the
square root never sees a negative number, and no clamp or epsilon is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from flows.transforms.elementwise import (
    ElementwiseTransform,
    Parity,
    check_parameters,
    check_spline,
    from_parity,
    list_parity,
    soft_clip,
)

MIN_SLOPE = 1e-3  # slopes of knots and mean slopes of bins lie in [MIN_SLOPE, 1 / MIN_SLOPE]
_LOG_RATIO = -math.log(MIN_SLOPE) / 4  # of a bin to the mean bin: four such factors make up a slope
_FLOOR = 1 / math.expm1(2 * _LOG_RATIO)


def spline(
    x: Tensor, parameters: Tensor, bound: float = 5.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (...), (..., 3 n_bins - 1) -> (...), (...)
    """Map [-bound, bound] onto itself by a monotone rational-quadratic spline, and the rest by the identity.

    C¹ everywhere: the slope is 1 at both ends. Against `affine`: moves mass inside an interval, cannot
    rescale the tails. Cost O(V n_bins). NaN gives NaN.

    Args:
        x: field values (y when `inverse`), shape (...).
        parameters: logits of n widths, logits of n heights, log-slopes at the n - 1 interior knots; softly
            limited so that all slopes stay within a factor 1000 of one. Shape (..., 3n - 1).
        bound: half the width of the interval, in units of the field.
        inverse: apply the inverse map; its log-det is that of the inverse.

    Symmetries: f(-x; reversed lists) = -f(x; lists); see `RationalQuadraticSpline` for parities.
    References: Gregory and Delbourgo (1982), IMA J. Numer. Anal. 2, 123;
        Durkan et al. (2019), 1906.04032, eq. 4.
    """
    n_bins = (parameters.shape[-1] + 1) // 3
    check_parameters(x, parameters, 3 * n_bins - 1)
    bins, slopes = parameters.split((2 * n_bins, n_bins - 1), -1)
    return _with_tails(x, bins, slopes, bound, inverse)


def _with_tails(
    x: Tensor, bins: Tensor, slopes: Tensor, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:  # (...), (..., 2 n_bins), (..., n_bins - 1) -> (...), (...)
    y, log_det = interpolate(x, bins, F.pad(slopes, (1, 1)), (-bound, bound), inverse)
    outside = x.abs() > bound
    return torch.where(outside, x, y), log_det.masked_fill(outside, 0.0)


def interpolate(
    x: Tensor,
    bins: Tensor,
    log_slopes: Tensor,
    interval: tuple[float, float],
    inverse: bool = False,
    smooth_start: bool = False,
) -> tuple[Tensor, Tensor]:  # (...), (..., 2 n_bins), (..., n_bins + 1) -> (...), (...)
    """Map an interval onto itself by the spline with these bins and knot slopes; clamp what lies outside.

    Args:
        x: values, shape (...).
        bins: logits of n_bins widths and n_bins heights, shape (..., 2 n_bins).
        log_slopes: unconstrained log dy/dx at all knots, shape (..., n_bins + 1).
        interval: its left and right end.
        inverse: apply the inverse map.
        smooth_start: ignore the first slope and take the one at which d²y/dx² vanishes at the left end.
    """
    x = x.clamp(*interval)
    axes = _partial_sums(bins).unbind(-2)[:: -1 if inverse else 1]  # of the argument, of the image
    below = _count_below(x.detach(), axes[0].detach(), interval)
    pair = torch.cat((below, below + 1), -1)
    (start, end), (image_start, image_end) = (
        [_place(knot, sums[..., -1], interval) for knot in sums.gather(-1, pair).unbind(-1)] for sums in axes
    )
    size, image_size = end - start, image_end - image_start
    stretch = image_size / size
    mean_slope = (1 / stretch if inverse else stretch).unsqueeze(-1)
    limited = soft_clip(log_slopes.gather(-1, pair), -math.log(MIN_SLOPE))
    a, b = (torch.exp(limited) / mean_slope).unbind(-1)
    if smooth_start:
        a = torch.where(below.squeeze(-1) == 0, _flat_start(b), a)
    fraction = (x - start) / size
    theta = _solve(fraction, a, b) if inverse else fraction
    eta, slope = _evaluate(theta, a, b)
    log_det = torch.log(stretch / slope if inverse else stretch * slope)
    return image_start + image_size * (theta if inverse else eta), log_det


def _partial_sums(bins: Tensor) -> Tensor:  # (..., 2 n) -> (..., 2, n + 1)
    """Return 0, s₁, s₁ + s₂, ... for the sizes s of the bins on both axes, not yet normalised.

    A size is σ(u - log R) + 1/(R² - 1) ∝ (1 + R eᵘ)/(R + eᵘ), which rises from 1/R to R: an exponential with
    soft limits, so that bin over mean bin stays in [1/R², R²] and the mean slope of a bin in [1/R⁴, R⁴].
    """
    sizes = (torch.sigmoid(bins - _LOG_RATIO) + _FLOOR).unflatten(-1, (2, -1)).unbind(-1)
    return torch.stack((torch.zeros_like(sizes[0]), *accumulate(sizes)), -1)


def _place(partial_sum: Tensor, total: Tensor, interval: tuple[float, float]) -> Tensor:
    """Return the knot at this partial sum; 0 and the total go to the ends of the interval exactly."""
    left, right = interval
    return partial_sum / total * (right - left) + left


def _count_below(x: Tensor, sums: Tensor, interval: tuple[float, float]) -> Tensor:  # (...) -> (..., 1)
    """Return how many interior knots lie at or below x, which is the index of its bin; NaN is in bin 0."""
    interior = _place(sums[..., 1:-1], sums[..., -1:], interval)
    return (x.unsqueeze(-1) >= interior).sum(-1, keepdim=True)


def _evaluate(theta: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return η(θ) and dη/dθ in one bin."""
    rest = 1 - theta
    mixed, square, rest_square = theta * rest, theta * theta, rest * rest
    norm = square + (a + b) * mixed + rest_square
    return (square + a * mixed) / norm, (b * square + 2 * mixed + a * rest_square) / (norm * norm)


def _solve(eta: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return θ(η) in one bin, by the form of the root that does not cancel."""
    rest = 1 - eta
    q = a * rest - b * eta
    r = torch.sqrt(q * q + 4 * eta * rest)
    low = q >= 0
    root = r + torch.where(low, q, -q)
    numerator = torch.where(low, 2 * eta, root)
    return numerator / (numerator + torch.where(low, root, 2 * rest))


def _flat_start(b: Tensor) -> Tensor:
    """Return the a with d²η/dθ² = 0 at θ = 0: the positive root of a² + (b - 1) a = 1."""
    return 2 / (b - 1 + torch.sqrt((b - 1) ** 2 + 4))


@final
@dataclass(frozen=True)
class RationalQuadraticSpline(ElementwiseTransform):
    """The `spline` with its parameters sorted into even and odd ones, so that it can be Z2-equivariant.

    Each list (widths, heights, slopes) is stored as its symmetric, then its antisymmetric part. With all odd
    parameters zero the map is odd; `OddSpline` reaches that with half as many bins.
    """

    n_bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        check_spline(self.n_bins, self.bound)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """Symmetric part (even), then antisymmetric part (odd) of widths, of heights, of slopes."""
        return 2 * list_parity(self.n_bins) + list_parity(self.n_bins - 1)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return _with_tails(x, *self._lists(x, parameters), self.bound, inverse=False)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return _with_tails(y, *self._lists(y, parameters), self.bound, inverse=True)

    def _lists(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        check_parameters(x, parameters, self.n_parameters)
        bins, slopes = parameters.split((2 * self.n_bins, self.n_bins - 1), -1)
        return from_parity(bins.unflatten(-1, (2, -1))).flatten(-2), from_parity(slopes)

    @classmethod
    def examples(cls) -> Iterator[RationalQuadraticSpline]:
        yield cls(n_bins=4, bound=3.0)
        yield cls(n_bins=5)
