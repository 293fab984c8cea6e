"""The Ising chain and the renormalization maps made of it: decimation, Migdal–Kadanoff."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq

from lattices.exact.geometry import checked_count, checked_number


@dataclass(frozen=True)
class FixedPoint:
    """A fixed coupling K* = R(K*) of a renormalization map, and its exponent y_t = log_b R'(K*)."""

    coupling: float
    thermal_exponent: float


def ising_chain_log_z(length: int, coupling: float) -> float:
    """log Z of an Ising ring, from the two eigenvalues 2 cosh K and 2 sinh K of its transfer matrix.

        Z = (2 cosh K)^L + (2 sinh K)^L

    Cost 1. A ring of length 2 counts both bonds.

    Args:
        length: number of sites L.
        coupling: K in units of kT, of either sign.
    """
    length, coupling = checked_count("length", length, 1), checked_number("coupling", coupling)
    log_largest = length * (abs(coupling) + math.log1p(math.exp(-2 * abs(coupling))))
    if coupling == 0:
        return log_largest
    log_ratio = length * _log_tanh(abs(coupling))
    frustrated = coupling < 0 and length % 2
    return log_largest + (math.log(-math.expm1(log_ratio)) if frustrated else math.log1p(math.exp(log_ratio)))


def decimation(coupling: float, factor: int = 2) -> float:
    """Coupling of the Ising chain after summing over all but every b-th spin (exact).

        tanh K' = tanh^b K,    for b = 2:  K' = ½ log cosh 2K

    Args:
        coupling: K in units of kT, of either sign.
        factor: b >= 2, the ratio of lattice spacings.
    """
    factor = checked_count("factor", factor, 2)
    if checked_number("coupling", coupling) == 0:
        return 0.0
    log_power = factor * _log_tanh(abs(coupling))
    sign = -1 if coupling < 0 and factor % 2 else 1
    return sign * 0.5 * (math.log1p(math.exp(log_power)) - math.log(-math.expm1(log_power)))


def migdal_kadanoff(coupling: float, dimension: int = 2, factor: int = 2) -> float:
    """Ising coupling after the Migdal–Kadanoff step: move bonds, K → b^(d-1) K, then decimate the chains.

        tanh K' = tanh^b (b^(d-1) K),    for d = b = 2:  K' = ½ log cosh 4K

    Exact in d = 1 and on hierarchical lattices, an approximation on hypercubic ones.

    Args:
        coupling: K in units of kT.
        dimension: d >= 1.
        factor: b >= 2, the ratio of lattice spacings.

    References:
        L. P. Kadanoff, Ann. Phys. 100 (1976) 359.
    """
    n_moved = checked_count("factor", factor, 2) ** (checked_count("dimension", dimension, 1) - 1)
    return decimation(n_moved * checked_number("coupling", coupling), factor)


def migdal_kadanoff_fixed_point(dimension: int = 2, factor: int = 2) -> FixedPoint:
    """Critical fixed point of the Migdal–Kadanoff map.

        K* = R(K*),    y_t = log_b R'(K*);    for d = b = 2:  K* = 0.304688931718, y_t = 0.747235718929

    Args:
        dimension: d >= 2 (the chain has no transition).
        factor: b >= 2, the ratio of lattice spacings.
    """
    n_moved = checked_count("factor", factor, 2) ** (checked_count("dimension", dimension, 2) - 1)
    bracket = 1e-9 / n_moved, 10  # K' < K at weak coupling, K' > K at strong coupling
    fixed = brentq(lambda k: migdal_kadanoff(k, dimension, factor) - k, *bracket, xtol=1e-15, rtol=1e-15)
    tanh = math.tanh(n_moved * fixed)
    slope = n_moved * factor * tanh ** (factor - 1) * (1 - tanh**2) / (1 - tanh ** (2 * factor))
    return FixedPoint(float(fixed), math.log(slope, factor))


def _log_tanh(coupling: float) -> float:
    """log tanh K for K > 0, where tanh K rounds to one as well."""
    return math.log(math.tanh(coupling)) if coupling < 1 else math.log1p(-2 / (math.exp(2 * coupling) + 1))
