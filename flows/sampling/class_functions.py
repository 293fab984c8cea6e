"""Densities on a group that depend on the conjugacy class alone: products of plaquettes, and exact draws of one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, permutations
from typing import final

import torch
from torch import Tensor

from lattices.exact import CharacterExpansion
from symmetries.group import LieGroup
from symmetries.lie import SUN

_MAX_CELLS = 2**18
_BATCH = 2**14


@final
class PlaquetteProduct:
    """The density f_n of the product of n plaquettes, each with density Σ_r d_r u_r χ_r(g) in Haar measure.

        f_n(g) = Σ_r d_r u_r^n χ_r(g) <= f_n(1),    ∫ f_n = 1,    f_n * f_m = f_{n+m}

    A polynomial in traces: differentiable everywhere. Representations whose share is below 1e-16 are left out.

    Args:
        group: U(1) or SU(N).
        expansion: the representations of one plaquette's density.
        n_plaquettes: n.
    """

    def __init__(self, group: LieGroup, expansion: CharacterExpansion, n_plaquettes: int = 1) -> None:
        dimensions, ratios = torch.as_tensor(expansion.dimensions), torch.as_tensor(expansion.ratios)
        amplitudes = dimensions * ratios**n_plaquettes
        kept = dimensions * amplitudes > 1e-16
        self.weights, self.amplitudes = torch.as_tensor(expansion.weights)[kept], amplitudes[kept]
        self.largest = float((dimensions * amplitudes).sum())
        self._form = jacobi_trudi_form(self.weights, self.amplitudes) if group.element_shape else None

    def density(self, g: Tensor) -> Tensor:  # (batch, *element) -> (batch,)
        """f_n(g), in double precision whatever that of g."""
        if self._form is None:
            return (g.double()[:, None] * self.weights[:, 0].to(g.device)).cos() @ self.amplitudes.to(g.device)
        form = self._form.to(g.device)
        return torch.cat([multilinear(form, part) for part in g.to(torch.complex128).split(_BATCH)])

    def chance(self, g: Tensor) -> Tensor:  # (batch, *element) -> (batch,)
        """f_n(g) / f_n(1), from 0 to 1."""
        return self.density(g) / self.largest


@final
class OnePlaquette:
    """Exact draws of Wilson's f_1: eigenangles by rejection from a histogram above it, in a Haar-random frame.

        p(θ) ∝ e^{(β/N) Σ cos θ_i} Π_{i<j} |e^{iθ_i} - e^{iθ_j}|²,    Σ θ_i = 0    (U(1): one angle)

    Every cell of the histogram is the product of the largest values that the factors take in it, so that nothing is
    approximated. Acceptance 0.99 of U(1), 0.97 of SU(2), 0.91 of SU(3), 0.33 of SU(4) at β = 5; low beyond.

    Args:
        group: U(1) or SU(N).
        beta: β ≥ 0.
    """

    def __init__(self, group: LieGroup, beta: float) -> None:
        self.group, self.coupling = group, beta / order_of(group)
        free = max(order_of(group) - 1, 1)
        n_cells = min(512, int(_MAX_CELLS ** (1 / free) + 1e-9))
        self.width = 2 * math.pi / n_cells
        axis = self.width * torch.arange(n_cells, dtype=torch.float64) - math.pi
        self.corners = torch.cartesian_prod(*[axis] * free).reshape(-1, free)
        self.log_bounds = self._log_density(*_widths(self._angles(self.corners), self.width))
        self.cumulative = torch.exp(self.log_bounds - self.log_bounds.max()).cumsum(0)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *element), double precision
        """n independent group elements on the device of the generator."""
        angles = [self._proposed(n, generator)]
        while (missing := n - sum(map(len, angles))) > 0:
            angles.append(self._proposed(missing, generator))
        theta = torch.cat(angles)
        if not self.group.element_shape:
            return theta[:, 0]
        frame = self.group.random(n, generator)
        return frame * torch.polar(torch.ones_like(theta), theta)[:, None, :] @ frame.mH

    def _proposed(self, n: int, generator: torch.Generator) -> Tensor:  # -> (accepted, N)
        device = generator.device
        uniform = torch.rand(n, self.corners.shape[1] + 2, generator=generator, dtype=torch.float64, device=device)
        cumulative = self.cumulative.to(device)
        cell = torch.searchsorted(cumulative, uniform[:, 0] * cumulative[-1]).clamp(max=len(cumulative) - 1)
        angles = self._angles(self.corners.to(device)[cell] + self.width * uniform[:, 2:])
        log_chance = self._log_density(*_widths(angles, 0.0)) - self.log_bounds.to(device)[cell]
        return angles[uniform[:, 1].log() < log_chance]

    def _angles(self, free: Tensor) -> Tensor:  # (n, free) -> (n, N)
        return torch.cat([free, -free.sum(1, keepdim=True)], 1) if self.group.element_shape else free

    def _log_density(self, low: Tensor, span: Tensor, gap_low: Tensor, gap_span: Tensor) -> Tensor:
        """The largest log p where the angles and their differences are in intervals; (n, N), (N,), … -> (n,)"""
        weight = self.coupling * _largest_cosine(low, span).sum(1)
        haar = 2 + 2 * _largest_cosine(gap_low - math.pi, gap_span)
        return weight + haar.log().sum(1)


def order_of(group: LieGroup) -> int:
    """N of SU(N), 1 for U(1)."""
    return group.n if isinstance(group, SUN) else 1


def trace(g: Tensor) -> Tensor:  # (batch, *element) -> (batch,)
    """Re Tr g / N, of angles the cosine."""
    return g.diagonal(dim1=-2, dim2=-1).real.mean(-1) if g.is_complex() else g.cos()


def first_accepted(
    goals: Tensor,
    propose: Callable[[int], Tensor],
    chance: Callable[[Tensor, Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:  # (n, …) -> (n, …)
    """For every goal the first proposal that is accepted with chance(proposal, goal).

    A round deals about n proposals to the goals that still wait, several to each when these are few.
    """

    def accepted(proposals: Tensor, goals: Tensor) -> Tensor:
        uniform = torch.rand(len(goals), generator=generator, dtype=torch.float64, device=goals.device)
        return uniform < chance(proposals, goals)

    found = propose(len(goals))
    waiting = (~accepted(found, goals)).nonzero().squeeze(1)
    while len(waiting):
        tries = min(max(len(goals) // len(waiting), 1), 256)
        proposals = propose(tries * len(waiting))
        table = accepted(proposals, goals[waiting].repeat_interleave(tries, 0)).reshape(-1, tries)
        done, which = table.any(1), table.int().argmax(1)  # argmax is the first of equals
        rows = torch.arange(len(waiting), device=goals.device) * tries + which
        found[waiting[done]] = proposals[rows[done]]
        waiting = waiting[~done]
    return found


def _widths(angles: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Intervals (low, span) of all angles and of their differences, given the lower ends and width of the free ones.

    θ_N = -Σ θ_k spans N - 1 widths downwards, θ_i - θ_j two widths both ways, θ_i - θ_N = θ_i + Σ θ_k N upwards.
    """
    n = angles.shape[1]
    down = torch.tensor([0] * (n - 1) + [n - 1]).to(angles) * width
    i, j = torch.triu_indices(n, n, 1, device=angles.device)
    to_last = (j == n - 1).to(angles)
    gap_low = angles[:, i] - angles[:, j] - width * (1 - to_last)
    return angles - down, down + width * (down == 0), gap_low, width * (2 + (n - 2) * to_last)


def _largest_cosine(low: Tensor, span: Tensor) -> Tensor:  # (n, k), (k,) -> (n, k)
    """The maximum of cos on [low, low + span]."""
    high = low + span
    holds_peak = (high / (2 * math.pi)).floor() * 2 * math.pi >= low
    return torch.where(holds_peak, torch.ones_like(low), torch.maximum(low.cos(), high.cos()))


def jacobi_trudi_form(weights: Tensor, amplitudes: Tensor) -> Tensor:  # (r, N), (r,) -> (m,) * (N - 1)
    """The tensor M with Σ_λ a_λ χ_λ = Σ M_{j k …} h_j h_k …, of χ_λ = det h_{λ_i - i + j} (Jacobi–Trudi)."""
    rows = weights.shape[1] - 1
    form = amplitudes.new_zeros((int(weights.max()) + rows,) * rows, dtype=torch.complex128)
    for order in permutations(range(rows)):
        index = weights[:, :rows] + torch.tensor(order) - torch.arange(rows)
        exists = (index >= 0).all(1)
        values = _sign(order) * amplitudes[exists].to(form)
        form.index_put_(tuple(index[exists].unbind(1)), values, accumulate=True)
    return form


def multilinear(form: Tensor, g: Tensor) -> Tensor:  # (m,) * (N - 1), (batch, N, N) -> (batch,)
    """Re Σ M_{j k …} h_j(g) h_k(g) …"""
    h = _complete_polynomials(g, form.shape[0] - 1)
    value = h @ form.flatten(1) if form.ndim > 1 else h @ form[:, None]
    for _ in range(form.ndim - 1):
        value = (h[:, None] @ value.unflatten(1, (form.shape[0], -1))).squeeze(1)
    return value.squeeze(1).real


def _sign(order: tuple[int, ...]) -> int:
    return (-1) ** sum(a > b for a, b in combinations(order, 2))


def _complete_polynomials(g: Tensor, highest: int) -> Tensor:  # (batch, N, N) -> (batch, highest + 1)
    """h_0 … of the eigenvalues, from the elementary polynomials: Σ_i (-1)^i e_i h_{k-i} = 0."""
    e = _elementary_polynomials(g)
    h = [e[0]]
    for k in range(1, highest + 1):
        h.append(sum((-1) ** (i - 1) * e[i] * h[k - i] for i in range(1, min(k, g.shape[-1]) + 1)))
    return torch.stack(h, 1)


def _elementary_polynomials(g: Tensor) -> list[Tensor]:  # (batch, N, N) -> N + 1 of (batch,)
    """e_0 … e_N of the eigenvalues: Newton's identities up to N / 2, then e_{N-k} = e_k* of unit determinant."""
    n, power = g.shape[-1], g
    sums, e = [], [torch.ones_like(g[:, 0, 0])]
    for k in range(1, n // 2 + 1):
        sums.append(power.diagonal(dim1=-2, dim2=-1).sum(-1))
        e.append(sum((-1) ** i * e[k - 1 - i] * sums[i] for i in range(k)) / k)
        power = power @ g if k < n // 2 else power
    return e + [e[n - k].conj() for k in range(n // 2 + 1, n + 1)]
