"""Gauge theory in two dimensions, solved by characters: U(1) (n = 1) and SU(N) with Wilson's action, in Haar measure.

exp((β/N) Re Tr g) = Σ_r c_r χ_r(g). Plaquettes that are glued along a link multiply their u_r = c_r / d_r c_0, and a
torus closes each representation r with weight one. Without a boundary (the infinite plane) only r = 0 is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from scipy.special import ive

from lattices.exact.geometry import checked_count, checked_extents, checked_number

Weight = tuple[int, ...]
_SMALLEST_RATIO = 1e-17


@dataclass(frozen=True)
class CharacterExpansion:
    """The representations r of one plaquette's weight with u_r = c_r / (d_r c_0) above 1e-17, the trivial one first.

    Args:
        weights: highest weights λ_1 ≥ … ≥ λ_N = 0, the charge for U(1): (n_representations, N).
        dimensions: d_r.
        ratios: u_r, from 0 to 1.
        log_trivial: log c_0, of the integral ∫dU e^{(β/N) Re Tr U} over one plaquette.
    """

    weights: np.ndarray
    dimensions: np.ndarray
    ratios: np.ndarray
    log_trivial: float


@cache
def character_expansion(n: int, beta: float) -> CharacterExpansion:
    """All representations that count, by adding boxes to the trivial one until nothing is left.

        c_λ = Σ_k det I_{λ_j - j + i + k}(β/N)    (i, j = 1 … N; U(1): c_n = I_n(β))

    with Bessel functions scaled by e^{-β/N}, so that a large β does not overflow. Determinants lose about
    (β/N)^{N(N-1)/2} roundings. Cost of the order of the number of representations.

    Args:
        n: 1 for U(1), N for SU(N).
        beta: β ≥ 0.

    References: Drouffe and Zuber 1983, Phys. Rept. 102, 1.
    """
    n, beta = checked_count("n", n, 1), checked_number("beta", beta, 0.0)
    found: dict[Weight, tuple[float, float]] = {}
    seen = frontier = {(0,) * n}
    rounding = 1e-16 * ive(0, beta / n) ** n
    while frontier:
        weights = np.array(sorted(frontier))
        coefficients, dimensions = _coefficients(weights, beta / n), _dimensions(weights)
        trivial = found[(0,) * n][1] if found else coefficients[0]
        pairs = zip(map(tuple, weights.tolist()), dimensions, coefficients)
        kept = {w: (d, c) for w, d, c in pairs if c > max(_SMALLEST_RATIO * d * trivial, rounding)}
        found |= kept
        frontier = {s for r in kept for sign in (1, -1) for s in _neighbours(r, sign)} - seen
        seen = seen | frontier
    dimensions, coefficients = np.array(list(found.values())).T
    ratios = coefficients / (dimensions * coefficients[0])
    return CharacterExpansion(np.array(list(found)), dimensions, ratios, beta + math.log(coefficients[0]))


@cache
def heat_kernel_expansion(n: int, time: float) -> CharacterExpansion:
    """The heat kernel K_s(g) = Σ_r d_r e^{-s C_r} χ_r(g) on a group: the weight whose ratios are u_r = e^{-s C_r}.

        C_λ = ½ [Σ_i λ_i (λ_i + N + 1 - 2i) - (Σ_i λ_i)² / N]    (N: (N² - 1) / 2N, adjoint: N; U(1): C_k = k² / 2)

    Representations whose share d_r² u_r of K_s(1) is below 1e-17 are left out. On U(1) it is Villain's weight, s = 1/b.

    Args:
        n: 1 for U(1), N for SU(N).
        time: s > 0.

    References: Menotti and Onofri 1981, Nucl. Phys. B 190, 288.
    """
    n, time = checked_count("n", n, 1), checked_number("time", time, 0.0)
    if not time > 0:
        raise ValueError(f"expected time > 0, got {time}: at 0 the heat kernel is a delta function")
    found: list[Weight] = []
    seen = frontier = {(0,) * n}
    while frontier:
        weights = np.array(sorted(frontier))
        shares = _dimensions(weights) ** 2 * np.exp(-time * _casimirs(weights))
        kept = [tuple(w) for w in weights[shares > _SMALLEST_RATIO].tolist()]
        found += kept
        frontier = {s for r in kept for sign in (1, -1) for s in _neighbours(r, sign)} - seen
        seen = seen | frontier
    weights = np.array(found)
    return CharacterExpansion(weights, _dimensions(weights), np.exp(-time * _casimirs(weights)), 0.0)


def one_plaquette_log_z(n: int, beta: float) -> float:
    """log ∫dU e^{(β/N) Re Tr U}: log Z per plaquette of the infinite plane, and of free boundaries.

        U(1): log I_0(β);    SU(2): log 2 I_1(β) / β

    Args:
        n: 1 for U(1), N for SU(N).
        beta: β ≥ 0.
    """
    return character_expansion(n, beta).log_trivial


def gauge_plane_plaquette(n: int, beta: float) -> float:
    """⟨Re Tr P⟩ / N on the infinite plane, u_1; loops of area A have its power u_1^A.

    In every dimension the plaquette starts like this one at strong coupling (to order β⁴ and beyond).

    Args:
        n: 1 for U(1), N for SU(N).
        beta: β ≥ 0.
    """
    expansion = character_expansion(n, beta)
    fundamental = (expansion.weights == np.eye(n, dtype=int)[0]).all(1)
    return float(expansion.ratios[fundamental].sum())


def gauge_torus_log_z(extents: Sequence[int], n: int, beta: float) -> float:
    """log Z on a torus of V plaquettes, in normalised Haar measure.

        Z = Σ_r (c_r / d_r)^V

    Args:
        extents: two lattice lengths.
        n: 1 for U(1), N for SU(N).
        beta: β ≥ 0 of S = -(β/N) Σ_P Re Tr P.
    """
    expansion, volume = character_expansion(n, beta), _plaquettes(extents)
    return volume * expansion.log_trivial + math.log((expansion.ratios**volume).sum())


def gauge_torus_plaquette(extents: Sequence[int], n: int, beta: float) -> float:
    """⟨Re Tr P⟩ / N = ∂_β log Z / V on a torus: the Wilson loop of area 1. Arguments of `gauge_torus_log_z`."""
    return gauge_torus_wilson_loop(extents, n, beta, 1)


def gauge_torus_wilson_loop(extents: Sequence[int], n: int, beta: float, area: int) -> float:
    """⟨Re Tr W⟩ / N of a contractible loop around A plaquettes of a torus.

        W(A) = Σ_r Σ_{s ∈ r ⊗ N} (d_s / d_r) u_s^A u_r^{V-A} / (N Σ_r u_r^V)    (U(1): Σ I_{n+1}^A I_n^{V-A} / Σ I_n^V)

    Args:
        extents: two lattice lengths.
        n: 1 for U(1), N for SU(N).
        beta: β ≥ 0.
        area: A plaquettes, at most V.
    """
    expansion, volume = character_expansion(n, beta), _plaquettes(extents)
    if checked_count("area", area, 0) > volume:
        raise ValueError(f"expected an area up to {volume} plaquettes, got {area}: the torus has no more")
    index = {tuple(w): i for i, w in enumerate(expansion.weights.tolist())}
    pairs = [(i, index[s]) for r, i in index.items() for s in _neighbours(r, 1) if s in index]
    r, s = np.array(pairs or [(0, 0)]).T
    u, d = expansion.ratios, expansion.dimensions
    terms = d[s] / d[r] * u[s] ** area * u[r] ** (volume - area) * bool(pairs)
    return float(terms.sum() / (n * (u**volume).sum()))


def u1_charge_distribution(extents: Sequence[int], beta: float) -> dict[int, float]:
    """{Q: P(Q)} of the geometric charge Q = Σ_P wrap(θ_P) / 2π of U(1) on a torus.

        P(Q) ∝ ∫dν c(ν)^V cos 2πνQ,    c(ν) = ∫dθ e^{β cos θ} cos νθ = 2π Σ_k I_k(β) sinc(ν - k)

    The integral over each unit interval of ν is a finite Fourier sum, since |Q| ≤ V/2. Charges beyond 70 standard
    deviations of β = 0 are left out. Cost V.

    Args:
        extents: two lattice lengths, at least 2.
        beta: β ≥ 0.
    """
    volume, beta = _plaquettes(extents, 2), checked_number("beta", beta, 0.0)
    largest = min(volume // 2, 20 + int(20 * math.sqrt(volume)))
    windings = math.ceil(10 ** (12 / (volume - 1))) + _reach(beta)
    fraction = np.arange(2 * largest + 1) / (2 * largest + 1)
    theta_vacua = sum(_fractional_coefficient(fraction + k, beta) ** volume for k in range(-windings, windings))
    probabilities = np.fft.fftshift(np.fft.fft(theta_vacua).real.clip(min=0))
    return dict(zip(range(-largest, largest + 1), (probabilities / probabilities.sum()).tolist()))


def u1_charge_squared(extents: Sequence[int], beta: float) -> float:
    """⟨Q²⟩ of the geometric charge of U(1) on a torus; arguments of `u1_charge_distribution`."""
    return sum(charge**2 * p for charge, p in u1_charge_distribution(extents, beta).items())


def _plaquettes(extents: Sequence[int], smallest: int = 1) -> int:
    lengths = checked_extents(extents)
    if len(lengths) != 2 or min(lengths) < smallest:
        raise ValueError(f"expected two extents of at least {smallest}, got {lengths}: closed forms are for d = 2")
    return math.prod(lengths)


def _reach(b: float) -> int:
    """An order m beyond which I_m(b) / I_0(b) is below 1e-20."""
    return 20 + math.ceil(10 * math.sqrt(b))


def _coefficients(weights: np.ndarray, b: float) -> np.ndarray:  # (n_representations, N) -> (n_representations,)
    """e^{-β} c_λ, where rounding leaves a negative number: 0."""
    n, reach = weights.shape[1], _reach(b)
    scaled = np.append(ive(np.arange(reach), b), 0.0)
    row = np.arange(n)
    order = weights[:, None, None, :] + row[:, None] - row  # λ_j - j + i
    shifts = np.arange(-weights.max() - reach - n, reach + n + 1) if n > 1 else np.zeros(1, int)
    return np.linalg.det(scaled[abs(order + shifts[:, None, None]).clip(max=reach)]).sum(1).clip(min=0)


def _dimensions(weights: np.ndarray) -> np.ndarray:
    """Weyl's formula Π_{i<j} (λ_i - λ_j + j - i) / (j - i)."""
    i, j = np.triu_indices(weights.shape[1], 1)
    return ((weights[:, i] - weights[:, j] + j - i) / (j - i)).prod(1)


def _casimirs(weights: np.ndarray) -> np.ndarray:  # (n_representations, N) -> (n_representations,)
    n = weights.shape[1]
    squares = (weights * (weights + n - 1 - 2 * np.arange(n))).sum(1)
    return (squares - weights.sum(1) ** 2 / n * (n > 1)) / 2


def _neighbours(weight: Weight, sign: int) -> Iterator[Weight]:
    """The representations in r ⊗ N (sign 1) or r ⊗ N̄ (sign -1), each once."""
    n = len(weight)
    for j in range(n):
        moved = [w + sign * (i == j) for i, w in enumerate(weight)]
        if all(a >= b for a, b in pairwise(moved)):
            yield tuple(w - moved[-1] for w in moved) if n > 1 else tuple(moved)


def _fractional_coefficient(nu: np.ndarray, beta: float) -> np.ndarray:
    """c(ν) / c(0)."""
    orders = np.arange(-_reach(beta), _reach(beta) + 1)
    return np.sinc(nu[:, None] - orders) @ ive(abs(orders), beta) / ive(0, beta)
