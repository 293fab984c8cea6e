"""The q-state Potts model in continuous variables: a vector field in R^(q-1), and the family of its couplings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lattices.action import Action, Family, check_couplings, named_couplings
from lattices.fields import FieldSpace, Real, Transformation
from lattices.invariance import ColourPermutations, PointGroup, SiteSign, Symmetry, Translations, simplex
from lattices.lattice import Lattice
from lattices.theories.bonds import BONDS, BondMatrix, covering_alpha, gap_spectrum, half_grid, solve
from lattices.theories.checks import check_arguments, check_diagonal, check_names, check_positive


@dataclass(frozen=True)
class PottsDual(Action):
    """The q-state Potts model S = -K Σ_<ij> δ(s_i, s_j) as a density of vectors x_i in R^(q-1).

        δ_ab = (1 + (q-1) e_a·e_b) / q,    e_a: the corners of a regular simplex (`simplex(q)`)
        S(x) = ½ x·K̃⁻¹x - Σ_i log Σ_a exp(e_a·x_i),    K̃(k) = (q-1)/q [K Σ_μ 2 cos k_μ + …] + α
        p(s_i = a | x_i) ∝ exp(e_a·x_i),    log Z_Potts = log Z_x - (q-1)/2 log det 2πK̃ - αV/2 + K dV/q + …

    The dots are the diagonal bonds. For q = 2 it is `IsingDual` at half the coupling. Cost V log V. Directions of
    length 2 count both bonds.

    Args:
        extents: sites along each axis, e.g. 8 8.
        coupling: K of nearest neighbours, of either sign; the square lattice is critical at log(1 + √q).
        q: number of states, 2 or more.
        margin: smallest eigenvalue of K̃, > 0.
        diagonal: coupling of next-nearest neighbours, of either sign; needs two dimensions.

    Symmetries: translations, point group, permutations of the q states.
    References: F. Y. Wu 1982, Rev. Mod. Phys. 54, 235 (the model); Hubbard 1959, Phys. Rev. Lett. 3, 77.
    """

    extents: tuple[int, ...]
    coupling: float
    q: int = 3
    margin: float = 0.3
    diagonal: float = 0.0

    def __post_init__(self) -> None:
        check_arguments(self)
        check_diagonal(self.extents, self.diagonal)
        check_positive("margin", self.margin)
        simplex(self.q)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents), Real(self.q - 1))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), ColourPermutations(self.q)

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents, q - 1) -> (batch,)
        return 0.5 * (x * self._precise(x)).flatten(1).sum(1) - _log_states(x, self.q)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents, q - 1) -> the same
        corners = _corners(self.q, x.dtype, x.device)
        return (x @ corners.mT).softmax(-1) @ corners - self._precise(x)

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """C(k) = 1 / (1/K̃(k) - c), the same for each component, with σ² = V⁻¹ Σ_k C(k) in

        c = E[1 - |m(σ g)|²] / (q-1),    m(x) = Σ_a e_a exp(e_a·x) / Σ_a exp(e_a·x),    g standard normal.
        """
        return gap_spectrum(self._spectrum(), lambda sigma: _mean_susceptibility(sigma, self.q))

    def sample_spins(self, x: Tensor, generator: torch.Generator) -> Tensor:  # -> (batch, *extents)
        """States 0 … q-1 given x, exactly: independent at each site, with p(a) ∝ exp(e_a·x_i)."""
        probabilities = (x @ _corners(self.q, x.dtype, x.device).mT).softmax(-1)
        return torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator).reshape(x.shape[:-1])

    def log_z_potts(self, log_z: float | Tensor) -> float | Tensor:
        """log Z of the Potts model from log Z of this density."""
        return log_z + float(_log_potts(self._bonds, self._couplings, self.q))

    @classmethod
    def examples(cls) -> Iterator[PottsDual]:
        """At the critical coupling of the square lattice, antiferromagnetic, and four states in three dimensions."""
        yield cls(extents=(4, 4), coupling=1.005053)
        yield cls(extents=(6,), coupling=-0.5)
        yield cls(extents=(2, 3, 4), coupling=0.3, q=4, diagonal=0.05)

    @property
    def _couplings(self) -> Tensor:  # -> (2,)
        return torch.tensor([self.coupling, self.diagonal], dtype=torch.float64)

    @property
    def _bonds(self) -> BondMatrix:
        """K̃, with α such that its smallest eigenvalue is the margin."""
        bonds = _bond_matrix(self.extents, tuple(BONDS), 0.0, self.q)
        return _bond_matrix(self.extents, tuple(BONDS), self.margin - bonds.smallest(self._couplings), self.q)

    def _spectrum(self) -> Tensor:  # -> extents
        """K̃(k)."""
        return self._bonds.spectrum(self._couplings)

    def _precise(self, x: Tensor) -> Tensor:  # (batch, *extents, q - 1) -> the same
        """K̃⁻¹ x."""
        return solve(x, _half_spectrum(self, x.dtype, x.device), self.field.lattice_axes)


@dataclass(frozen=True)
class PottsDualFamily(Family):
    """q-state Potts models with couplings to near neighbours, as densities of one vector field: `PottsDual` at fixed α.

        S(x; J) = ½ x·(K(J) + α)⁻¹x - Σ_i log Σ_a exp(e_a·x_i)

    α depends neither on J nor on the lattice, so that the field means the same everywhere; it limits the couplings,
    K(k; J) > -α at every momentum: `check` says where. Cost V log V, one FFT for all rows of J.

    Args:
        extents: sites along each axis, e.g. (8, 8).
        q: number of states, 2 or more.
        names: which couplings vary, in this order; the others are zero. Out of "nearest" and "diagonal".
        alpha: α > 0; the default covers 0 ≤ K (q-1)/q ≤ 1.6/d for each of the two, with a margin of 0.3.
    """

    extents: tuple[int, ...]
    q: int = 3
    names: tuple[str, ...] = ("nearest",)
    alpha: float = 3.5

    def __post_init__(self) -> None:
        check_names(self, BONDS)
        check_positive("alpha", self.alpha)
        simplex(self.q)

    @classmethod
    def covering(
        cls, extents: tuple[int, ...], largest: Mapping[str, float], q: int = 3, margin: float = 0.3
    ) -> PottsDualFamily:
        """The family with the smallest α that keeps K̃ ≥ margin on every lattice for couplings from 0 to `largest`.

        Args:
            largest: the end of the range of each coupling, e.g. {"nearest": 1.2, "diagonal": 0.3}.
        """
        alpha = covering_alpha(len(Lattice(extents).extents), largest, margin, (q - 1) / q)
        return cls(extents, q, tuple(largest), alpha)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents), Real(self.q - 1))

    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:  # (batch, *event), (n,) or (batch, n) -> (batch,)
        check_couplings(self.names, couplings, len(x))
        return self._bonds.quadratic(x, couplings.to(x)) - _log_states(x, self.q)

    def at(self, couplings: Tensor) -> PottsDual:  # (n,) -> the action with these couplings
        J = named_couplings(self.names, couplings)
        smallest = self._bonds.smallest(self.check(couplings))
        return PottsDual(self.extents, J.get("nearest", 0.0), self.q, smallest, J.get("diagonal", 0.0))

    def check(self, couplings: Tensor) -> Tensor:  # (n,) or (batch, n) -> the same tensor
        """Return J, or raise a ValueError: wrong shape, not finite, or K̃ not positive definite. Cost V per row."""
        check_couplings(self.names, couplings)
        self._bonds.require_positive(couplings)
        return couplings

    def log_z_potts(self, log_z: Tensor, couplings: Tensor) -> Tensor:  # (...), (..., n) -> (...)
        """log Z of the Potts models from log Z of their densities."""
        return log_z + _log_potts(self._bonds, couplings, self.q)

    @classmethod
    def examples(cls) -> Iterator[PottsDualFamily]:
        """Three states on the square lattice, and four with diagonal bonds in three dimensions."""
        yield cls(extents=(4, 4))
        yield cls.covering((2, 4, 4), {"diagonal": 0.1, "nearest": 0.4}, q=4)

    @property
    def _bonds(self) -> BondMatrix:
        return _bond_matrix(self.extents, self.names, self.alpha, self.q)


def _bond_matrix(extents: tuple[int, ...], names: tuple[str, ...], alpha: float, q: int) -> BondMatrix:
    return BondMatrix(extents, names, alpha, (q - 1) / q)


def _log_states(x: Tensor, q: int) -> Tensor:  # (batch, *extents, q - 1) -> (batch,)
    """Σ_i log Σ_a exp(e_a·x_i)."""
    return (x @ _corners(q, x.dtype, x.device).mT).logsumexp(-1).flatten(1).sum(1)


def _log_potts(bonds: BondMatrix, couplings: Tensor, q: int) -> Tensor:  # (..., n) -> (...)
    """log Z_Potts - log Z_x = -(q-1)/2 log det 2πK̃ - αV/2 + Σ_bonds K / q."""
    d = len(bonds.extents)
    per_site = couplings.new_tensor([len(BONDS[name](d)) for name in bonds.names])
    return bonds.log_gaussian(couplings, q - 1) + (couplings * per_site).sum(-1) * math.prod(bonds.extents) / q


@lru_cache(maxsize=64)
def _corners(q: int, dtype: torch.dtype, device: torch.device) -> Tensor:  # -> (q, q - 1)
    return simplex(q).to(device, dtype)


@lru_cache(maxsize=16)
def _half_spectrum(action: PottsDual, dtype: torch.dtype, device: torch.device) -> Tensor:
    """K̃(k) on the half grid of `rfftn`, once for all components."""
    return half_grid(action._spectrum())[..., None].to(device, dtype)


def _mean_susceptibility(sigma: float, q: int, n_nodes: int = 450) -> float:
    """E[1 - |m(σ g)|²] / (q-1) = E[g·m(σ g)] / (q-1)σ = √a q E[ζ_1 p_1] / (q-1)σ with a = q/(q-1).

    p is the softmax of q independent normals η = √a σ ζ. p_1 = ∫ ds e^{η_1 + s} Π_a exp(-e^{η_a + s}) makes the
    average a product of one-dimensional ones, so that no q is too large. E[ζ_1 p_1] tends to a constant: beyond
    σ = 8 it is taken to be there.
    """
    width = min(sigma, 8.0) * math.sqrt(q / (q - 1))
    nodes = np.linspace(-9, 9, n_nodes)
    weights = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
    s, step = np.linspace(-9 * width - 40, 9 * width + 5, round(72 * width + 180), retstep=True)
    u = np.minimum(s[:, None] + width * nodes, 50)
    survival = np.exp(-np.exp(u))
    drift = (np.exp(u) * survival) @ (nodes * weights) * (survival @ weights) ** (q - 1)
    return math.sqrt(q / (q - 1)) * q * step * float(drift.sum()) / ((q - 1) * sigma)
