"""The free scalar field on a torus: a Gaussian, diagonal in Fourier space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from lattices.exact.geometry import checked_extents, checked_number


def free_field_spectrum(extents: Sequence[int], mass_squared: float) -> np.ndarray:  # -> (*extents)
    """Eigenvalues of the quadratic form of the free field, one per momentum k_μ = 2π n_μ / L_μ, in FFT order.

        ω(k) = m² + Σ_μ 4 sin²(k_μ/2),    S = Σ_k ω(k) |φ̂(k)|²  (unitary φ̂),    ⟨|φ̂(k)|²⟩ = 1 / 2ω(k)

    Cost V. Directions of length 2 count both bonds.

    Args:
        extents: one to four lattice lengths.
        mass_squared: m² > 0 in lattice units.

    Shape: extents.
    """
    lengths = checked_extents(extents)
    if checked_number("mass_squared", mass_squared) <= 0:
        raise ValueError(f"expected mass_squared > 0, got {mass_squared}: the zero mode of a massless field diverges")
    terms = [4 * np.sin(np.pi * np.arange(length) / length) ** 2 for length in lengths]
    return mass_squared + reduce(np.add.outer, terms)


def free_field_log_z(extents: Sequence[int], mass_squared: float) -> float:
    """log Z of the free field S = Σ_x [Σ_μ (φ_{x+μ} - φ_x)² + m² φ_x²] in Lebesgue measure.

        log Z = ½ Σ_k log(π / ω(k))

    Cost V. Directions of length 2 count both bonds.

    Args:
        extents: one to four lattice lengths.
        mass_squared: m² > 0 in lattice units.
    """
    return float(0.5 * np.log(np.pi / free_field_spectrum(extents, mass_squared)).sum())


def free_field_propagator(extents: Sequence[int], mass_squared: float) -> np.ndarray:  # -> (*extents)
    """Two-point function ⟨φ_0 φ_x⟩ of the free field for every displacement x.

        G(x) = V⁻¹ Σ_k e^{ikx} / 2ω(k)

    Cost V log V. The entry at zero displacement is ⟨φ²⟩.

    Args:
        extents: one to four lattice lengths.
        mass_squared: m² > 0 in lattice units.

    Shape: extents.
    Symmetries: G(x) = G(-x), and G is even in every component.
    """
    return np.fft.ifftn(0.5 / free_field_spectrum(extents, mass_squared)).real
