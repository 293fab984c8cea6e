"""The Ising model in continuous variables, by the Hubbard–Stratonovich transformation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import roots_hermitenorm
from torch import Tensor

from lattices.action import Action
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.checks import check_arguments


@dataclass(frozen=True)
class IsingDual(Action):
    """The Ising model S = -½ sᵀ K s as a density of real fields, from which spins are drawn back exactly.

        S(x) = ½ xᵀ K̃⁻¹ x - Σ_i log 2 cosh x_i,    K̃ = K + α 1,    K(k) = K Σ_μ 2 cos k_μ
        p(s_i | x_i) ∝ exp(s_i x_i),    log Z_Ising = log Z_x - ½ log det 2πK̃ - αV/2

    Energies go through the FFT: cost V log V. Directions of length 2 count both bonds. For i ≠ j,
    ⟨s_i s_j⟩ = ⟨tanh x_i tanh x_j⟩.

    Args:
        extents: sites along each axis, e.g. 8 8.
        coupling: K of the Ising model, of either sign.
        margin: smallest eigenvalue of K̃, > 0; on even lattices α = 2d|K| + margin.

    Symmetries: translations, point group, x → -x.
    References: Hubbard 1959, Phys. Rev. Lett. 3, 77; Zhang, Sutton, Storkey, Ghahramani 2012 (NIPS 25).
    """

    extents: tuple[int, ...]
    coupling: float
    margin: float = 0.3

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.margin <= 0:
            raise ValueError(f"expected margin > 0, got {self.margin}: K̃ must be positive definite, try 0.3")

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), SignFlip()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        return (0.5 * x * self._precise(x) - torch.logaddexp(x, -x)).flatten(1).sum(1)

    def force(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        return x.tanh() - self._precise(x)

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """C(k) = 1 / (1/K̃(k) - c) with c = E[1 - tanh²(σ g)], g standard normal and σ² = V⁻¹ Σ_k C(k)."""
        precision = 1 / self._spectrum()
        limit = float(precision.min())

        def excess(share: float) -> float:  # of the limit
            variance = float((1 / (precision - share * limit)).mean())
            return share * limit - _mean_slope_of_tanh(math.sqrt(variance))

        return 1 / (precision - limit * brentq(excess, 0.0, 1 - 1e-12, xtol=1e-15))

    def sample_spins(self, x: Tensor, generator: torch.Generator) -> Tensor:  # (batch, *extents) -> the same
        """Spins ±1 given x, exactly: s_i = +1 with probability 1 / (1 + e^{-2 x_i})."""
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return torch.where(uniform < torch.sigmoid(2 * x), 1.0, -1.0).to(x.dtype)

    def log_z_ising(self, log_z: float | Tensor) -> float | Tensor:
        """log Z of the Ising model from log Z of this density: log Z_x - ½ log det 2πK̃ - αV/2."""
        spectrum = self._spectrum()
        alpha = self.margin - float(self._bonds().min())
        return log_z - 0.5 * float((2 * math.pi * spectrum).log().sum() + alpha * spectrum.numel())

    @classmethod
    def examples(cls) -> Iterator[IsingDual]:
        """At the critical coupling of the square lattice, and antiferromagnetic in three dimensions."""
        yield cls(extents=(4, 4), coupling=0.440687)
        yield cls(extents=(6,), coupling=0.7)
        yield cls(extents=(2, 3, 4), coupling=-0.2)

    def _bonds(self) -> Tensor:  # -> extents
        """K(k) = K Σ_μ 2 cos k_μ, the eigenvalues of K."""
        return self.coupling * (2 * len(self.extents) - Lattice(self.extents).laplacian_spectrum())

    def _spectrum(self) -> Tensor:  # -> extents
        """K̃(k) = K(k) + α, its smallest value being the margin."""
        bonds = self._bonds()
        return bonds - bonds.min() + self.margin

    def _precise(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, *extents)
        """K̃⁻¹ x."""
        axes = Lattice(self.extents).axes
        half = _half_spectrum(self, x.dtype, x.device)
        return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) / half, s=self.extents, dim=axes)


@lru_cache(maxsize=16)
def _half_spectrum(action: IsingDual, dtype: torch.dtype, device: torch.device) -> Tensor:
    """K̃(k) on the half grid of `rfftn`: built once, energies and forces ask for it all the time."""
    return action._spectrum()[..., : action.extents[-1] // 2 + 1].to(device, dtype)


def _mean_slope_of_tanh(sigma: float, n_nodes: int = 200) -> float:
    """E[1 - tanh²(σ g)] for a standard normal g, by Gauss–Hermite quadrature."""
    nodes, weights = roots_hermitenorm(n_nodes)
    return float(weights @ np.cosh(np.minimum(sigma * abs(nodes), 300)) ** -2 / weights.sum())
