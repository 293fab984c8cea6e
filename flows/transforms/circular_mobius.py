"""Möbius maps of the circle: three parameters, smooth everywhere, and the inverse in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from flows.transforms.circular import wrap
from flows.transforms.elementwise import (
    EVEN,
    ODD,
    ElementwiseTransform,
    Parity,
    check_parameters,
    check_positive,
    soft_clip,
)


def projection(u: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:  # 3 × (...) -> 2 × (...)
    """The circle through the line and back: tan v/2 = a tan u/2 + b, and its slope.

        v = 2 arctan(a tan u/2 + b),    dv/du = a / (cos² u/2 + (a sin u/2 + b cos u/2)²)

    The pole u = ±π stays where it is; written with sines and cosines, neither it nor 0 is special.

    Args:
        u: angles in [-π, π].
        a: positive factors.
        b: shifts.

    References: Rezende et al. (2020), 2002.02428, section 2.3.
    """
    cosine, sine = torch.cos(u / 2), torch.sin(u / 2)
    tangent = a * sine + b * cosine
    angle = 2 * torch.atan2(tangent, cosine.abs())  # π / 2 may be rounded upwards
    return angle, a / (cosine.square() + tangent.square())


def mobius(
    x: Tensor, parameters: Tensor, limit: float = 3.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:  # (...), (..., 3) -> (...), (...)
    """A Möbius map of the unit circle, y = wrap(2 arctan(a tan x/2 + b) + α), and log dy/dx.

    Every map e^{iy} = v (e^{ix} - w) / (1 - w̄ e^{ix}) with |w| < 1 = |v| is of this form, up to the limits. The inverse
    is the map with 1/a and -b/a, after the rotation by -α. Against `circular_mixture`: one component, and no root to
    find. Cost O(V).

    Args:
        x: angles (y when `inverse`) in radians, any branch, shape (...).
        parameters: log a and b, both softly limited, and α in radians; shape (..., 3).
        limit: of |log a| and |b|.
        inverse: apply the inverse map.

    References: Rezende et al. (2020), 2002.02428, sections 2.2 and 2.3.
    """
    check_parameters(x, parameters, 3)
    log_a, b, rotation = parameters.unbind(-1)
    a, b = torch.exp(soft_clip(log_a, limit)), soft_clip(b, limit)
    if inverse:
        y, slope = projection(wrap(x - rotation), 1 / a, -b / a)
        return wrap(y), torch.log(slope)
    y, slope = projection(wrap(x), a, b)
    return wrap(y + rotation), torch.log(slope)


@final
@dataclass(frozen=True)
class Mobius(ElementwiseTransform):
    """The `mobius` map, its parameters sorted into even and odd ones under θ -> -θ.

    Args:
        limit: of |log a| and |b|; slopes reach about e^limit (1 + limit²), and rounding grows with them.
    """

    limit: float = 3.0

    def __post_init__(self) -> None:
        check_positive("limit", self.limit)

    @property
    def parity(self) -> tuple[Parity, ...]:
        """The factor is even; shift and rotation are odd."""
        return EVEN + ODD + ODD

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return mobius(x, parameters, self.limit)

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return mobius(y, parameters, self.limit, inverse=True)

    @classmethod
    def examples(cls) -> Iterator[Mobius]:
        yield cls()
        yield cls(limit=1.0)
