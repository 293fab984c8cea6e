"""The Ising model in continuous variables, by the Hubbard–Stratonovich transformation; the family of its couplings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lattices.action import Action, Family, check_couplings, named_couplings
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.bonds import BONDS, BondMatrix, bond_spectrum, covering_alpha, gap_spectrum, half_grid, solve
from lattices.theories.checks import check_arguments, check_diagonal, check_names, check_positive


@dataclass(frozen=True)
class IsingDual(Action):
    """The Ising model S = -½ sᵀ K s - h Σ s as a density of real fields, from which spins are drawn back exactly.

        S(x) = ½ xᵀ K̃⁻¹ x - Σ_i log 2 cosh(x_i + h),    K̃ = K + α 1
        K(k) = K₁ Σ_μ 2 cos k_μ + K₂ Σ_{μ<ν,±} 2 cos(k_μ ± k_ν)
        p(s_i | x_i) ∝ exp(s_i (x_i + h)),    log Z_Ising = log Z_x - ½ log det 2πK̃ - αV/2

    Energies go through the FFT: cost V log V. Directions of length 2 count both bonds. For i ≠ j,
    ⟨s_i s_j⟩ = ⟨tanh(x_i + h) tanh(x_j + h)⟩. `IsingDualFamily` varies the couplings at fixed α.

    Args:
        extents: sites along each axis, e.g. 8 8.
        coupling: K₁ of nearest neighbours, of either sign.
        margin: smallest eigenvalue of K̃, > 0; with K₁ alone, α = 2d|K₁| + margin on even lattices.
        diagonal: K₂ of next-nearest neighbours, of either sign; needs two dimensions.
        uniform_field: h, favours s = +1 if positive.

    Symmetries: translations, point group, and x → -x if h = 0.
    References: Hubbard 1959, Phys. Rev. Lett. 3, 77; Zhang, Sutton, Storkey, Ghahramani 2012 (NIPS 25).
    """

    extents: tuple[int, ...]
    coupling: float
    margin: float = 0.3
    diagonal: float = 0.0
    uniform_field: float = 0.0

    def __post_init__(self) -> None:
        check_arguments(self)
        check_diagonal(self.extents, self.diagonal)
        check_positive("margin", self.margin)

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Translations(), PointGroup(), SignFlip())[: 2 if self.uniform_field else 3]

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        y = x + self.uniform_field
        return (0.5 * x * self._precise(x) - torch.logaddexp(y, -y)).flatten(1).sum(1)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        return (x + self.uniform_field).tanh() - self._precise(x)

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """C(k) = 1 / (1/K̃(k) - c) with c = E[1 - tanh²(σ g + h)], g standard normal and σ² = V⁻¹ Σ_k C(k).

        The best Gaussian of zero mean: it exists in the broken phase and in a field too.
        """
        return gap_spectrum(self._spectrum(), lambda sigma: _mean_slope_of_tanh(sigma, self.uniform_field))

    def sample_spins(self, x: Tensor, generator: torch.Generator) -> Tensor:  # (batch, *extents) -> the same
        """Spins ±1 given x, exactly: s_i = +1 with probability 1 / (1 + e^{-2 (x_i + h)})."""
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return torch.where(uniform < torch.sigmoid(2 * (x + self.uniform_field)), 1.0, -1.0).to(x.dtype)

    def log_z_ising(self, log_z: float | Tensor) -> float | Tensor:
        """log Z of the Ising model from log Z of this density: log Z_x - ½ log det 2πK̃ - αV/2."""
        spectrum = self._spectrum()
        alpha = self.margin - float(self._bonds().min())
        return log_z - 0.5 * float((2 * math.pi * spectrum).log().sum() + alpha * spectrum.numel())

    @classmethod
    def examples(cls) -> Iterator[IsingDual]:
        """At the critical coupling of the square lattice, antiferromagnetic in three dimensions, in a field."""
        yield cls(extents=(4, 4), coupling=0.440687)
        yield cls(extents=(6,), coupling=0.7)
        yield cls(extents=(2, 3, 4), coupling=-0.2)
        yield cls(extents=(4, 4), coupling=0.3, diagonal=-0.1, uniform_field=0.2)

    def _bonds(self) -> Tensor:  # -> extents
        """K(k), the eigenvalues of K."""
        nearest = self.coupling * bond_spectrum(self.extents, "nearest")
        return nearest + self.diagonal * bond_spectrum(self.extents, "diagonal") if self.diagonal else nearest

    def _spectrum(self) -> Tensor:  # -> extents
        """K̃(k) = K(k) + α, its smallest value being the margin."""
        bonds = self._bonds()
        return bonds - bonds.min() + self.margin

    def _precise(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        """K̃⁻¹ x."""
        return solve(x, _half_spectrum(self, x.dtype, x.device), self.field.lattice_axes)


@dataclass(frozen=True)
class IsingDualFamily(Family):
    """Ising models with couplings K₁, K₂ and a field h, as densities of one real field: `IsingDual` at fixed α.

        S(x; J) = ½ xᵀ (K(J) + α)⁻¹ x - Σ_i log 2 cosh(x_i + h)

    α does not depend on J nor on the lattice, so that the field means the same everywhere: x = K̃ s + noise. It limits
    the couplings, K(k; J) > -α at every momentum: `check` says where. Cost V log V, one FFT for all rows of J.

    Args:
        extents: sites along each axis, e.g. (8, 8).
        names: which couplings vary, in this order; the others are zero. Out of "nearest" K₁, "diagonal" K₂, "field" h.
        alpha: α > 0; the default covers 0 ≤ K₁, K₂ ≤ 1.2/d with a margin of 0.3.
    """

    extents: tuple[int, ...]
    names: tuple[str, ...] = ("nearest", "diagonal")
    alpha: float = 2.7

    def __post_init__(self) -> None:
        check_names(self, (*BONDS, "field"))
        check_positive("alpha", self.alpha)

    @classmethod
    def covering(cls, extents: tuple[int, ...], largest: Mapping[str, float], margin: float = 0.3) -> IsingDualFamily:
        """The family with the smallest α that keeps K̃ ≥ margin on every lattice for couplings from 0 to `largest`.

        Args:
            largest: the end of the range of each coupling, e.g. {"nearest": 0.6, "diagonal": 0.2, "field": 0.1}.
        """
        return cls(extents, tuple(largest), covering_alpha(len(Lattice(extents).extents), largest, margin))

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:  # (batch, *extents), (n,) or (batch, n) -> (batch,)
        check_couplings(self.names, couplings, len(x))
        J, y = couplings.to(x), x
        if "field" in self.names:
            y = x + J[..., self.names.index("field")].reshape(-1, *(1 for _ in self.extents))
        return self._bonds.quadratic(x, J) - torch.logaddexp(y, -y).flatten(1).sum(1)

    def at(self, couplings: Tensor) -> IsingDual:  # (n,) -> the action with these couplings
        J = named_couplings(self.names, couplings)
        smallest = self._bonds.smallest(self.check(couplings))
        return IsingDual(self.extents, J.get("nearest", 0.0), smallest, J.get("diagonal", 0.0), J.get("field", 0.0))

    def check(self, couplings: Tensor) -> Tensor:  # (n,) or (batch, n) -> the same tensor
        """Return J, or raise a ValueError: wrong shape, not finite, or K̃ not positive definite. Cost V per row."""
        check_couplings(self.names, couplings)
        self._bonds.require_positive(couplings)
        return couplings

    def log_z_ising(self, log_z: Tensor, couplings: Tensor) -> Tensor:  # (...), (..., n) -> (...)
        """log Z of the Ising models from log Z of their densities: log Z_x - ½ log det 2πK̃ - αV/2."""
        return log_z + self._bonds.log_gaussian(couplings)

    @classmethod
    def examples(cls) -> Iterator[IsingDualFamily]:
        """Two couplings on the square lattice, all three in three dimensions, and a chain."""
        yield cls(extents=(4, 4))
        yield cls.covering((2, 4, 4), {"field": 0.5, "nearest": 0.3, "diagonal": 0.1})
        yield cls(extents=(6,), names=("nearest",))

    @property
    def _bonds(self) -> BondMatrix:
        return BondMatrix(self.extents, self.names, self.alpha)


@lru_cache(maxsize=16)
def _half_spectrum(action: IsingDual, dtype: torch.dtype, device: torch.device) -> Tensor:
    """K̃(k) on the half grid of `rfftn`: built once, energies and forces ask for it all the time."""
    return half_grid(action._spectrum()).to(device, dtype)


def _mean_slope_of_tanh(sigma: float, shift: float, n_nodes: int = 400) -> float:
    """E[1 - tanh²(σ g + h)] = E[g tanh(σ g + h)] / σ for a standard normal g, by the trapezoidal rule.

    In the second form it stays accurate when tanh becomes a step, far in the ordered phase.
    """
    nodes = np.linspace(-9, 9, n_nodes)
    weights = np.exp(-(nodes**2) / 2)
    return float((weights * nodes) @ np.tanh(sigma * nodes + shift) / (sigma * weights.sum()))
