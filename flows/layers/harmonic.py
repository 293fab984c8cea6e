"""Continuous flow on one sphere or torus: a potential made of eigenfunctions of its Laplacian."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from flows.bijection import Scored
from flows.layers.integrated import IntegratedFlow, context_columns, legendre, monomials, tangents_along
from flows.layers.integration import Fields, Rates, integrate, tableau
from flows.transforms.harmonics import harmonics
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import PointGroup, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.spins import AngleShifts, AxisRotations, SpinPointGroup


@dataclass(frozen=True)
class HarmonicSpec:
    """What a harmonic flow is made of.

    Args:
        degree: the highest degree l of spherical harmonics, the longest wave m on a torus.
        n_times: number of Legendre polynomials in time.
        n_context: number of couplings the flow is conditioned on.
        context_degree: the coefficients are polynomials of this degree in the couplings.
        invariant_under: symmetries; only invariant potentials are kept, and the flow claims them.
    """

    degree: int = 4
    n_times: int = 2
    n_context: int = 0
    context_degree: int = 2
    invariant_under: tuple[Symmetry, ...] = ()

    def __post_init__(self) -> None:
        if min(self.degree, self.n_times, self.context_degree) < 1 or self.n_context < 0:
            raise ValueError(
                f"expected degree, n_times, context_degree >= 1 and n_context >= 0, got {self}: raise them"
            )


@final
class HarmonicFlow(IntegratedFlow):
    """ẋ = Σ_j c_j(t) ∇f_j(x), x(0) = z, with the eigenfunctions Δf_j = -λ_j f_j of a whole sphere or torus.

        c_j(t) = Σ_mk θ_mkj (monomial m of the couplings) P_k(2t - 1),    div v = -Σ_j c_j λ_j f_j

    Every smooth potential on the space is such a sum, so the flow is universal among gradient flows, with no networks
    and no special points. Linear in θ; zero θ is the identity; log|det| is exact up to the integration error, which
    `integration_error` measures. Spheres are integrated in Rᴰ⁺¹ with velocities of degree 0, and end projected. Cost
    per evaluation: some multiplications for every harmonic; the number of these grows as degreeᴰ.

    Args:
        field: one unit vector, on Sᴰ, or D angles on sites, Tᴰ.
        spec: degree, time dependence, context, symmetries.
        n_steps, method: steps and Runge–Kutta method ("rk4", "dopri5", "dop853").
    Symmetries: those asked for in `spec`.
    """

    def __init__(
        self, field: FieldSpace, spec: HarmonicSpec | None = None, n_steps: int = 8, method: str = "rk4",
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.spec, self.n_steps, self.method = spec or HarmonicSpec(), n_steps, method
        if n_steps < 1:
            raise ValueError(f"expected n_steps >= 1, got {n_steps}: 8 steps of rk4 are a good start")
        tableau(method)
        self.domain = self.codomain = field
        self.harmonics = harmonics(field, self.spec.degree, self.spec.invariant_under).to(dtype)
        trivial = (Translations(), PointGroup()) if field.lattice.volume == 1 else ()
        self.symmetries = tuple(dict.fromkeys((*self.spec.invariant_under, *trivial)))
        n_monomials = len(monomials(self.spec.n_context, self.spec.context_degree))
        n_functions = len(self.harmonics.eigenvalues)
        self.theta = nn.Parameter(torch.zeros(n_monomials, self.spec.n_times, n_functions, dtype=dtype))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(z, context, (0.0, 1.0))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(x, context, (1.0, 0.0))

    def refined(self, n_steps: int, method: str | None = None) -> HarmonicFlow:
        other = HarmonicFlow(self.domain, self.spec, n_steps, method or self.method, self.theta.dtype)
        other.to(self.theta.device)
        other.theta = self.theta
        return other

    def raised(self, degree: int | None = None, n_times: int | None = None) -> HarmonicFlow:
        """The same map with further potentials and times, whose coefficients start at zero: train low, go on higher."""
        spec = replace(self.spec, degree=degree or self.spec.degree, n_times=n_times or self.spec.n_times)
        if spec.degree < self.spec.degree or spec.n_times < self.spec.n_times:
            raise ValueError(f"expected at least the degree and times of {self.spec}, got {spec}: raise them")
        other = HarmonicFlow(self.domain, spec, self.n_steps, self.method, self.theta.dtype).to(self.theta.device)
        with torch.no_grad():
            other.theta[:, : self.theta.shape[1], : self.theta.shape[2]] = self.theta
        return other

    @torch.no_grad()
    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score along: ds/dt = -∇(⟨v, s⟩ + div v); about three forward passes."""
        state = integrate(self._scored_rates(context), self._start(z, score), (0.0, 1.0), self.n_steps, self.method)
        return self._end(state)

    @torch.no_grad()
    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        rates = self._scored_rates(context)

        def advance(state: Fields, t: float, h: float) -> Fields:
            return integrate(rates, state, (t, t + h), 1, self.method)

        def stein(state: Fields) -> Tensor:
            return self.harmonics.stein(state[0], state[2])

        state, tangents = tangents_along(self, self._context(context), self._start(z, score), advance, stein)
        return self._end(state), tangents

    def extra_repr(self) -> str:
        return (
            f"{self.domain.target}, {self.domain.lattice}, {self.spec}, n_steps={self.n_steps}, method={self.method!r}"
        )

    # ------------------------------------------------------------------------------------------ the equation of motion

    def _integrated(self, start: Tensor, context: Tensor | None, times: tuple[float, float]) -> tuple[Tensor, Tensor]:
        def rates(t: float, state: Fields) -> Fields:
            return self.harmonics(self._coefficients(t, context), state[0])

        x, log_det = integrate(rates, self._start(start), times, self.n_steps, self.method)
        return self._on_target(x), log_det

    def _scored_rates(self, context: Tensor | None) -> Rates:
        def rates(t: float, state: Fields) -> Fields:
            with torch.enable_grad():
                y = state[0].detach().requires_grad_()
                v, divergence = self.harmonics(self._coefficients(t, context).detach(), y)
                derivative = torch.autograd.grad((v * state[2]).sum() + divergence.sum(), y)[0]
            return v.detach(), divergence.detach(), -derivative

        return rates

    def _start(self, x: Tensor, *vectors: Tensor) -> Fields:
        """Fields and tangent vectors as rows of numbers, and log|det| = 0."""
        return (x.flatten(1), x.new_zeros(len(x)), *(v.flatten(1) for v in vectors))

    def _end(self, state: Fields) -> Scored:
        x, log_det, score = state
        x = self._on_target(x)
        return Scored(x, log_det, self.codomain.target.gradient(x, score.view_as(x)))

    def _on_target(self, x: Tensor) -> Tensor:  # (batch, dim) -> (batch, *event)
        x = x.unflatten(1, self.domain.event_shape)
        circles = isinstance(self.domain.target, Circle)
        return self.domain.exp(x, torch.zeros_like(x)) if circles else x / x.norm(dim=-1, keepdim=True)

    def _coefficients(self, t: float, context: Tensor | None) -> Tensor:  # -> (1 or batch, n_functions)
        return torch.einsum("bm,k,mkj->bj", self._context(context), self._times(t), self.theta)

    def _times(self, t: float) -> Tensor:
        return self.theta.new_tensor(legendre(t, self.spec.n_times))

    def _context(self, context: Tensor | None) -> Tensor:
        return context_columns(context, self.spec.n_context, self.spec.context_degree, self.theta)

    @classmethod
    def examples(cls) -> Iterator[HarmonicFlow]:
        """Spheres and tori of one to three dimensions, with couplings, and with the symmetries potentials can have."""
        plain, method = HarmonicSpec(degree=2, n_times=2), "dop853"
        point = [FieldSpace(Lattice((1,)), Sphere(n)) for n in (1, 2, 3)]
        torus = [FieldSpace(Lattice((n,)), Circle()) for n in (1, 2, 3)]
        yield cls(point[0], plain, 6, method)
        yield cls(point[1], replace(plain, degree=1, n_context=1, context_degree=1), 6, method)
        yield cls(point[2], replace(plain, degree=1), 6, method)
        yield cls(torus[0], plain, 6, method)
        yield cls(torus[1], replace(plain, degree=1, n_context=1, context_degree=1), 6, method)
        yield cls(torus[2], replace(plain, degree=1), 6, method)
        yield cls(point[1], replace(plain, invariant_under=(AxisRotations(),)), 6, method)
        yield cls(point[1], replace(plain, invariant_under=(SpinPointGroup.cyclic(2),)), 6, method)
        yield cls(torus[1], replace(plain, invariant_under=(AngleShifts((1, -1)),)), 6, method)
