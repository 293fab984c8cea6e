"""Spectral maps: monotone maps of the circle applied to all eigenangles of a special unitary matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from flows.transforms.circular import wrap
from flows.transforms.elementwise import EVEN, Parity, check_parameters, check_spline, from_parity, list_parity
from flows.transforms.roots import increasing_root
from flows.transforms.spline import interpolate
from symmetries.spectra import eigenangles

Stage = tuple[Tensor, Tensor, Tensor]  # new angles (..., N), confluent ratios (..., N), log|det| (...)


@final
@dataclass(frozen=True)
class SpectralSpline:
    """h(P) = V diag(e^{iθ'}) V† with θ'_i = f(θ_i) - (1/N) Σ_j f(θ_j), f a spline of the circle; `depth` such maps.

        log|det| = Σ_i log f'(θ_i) + log (1/N) Σ_i 1/f'(θ_i) + Σ_{i<j} 2 log |sin ½(θ'_i - θ'_j) / sin ½(θ_i - θ_j)|

    The lift of f has f(θ + 2π) = f(θ) + 2π, so that h is one map of the torus Σθ = 0 that commutes with permutations of
    eigenangles and with their shifts by 2π: walls of the alcove stay walls, and h is as smooth on the group as f is on
    the circle. For N = 2 it is any odd spline on [0, π]; for N > 2 compositions reach what single maps cannot. The
    inverse is one bracketed root per matrix and stage. Cost n_matrices (N² + N n_bins) depth.

    Args:
        n: N >= 2.
        n_bins: bins of f on the whole circle.
        depth: number of maps, each with parameters of its own.

    Shape: (..., N, N), parameters (..., n_parameters) -> (..., N, N), (...).
    Symmetries: h(Ω P Ω†) = Ω h(P) Ω†; h(P*; even, -odd) = h(P; even, odd)*; zero parameters are the identity.
    References: Boyda et al. (2020), 2008.05456, section III (with maps of the alcove as a box).
    """

    n: int
    n_bins: int = 8
    depth: int = 1

    def __post_init__(self) -> None:
        check_spline(self.n_bins, math.pi)
        if type(self.n) is not int or self.n < 2 or type(self.depth) is not int or self.depth < 1:
            raise ValueError(f"expected n >= 2 and depth >= 1, got {self.n!r} and {self.depth!r}: pass 3 and 1, say")

    @property
    def parity(self) -> tuple[Parity, ...]:
        """Of every parameter under P -> P*; SU(2), where P* is conjugate to P, has the even ones alone."""
        return self.depth * tuple(p for p in self._spline_parity if self.n > 2 or p == "even")

    @property
    def n_parameters(self) -> int:
        """Length of the last axis of `parameters`."""
        return len(self.parity)

    @property
    def _spline_parity(self) -> tuple[Parity, ...]:
        return 2 * list_parity(self.n_bins) + EVEN + list_parity(self.n_bins - 1)

    def forward(self, u: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """h(P) and log|det| of its differential with respect to Haar measure."""
        turn, log_det = self.turn(u, parameters)
        return turn @ u, log_det

    def inverse(self, u: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """h⁻¹(P) and its log|det|."""
        turn, log_det = self.turn(u, parameters, inverse=True)
        return turn @ u, log_det

    def turn(self, u: Tensor, parameters: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """h(P) P† (or h⁻¹(P) P†) and log|det|: near 1 for mild maps, so that a factor of links keeps them unitary."""
        check_parameters(u[..., 0, 0].real, parameters, self.n_parameters)
        stages = list(parameters.unflatten(-1, (self.depth, -1)).unbind(-2))
        start = angles = eigenangles(u)
        ratios, log_det = torch.ones_like(u.real), torch.zeros_like(angles[..., 0])
        for stage in reversed(stages) if inverse else stages:
            step = _solve if inverse else _spread
            moved, slopes, flat_log_det = step(angles, self._lists(stage))
            ratios = ratios * _ratios(angles, moved, slopes)
            angles, log_det = moved, log_det + flat_log_det
        upper = torch.ones(self.n, self.n, dtype=torch.bool, device=u.device).triu(1)
        return _turned(u, start, angles, ratios), log_det + torch.where(upper, 2 * ratios.log(), 0).sum((-2, -1))

    def _lists(self, parameters: Tensor) -> Tensor:  # (..., n_parameters / depth) -> (..., N, 3 n_bins)
        """Bins and slopes of one spline for every eigenangle; what SU(2) leaves out is zero."""
        full = parameters
        if self.n == 2:
            even = [i for i, p in enumerate(self._spline_parity) if p == "even"]
            order = [even.index(i) if i in even else len(even) for i in range(len(self._spline_parity))]
            full = F.pad(parameters, (0, 1))[..., torch.tensor(order, device=parameters.device)]
        bins, end, inner = full.split((2 * self.n_bins, 1, self.n_bins - 1), -1)
        lists = (from_parity(bins.unflatten(-1, (2, -1))).flatten(-2), end, from_parity(inner))
        return torch.cat(lists, -1).unsqueeze(-2).expand(*parameters.shape[:-1], self.n, -1)

    @classmethod
    def examples(cls) -> Iterator[SpectralSpline]:
        """SU(2), SU(3), SU(4); one map and two."""
        yield cls(2, n_bins=4)
        yield cls(3, n_bins=3, depth=2)
        yield cls(4, n_bins=3)


def _lifted(x: Tensor, lists: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:  # (...), (..., 3 n) -> (...), (...)
    """The spline of the circle on the real line, f(x + 2π) = f(x) + 2π and f(±π) = ±π, and its log-slope."""
    inside, n = wrap(x), lists.shape[-1] // 3
    bins, slopes = lists.split((2 * n, n), -1)
    tied = torch.cat((slopes, slopes[..., :1]), -1)
    y, log_slope = interpolate(inside, bins, tied, (-math.pi, math.pi), inverse)
    return y + (x - inside), log_slope


def _spread(angles: Tensor, lists: Tensor) -> Stage:
    """θ'_i = f(θ_i) - mean f; the determinant on Σθ = 0 is Π f' · mean(1/f')."""
    y, log_slope = _lifted(angles, lists, inverse=False)
    log_det = log_slope.sum(-1) + _log_mean_inverse(log_slope)
    return y - y.mean(-1, keepdim=True), torch.exp(log_slope), log_det


def _solve(angles: Tensor, lists: Tensor) -> Stage:
    """The θ with Σθ = 0 and f(θ_i) = θ'_i + m: a monotone equation for the one number m, |m| < 2π."""

    def total(m: Tensor) -> tuple[Tensor, Tensor]:
        x, log_slope = _lifted(angles + m, lists, inverse=True)
        return x.sum(-1, keepdim=True), torch.exp(log_slope).sum(-1, keepdim=True)

    zero = torch.zeros_like(angles[..., :1])
    m = increasing_root(total, zero, zero - 2 * math.pi, zero + 2 * math.pi)
    x, log_inverse_slope = _lifted(angles + m, lists, inverse=True)
    log_det = log_inverse_slope.sum(-1) - _log_mean_inverse(-log_inverse_slope)
    return x, torch.exp(log_inverse_slope), log_det


def _log_mean_inverse(log_slope: Tensor) -> Tensor:  # (..., N) -> (...)
    return torch.logsumexp(-log_slope, -1) - math.log(log_slope.shape[-1])


def _ratios(angles: Tensor, moved: Tensor, slopes: Tensor) -> Tensor:  # 3 × (..., N) -> (..., N, N)
    """sin ½(θ'_i - θ'_j) / sin ½(θ_i - θ_j); where eigenvalues (nearly) meet, derivatives of the mean slope."""
    before, after = (torch.sin((a.unsqueeze(-1) - a.unsqueeze(-2)) / 2) for a in (angles, moved))
    mean, epsilon = (slopes.unsqueeze(-1) + slopes.unsqueeze(-2)) / 2, torch.finfo(angles.dtype).eps
    met, near = (before.abs() < epsilon**power for power in (1 / 2, 1 / 3))
    quotient = torch.where(met, mean, after / before.masked_fill(met, 1))
    return torch.where(near, mean + (quotient - mean).detach(), quotient)


def _turned(u: Tensor, angles: Tensor, moved: Tensor, ratios: Tensor) -> Tensor:
    """Newton's polynomial in u that takes e^{iθ} to e^{i(θ' - θ)}, from divided differences that know confluent limits.

    The largest gap is put between the last and the first angle, so that only neighbours can meet alone.
    """
    order = _gaps_last(angles.detach())
    angles, moved = angles.gather(-1, order), moved.gather(-1, order)
    shift, one = moved - angles, torch.ones_like(angles)
    z, w = torch.polar(one, angles), torch.polar(one, moved)
    neighbours = ratios.flatten(-2).gather(-1, order[..., :-1] * u.shape[-1] + order[..., 1:])
    quotients = torch.polar(one[..., 1:], (shift[..., 1:] + shift[..., :-1]) / 2) * neighbours  # Δw / Δz
    table = [torch.polar(one, shift), (quotients * z[..., 1:] - w[..., 1:]) / (z[..., 1:] * z[..., :-1])]
    for m in range(2, u.shape[-1]):
        span = z[..., m:] - z[..., :-m]
        met = span.abs() < torch.finfo(angles.dtype).eps ** 0.5
        difference = table[-1][..., 1:] - table[-1][..., :-1]
        table.append(torch.where(met, 0, difference / span.masked_fill(met, 1)))
    unit = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    first = [row[..., 0, None, None] for row in table]
    h = first[-1] * unit
    for k in reversed(range(u.shape[-1] - 1)):
        h = first[k] * unit + (u - z[..., k, None, None] * unit) @ h
    return h


def _gaps_last(angles: Tensor) -> Tensor:  # (..., N), sorted -> (..., N)
    """The cyclic order that begins behind the largest gap."""
    n = angles.shape[-1]
    gaps = torch.cat((angles[..., 1:], angles[..., :1] + 2 * math.pi), -1) - angles
    return (gaps.argmax(-1, keepdim=True) + 1 + torch.arange(n, device=angles.device)) % n
