"""Densities on a group that depend on the conjugacy class alone: products of plaquettes, and exact draws of one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from lattices.exact import character_expansion
from symmetries.group import LieGroup
from symmetries.lie import SUN

_MAX_CELLS = 2**18


@final
class PlaquetteProduct:
    """The density f_n of the product of n plaquettes, each with density e^{(β/N) Re Tr g} / c₀ in Haar measure.

        f_n(g) = Σ_r d_r u_r^n χ_r(g) <= f_n(1),    ∫ f_n = 1,    f_n * f_m = f_{n+m}

    Representations whose share is below 1e-16 are left out. Cost of their number; n = 1 is the exponential itself.

    Args:
        group: U(1) or SU(N).
        beta: β ≥ 0.
        n_plaquettes: n.
    """

    def __init__(self, group: LieGroup, beta: float, n_plaquettes: int) -> None:
        self.n, self.beta, self.n_plaquettes = order_of(group), beta, n_plaquettes
        expansion = character_expansion(self.n, beta)
        weights, dimensions, ratios, _ = (torch.as_tensor(value) for value in vars(expansion).values())
        amplitudes = dimensions * ratios**n_plaquettes
        kept = dimensions * amplitudes > 1e-16
        self.weights, self.amplitudes = weights[kept], amplitudes[kept]
        self.largest = float((dimensions * amplitudes).sum())

    def chance(self, g: Tensor) -> Tensor:  # (batch, *element) -> (batch,)
        """f_n(g) / f_n(1), from 0 to 1."""
        if self.n_plaquettes == 1:
            return torch.exp(self.beta * (trace(g) - 1))
        characters = torch.cat([_characters(part, self.weights.to(g.device)) for part in g.split(4096)])
        return characters @ self.amplitudes.to(g.device) / self.largest


@final
class OnePlaquette:
    """Exact draws of f_1: eigenangles by rejection from a histogram above their density, in a Haar-random frame.

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


def _characters(g: Tensor, weights: Tensor) -> Tensor:  # (batch, *element), (r, N) -> (batch, r)
    """Re χ_λ(g): cos of multiples of the angle, or Jacobi–Trudi determinants det h_{λ_i - i + j}."""
    if not g.is_complex():
        return (g[:, None] * weights[:, 0]).cos()
    n = g.shape[-1]
    row = torch.arange(n - 1, device=g.device)
    order = weights[:, : n - 1, None] - row[:, None] + row
    h = _complete_polynomials(g, int(order.max()))
    entries = h[:, order.clamp(min=0)] * (order >= 0)
    return (torch.linalg.det(entries) if n > 3 else _small_determinant(entries)).real


def _small_determinant(m: Tensor) -> Tensor:
    if m.shape[-1] == 1:
        return m[..., 0, 0]
    return m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]


def _complete_polynomials(g: Tensor, highest: int) -> Tensor:  # (batch, N, N) -> (batch, highest + 1)
    """h_0 … of the eigenvalues, by way of power sums Tr g^k and elementary polynomials (Newton's identities)."""
    n, power = g.shape[-1], g
    sums, e = [], [torch.ones_like(g[:, 0, 0])]
    for k in range(1, n + 1):
        sums.append(power.diagonal(dim1=-2, dim2=-1).sum(-1))
        e.append(sum((-1) ** i * e[k - 1 - i] * sums[i] for i in range(k)) / k)
        power = power @ g
    h = [e[0]]
    for k in range(1, highest + 1):
        h.append(sum((-1) ** (i - 1) * e[i] * h[k - i] for i in range(1, min(k, n) + 1)))
    return torch.stack(h, 1)
