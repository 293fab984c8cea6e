"""An odd rational-quadratic spline: y(-x) = -y(x) holds bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from flows.transforms.elementwise import EVEN, ElementwiseTransform, Parity, check_parameters, check_spline
from flows.transforms.spline import interpolate


def odd_spline(
    x: Tensor, parameters: Tensor, bound: float = 5.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (...), (..., 3 n_bins - 1) -> (...), (...)
    """Map x to sign(x) f(|x|), with f a monotone rational-quadratic spline of [0, bound] onto itself.

    The slope at 0 is the one with f''(0) = 0, so that the map is C² there and a density that passes through
    it gets no cusp; it is C¹ elsewhere, with slope 1 and the identity from |x| = bound on. Keeps the relative
    precision of small x. Against `spline`: odd for any parameters, all bins on the half axis.
    Cost O(V n_bins).

    Args:
        x: field values (y when `inverse`), shape (...).
        parameters: logits of n widths, logits of n heights, log-slopes at the n - 1 interior knots of
            [0, bound]; softly limited as in `spline`. Shape (..., 3n - 1).
        bound: end of the last bin, in units of the field.
        inverse: apply the inverse map.

    Symmetries: Z2, f(-x; p) = -f(x; p).
    References: Durkan et al. (2019), 1906.04032, eq. 4, on the half axis.
    """
    n_bins = (parameters.shape[-1] + 1) // 3
    check_parameters(x, parameters, 3 * n_bins - 1)
    bins, slopes = parameters.split((2 * n_bins, n_bins - 1), -1)
    negative = x < 0
    size = torch.where(negative, -x, x)  # |x|, with derivative 1 at 0
    image, log_det = interpolate(size, bins, F.pad(slopes, (1, 1)), (0.0, bound), inverse, smooth_start=True)
    outside = size > bound
    image = torch.where(outside, size, image)
    return torch.where(negative, -image, image), log_det.masked_fill(outside, 0.0)


@final
@dataclass(frozen=True)
class OddSpline(ElementwiseTransform):
    """The `odd_spline` as a building block: Z2-equivariant if its parameters are invariant."""

    n_bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        check_spline(self.n_bins, self.bound)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """All parameters are even."""
        return EVEN * (3 * self.n_bins - 1)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        check_parameters(x, parameters, self.n_parameters)
        return odd_spline(x, parameters, self.bound)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        check_parameters(y, parameters, self.n_parameters)
        return odd_spline(y, parameters, self.bound, inverse=True)

    @classmethod
    def examples(cls) -> Iterator[OddSpline]:
        yield cls(n_bins=4, bound=3.0)
        yield cls(n_bins=3)
