"""Convex mixtures of Möbius maps of the circle: smooth everywhere, with a bracketed inverse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from flows.transforms.circular import wrap
from flows.transforms.circular_mobius import projection
from flows.transforms.elementwise import (
    EVEN,
    ODD,
    ElementwiseTransform,
    Parity,
    check_parameters,
    from_parity,
    list_parity,
    soft_clip,
)
from flows.transforms.roots import increasing_root

LIMIT = 3.0  # of |log a| and |b|


def circular_mixture(x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:  # (...), (..., 3 K + 1) -> (...), (...)
    """The lift to the real line of a convex mixture of K non-compact projections, then a rotation.

        f(x) = x + α + Σ_k ρ_k [2 arctan(a_k tan(u_k / 2) + b_k) - u_k],  u_k = wrap(x - φ_k),
        f'(x) = Σ_k ρ_k a_k / (cos² u_k/2 + (a_k sin u_k/2 + b_k cos u_k/2)²)

    with f(x + 2π) = f(x) + 2π. Each term is a Möbius map of the circle that fixes its own pole φ_k + π; the poles are
    evenly spaced. Against `circular_spline`: infinitely differentiable, no closed inverse for K > 1. Cost O(V K).

    Args:
        x: angles in radians, shape (...).
        parameters: logits of ρ, log a, b (both softly limited to 3), and α; shape (..., 3 K + 1).

    References: Rezende et al. (2020), 2002.02428, sections 2.1 and 2.3.
    """
    logits, log_a, b, rotation = _unpack(parameters)
    n = logits.shape[-1]
    poles = (2 * torch.arange(n, dtype=x.dtype, device=x.device) + 1 - n) * (math.pi / n)
    u = wrap(x.unsqueeze(-1) - poles)
    angle, slope = projection(u, torch.exp(soft_clip(log_a, LIMIT)), soft_clip(b, LIMIT))
    weights = torch.softmax(logits, -1)
    return x + (weights * (angle - u)).sum(-1) + rotation, torch.log((weights * slope).sum(-1))


def _unpack(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lists of logits, log a and b, one entry for each pole, and the rotation."""
    n = (parameters.shape[-1] - 1) // 3
    logits, log_a, b = from_parity(parameters[..., :-1].unflatten(-1, (3, n))).unbind(-2)
    return logits, log_a, b, parameters[..., -1]


@final
@dataclass(frozen=True)
class CircularMixture(ElementwiseTransform):
    """The `circular_mixture` on angles in [-π, π), its parameters sorted into even and odd ones under θ -> -θ."""

    n_components: int = 6

    def __post_init__(self) -> None:
        if type(self.n_components) is not int or self.n_components < 1:
            raise ValueError(f"expected n_components >= 1, got {self.n_components!r}: pass 6, say")

    @property
    def parity(self) -> tuple[Parity, ...]:
        """x -> -x reverses all three lists and changes the sign of b and α."""
        n = self.n_components
        opposite = ODD * (n - n // 2) + EVEN * (n // 2)
        return 2 * list_parity(n) + opposite + ODD

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        check_parameters(x, parameters, self.n_parameters)
        y, log_slope = circular_mixture(x, parameters)
        return wrap(y), log_slope

    def inverse(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        check_parameters(y, parameters, self.n_parameters)

        still = F.pad(parameters[..., :-1], (0, 1))  # without the rotation, which may be large
        goal = wrap(y - parameters[..., -1])

        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = circular_mixture(x, still)
            return value, torch.exp(log_slope)

        x = increasing_root(function, goal, goal - 2 * math.pi, goal + 2 * math.pi)
        return wrap(x), -circular_mixture(x, still)[1]

    @classmethod
    def examples(cls) -> Iterator[CircularMixture]:
        yield cls(n_components=3)
        yield cls(n_components=4)
