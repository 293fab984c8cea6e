"""A rational-quadratic spline of the circle [-π, π) onto itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flows.transforms.elementwise import (
    EVEN,
    ODD,
    ElementwiseTransform,
    Parity,
    check_parameters,
    check_spline,
    from_parity,
    list_parity,
)
from flows.transforms.spline import interpolate


def wrap(angle: Tensor) -> Tensor:
    """Add the multiple of 2π that brings an angle into [-π, π), none if it is there already."""
    return angle - 2 * math.pi * torch.floor((angle + math.pi) / (2 * math.pi))


def circular_spline(
    x: Tensor, parameters: Tensor, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (...), (..., 3 n_bins + 1) -> (...), (...)
    """Bend the circle by a monotone rational-quadratic spline with equal slopes at ±π, then rotate it.

    y = wrap(f(wrap(x)) + α): C¹ on the whole circle, and the angles x and x + 2π are the same point. Against
    `spline`: no tails, the point at ±π moves with α only. Cost O(V n_bins).

    Args:
        x: angles (y when `inverse`) in radians, any branch, shape (...).
        parameters: logits of n widths, logits of n heights, log-slopes at the n knots beginning with ±π,
            softly limited as in `spline`, and the angle α. Shape (..., 3n + 1).
        inverse: apply the inverse map.

    Symmetries: f(-x; reversed lists, -α) = -f(x; lists, α); see `CircularSpline` for parities.
    References: Rezende et al. (2020), 2002.02428, section 2.1.
    """
    n_bins = (parameters.shape[-1] - 1) // 3
    check_parameters(x, parameters, 3 * n_bins + 1)
    bins, slopes, rotation = parameters.split((2 * n_bins, n_bins, 1), -1)
    return _bend_and_rotate(x, bins, slopes, rotation, inverse)


def _bend_and_rotate(
    x: Tensor, bins: Tensor, slopes: Tensor, rotation: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:  # (...), (..., 2 n_bins), (..., n_bins), (..., 1) -> (...), (...)
    tied, angle = torch.cat((slopes, slopes[..., :1]), -1), rotation.squeeze(-1)
    before, after = (angle, 0.0) if inverse else (0.0, angle)
    y, log_det = interpolate(wrap(x - before), bins, tied, (-math.pi, math.pi), inverse)
    return wrap(y + after), log_det


@final
@dataclass(frozen=True)
class CircularSpline(ElementwiseTransform):
    """The `circular_spline` with its parameters sorted into even and odd ones under θ -> -θ."""

    n_bins: int = 8

    def __post_init__(self) -> None:
        check_spline(self.n_bins, math.pi)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """Symmetric (even), then antisymmetric part (odd) of widths, heights, slopes; ±π is even, α odd."""
        return 2 * list_parity(self.n_bins) + EVEN + list_parity(self.n_bins - 1) + ODD

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return _bend_and_rotate(x, *self._lists(x, parameters), inverse=False)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return _bend_and_rotate(y, *self._lists(y, parameters), inverse=True)

    def _lists(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_parameters(x, parameters, self.n_parameters)
        bins, end, inner, rotation = parameters.split((2 * self.n_bins, 1, self.n_bins - 1, 1), -1)
        lists = from_parity(bins.unflatten(-1, (2, -1))).flatten(-2)
        return lists, torch.cat((end, from_parity(inner)), -1), rotation

    @classmethod
    def examples(cls) -> Iterator[CircularSpline]:
        yield cls(n_bins=4)
        yield cls(n_bins=5)
