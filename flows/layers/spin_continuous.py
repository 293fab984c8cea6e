"""Continuous flow of spins on circles and spheres: potentials of bonds and pairs, with an exact divergence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from flows.layers.bond_features import bond_features, passages
from flows.layers.cell_flow import CellFlow, Situation, situation
from flows.layers.cell_kernels import CellKernels
from flows.layers.integration import Fields, integrate, tableau
from flows.layers.kernels import OrbitKernels
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import PointGroup, Translations
from lattices.lattice import Lattice
from lattices.spins import GlobalRotations, require_spins, turned, unit_vectors


@dataclass(frozen=True)
class SpinFlowSpec:
    """What a continuous flow of spins is made of; plain numbers only.

    Args:
        n_powers: K of the zonal features of bonds, cos k(θ - θ') of planar spins, and of their currents.
        radius: range of the kernels between bonds in lattice units, None for the full range.
        pair_radius: range of the potentials s_x·s_y of two spins, None for the full range.
        n_times: number of Legendre polynomials in time.
        n_context: number of couplings (β, …) the flow is conditioned on.
        context_degree: the coefficients are polynomials of this degree in the couplings.
    """

    n_powers: int = 2
    radius: float | None = 2.0
    pair_radius: float | None = None
    n_times: int = 2
    n_context: int = 0
    context_degree: int = 2

    def __post_init__(self) -> None:
        if min(self.n_powers, self.n_times, self.context_degree) < 1 or self.n_context < 0:
            raise ValueError(
                f"expected n_powers, n_times, context_degree >= 1 and n_context >= 0, got {self}: raise them"
            )


class Spins(NamedTuple):
    """Unit vectors, and their Fourier transform over the lattice."""

    vectors: Tensor  # (batch, *extents, n)
    hat: Tensor  # (batch, *half, n)


class SpinContinuousFlow(CellFlow):
    """Spins s_x in Rⁿ, |s_x| = 1, that move by ṡ_x = v_x ⊥ s_x with O(n)-covariant velocities, s(0) = z.

        v_x = Σ_l Σ_m ∇_x f_m(l) s_m(l) + Σ_y W(x - y; t) P_x s_y,    s_m(l) = c_m + Σ_{n,b,l'} θ_mnb K_b(l, l') f_n(l')

    f_m(l) are the zonal harmonics and the currents of the bonds l (`bond_features`), K_b orbit kernels between bonds,
    W orbit kernels between spins, P_x the projection on the tangent space at s_x. The divergence is closed: that of
    the last term is -(n - 1) Σ W(x - y) s_x·s_y, all the others follow from eigenvalues and scalar products. Linear
    in θ; zero θ is the identity; log|det| is exact up to the integration error, which `integration_error` measures.
    Spheres are integrated in Rⁿ with velocities of degree 0, and end projected. Cost V 2d K n² per evaluation.

    Args:
        field: angles or unit vectors on the sites of a lattice of at least two sites along some axis.
        spec: features, kernels, time dependence, context.
        n_steps, method: steps and Runge–Kutta method ("rk4", "dopri5", "dop853").
    Symmetries: translations, point group, global O(n).
    """

    symmetries = (Translations(), PointGroup(), GlobalRotations())

    def __init__(
        self, field: FieldSpace, spec: SpinFlowSpec | None = None, n_steps: int = 4, method: str = "rk4",
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.spec, self.n_steps, self.method = spec or SpinFlowSpec(), n_steps, method
        self.n_components, lattice = require_spins(field), field.lattice
        if n_steps < 1:
            raise ValueError(f"expected n_steps >= 1, got {n_steps}: 4 steps of rk4 are a good start")
        tableau(method)
        self.domain = self.codomain = field
        self.kernels = CellKernels(lattice, self.spec.radius, rank=1)
        self.passages = [passages(lattice.dimension)]
        self.n_even = self.n_odd = self.spec.n_powers
        self.pairs = OrbitKernels(lattice, self.spec.pair_radius)
        self.far = [b for b, d in enumerate(self.pairs.displacements) if any(d)]
        self.register_buffer("pair_spectrum", self.pairs.spectrum(dtype)[self.far], persistent=False)
        self._add_kernels(dtype)

    def refined(self, n_steps: int, method: str | None = None) -> SpinContinuousFlow:
        other = SpinContinuousFlow(self.domain, self.spec, n_steps, method or self.method, self.theta.dtype)
        other.to(self.theta.device)
        other.theta = self.theta
        return other

    def transferred(self, lattice: Lattice, radius: float | None = None) -> SpinContinuousFlow:
        """This flow on another lattice: orbit weights are copied, orbits that are new there start at zero.

        Args:
            lattice: usually larger, of the same dimension and the same shape (a square goes to a square).
            radius: range of the kernels between bonds there; None for the full range.
        """
        if lattice.dimension != self.domain.lattice.dimension:
            raise ValueError(
                f"expected a lattice of {self.domain.lattice.dimension} axes, got {lattice}: orbits differ"
            )
        spec, field = replace(self.spec, radius=radius), replace(self.domain, lattice=lattice)
        other = SpinContinuousFlow(field, spec, self.n_steps, self.method, self.theta.dtype)
        self.copy_orbits(other)
        there = {other.pairs.displacements[b]: i for i, b in enumerate(other.far)}
        old, new = self._split(self.theta.detach())[3], other._split(other.theta.detach())[3]
        for i, b in enumerate(self.far):
            if self.pairs.displacements[b] in there:
                new[..., there[self.pairs.displacements[b]]].copy_(old[..., i])
        return other

    def extra_repr(self) -> str:
        return (
            f"{self.domain.target}, {self.domain.lattice}, {self.spec}, n_steps={self.n_steps}, method={self.method!r}"
        )

    # ------------------------------------------------------------------------------------------ the equation of motion

    @property
    def _planar(self) -> bool:
        return isinstance(self.domain.target, Circle)

    def _solved(self, rates, start, times, n_steps):  # type: ignore[no-untyped-def]
        def flat(t: float, state: Fields) -> Fields:
            velocity, others = rates(t, state[0], state[1:])
            return (velocity, *others)

        x, vectors = start
        x, *vectors = integrate(flat, (x, *vectors), times, n_steps, self.method)
        return self._on_target(x), tuple(vectors)

    def _on_target(self, x: Tensor) -> Tensor:
        return self.domain.exp(x, torch.zeros_like(x)) if self._planar else x / x.norm(dim=-1, keepdim=True)

    def _score_rate(self, x: Tensor, v: Tensor, score: Tensor, derivative: Tensor) -> Tensor:
        return -derivative

    def _on_manifold(self, x: Tensor, score: Tensor) -> Tensor:
        return self.domain.target.gradient(x, score)

    def _as_vector(self, x: Tensor, v: Tensor) -> Tensor:
        return v[:, 0].squeeze(-1) if self._planar else v[:, 0]

    def _as_velocity(self, x: Tensor, s: Tensor) -> Tensor:
        return s[:, None, ..., None] if self._planar else s[:, None]

    def _situation(self, x: Tensor) -> Situation:
        x = x if self._planar else x / x.norm(dim=-1, keepdim=True)
        vectors = unit_vectors(self.domain, x)
        parts = bond_features(self.domain, x, self.spec.n_powers)
        return situation(parts, Spins(vectors, self._over_lattice(vectors)))

    def _over_lattice(self, v: Tensor) -> Tensor:  # (batch, *extents, n) -> (batch, *half, n)
        return torch.fft.rfftn(v, dim=self._vector_axes)

    @property
    def _vector_axes(self) -> tuple[int, ...]:
        return tuple(axis - 1 for axis in self.domain.lattice.axes)

    def _further_sizes(self) -> list[int]:
        return [len(self.far)]

    def _further(self, coefficients: list[Tensor], now: Situation) -> tuple[Tensor, Tensor]:
        s, hat = now.further
        kernel = torch.einsum("ek,k...->e...", coefficients[0], self.pair_spectrum).unsqueeze(-1)
        pulled = torch.fft.irfftn(kernel * hat, s=self.domain.lattice.extents, dim=self._vector_axes)
        radial = (pulled * s).sum(-1)
        v = (pulled * turned(s)).sum(-1, keepdim=True) if self._planar else pulled - radial.unsqueeze(-1) * s
        return v[:, None], -(self.n_components - 1) * radial.flatten(1).sum(1)

    def _further_columns(self, now: Situation, s: Tensor) -> list[Tensor]:
        """Σ_x (score_x - (n - 1) s_x)·(K_b * s)_x, in Fourier space."""
        vectors, hat = now.further
        score = s[:, 0] * turned(vectors) if self._planar else s[:, 0]
        against = self._over_lattice(score - (self.n_components - 1) * vectors)
        power = (against.conj() * hat).real.sum(-1) * self.weight
        return [torch.einsum("b...,k...->bk", power, self.pair_spectrum)]

    @classmethod
    def examples(cls) -> Iterator[SpinContinuousFlow]:
        """XY, O(3) and O(4), in one to three dimensions, with couplings and without."""
        plain = SpinFlowSpec(radius=1.0, n_times=2)
        yield cls(
            FieldSpace(Lattice((3, 4)), Circle()),
            replace(plain, n_powers=1, n_context=1, context_degree=1),
            12,
            "dop853",
        )
        yield cls(FieldSpace(Lattice((3, 3)), Sphere(2)), plain, 12, "dop853")
        yield cls(FieldSpace(Lattice((2, 2, 2)), Sphere(2)), replace(plain, n_powers=1), 12, "dop853")
        yield cls(FieldSpace(Lattice((4,)), Sphere(3)), plain, 12, "dop853")
