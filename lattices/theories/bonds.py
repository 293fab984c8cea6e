"""The bond matrix K̃ of dual spin models: couplings to neighbours plus a multiple of one, diagonal in Fourier space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.optimize import brentq
from torch import Tensor

from lattices.theories.neighbours import Displacement, axial, diagonal, neighbour_sum

BONDS: dict[str, Callable[[int], list[Displacement]]] = {"nearest": axial, "diagonal": diagonal}


@lru_cache(maxsize=64)
def bond_spectrum(extents: tuple[int, ...], name: str) -> Tensor:  # -> extents
    """b(k) = Σ_δ 2 cos k·δ of the bonds δ called `name`, in FFT order and float64; zero for what is no bond."""
    impulse = torch.zeros(1, *extents, dtype=torch.float64)
    impulse.view(-1)[0] = 1
    displacements = BONDS[name](len(extents)) if name in BONDS else []
    return torch.fft.fftn(neighbour_sum(impulse, displacements)[0]).real


def solve(x: Tensor, half_spectrum: Tensor, field_axes: tuple[int, ...]) -> Tensor:  # (batch, *event) -> the same
    """K̃⁻¹ x for K̃(k) on the half grid of `rfftn` over these axes."""
    sizes = [x.shape[axis] for axis in field_axes]
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=field_axes) / half_spectrum, s=sizes, dim=field_axes)


@dataclass(frozen=True)
class BondMatrix:
    """K̃(k; J) = α + scale Σ_a J_a b_a(k), for J in the order of `names`: one set for all fields or one for each.

    Everything is differentiable in J and in x, and one FFT: cost V log V.

    Args:
        extents: sites along each axis.
        names: the bonds out of `BONDS`; other names stand for couplings that K̃ does not depend on.
        alpha: α; K̃ must be positive definite.
        scale: a common factor of the couplings.
    """

    extents: tuple[int, ...]
    names: tuple[str, ...]
    alpha: float
    scale: float = 1.0

    def spectrum(self, couplings: Tensor) -> Tensor:  # (..., n) -> (..., *extents)
        """K̃(k; J) in the dtype of J, in FFT order."""
        return self._spectrum(couplings, half=False)

    def quadratic(self, x: Tensor, couplings: Tensor) -> Tensor:  # -> (batch,)
        """½ xᵀ K̃(J)⁻¹ x for x (batch, *extents) or (batch, *extents, components) and J (n,) or (batch, n)."""
        axes = tuple(range(1, 1 + len(self.extents)))
        power = torch.view_as_real(torch.fft.rfftn(x, dim=axes)).square().flatten(1 + len(axes)).sum(-1)
        weighted = power * _multiplicity(self.extents, x.dtype, x.device)
        return (weighted / self._spectrum(couplings, half=True)).flatten(1).sum(1) / (2 * math.prod(self.extents))

    def log_gaussian(self, couplings: Tensor, components: int = 1) -> Tensor:  # (..., n) -> (...)
        """-½ n log det 2πK̃ - αV/2: log Z of the spins minus log Z of the dual field of n components."""
        axes, volume = tuple(range(-len(self.extents), 0)), math.prod(self.extents)
        log_det = (2 * math.pi * self.spectrum(couplings)).log().sum(axes)
        return -0.5 * (components * log_det + self.alpha * volume)

    def smallest(self, couplings: Tensor) -> float:  # (..., n) -> the smallest of all
        """The smallest eigenvalue of K̃(J), in float64."""
        return float(self.spectrum(couplings.detach().double()).min())

    def require_positive(self, couplings: Tensor) -> None:
        """Raise a ValueError unless K̃(J) is positive definite, for every row of J."""
        smallest = self.smallest(couplings)
        if smallest <= 0:
            raise ValueError(
                f"expected couplings {self.names} with K̃ = K + α positive definite, got the eigenvalue {smallest:.3g} "
                f"at alpha = {self.alpha:g}: weaken them, or make the family .covering(…) larger ones"
            )

    def _spectrum(self, couplings: Tensor, half: bool) -> Tensor:  # (..., n) -> (..., *grid)
        grids = _grids(self.extents, self.names, half, couplings.dtype, couplings.device)
        return self.alpha + self.scale * torch.tensordot(couplings, grids, 1)


def covering_alpha(dimension: int, largest: Mapping[str, float], margin: float, scale: float = 1.0) -> float:
    """The smallest α with K̃ ≥ margin on every lattice, for all couplings between 0 and `largest` of each kind.

    K(k) is linear in each J_a and in each cos k_μ, so that its minimum is at a corner: J_a = 0 or the largest,
    k_μ = 0 or π, which are the momenta of a lattice of extents 2.
    """
    corners = (2,) * dimension
    lowest = sum((scale * J * bond_spectrum(corners, name)).clamp(max=0) for name, J in largest.items())
    return margin - float(torch.as_tensor(lowest).min())


def gap_spectrum(spectrum: Tensor, curvature: Callable[[float], float]) -> Tensor:  # -> the same shape
    """C(k) = 1 / (1/K̃(k) - c) with c = curvature(σ), σ² = V⁻¹ Σ_k C(k): the best Gaussian of a dual field.

    Args:
        spectrum: K̃(k) > 0, float64.
        curvature: mean second derivative of the site potential log Σ_s e^{s·x} under a Gaussian of width σ.
    """
    precision = 1 / spectrum
    limit = float(precision.min())

    def excess(share: float) -> float:  # of the limit
        variance = float((1 / (precision - share * limit)).mean())
        return share * limit - curvature(math.sqrt(variance))

    return 1 / (precision - limit * brentq(excess, 0.0, 1 - 1e-12, xtol=1e-15))


def half_grid(spectrum: Tensor) -> Tensor:  # (..., *extents) -> (..., *half extents)
    """The part of a spectrum that `rfftn` returns."""
    return spectrum[..., : spectrum.shape[-1] // 2 + 1]


@lru_cache(maxsize=64)
def _grids(
    extents: tuple[int, ...], names: tuple[str, ...], half: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:  # -> (n, *grid)
    grids = torch.stack([bond_spectrum(extents, name) for name in names])
    return (half_grid(grids) if half else grids).to(device, dtype)


@lru_cache(maxsize=64)
def _multiplicity(extents: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:  # -> (half of last,)
    """How many momenta of the full grid each one of the half grid stands for: 2, but 1 at its ends."""
    momenta = torch.arange(extents[-1] // 2 + 1)
    return torch.where((momenta == 0) | (2 * momenta == extents[-1]), 1, 2).to(device, dtype)
