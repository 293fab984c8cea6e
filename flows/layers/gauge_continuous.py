"""Continuous trivialising flow of gauge links: potentials of Wilson loops, with an exact divergence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from flows.layers.cell_flow import CellFlow, Part, Situation, situation
from flows.layers.cell_kernels import CellKernels
from flows.layers.integration import tableau
from flows.layers.lie_integration import commutator, integrate_links
from flows.layers.pair_features import n_pairs, pair_gradient, pair_laplacians
from flows.layers.plaquette_features import (
    LoopFeatures,
    from_coordinates,
    loop_features,
    n_features,
    passages,
    plaquette_features,
    to_coordinates,
)
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance, require_links
from lattices.invariance import PointGroup, Translations
from lattices.lattice import Lattice
from lattices.loops import RECTANGLE, Path
from symmetries.lie import SU2, SU3, SUN, U1


@dataclass(frozen=True)
class GaugeFlowSpec:
    """What a continuous flow of links is made of; plain numbers only.

    Args:
        n_powers: K of the features Re and Im Tr P^k / kN, k = 1 … K, of the plaquettes.
        radius: range of the kernels between plaquettes in lattice units, None for the full range.
        pairs: add the potentials of two plaquettes with a common link, R (rectangles, chairs) and T (which pass
            through that link twice), for SU(N); U(1) has them among the kernels.
        loops: shapes of further Wilson loops W that add c(t) ∇W to the velocity, e.g. SQUARE.
        n_times: number of Legendre polynomials in time.
        n_context: number of couplings (β, …) the flow is conditioned on.
        context_degree: the coefficients are polynomials of this degree in the couplings.
        checkpointed: backward passes keep the links between steps alone, and compute each step twice.
    """

    n_powers: int = 2
    radius: float | None = 2.0
    pairs: bool = False
    loops: tuple[Path, ...] = ()
    n_times: int = 4
    n_context: int = 0
    context_degree: int = 2
    checkpointed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "loops", tuple(tuple(loop) for loop in self.loops))
        if min(self.n_powers, self.n_times, self.context_degree) < 1 or self.n_context < 0:
            raise ValueError(
                f"expected n_powers, n_times, context_degree >= 1 and n_context >= 0, got {self}: raise them"
            )


class Further(NamedTuple):
    """What pairs of plaquettes and further loops are made of."""

    u: Tensor
    plaquettes: Tensor | None  # as loops through each link
    loops: list[LoopFeatures]


class GaugeContinuousFlow(CellFlow):
    """U(1) of U̇_l = v_l U_l with a velocity of Wilson loops in the algebra, U(0) = z.

        v_l = Σ_p Σ_m ∇_l f_m(p) s_m(p) + Σ_L c_L(t) ∇_l W_L,    s_m(p) = c_m(t) + Σ_{n,b,q} θ_mnb(t) K_b(p, q) f_n(q)
        div v = Σ_p Σ_m (Σ_l ∇_l² f_m(p)) s_m(p) + Σ_{l,m,n,p,q} K_mn(p, q) ⟨∇_l f_m(p), ∇_l f_n(q)⟩ + Σ_L c_L ∇² W_L

    f_m are the traces Re, Im Tr P^k / kN of the plaquettes, W_L further loops, K_b orbit kernels between plaquettes
    (odd with odd, even with even features: charge conjugation). With K = 0 this is the gradient flow of a trivialising
    map; the kernels let the strength depend on the plaquettes around, among them products of traces. Coefficients
    are Legendre series in time, everything is linear in θ, zero θ is the identity. Links stay in the group
    (Munthe-Kaas steps), the divergence is exact, so log|det| is exact up to the integration error O(h^order), which
    `integration_error` measures. Cost V d(d-1) matrix products per evaluation.

    Args:
        field: links in U(1) or SU(N) on a lattice of d = 2, 3, 4.
        spec: features, kernels, loops, time dependence, context.
        n_steps, method: steps and Runge–Kutta method ("rk4", "dopri5", "dop853").
    Symmetries: gauge, translations, point group, charge conjugation, centre.
    References: Lüscher 2010, arXiv:0907.5491; Bacchio et al. 2022, arXiv:2212.08469.
    """

    symmetries = (GaugeInvariance(), Translations(), PointGroup(), ChargeConjugation(), CentreSymmetry())

    def __init__(
        self, field: FieldSpace, spec: GaugeFlowSpec | None = None, n_steps: int = 8, method: str = "rk4",
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        super().__init__()
        self.spec, self.n_steps, self.method = spec or GaugeFlowSpec(), n_steps, method
        group, lattice = require_links(field), field.lattice
        smallest = 3 if self.spec.loops or self.spec.pairs else 2
        if self.spec.pairs and not isinstance(group, SUN):
            raise ValueError(f"expected SU(N) with pairs, got {group}: kernels hold them for U(1), set pairs=False")
        if lattice.dimension < 2 or min(lattice.extents) < smallest:
            raise ValueError(
                f"expected two or more axes of >= {smallest} sites, got {lattice.extents}: loops need room"
            )
        if n_steps < 1:
            raise ValueError(f"expected n_steps >= 1, got {n_steps}: 8 steps of rk4 are a good start")
        tableau(method)
        self.domain = self.codomain = field
        self.kernels = CellKernels(lattice, self.spec.radius)
        self.passages = [passages(lattice.dimension, mu) for mu in range(lattice.dimension)]
        self.n_even, self.n_odd = n_features(group, self.spec.n_powers)
        self._add_kernels(dtype)

    def refined(self, n_steps: int, method: str | None = None) -> GaugeContinuousFlow:
        other = GaugeContinuousFlow(self.domain, self.spec, n_steps, method or self.method, self.theta.dtype)
        other.to(self.theta.device)
        other.theta = self.theta
        return other

    def transferred(self, lattice: Lattice, radius: float | None = None) -> GaugeContinuousFlow:
        """This flow on another lattice: orbit weights are copied, orbits that are new there start at zero.

        Args:
            lattice: usually larger, of the same dimension and the same shape (a square goes to a square).
            radius: range of the kernels there; None for the full range.
        """
        if lattice.dimension != self.domain.lattice.dimension:
            raise ValueError(
                f"expected a lattice of {self.domain.lattice.dimension} axes, got {lattice}: orbits differ"
            )
        spec = replace(self.spec, radius=radius)
        other = GaugeContinuousFlow(
            replace(self.domain, lattice=lattice), spec, self.n_steps, self.method, self.theta.dtype
        )
        self.copy_orbits(other)
        for old, new in zip(self._split(self.theta.detach())[3:], other._split(other.theta.detach())[3:]):
            new.copy_(old)
        return other

    def extra_repr(self) -> str:
        return (
            f"{self.domain.target}, {self.domain.lattice}, {self.spec}, n_steps={self.n_steps}, method={self.method!r}"
        )

    # ------------------------------------------------------------------------------------------ the equation of motion

    def _solved(self, rates, start, times, n_steps):  # type: ignore[no-untyped-def]
        return integrate_links(self.domain, rates, start, times, (n_steps, self.method), self.spec.checkpointed)

    def _score_rate(self, x: Tensor, v: Tensor, score: Tensor, derivative: Tensor) -> Tensor:
        rate = -self.domain.target.gradient(x, derivative)
        return rate + commutator(v, score) if self.domain.target.shape else rate

    def _as_vector(self, x: Tensor, v: Tensor) -> Tensor:
        return from_coordinates(self.domain, v, x.dtype)

    def _as_velocity(self, x: Tensor, s: Tensor) -> Tensor:
        return to_coordinates(self.domain, s)

    def _situation(self, x: Tensor) -> Situation:
        values, laplacians, gradients, plaquettes = plaquette_features(self.domain, x, self.spec.n_powers)
        sizes = [self.n_even, self.n_odd]
        split = zip(values.split(sizes, 1), laplacians.split(sizes, 1), gradients.split(sizes, 2))
        even, odd = (Part(f.unsqueeze(2), g.unsqueeze(2), df.unsqueeze(3)) for f, g, df in split)
        loops = [loop_features(self.domain, x, loop) for loop in self.spec.loops]
        return situation((even, odd), Further(x, plaquettes, loops))

    def _further_sizes(self) -> list[int]:
        return [n_pairs(self.domain.lattice.dimension) if self.spec.pairs else 0, len(self.spec.loops)]

    def _further(self, coefficients: list[Tensor], now: Situation) -> tuple[Tensor, Tensor]:
        (pairs, strengths), further = coefficients, now.further
        v = divergence = pairs.new_zeros(())
        if further.plaquettes is not None and self.spec.pairs:
            v = pair_gradient(self.domain, further.u, further.plaquettes, pairs)
            divergence = (pair_laplacians(further.plaquettes) * pairs).sum(1)
        for c, loop in zip(strengths.unbind(-1), further.loops):
            v = v + c.reshape(-1, *[1] * (loop.gradient.ndim - 1)) * loop.gradient
            divergence = divergence + c * loop.laplacian
        return v, divergence

    def _further_columns(self, now: Situation, s: Tensor) -> list[Tensor]:
        loops = [loop.laplacian + (loop.gradient * s).flatten(1).sum(1) for loop in now.further.loops]
        return [*self._pair_columns(now.further, s), *(loop[:, None] for loop in loops)]

    def _pair_columns(self, further: Further, s: Tensor) -> list[Tensor]:
        """The columns of the pair potentials, one of them at a time."""
        if further.plaquettes is None or not self.spec.pairs:
            return []
        laplacians = pair_laplacians(further.plaquettes)
        units = torch.eye(laplacians.shape[1], dtype=s.dtype, device=s.device)
        gradients = (pair_gradient(self.domain, further.u, further.plaquettes, unit[None]) for unit in units)
        driven = torch.stack([(gradient * s).flatten(1).sum(1) for gradient in gradients], 1)
        return [laplacians + driven]

    @classmethod
    def examples(cls) -> Iterator[GaugeContinuousFlow]:
        """U(1), SU(2) and SU(3), in two to four dimensions, with and without further loops and couplings."""
        plain = GaugeFlowSpec(n_powers=1, radius=1.0, n_times=2)
        cases = [
            (U1(), (3, 4), replace(plain, n_context=1)), (U1(), (3, 3, 3), replace(plain, radius=0.8)),
            (U1(), (2, 2, 2, 2), plain), (SU2(), (3, 3), replace(plain, pairs=True, loops=(RECTANGLE,))),
            (SU3(), (2, 2), replace(plain, n_powers=2)),
        ]  # fmt: skip
        for group, extents, spec in cases:
            n_steps = 12 if spec.n_context else 5
            yield cls(FieldSpace(Lattice(extents), Links(group), "links"), spec, n_steps, method="dop853")
