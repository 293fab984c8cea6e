"""Potentials on spheres whose exponential maps x ↦ exp_x(∇φ) are diffeomorphisms, whatever their parameters.

Write c(x, y) = d(x, y)²/2. The map exp_x(∇φ) is a diffeomorphism if -φ is strictly c-concave: |∇φ| < π and
Hess_x c(x, y) + Hess φ(x) > 0 at y = exp_x(∇φ(x)). For a function h of one coordinate u = x·y = cos θ, ∇φ has length
δ(θ) = h'(u) sin θ towards y, and the condition is δ'(θ) < 1: the map of latitudes θ ↦ θ - δ(θ) increases. Spheres have
non-negative cross-curvature: v ↦ Hess_x c(x, exp_x v) is concave. So convex mixtures Σ_i w_i φ_i keep the condition,
and so does the soft maximum, the supremum over p of Σ_i p_i φ_i + γ (entropy of p); -γ⁻¹ Var adds to the good side.

References: McCann (2001), c-concave potentials; Y.-H. Kim & R. McCann, 0806.0351, and A. Figalli, Y.-H. Kim &
R. McCann, 0912.3033, cross-curvature and convex sets of potentials.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from flows.transforms.elementwise import check_positive
from lattices.invariance import Symmetry

LEAST_TEMPERATURE = 0.01


class Derivatives(NamedTuple):
    """Derivatives in R^n; only their tangent parts matter, so that any extension off the sphere will do."""

    gradient: Tensor  # (..., n)
    hessian: Tensor  # (..., n, n)


class Potential(nn.Module, ABC):
    """A smooth function φ on S^{n-1} such that -φ is strictly c-concave for all values of the parameters.

    `n` is the number of components of x; `symmetries` are claims about spins under which φ is invariant.
    """

    n: int
    symmetries: tuple[Symmetry, ...] = ()

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:  # (..., n) -> (...)
        """φ(x)."""

    @abstractmethod
    def derivatives(self, x: Tensor) -> Derivatives:  # (..., n) -> (..., n), (..., n, n)
        """∂φ and ∂∂φ in closed form."""

    @classmethod
    def examples(cls) -> Iterator[Potential]:
        """Small instances: documentation first, test data second."""
        raise NotImplementedError(f"{cls.__name__} gives no examples(): yield a few small instances")


@final
class RadialPotential(Potential):
    """A sum of bumps: φ(x) = Σ_i (α_i/β_i) exp[β_i (x·μ_i - 1)], Σ|α_i| < 1, β_i > 0.

    α_i = a_i / (1 + Σ_j |a_j|): points are drawn to μ_i where α_i > 0 and driven away from it where α_i < 0; both keep
    δ' < 1. It starts as φ = 0, the identity. Cost O(n_components n²) for each point.

    Args:
        n: components of x, D + 1 on S^D.
        n_components: how many bumps.
    References: M. Sei (2013), potentials for directions; D. J. Rezende et al., 2002.02428, section 2.4, with α_i ≥ 0.
    """

    def __init__(self, n: int, n_components: int = 12, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.n = checked_size("n", n, 2)
        self.centres = _directions(n, n_components, dtype)
        self.weights = nn.Parameter(torch.zeros(n_components, dtype=dtype))
        self.sharpness = nn.Parameter(torch.full((n_components,), 2.0, dtype=dtype))

    def value(self, x: Tensor) -> Tensor:
        slope, _, beta = self._slopes(x)
        return (slope / beta).sum(-1)

    def derivatives(self, x: Tensor) -> Derivatives:
        slope, directions, beta = self._slopes(x)
        return Derivatives(slope @ directions, _outer_sum(beta * slope, directions))

    def _slopes(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        directions, beta = normalize(self.centres, dim=-1), softplus(self.sharpness)
        return _within_one(self.weights) * torch.exp(beta * (x @ directions.mT - 1)), directions, beta

    @classmethod
    def examples(cls) -> Iterator[RadialPotential]:
        """On the circle, and on S²."""
        yield cls(2, 2)
        yield cls(3, 3)


@final
class PolynomialPotential(Potential):
    """A polynomial: φ(x) = Σ_d Σ_i α_di (x·μ_di)^d / d, Σ|α_di| < 1.

    With `degree` 2 and n or more components it contains every φ = μ·x + xᵀAx that is small enough,
    |μ| + 2 Tr|A| < 1. It starts as φ = 0, the identity. Cost O(degree · n_components n²) for each point.

    Args:
        n: components of x, D + 1 on S^D.
        n_components: how many terms of each degree.
        degree: the largest d, 1 or more.
    References: D. J. Rezende et al., 2002.02428, section 2.4.
    """

    def __init__(self, n: int, n_components: int = 4, degree: int = 2, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.n, self.degree = checked_size("n", n, 2), checked_size("degree", degree, 1)
        self.axes = nn.ParameterList(_directions(n, n_components, dtype) for _ in range(degree))
        self.weights = nn.Parameter(torch.zeros(degree, n_components, dtype=dtype))

    def value(self, x: Tensor) -> Tensor:
        terms = ((x @ axes.mT) ** d @ alpha / d for d, axes, alpha in self._terms())
        return torch.stack(list(terms)).sum(0)

    def derivatives(self, x: Tensor) -> Derivatives:
        gradients, hessians = [], []
        for d, axes, alpha in self._terms():
            u = x @ axes.mT
            gradients.append((alpha * u ** (d - 1)) @ axes)
            hessians.append(_outer_sum((d - 1) * alpha * u ** max(d - 2, 0), axes))
        return Derivatives(torch.stack(gradients).sum(0), torch.stack(hessians).sum(0))

    def _terms(self) -> list[tuple[int, Tensor, Tensor]]:
        """d, its directions and its weights."""
        rows = zip(self.axes, _within_one(self.weights))
        return [(d, normalize(axes, dim=-1), alpha) for d, (axes, alpha) in enumerate(rows, start=1)]

    @classmethod
    def examples(cls) -> Iterator[PolynomialPotential]:
        """Linear and quadratic terms on S¹ and S², up to the fourth power on S³."""
        yield cls(2, 2)
        yield cls(3)
        yield cls(4, 2, degree=4)


@final
class SoftMinimumPotential(Potential):
    """Minus a soft minimum of costs: φ(x) = γ log Σ_i exp[-(c_i(x) + a_i)/γ], c_i = arccos²(ρ_i x·y_i)/2, 0 < ρ_i < 1.

    As ρ → 1 and γ → 0 it is -min_i [d(x, y_i)²/2 + a_i], and such functions are dense among all c-concave ones. A
    distance has a kink at the antipode of y_i, where the soft minimum would tear the sphere; ρ_i < 1 rounds it off
    over an angle (2 - 2ρ_i)^½, with δ' < 1 everywhere, so that the map stays an exact diffeomorphism and all
    derivatives are finite at centres and antipodes; ρ_i → 0 takes the component away. Cost O(n_components n²).

    Args:
        n: components of x, D + 1 on S^D.
        n_components: how many y_i.
        temperature: γ at the start; it is trained.
    References: S. Cohen, B. Amos & Y. Lipman, 2106.10272, sections 4 and 5.
    """

    def __init__(
        self, n: int, n_components: int = 64, temperature: float = 0.3, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.n = checked_size("n", n, 2)
        self.centres = _directions(n, n_components, dtype)
        self.offsets = nn.Parameter(torch.zeros(n_components, dtype=dtype))
        self.rounding = nn.Parameter(torch.full((n_components,), -1.0, dtype=dtype))
        self.raw_temperature = nn.Parameter(torch.tensor(temperature, dtype=dtype).expm1().log())

    def value(self, x: Tensor) -> Tensor:
        return self._temperature() * self._exponents(self._cosines(x)[0].acos()).logsumexp(-1)

    def derivatives(self, x: Tensor) -> Derivatives:
        u, rho, directions = self._cosines(x)
        gamma, angle, squared_sine = self._temperature(), u.acos(), (1 - u) * (1 + u)
        ratio, p = angle * squared_sine.rsqrt(), self._exponents(angle).softmax(-1)
        slope, curvature = rho * ratio, rho.square() * (1 - u * ratio) / squared_sine
        gradient = (p * slope) @ directions
        hessian = _outer_sum(p * (slope.square() / gamma - curvature), directions)
        return Derivatives(gradient, hessian - gradient.unsqueeze(-1) * gradient.unsqueeze(-2) / gamma)

    def _exponents(self, angle: Tensor) -> Tensor:
        return -(angle.square() / 2 + self.offsets) / self._temperature()

    def _temperature(self) -> Tensor:
        """γ, away from 0, where the map collapses onto the y_i."""
        return LEAST_TEMPERATURE + softplus(self.raw_temperature)

    def _cosines(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ρ x·y, ρ and y; ρ keeps away from 1 by more than rounding errors of either precision."""
        directions, rho = normalize(self.centres, dim=-1), 0.999 * self.rounding.sigmoid()
        return rho * (x @ directions.mT), rho, directions

    @classmethod
    def examples(cls) -> Iterator[SoftMinimumPotential]:
        """On S¹, S² and S³."""
        yield cls(2, 3)
        yield cls(3, 5)
        yield cls(4, 2, temperature=1.0)


def checked_size(name: str, value: int, least: int) -> int:
    """Return the value if it is a whole number that is large enough."""
    if type(value) is not int or value < least:
        raise ValueError(f"expected a whole number {name} >= {least}, got {value!r}: raise it")
    return value


def _directions(n: int, n_components: int, dtype: torch.dtype) -> nn.Parameter:  # -> (n_components, n)
    """Random directions, not normalised."""
    return nn.Parameter(normalize(torch.randn(checked_size("n_components", n_components, 1), n, dtype=dtype), dim=-1))


def _within_one(weights: Tensor) -> Tensor:
    """a / (1 + Σ|a|): signed weights whose absolute values sum to less than one."""
    return weights / (1 + weights.abs().sum())


def _outer_sum(weights: Tensor, directions: Tensor) -> Tensor:  # (..., k), (k, n) -> (..., n, n)
    """Σ_k w_k y_k y_kᵀ."""
    squares = directions.unsqueeze(-1) * directions.unsqueeze(-2)
    return (weights @ squares.flatten(1)).unflatten(-1, squares.shape[1:])
