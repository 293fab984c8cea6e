"""A rational-quadratic spline of the interval [-1, 1] onto itself, for heights on spheres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from flows.transforms.elementwise import (
    ElementwiseTransform,
    Parity,
    check_parameters,
    check_spline,
    from_parity,
    list_parity,
)
from flows.transforms.spline import interpolate


@final
@dataclass(frozen=True)
class IntervalSpline(ElementwiseTransform):
    """Bend [-1, 1] by a monotone rational-quadratic spline whose slopes at both ends are free; ±1 stay where they are.

    Against `RationalQuadraticSpline`: no tails, so that densities may rise or fall up to the ends. Rounding that
    leaves the interval is clamped. Cost O(V n_bins).

    Args:
        n_bins: of the spline: n widths, n heights and n + 1 log-slopes are its parameters, each list stored as its
            symmetric, then its antisymmetric part, softly limited as in `spline`.

    References: Rezende et al. (2020), 2002.02428, section 2.4.
    """

    n_bins: int = 8

    def __post_init__(self) -> None:
        check_spline(self.n_bins, 1.0)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """Symmetric part (even), then antisymmetric part (odd) of widths, of heights, of slopes."""
        return 2 * list_parity(self.n_bins) + list_parity(self.n_bins + 1)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return interpolate(x, *self._lists(x, parameters), (-1.0, 1.0))

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return interpolate(y, *self._lists(y, parameters), (-1.0, 1.0), inverse=True)

    def _lists(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        check_parameters(x, parameters, self.n_parameters)
        bins, slopes = parameters.split((2 * self.n_bins, self.n_bins + 1), -1)
        return from_parity(bins.unflatten(-1, (2, -1))).flatten(-2), from_parity(slopes)

    @classmethod
    def examples(cls) -> Iterator[IntervalSpline]:
        yield cls(n_bins=4)
        yield cls(n_bins=5)
