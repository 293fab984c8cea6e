"""Spins on circles and spheres, solved link by link: chains, rings, and the 2 × 2 torus of O(n), XY and clock models.

The weight e^{β s·s'} of one link is an integral operator that is diagonal in harmonics (Funk and Hecke),

    ∫ ds' e^{β s·s'} Y_l(s') = λ_l(β) Y_l(s),    λ_l = (2π)^{n/2} β^{1-n/2} I_{l+n/2-1}(β),

with d_l harmonics of degree l. All measures are those of `FieldSpace`: dθ, the area of Sⁿ⁻¹, or a count of states;
subtract V × `log_measure` from any log Z for the normalised measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import comb, gammaln, hyp0f1, ive

from lattices.exact.geometry import checked_count, checked_number


@dataclass(frozen=True)
class SpinLink:
    """The eigenvalues λ_l of one link's weight, the constant function first.

    Args:
        beta: β of the link.
        dimensions: d_l, how many harmonics share an eigenvalue.
        ratios: λ_l / λ_0; λ_1 belongs to the spin itself.
        slopes: (∂λ_l/∂β) / λ_0.
        log_trivial: log λ_0.
        log_measure: log of the measure of one site, log 2π, log |Sⁿ⁻¹| or log q.
    """

    beta: float
    dimensions: np.ndarray
    ratios: np.ndarray
    slopes: np.ndarray
    log_trivial: float
    log_measure: float

    @property
    def energy(self) -> float:
        """-⟨s·s'⟩ of one link with free ends; of XY -I₁/I₀, of O(3) -(coth β - 1/β)."""
        return -float(self.slopes[0])

    @property
    def correlation_length(self) -> float:
        """ξ of ⟨s_x·s_{x+r}⟩ = (λ_1/λ_0)^r ∝ e^{-r/ξ} on an infinite chain."""
        return -1 / math.log(abs(self.ratios[1])) if self.ratios[1] else 0.0


@dataclass(frozen=True)
class SpinSolution:
    """log Z and the energy per site -∂_β log Z / V; ⟨|Σ_x s_x|²⟩ / V² where it is known, else NaN.

    `truncation` is how much these change, relative to themselves, if states of ten times the weight are left out: far
    more than the error that remains. 0 for closed forms.
    """

    log_z: float
    energy: float
    magnetisation_squared: float = math.nan
    truncation: float = 0.0


def on_link(n: int, beta: float) -> SpinLink:
    """The link of O(n): λ_{l+1}/λ_l = I_{ν+l+1}/I_{ν+l} with ν = n/2 - 1, by backward recurrence; n = 2 is XY.

    Accurate to rounding for every β and l. Cost √β + n.

    Args:
        n: components of a spin, at least 2.
        beta: β of either sign.
    """
    n, beta = checked_count("n", n, 2), checked_number("beta", beta)
    order, coupling = n / 2 - 1, abs(beta)
    n_degrees = 40 + n + int(12 * math.sqrt(coupling))
    steps = np.zeros(2 * n_degrees)  # I_{ν+l+1} / I_{ν+l}
    for l in reversed(range(len(steps) - 1)):
        steps[l] = coupling / (2 * (order + l + 1) + coupling * steps[l + 1])
    ratios = np.cumprod([1.0, *np.copysign(steps[:n_degrees], beta)])
    degrees = np.arange(n_degrees)
    lower = degrees * np.roll(ratios[:-1], 1)
    slopes = (lower + (degrees + n - 2) * ratios[1:])[1:] / (2 * degrees + n - 2)[1:]
    slopes = np.array([ratios[1], *slopes])
    log_area = math.log(2) + n / 2 * math.log(math.pi) - float(gammaln(n / 2))
    return SpinLink(beta, _harmonics(n, degrees), ratios[:-1], slopes, log_area + _log_mean(order, coupling), log_area)


def clock_link(q: int, beta: float) -> SpinLink:
    """The link of the q-state clock model: λ_k = Σ_j e^{β cos 2πj/q} cos 2πjk/q for each k = 0 … q - 1. Cost q log q.

    Args:
        q: the number of states, at least 2.
        beta: β of either sign.
    """
    q, beta = checked_count("q", q, 2), checked_number("beta", beta)
    cosines = np.cos(2 * np.pi * np.arange(q) / q)
    weights = np.exp(beta * cosines - abs(beta))
    values, slopes = np.fft.fft(weights).real, np.fft.fft(weights * cosines).real
    logs = math.log(values[0]) + abs(beta), math.log(q)
    return SpinLink(beta, np.ones(q), values / values[0], slopes / values[0], *logs)


def spin_chain(link: SpinLink, length: int) -> SpinSolution:
    """An open chain of L sites and L - 1 links: Z = |S| λ_0^{L-1}, ⟨s_x·s_y⟩ = (λ_1/λ_0)^{|x-y|}. Cost 1.

    Args:
        link: `on_link(n, beta)` or `clock_link(q, beta)`.
        length: L ≥ 1.
    """
    length = checked_count("length", length, 1)
    distances = np.arange(1, length)
    correlations = length + 2 * float(((length - distances) * link.ratios[1] ** distances).sum())
    log_z = link.log_measure + (length - 1) * link.log_trivial
    return SpinSolution(log_z, (length - 1) / length * link.energy, correlations / length**2)


def spin_ring(link: SpinLink, length: int) -> SpinSolution:
    """A ring of L sites and L links: Z = Σ_l d_l λ_l^L, E/V = -Σ_l d_l λ_l^{L-1} ∂λ_l/∂β / Z. Cost the number of λ_l.

    Args:
        link: `on_link(n, beta)` or `clock_link(q, beta)`.
        length: L ≥ 1; a ring of one site is bound to itself, one of two counts both bonds.
    """
    length = checked_count("length", length, 1)
    total = float((link.dimensions * link.ratios**length).sum())
    slope = float((link.dimensions * link.ratios ** (length - 1) * link.slopes).sum())
    return SpinSolution(length * link.log_trivial + math.log(total), -slope / total)


def on_square(n: int, beta: float) -> SpinSolution:
    """O(n) on the 2 × 2 torus, a ring of four at 2β: Z = Σ_l d_l λ_l(2β)⁴; of XY (2π)⁴ Σ_k I_k(2β)⁴.

    Args:
        n: components of a spin, at least 2.
        beta: β of either sign.
    """
    ring = spin_ring(on_link(n, 2 * checked_number("beta", beta)), 4)
    return SpinSolution(ring.log_z, 2 * ring.energy)


def _harmonics(n: int, degrees: np.ndarray) -> np.ndarray:
    """d_l = (2l + n - 2) / (l + n - 2) · C(l + n - 2, l), which is 1 for l = 0."""
    l = np.maximum(degrees, 1)
    return np.where(degrees == 0, 1.0, (2 * l + n - 2) / (l + n - 2) * comb(l + n - 2, l))


def _log_mean(order: float, beta: float) -> float:
    """log of the mean of e^{β s·s'} over the sphere, Γ(ν+1) (2/β)^ν I_ν(β) = ₀F₁(ν+1, β²/4), for β ≥ 0."""
    if beta <= 1 + order:
        return math.log(hyp0f1(order + 1, beta**2 / 4))
    return math.log(ive(order, beta)) + beta + order * math.log(2 / beta) + float(gammaln(order + 1))
