"""Closed forms of the Ising model in two dimensions: the torus and the infinite plane."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import numpy as np
from scipy.integrate import quad
from scipy.special import ellipkm1

from lattices.exact.geometry import checked_extents, checked_number

_CANCELLATION = 1e-3  # of four products, each of order one


def ising_critical_coupling() -> float:
    """Critical coupling K_c = ½ log(1 + √2) of the square lattice, where sinh 2K = 1."""
    return 0.5 * math.asinh(1)


def ising_torus_log_z(extents: Sequence[int], coupling: float) -> float:
    """log Z of the Ising model on any L₁×L₂ torus, to rounding accuracy at every K > 0, K_c included.

        S = -K Σ_x Σ_μ s_x s_{x+μ},
        Z = 2^(V-1) (P_aa + P_ap + P_pa - P_pp),
        P² = Π_k [cosh² 2K - sinh 2K (cos k₁ + cos k₂)]

    over momenta periodic (p) or antiperiodic (a) in each direction; P_pp has the sign of 1 - sinh 2K, so
    nothing is singular at K_c. These are Kaufman's four products with both directions treated alike. Cost
    V. Directions of length 2 count both bonds. K < 0 is exact too; there frustrated tori (odd lengths) lose
    digits and are refused where they lose more than three.

    Args:
        extents: two lattice lengths.
        coupling: K in units of kT, of either sign.

    References:
        B. Kaufman, Phys. Rev. 76 (1949) 1232.
    """
    return float(_torus_log_z(_plane(extents), checked_number("coupling", coupling)).real)


def ising_torus_energy(extents: Sequence[int], coupling: float) -> float:
    """Energy per site -∂_K log Z / V of the Ising model on an L₁×L₂ torus, to rounding accuracy at every K.

    Differentiates `ising_torus_log_z` along the imaginary axis, which involves no subtraction. Cost V.

    Args:
        extents: two lattice lengths.
        coupling: K in units of kT, of either sign.
    """
    shape, step = _plane(extents), 1e-100
    log_z = _torus_log_z(shape, complex(checked_number("coupling", coupling), step))
    return -float(log_z.imag) / step / math.prod(shape)


def onsager_log_z(coupling: float) -> float:
    """log Z per site of the Ising model on the infinite square lattice.

        log Z / V = log(2 cosh 2K) + π⁻¹ ∫_0^{π/2} dθ log ½(1 + √(1 - κ² sin²θ)),    κ = 2 sinh 2K / cosh² 2K

    Args:
        coupling: K in units of kT, of either sign.

    References:
        L. Onsager, Phys. Rev. 65 (1944) 117.
    """
    coupling = abs(checked_number("coupling", coupling))
    modulus = _complementary_modulus(coupling)
    integral, _ = quad(
        lambda t: math.log1p(math.hypot(math.sin(t), modulus * math.cos(t))), 0, math.pi / 2, epsabs=1e-14
    )
    return float(np.logaddexp(2 * coupling, -2 * coupling)) + integral / math.pi - math.log(2) / 2


def onsager_energy(coupling: float) -> float:
    """Energy per site -∂_K (log Z / V) of the Ising model on the infinite square lattice; -√2 at K_c.

        E = -coth 2K [1 + (2/π) (2 tanh² 2K - 1) 𝐊(κ)],    κ = 2 sinh 2K / cosh² 2K

    with the complete elliptic integral 𝐊 of modulus κ, logarithmic at K_c.

    Args:
        coupling: K in units of kT, of either sign.

    References:
        L. Onsager, Phys. Rev. 65 (1944) 117.
    """
    if checked_number("coupling", coupling) == 0:
        return 0.0
    modulus = _complementary_modulus(abs(coupling))
    sign = 1 if abs(coupling) > ising_critical_coupling() else -1
    correction = 2 / math.pi * sign * modulus * float(ellipkm1(modulus**2)) if modulus**2 > 0 else 0.0
    return -(1 + correction) / math.tanh(2 * coupling)


def onsager_magnetisation(coupling: float) -> float:
    """Spontaneous magnetisation of the Ising model on the infinite square lattice.

        M = (1 - sinh⁻⁴ 2K)^{1/8} for K > K_c, else 0

    Args:
        coupling: K in units of kT.

    References:
        C. N. Yang, Phys. Rev. 85 (1952) 808.
    """
    if checked_number("coupling", coupling) <= ising_critical_coupling():
        return 0.0
    return (1 - math.sinh(2 * coupling) ** -4) ** 0.125


def _complementary_modulus(coupling: float) -> float:
    """√(1 - κ²) = |sinh² 2K - 1| / cosh² 2K, as |1 - 2 / cosh² 2K| without overflow."""
    return abs(2 * math.tanh(2 * coupling) ** 2 - 1)


def _plane(extents: Sequence[int]) -> tuple[int, ...]:
    shape = checked_extents(extents)
    if len(shape) != 2:
        raise ValueError(f"expected two extents, got {shape}: the torus is solved in two dimensions")
    return shape


def _torus_log_z(shape: tuple[int, ...], coupling: complex) -> complex:
    """log Z as an analytic function: log Z - i ε ∂_K(-log Z) at K + iε.

    Written in q = e^{-2|K|}, the Boltzmann factor of a broken bond, so that strong couplings do not overflow.
    """
    sign = -1 if coupling.real < 0 else 1
    q = cmath.exp(-2 * sign * coupling)
    modes, zero_modes = zip(*(_log_product(shape, boundary, sign, q) for boundary in np.ndindex(2, 2)))
    largest = max(log.real for log in modes)
    periodic, *others = (zero * cmath.exp(log - largest) for log, zero in zip(modes, zero_modes))
    total = sum(others) - periodic
    if abs(total) < _CANCELLATION:
        raise ValueError(
            f"expected a torus that is not frustrated at strong coupling, got {shape} at {coupling.real}: "
            "digits cancel there, take even extents, K > 0, a weaker coupling, or enumerate"
        )
    return cmath.log(total / 2) + largest + 2 * sign * coupling * math.prod(shape)


def _log_product(shape: tuple[int, ...], boundary: tuple[int, ...], sign: int, q: complex) -> tuple[complex, complex]:
    """½ Σ_k log[(1 - 2q - q²)² + 4q (1 - q²) (sin² k₁/2 + sin² k₂/2)] without k = 0, and the factor of k = 0.

    That mode is its own partner and enters as 2q + q² - 1, with the sign of 1 - sinh 2|K|. K < 0: k → π - k.
    """
    halves = [np.arange(odd, 2 * extent, 2) for odd, extent in zip(boundary, shape)]  # k = π half / extent
    if sign < 0:
        halves = [extent - half for half, extent in zip(halves, shape)]
    squares = [np.sin(np.pi * half / (2 * extent)) ** 2 for half, extent in zip(halves, shape)]
    zero_mode = np.logical_and.outer(*(half == 0 for half in halves))
    factors = (1 - 2 * q - q * q) ** 2 + 4 * q * (1 - q * q) * np.add.outer(*squares)
    log_modes = 0.5 * complex(np.log(factors[~zero_mode]).sum())
    return log_modes, complex(2 * q + q * q - 1 if zero_mode.any() else 1)
