"""CellFlow: what the continuous flows of links and of spins share, potentials of cells whose strengths are local."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from flows.bijection import Scored
from flows.layers.cell_kernels import CellKernels, Passage
from flows.layers.integrated import IntegratedFlow, context_columns, legendre, monomials, tangents_along
from flows.layers.integration import Fields


class Part(NamedTuple):
    """Features f_m of all cells, m = 1 … M, of one parity; odd ones may be vectors of C components (else C = 1).

    The moving variables are of U kinds (d links at a site, or one spin), each in A cells, in the order of `passages`.
    """

    values: Tensor  # (batch, M, C, cells, *extents)
    laplacians: Tensor  # the same: Σ ∇² f_m over the variables of the cell
    gradients: Tensor  # (batch, U, M, C, A, *extents, dim): ∇f_m of the A cells through each variable


class Situation(NamedTuple):
    """Everything about a field that velocities, divergences and tangents are linear in."""

    parts: tuple[Part, Part]  # even and odd
    grams: tuple[Tensor, Tensor]  # (batch, U, M, A, M, A): Σ_x ⟨∇f_m(p), ∇f_n(q)⟩ for the cells p, q through x
    further: Any  # what else a flow needs

    def occupied(self) -> Iterator[tuple[int, Part, Tensor]]:
        """(parity, features, gram) of the parities that have features."""
        return ((p, part, gram) for p, (part, gram) in enumerate(zip(self.parts, self.grams)) if part.values.shape[1])


def situation(parts: tuple[Part, Part], further: Any) -> Situation:
    """With the scalar products of all gradients of each variable, summed over sites and components."""
    return Situation(parts, (_gram(parts[0].gradients), _gram(parts[1].gradients)), further)


def _gram(gradients: Tensor) -> Tensor:
    n, a = gradients.shape[2], gradients.shape[4]
    rows = gradients.transpose(3, 4).flatten(2, 3).flatten(3)
    return (rows @ rows.mT).unflatten(3, (n, a)).unflatten(2, (n, a))


class CellFlow(IntegratedFlow):
    """ẋ = v with a velocity made of potentials of cells (links of spins, plaquettes of links), with local strengths.

        v_x = Σ_p Σ_m ∇_x f_m(p) s_m(p) + …,    s_m(p) = c_m(t) + Σ_{n,b,q} θ_mnb(t) K_b(p, q) f_n(q)
        div v = Σ_p Σ_m (∇² f_m(p)) s_m(p) + Σ_{x,m,n,p,q} K_mn(p, q) ⟨∇_x f_m(p), ∇_x f_n(q)⟩ + …

    K_b are orbit kernels between cells, odd with odd, even with even features. Coefficients are Legendre series in
    time and polynomials in the couplings. A flow gives its features, further velocities ("…") and how it integrates.
    Cost of an evaluation: the features, and FFTs of them.
    """

    spec: Any  # has n_times, n_context and context_degree
    n_even: int
    n_odd: int
    kernels: CellKernels
    passages: list[list[Passage]]  # by kind of variable

    @abstractmethod
    def _situation(self, x: Tensor) -> Situation: ...

    @abstractmethod
    def _further_sizes(self) -> list[int]:
        """Numbers of further coefficients: the end of the last axis of θ."""

    @abstractmethod
    def _further(self, coefficients: list[Tensor], now: Situation) -> tuple[Tensor, Tensor]:
        """Further velocity, (batch, U, *extents, dim) or zero, and its divergence."""

    @abstractmethod
    def _further_columns(self, now: Situation, s: Tensor) -> list[Tensor]:
        """div v_k + ⟨s, v_k⟩ of the further elementary velocities, (batch, size) each; s like a velocity."""

    @abstractmethod
    def _as_vector(self, x: Tensor, v: Tensor) -> Tensor:
        """The tangent vector, (batch, *event), of a velocity (batch, U, *extents, dim)."""

    @abstractmethod
    def _as_velocity(self, x: Tensor, s: Tensor) -> Tensor:
        """The velocity (batch, U, *extents, dim) of a tangent vector: ⟨v, s⟩ is a sum of products."""

    @abstractmethod
    def _solved(self, rates, start, times, n_steps):  # type: ignore[no-untyped-def]
        """(x, vectors) after integrating rates(t, x, vectors) -> (ẋ, rates of the vectors)."""

    @abstractmethod
    def _score_rate(self, x: Tensor, v: Tensor, score: Tensor, derivative: Tensor) -> Tensor:
        """ds/dt, from the derivative of ⟨v, s⟩ + div v by x that autograd gives."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(z, context, (0.0, 1.0))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(x, context, (1.0, 0.0))

    @torch.no_grad()
    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Carry the score along: ds/dt = -∇(⟨v, s⟩ + div v), on groups + [v, s]; about three forward passes."""
        start = (z, (z.real.new_zeros(len(z)), score))
        x, (log_det, score) = self._solved(self._scored_rates(context), start, (0.0, 1.0), self.n_steps)
        return Scored(x, log_det, self._on_manifold(x, score))

    @torch.no_grad()
    def push_tangents(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> tuple[Scored, Tensor]:
        rates = self._scored_rates(context)

        def advance(state: tuple[Tensor, Fields], t: float, h: float) -> tuple[Tensor, Fields]:
            return self._solved(rates, state, (t, t + h), 1)

        def stein(state: tuple[Tensor, Fields]) -> Tensor:
            return self._stein(state[0], state[1][1])

        start: tuple[Tensor, Fields] = (z, (z.real.new_zeros(len(z)), score))
        (x, (log_det, score)), tangents = tangents_along(self, self._context(context), start, advance, stein)
        return Scored(x, log_det, self._on_manifold(x, score)), tangents

    def coefficients(self, t: float, context: Tensor | None = None) -> Tensor:  # -> (1 or batch, n_terms)
        """Σ θ_mjk (monomial m of the couplings) P_j(2t - 1)."""
        return torch.einsum("bm,j,mjk->bk", self._context(context), self._times(t), self.theta)

    def copy_orbits(self, other: CellFlow) -> None:
        """Give `other`, on another lattice, these coefficients: orbits that are new there start at zero."""
        index = {self.kernels.label(orbit): b for b, orbit in enumerate(self.kernels.orbits)}
        there = [index.get(other.kernels.label(orbit)) for orbit in other.kernels.orbits]
        old, new = self._split(self.theta.detach()), other._split(other.theta.detach())
        new[0].copy_(old[0])
        for b, source in enumerate(there):
            if source is not None:
                for n in (1, 2):
                    new[n][..., b].copy_(old[n][..., source])

    # ------------------------------------------------------------------------------------------ the equation of motion

    def _add_kernels(self, dtype: torch.dtype) -> None:
        """The buffers made of kernels, and θ = 0."""
        lattice, kernels = self.domain.lattice, self.kernels.tensors()
        spectrum = torch.fft.rfftn(kernels, dim=lattice.axes).conj().resolve_conj()
        weight = torch.full(spectrum.shape[-1:], 2.0, dtype=torch.float64)
        weight[0] = 1.0
        if lattice.extents[-1] % 2 == 0:
            weight[-1] = 1.0
        self.register_buffer("spectrum", torch.view_as_real(spectrum).to(dtype), persistent=False)
        self.register_buffer("weight", (weight / lattice.volume).to(dtype), persistent=False)
        self.register_buffer("overlap", self._overlaps(kernels).to(dtype), persistent=False)
        times = len(monomials(self.spec.n_context, self.spec.context_degree)), self.spec.n_times
        self.theta = nn.Parameter(torch.zeros(*times, sum(self._sizes()), dtype=dtype))

    def _overlaps(self, kernels: Tensor) -> Tensor:  # -> (2, n_kernels, U, A, A)
        """K_b(p, q) for all pairs of cells through one variable."""
        extents, n, a = self.domain.lattice.extents, len(self.passages), len(self.passages[0])
        table = kernels.new_zeros(2, kernels.shape[1], n, a, a)
        for u, passages in enumerate(self.passages):
            for i, p in enumerate(passages):
                for j, q in enumerate(passages):
                    r = tuple((b - a) % size for a, b, size in zip(p.shift, q.shift, extents))
                    site = int(np.ravel_multi_index(r, extents))
                    table[:, :, u, i, j] = kernels[:, :, p.kind, q.kind].flatten(2)[..., site]
        return table

    def _integrated(self, start: Tensor, context: Tensor | None, times: tuple[float, float]) -> tuple[Tensor, Tensor]:
        def rates(t: float, x: Tensor, _: Fields) -> tuple[Tensor, Fields]:
            v, divergence = self._velocity(self.coefficients(t, context), self._situation(x))
            return self._as_vector(x, v), (divergence,)

        end, (log_det,) = self._solved(rates, (start, (start.real.new_zeros(len(start)),)), times, self.n_steps)
        return end, log_det

    def _scored_rates(self, context: Tensor | None):  # type: ignore[no-untyped-def]
        def rates(t: float, x: Tensor, vectors: Fields) -> tuple[Tensor, Fields]:
            with torch.enable_grad():
                y = x.detach().requires_grad_()
                v, divergence = self._velocity(self.coefficients(t, context).detach(), self._situation(y))
                total = (v * self._as_velocity(y, vectors[1])).sum() + divergence.sum()
                derivative = torch.autograd.grad(total, y)[0]
            velocity = self._as_vector(x, v.detach())
            return velocity, (divergence.detach(), self._score_rate(x, velocity, vectors[1], derivative))

        return rates

    def _on_manifold(self, x: Tensor, score: Tensor) -> Tensor:
        """The tangential part of a score, where tangent vectors are vectors of a larger space."""
        return score

    def _velocity(self, coefficients: Tensor, now: Situation) -> tuple[Tensor, Tensor]:
        """v_x in coordinates (batch, U, *extents, dim), and div v."""
        constant, *blocks = self._split(coefficients)
        v, divergence = self._further(blocks[2:], now)
        for parity, part, gram in now.occupied():
            strength = self._strength(blocks[parity], parity, part.values)
            if parity == 0:
                strength = strength + constant.reshape(*constant.shape, *[1] * (strength.ndim - 2))
            v = v + (self._seen(strength).unsqueeze(-1) * part.gradients).sum((2, 3, 4))
            pairing = torch.einsum("emnb,buij->euminj", blocks[parity], self.overlap[parity])
            divergence = divergence + (part.laplacians * strength).flatten(1).sum(1)
            divergence = divergence + (pairing * gram).flatten(1).sum(1)
        return v, divergence

    def _strength(self, block: Tensor, parity: int, values: Tensor) -> Tensor:
        """Σ_n (K_mn * f_n)(p).  -> (batch, M, C, cells, *extents)"""
        lattice, hat = self.domain.lattice, self._hat(values)
        kernel = torch.einsum("emnb,bpq...->emnpq...", block.to(hat.dtype), self._spectra()[parity])
        hat = hat.expand(max(len(hat), len(kernel)), *hat.shape[1:])
        convolved = torch.einsum("emnpq...,encq...->emcp...", kernel, hat)
        return torch.fft.irfftn(convolved, s=lattice.extents, dim=lattice.axes)

    def _seen(self, strength: Tensor) -> Tensor:  # -> (batch, U, M, C, A, *extents)
        """The strengths of the cells through each variable."""
        axes = self.domain.lattice.axes
        through = [
            torch.stack([strength[:, :, :, p.kind].roll([-n for n in p.shift], axes) for p in passages], 3)
            for passages in self.passages
        ]
        return torch.stack(through, 1)

    def _stein(self, x: Tensor, score: Tensor) -> Tensor:  # -> (batch, n_terms)
        """div v_k + ⟨s, v_k⟩ for the elementary velocities v_k; zero mean under the density of s."""
        now, s = self._situation(x), self._as_velocity(x, score)
        columns = []
        for parity, part, gram in now.occupied():
            driven = part.laplacians + self._driven(part, s)
            if parity == 0:
                columns.append(driven.flatten(2).sum(2))
            left, right = self._hat(driven).conj(), self._hat(part.values) * self.weight
            products = torch.einsum("bmcp...,bncq...->bmnpq...", left, right)
            flow = torch.einsum("bmnpq...,kpq...->bmnk", products, self._spectra()[parity]).real
            columns.append((flow + torch.einsum("buminj,kuij->bmnk", gram, self.overlap[parity])).flatten(1))
        return torch.cat([*columns, *self._further_columns(now, s)], 1)

    def _driven(self, part: Part, s: Tensor) -> Tensor:  # -> (batch, M, C, cells, *extents)
        """Σ_x ⟨s_x, ∇_x f_m(p)⟩ over the variables of each cell."""
        along = (part.gradients * s[:, :, None, None, None]).sum(-1)
        total = torch.zeros_like(part.values)
        for u, passages in enumerate(self.passages):
            for i, p in enumerate(passages):
                total[:, :, :, p.kind] += along[:, u, :, :, i].roll(p.shift, self.domain.lattice.axes)
        return total

    def _sizes(self) -> list[int]:
        """Numbers of constants, even kernels, odd kernels and further coefficients: the order of the last axis of θ."""
        n = len(self.kernels.orbits)
        return [self.n_even, n * self.n_even**2, n * self.n_odd**2, *self._further_sizes()]

    def _split(self, coefficients: Tensor) -> list[Tensor]:
        """Constants (…, M), even and odd kernels (…, M, M, n_kernels), and further ones."""
        constant, even, odd, *further = coefficients.split(self._sizes(), -1)
        shapes = [(n, n, len(self.kernels.orbits)) for n in (self.n_even, self.n_odd)]
        return [constant, even.unflatten(-1, shapes[0]), odd.unflatten(-1, shapes[1]), *further]

    def _spectra(self) -> Tensor:  # -> (2, n_kernels, cells, cells, *half)
        return torch.view_as_complex(self.spectrum)

    def _hat(self, x: Tensor) -> Tensor:
        return torch.fft.rfftn(x, dim=self.domain.lattice.axes)

    def _times(self, t: float) -> Tensor:
        return self.theta.new_tensor(legendre(t, self.spec.n_times))

    def _context(self, context: Tensor | None) -> Tensor:
        return context_columns(context, self.spec.n_context, self.spec.context_degree, self.theta)
