"""Discrete spins on small tori, summed over every configuration: Ising, Potts, clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import logsumexp

from lattices.exact.geometry import checked_count, checked_extents, checked_number

_MAX_STATES = 2**20
_CHUNK = 2**16


@dataclass(frozen=True)
class SpinMoments:
    """Exact log Z, energy per site, and moments of m = |Σ_x s_x| / V for spins that are unit vectors s_x."""

    log_z: float
    energy: float
    magnetisation: float
    magnetisation_squared: float
    magnetisation_fourth: float

    @property
    def binder_cumulant(self) -> float:
        """U₄ = 1 - ⟨m⁴⟩ / 3⟨m²⟩²."""
        return 1 - self.magnetisation_fourth / (3 * self.magnetisation_squared**2)


def ising_enumeration(
    extents: Sequence[int], coupling: float, diagonal: float = 0.0, uniform_field: float = 0.0
) -> SpinMoments:
    """The Ising model on up to 20 sites in any dimension, by summing over all configurations.

        S = -K Σ_x Σ_μ s_x s_{x+μ} - K₂ Σ_x Σ_{μ<ν,±} s_x s_{x+μ±ν} - h Σ_x s_x,    s = ±1

    with energy = ⟨-Σ_x Σ_μ s_x s_{x+μ}⟩ / V, the nearest neighbours alone. Cost 2^(V-1) V (the global sign is summed
    by hand). Directions of length 2 count both bonds.

    Args:
        extents: one to four lattice lengths.
        coupling: K in units of kT, of either sign.
        diagonal: K₂ of next-nearest neighbours.
        uniform_field: h.
    """
    return _enumerate(extents, (coupling, diagonal), np.array([[1.0], [-1.0]]), np.array([1.0, -1.0]), uniform_field)


def potts_enumeration(extents: Sequence[int], coupling: float, n_states: int, diagonal: float = 0.0) -> SpinMoments:
    """The q-state Potts model on up to q^(V-1) = 2^20 configurations, by summing over them.

        S = -K Σ_x Σ_μ δ(s_x, s_{x+μ}) - K₂ Σ_x Σ_{μ<ν,±} δ(s_x, s_{x+μ±ν}),    energy = ⟨-Σ_x Σ_μ δ⟩ / V

    The magnetisation adds unit vectors to the corners of a regular simplex. Cost q^(V-1) V; q = 2 is the
    Ising model of coupling K/2. Directions of length 2 count both bonds.

    Args:
        extents: one to four lattice lengths.
        coupling: K in units of kT, of either sign.
        n_states: q >= 2.
        diagonal: K₂ of next-nearest neighbours.
    """
    q = checked_count("n_states", n_states, 2)
    simplex = (np.eye(q) - 1 / q) * math.sqrt(q / (q - 1))
    return _enumerate(extents, (coupling, diagonal), simplex, np.eye(q)[0])


def clock_enumeration(extents: Sequence[int], coupling: float, n_states: int) -> SpinMoments:
    """The q-state clock model on up to q^(V-1) = 2^20 configurations, by summing over them.

        S = -K Σ_x Σ_μ cos(2π (s_x - s_{x+μ}) / q),    energy = ⟨-Σ cos⟩ / V

    Cost q^(V-1) V; q = 2 is the Ising model, q = 4 two Ising models of coupling K/2, q → ∞ the XY model.
    Directions of length 2 count both bonds.

    Args:
        extents: one to four lattice lengths.
        coupling: K in units of kT, of either sign.
        n_states: q >= 2.
    """
    angles = 2 * np.pi * np.arange(checked_count("n_states", n_states, 2)) / n_states
    return _enumerate(extents, (coupling, 0.0), np.stack([np.cos(angles), np.sin(angles)], 1), np.cos(angles))


def potts_critical_coupling(n_states: int) -> float:
    """Self-dual coupling K_c = log(1 + √q) of the Potts model S = -K Σ δ on the square lattice."""
    return math.log1p(math.sqrt(checked_count("n_states", n_states, 2)))


def _enumerate(
    extents: Sequence[int],
    couplings: tuple[float, float],
    vectors: np.ndarray,
    bond: np.ndarray,
    uniform_field: float = 0.0,
) -> SpinMoments:
    """Sum over states in 0…q-1 with unit vectors (q, n) and bond energies -K bond[(s - s') mod q].

    A field on two states adds h |M| or -h |M|, as the first site, fixed here, is up or down.
    """
    shape, n_sites = checked_extents(extents), math.prod(checked_extents(extents))
    nearest, diagonal = (checked_number(name, K) for name, K in zip(("coupling", "diagonal"), couplings))
    h = checked_number("uniform_field", uniform_field)
    chunks = [_bonds_and_magnetisation(states, vectors, bond, bool(diagonal)) for states in _states(shape, len(bond))]
    bonds, far_bonds, magnetisation = (np.concatenate(column) / n_sites for column in zip(*chunks))
    log_weights = n_sites * (nearest * bonds + diagonal * far_bonds) + _log_cosh(n_sites * h * magnetisation)
    log_z = float(logsumexp(log_weights))
    probabilities = np.exp(log_weights - log_z)
    energy, *moments = (float(x @ probabilities) for x in (-bonds, *(magnetisation**k for k in (1, 2, 4))))
    return SpinMoments(log_z + math.log(len(bond)), energy, *moments)


def _log_cosh(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, -x) - math.log(2)


def _states(shape: tuple[int, ...], q: int) -> Iterator[np.ndarray]:  # -> (chunk, *shape)
    """All configurations with state 0 at the first site, in chunks."""
    n_sites = math.prod(shape)
    if (n_sites - 1) * math.log(q) > math.log(_MAX_STATES):
        raise ValueError(
            f"expected at most {_MAX_STATES} configurations, got {q}^{n_sites - 1}: take a smaller lattice or simulate"
        )
    for start in range(0, q ** (n_sites - 1), _CHUNK):
        codes = np.arange(start, min(start + _CHUNK, q ** (n_sites - 1)))
        digits = codes[:, None] // q ** np.arange(n_sites)[::-1] % q
        yield digits.astype(np.int8).reshape(-1, *shape)


def _bonds_and_magnetisation(
    states: np.ndarray, vectors: np.ndarray, bond: np.ndarray, diagonal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # (chunk, *shape) -> three of (chunk,)
    """Σ of nearest bonds, Σ of diagonal bonds (0 if not wanted), and |Σ_x s_x|."""
    sites = tuple(range(1, states.ndim))
    bonds = sum(_bond_sum(states, bond, (1,), (axis,)) for axis in sites)
    pairs = [(axes, sign) for axes in combinations(sites, 2) for sign in (1, -1)] if diagonal else []
    far_bonds = sum((_bond_sum(states, bond, (1, sign), axes) for axes, sign in pairs), np.zeros(len(states)))
    counts = np.stack([(states == state).sum(sites) for state in range(len(bond))], -1)
    return np.asarray(bonds), far_bonds, np.linalg.norm(counts @ vectors, axis=-1)


def _bond_sum(states: np.ndarray, bond: np.ndarray, steps: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Σ_x bond[s_x - s_{x-δ}] for the displacement δ of these steps along these axes."""
    return bond[(states - np.roll(states, steps, axes)) % len(bond)].sum(tuple(range(1, states.ndim)))
