"""Lattice: a periodic hypercubic box of sites, the geometry every field lives on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lattice:
    """A periodic box of d = 1…4 dimensions with `extents` (L_1, …, L_d) sites along its axes.

    Site x = (x_1, …, x_d) is stored at index [x_1, …, x_d] of the lattice axes of a tensor. The link (x, μ) joins x
    to x + μ̂ and the plaquette (x, μ < ν) starts at x. An extent of 2 has two distinct links between its two sites,
    an extent of 1 a link from the site to itself: sums over links count them all.

    Args:
        extents: sites along each axis, e.g. (8, 8).
    """

    extents: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.extents, tuple | list):
            raise TypeError(f"expected extents like (8, 8), got {self.extents!r}: pass one int per axis")
        extents = tuple(self.extents)
        if not 1 <= len(extents) <= 4 or not all(type(n) is int and n >= 1 for n in extents):
            raise ValueError(
                f"expected 1 to 4 extents, each a positive int, got {self.extents!r}: pass for instance (8, 8)"
            )
        object.__setattr__(self, "extents", extents)

    @property
    def dimension(self) -> int:
        """The number of axes d."""
        return len(self.extents)

    @property
    def volume(self) -> int:
        """The number of sites V = Π L_μ."""
        return math.prod(self.extents)

    @property
    def axes(self) -> tuple[int, ...]:
        """The lattice axes of a tensor of shape (..., *extents): (-d, …, -1)."""
        return tuple(range(-self.dimension, 0))

    def coordinates(self, device: torch.device | None = None) -> Tensor:  # -> (V, d)
        """The site coordinates in storage order."""
        ranges = [torch.arange(n, device=device) for n in self.extents]
        return torch.cartesian_prod(*ranges).reshape(self.volume, self.dimension)

    def displacements(self, device: torch.device | None = None) -> Tensor:  # -> (V, d)
        """The shortest displacement from the origin to each site: -L/2 < d_μ ≤ L/2."""
        extents = torch.tensor(self.extents, device=device)
        x = self.coordinates(device)
        return torch.where(2 * x > extents, x - extents, x)

    def neighbours(self, device: torch.device | None = None) -> Tensor:  # -> (V, 2d)
        """Flat indices of x + 1̂, …, x + d̂, x - 1̂, …, x - d̂ for every site x."""
        sites = torch.arange(self.volume, device=device).reshape(self.extents)
        shifted = [sites.roll(-step, mu) for step in (1, -1) for mu in range(self.dimension)]
        return torch.stack(shifted).reshape(2 * self.dimension, -1).T

    def laplacian_spectrum(self, dtype: torch.dtype = torch.float64) -> Tensor:  # -> extents
        """The eigenvalues k̂² = Σ_μ 4 sin²(π n_μ / L_μ) of minus the lattice Laplacian, in FFT order."""
        total = torch.zeros(self.extents, dtype=dtype)
        for mu, n in enumerate(self.extents):
            shape = [n if axis == mu else 1 for axis in range(self.dimension)]
            total = total + (4 * torch.sin(math.pi * torch.arange(n, dtype=dtype) / n) ** 2).reshape(shape)
        return total

    def require_even(self, purpose: str) -> None:
        """Raise ValueError unless every extent is even, as `purpose` (a checkerboard, say) needs."""
        if any(n % 2 for n in self.extents):
            raise ValueError(f"expected even extents for {purpose}, got {self.extents}: make each extent even")

    @classmethod
    def examples(cls) -> Iterator[Lattice]:
        """Small instances in every dimension, isotropic and not."""
        yield from map(cls, [(6,), (4, 4), (2, 6), (3, 4), (4, 4, 4), (2, 3, 4), (2, 2, 2, 4)])
