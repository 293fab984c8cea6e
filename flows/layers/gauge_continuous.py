"""Continuous trivialising flow of gauge links: potentials of Wilson loops, with an exact divergence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from flows.bijection import Scored
from flows.layers.integrated import IntegratedFlow, context_columns, legendre, monomials
from flows.layers.integration import Fields, tableau
from flows.layers.lie_integration import commutator, integrate_links
from flows.layers.pair_features import n_pairs, pair_gradient, pair_laplacians
from flows.layers.plaquette_features import (
    Features,
    LoopFeatures,
    from_coordinates,
    loop_features,
    n_features,
    passages,
    plaquette_features,
    to_coordinates,
)  # fmt: skip
from flows.layers.plaquette_kernels import PlaquetteKernels
from lattices.fields import FieldSpace, Links
from lattices.gauge import CentreSymmetry, ChargeConjugation, GaugeInvariance, require_links
from lattices.invariance import PointGroup, Translations
from lattices.lattice import Lattice
from lattices.loops import RECTANGLE, Path, planes
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


class Situation(NamedTuple):
    """Everything about U that velocities, divergences and tangents are linear in."""

    u: Tensor
    features: Features
    loops: list[LoopFeatures]
    gram: Tensor  # (batch, d, F·A, F·A): Σ_x ⟨∇_l f_m(p), ∇_l f_n(p')⟩ for the A plaquettes p, p' through l


class GaugeContinuousFlow(IntegratedFlow):
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
        self.kernels = PlaquetteKernels(lattice, self.spec.radius)
        self.n_even, self.n_odd = n_features(group, self.spec.n_powers)
        self._add_constants(dtype)
        times = len(monomials(self.spec.n_context, self.spec.context_degree)), self.spec.n_times
        self.theta = nn.Parameter(torch.zeros(*times, sum(self._sizes()), dtype=dtype))

    def _add_constants(self, dtype: torch.dtype) -> None:
        lattice, kernels = self.domain.lattice, self.kernels.tensors()
        spectrum = torch.fft.rfftn(kernels, dim=lattice.axes).conj().resolve_conj()
        weight = torch.full(spectrum.shape[-1:], 2.0, dtype=torch.float64)
        weight[0] = 1.0
        if lattice.extents[-1] % 2 == 0:
            weight[-1] = 1.0
        self.register_buffer("spectrum", torch.view_as_real(spectrum).to(dtype), persistent=False)
        self.register_buffer("weight", (weight / lattice.volume).to(dtype), persistent=False)
        self.register_buffer("overlap", self._overlaps(kernels).to(dtype), persistent=False)

    def _overlaps(self, kernels: Tensor) -> Tensor:  # -> (2, n_kernels, d, A, A)
        """K_b(p, p') for all pairs of plaquettes through one link."""
        d, extents = self.domain.lattice.dimension, self.domain.lattice.extents
        table = kernels.new_zeros(2, kernels.shape[1], d, 2 * (d - 1), 2 * (d - 1))
        for mu in range(d):
            for i, p in enumerate(passages(d, mu)):
                for j, q in enumerate(passages(d, mu)):
                    r = tuple((b - a) % size for a, b, size in zip(p.shift, q.shift, extents))
                    table[:, :, mu, i, j] = kernels[:, :, p.plane, q.plane].flatten(2)[
                        ..., int(np.ravel_multi_index(r, extents))
                    ]
        return table

    def _sizes(self) -> list[int]:
        """Numbers of constants, even kernels, odd kernels, pairs and loops: the order of the last axis of θ."""
        n, pairs = len(self.kernels.orbits), n_pairs(self.domain.lattice.dimension) if self.spec.pairs else 0
        return [self.n_even, n * self.n_even**2, n * self.n_odd**2, pairs, len(self.spec.loops)]

    def coefficients(self, t: float, context: Tensor | None = None) -> Tensor:  # -> (1 or batch, n_terms)
        """Σ θ_mjk (monomial m of the couplings) P_j(2t - 1)."""
        return torch.einsum("bm,j,mjk->bk", self._context(context), self._times(t), self.theta)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(z, context, (0.0, 1.0))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(x, context, (1.0, 0.0))

    @torch.no_grad()
    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score along: ds/dt = -∇(⟨v, s⟩ + div v) + [v, s]; about three forward passes."""
        start = (z, (z.real.new_zeros(len(z)), score))
        x, (log_det, score) = self._solved(self._scored_rates(context), start, (0.0, 1.0), self.n_steps)
        return Scored(x, log_det, score)

    @torch.no_grad()
    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        """`push_score` and the tangents ∂_θ log q(x) at fixed x, per sample and without a backward pass.

            ∂_θ log q(x) = -∫ dt [div ∂_θ v + ⟨s, ∂_θ v⟩](U_t),

        by the trapezoidal rule on the steps: an error O(h²) that steers training and never enters a density.
        Returns: the pushed sample, and tangents (batch, n_parameters) in the order of θ.
        """
        rates, h = self._scored_rates(context), 1 / self.n_steps
        state: tuple[Tensor, Fields] = (z, (z.real.new_zeros(len(z)), score))
        total = z.real.new_zeros(len(z), *self.theta.shape[1:])
        for step in range(self.n_steps + 1):
            weight = h / 2 if step in (0, self.n_steps) else h
            total -= weight * self._times(step * h)[:, None] * self._stein(state[0], state[1][1])[:, None]
            if step < self.n_steps:
                state = self._solved(rates, state, (step * h, step * h + h), 1)
        tangents = torch.einsum("bm,bjk->bmjk", self._context(context).expand(len(z), -1), total)
        x, (log_det, score) = state
        return Scored(x, log_det, score), tangents.flatten(1)

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
        index = {self.kernels.label(orbit): b for b, orbit in enumerate(self.kernels.orbits)}
        there = [index.get(other.kernels.label(orbit)) for orbit in other.kernels.orbits]
        old, new = self._split(self.theta.detach()), other._split(other.theta.detach())
        for n in (0, 3, 4):
            new[n].copy_(old[n])
        for b, source in enumerate(there):
            if source is not None:
                for n in (1, 2):
                    new[n][..., b].copy_(old[n][..., source])
        return other

    def extra_repr(self) -> str:
        return (
            f"{self.domain.target}, {self.domain.lattice}, {self.spec}, n_steps={self.n_steps}, method={self.method!r}"
        )

    # ------------------------------------------------------------------------------------------ the equation of motion

    def _integrated(self, start: Tensor, context: Tensor | None, times: tuple[float, float]) -> tuple[Tensor, Tensor]:
        def rates(t: float, u: Tensor, _: Fields) -> tuple[Tensor, Fields]:
            v, divergence = self._velocity(self.coefficients(t, context), self._situation(u))
            return from_coordinates(self.domain, v, u.dtype), (divergence,)

        end, (log_det,) = self._solved(rates, (start, (start.real.new_zeros(len(start)),)), times, self.n_steps)
        return end, log_det

    def _solved(self, rates, start, times, n_steps):  # type: ignore[no-untyped-def]
        return integrate_links(self.domain, rates, start, times, (n_steps, self.method), self.spec.checkpointed)

    def _scored_rates(self, context: Tensor | None):  # type: ignore[no-untyped-def]
        target = self.domain.target

        def rates(t: float, u: Tensor, vectors: Fields) -> tuple[Tensor, Fields]:
            score = vectors[1]
            with torch.enable_grad():
                y = u.detach().requires_grad_()
                v, divergence = self._velocity(self.coefficients(t, context).detach(), self._situation(y))
                total = (v * to_coordinates(self.domain, score)).sum() + divergence.sum()
                derivative = torch.autograd.grad(total, y)[0]
            velocity = from_coordinates(self.domain, v.detach(), u.dtype)
            rate = -target.gradient(u, derivative)
            rate = rate + commutator(velocity, score) if target.shape else rate
            return velocity, (divergence.detach(), rate)

        return rates

    def _situation(self, u: Tensor) -> Situation:
        features = plaquette_features(self.domain, u, self.spec.n_powers)
        rows = features.gradients.flatten(4).flatten(2, 3)  # (batch, d, F·A, V·dim)
        loops = [loop_features(self.domain, u, loop) for loop in self.spec.loops]
        return Situation(u, features, loops, rows @ rows.mT)

    def _velocity(self, coefficients: Tensor, situation: Situation) -> tuple[Tensor, Tensor]:
        """v_l in coordinates (batch, d, *extents, dim), and div v."""
        features, d = situation.features, self.domain.lattice.dimension
        *_, pair, loop_strengths = self._split(coefficients)
        strength = self._strength(coefficients, features.values)
        through = torch.stack([self._seen(strength, mu) for mu in range(d)], 1)  # (batch, d, F, A, *extents)
        rows = features.gradients
        v = (through.unsqueeze(-1) * rows).sum((2, 3))
        divergence = (features.laplacians * strength).flatten(1).sum(1)
        divergence = divergence + (self._pairing(coefficients) * situation.gram).flatten(1).sum(1)
        if features.loops is not None and self.spec.pairs:
            v = v + pair_gradient(self.domain, situation.u, features.loops, pair)
            divergence = divergence + (pair_laplacians(features.loops) * pair).sum(1)
        for c, loop in zip(loop_strengths.unbind(-1), situation.loops):
            v = v + c.reshape(-1, *[1] * (v.ndim - 1)) * loop.gradient
            divergence = divergence + c * loop.laplacian
        return v, divergence

    def _strength(self, coefficients: Tensor, values: Tensor) -> Tensor:
        """s_m(p) = c_m + Σ_n (K_mn * f_n)(p).  -> (batch, F, planes, *extents)"""
        constant, *blocks = self._split(coefficients)[:3]
        hat, total = self._hat(values), []
        for parity, (block, part) in enumerate(zip(blocks, self._parts(hat, 1))):
            if part.shape[1]:
                kernel = torch.einsum("emnb,bpq...->emnpq...", block.to(hat.dtype), self._spectra()[parity])
                total.append(
                    torch.einsum(
                        "emnpq...,enq...->emp...", kernel, part.expand(max(len(part), len(kernel)), *part.shape[1:])
                    )
                )
        lattice = self.domain.lattice
        convolved = torch.fft.irfftn(torch.cat(total, 1), s=lattice.extents, dim=lattice.axes)
        padded = torch.cat([constant, constant.new_zeros(len(constant), self.n_odd)], 1)
        return convolved + padded.reshape(*padded.shape, *[1] * (convolved.ndim - 2))

    def _seen(self, strength: Tensor, mu: int) -> Tensor:  # -> (batch, F, A, *extents)
        """The strengths of the plaquettes through each link in direction μ."""
        axes, d = self.domain.lattice.axes, self.domain.lattice.dimension
        found = [strength[:, :, p.plane].roll([-n for n in p.shift], axes) for p in passages(d, mu)]
        return torch.stack(found, 2)

    def _pairing(self, coefficients: Tensor) -> Tensor:  # -> (1 or batch, d, F·A, F·A)
        """Σ_b θ_mnb K_b(p, p') for the plaquettes through a link, zero between even and odd features."""
        blocks = self._split(coefficients)[1:3]
        corners = [
            torch.einsum("emnb,bdij->edminj", block, overlap).flatten(4).flatten(2, 3)
            for block, overlap in zip(blocks, self.overlap)
        ]
        even, odd = corners
        return nn.functional.pad(even, (0, odd.shape[-1], 0, odd.shape[-1])) + nn.functional.pad(
            odd, (even.shape[-1], 0, even.shape[-1], 0)
        )

    def _stein(self, u: Tensor, score: Tensor) -> Tensor:  # -> (batch, n_terms)
        """div v_k + ⟨s, v_k⟩ for the elementary velocities v_k; zero mean under the density of s."""
        situation, s = self._situation(u), to_coordinates(self.domain, score)
        features = situation.features
        driven = features.laplacians + self._driven(features.gradients, s)
        columns = [driven[:, : self.n_even].flatten(2).sum(2)]
        pairs = zip(self._parts(self._hat(driven), 1), self._parts(self._hat(features.values), 1))
        for parity, (left, right) in enumerate(pairs):
            products = torch.einsum("bmp...,bnq...->bmnpq...", left.conj(), right * self.weight)
            flow = torch.einsum("bmnpq...,kpq...->bmnk", products, self._spectra()[parity]).real
            gram = self._gram(situation.gram, parity)
            columns.append((flow + torch.einsum("bdminj,kdij->bmnk", gram, self.overlap[parity])).flatten(1))
        loops = [loop.laplacian + (loop.gradient * s).flatten(1).sum(1) for loop in situation.loops]
        return torch.cat([*columns, *self._pair_columns(situation, s), *(loop[:, None] for loop in loops)], 1)

    def _pair_columns(self, situation: Situation, s: Tensor) -> list[Tensor]:
        """The columns of the pair potentials, one of them at a time."""
        loops = situation.features.loops
        if loops is None or not self.spec.pairs:
            return []
        laplacians = pair_laplacians(loops)
        units = torch.eye(laplacians.shape[1], dtype=s.dtype, device=s.device)
        gradients = (pair_gradient(self.domain, situation.u, loops, unit[None]) for unit in units)
        driven = torch.stack([(gradient * s).flatten(1).sum(1) for gradient in gradients], 1)
        return [laplacians + driven]

    def _driven(self, gradients: Tensor, s: Tensor) -> Tensor:  # -> (batch, F, planes, *extents)
        """Σ_l ⟨s_l, ∇_l f_m(p)⟩ over the four links of each plaquette."""
        lattice, along = self.domain.lattice, (gradients * s[:, :, None, None]).sum(-1)
        total = along.new_zeros(len(s), along.shape[2], len(planes(lattice.dimension)), *lattice.extents)
        for mu in range(lattice.dimension):
            for i, p in enumerate(passages(lattice.dimension, mu)):
                total[:, :, p.plane] += along[:, mu, :, i].roll(p.shift, lattice.axes)
        return total

    def _gram(self, gram: Tensor, parity: int) -> Tensor:  # -> (batch, d, F, A, F, A) of one parity
        n = gram.shape[-1] // (self.n_even + self.n_odd)
        gram = gram.unflatten(3, (-1, n)).unflatten(2, (-1, n))
        part = slice(self.n_even, None) if parity else slice(self.n_even)
        return gram[:, :, part, :, part]

    def _parts(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Even and odd features."""
        even, odd = x.split([self.n_even, self.n_odd], axis)
        return even, odd

    def _split(self, coefficients: Tensor) -> tuple[Tensor, ...]:
        """Constants (…, M), even and odd kernels (…, M, M, n_kernels), pairs (…, n_pairs), loops (…, n_loops)."""
        constant, even, odd, *potentials = coefficients.split(self._sizes(), -1)
        shapes = [(n, n, len(self.kernels.orbits)) for n in (self.n_even, self.n_odd)]
        return constant, even.unflatten(-1, shapes[0]), odd.unflatten(-1, shapes[1]), *potentials

    def _spectra(self) -> Tensor:  # -> (2, n_kernels, planes, planes, *half)
        return torch.view_as_complex(self.spectrum)

    def _hat(self, x: Tensor) -> Tensor:
        return torch.fft.rfftn(x, dim=self.domain.lattice.axes)

    def _times(self, t: float) -> Tensor:
        return self.theta.new_tensor(legendre(t, self.spec.n_times))

    def _context(self, context: Tensor | None) -> Tensor:
        return context_columns(context, self.spec.n_context, self.spec.context_degree, self.theta)

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
