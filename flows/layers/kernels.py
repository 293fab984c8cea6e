"""Convolution kernels shared over point-group orbits of the displacement: the linear, equivariant maps of a lattice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.lattice import Lattice

Displacement = tuple[int, ...]


@dataclass(frozen=True)
class OrbitKernels:
    """The kernels K_b(d) that average over one orbit b of displacements d under the point group of the box.

        K_b(d) = [d ∈ orbit b] / |orbit b|,    Σ_d K_b(d) = 1.

    Any translation- and point-group-equivariant linear map is Σ_b θ_b K_b *. The coefficient θ_b is the total weight
    of an orbit, so that it keeps its meaning on a larger lattice, where orbits that touch the boundary grow.

    Args:
        lattice: the periodic box; axes of equal extent are exchanged by the point group.
        radius: keep displacements with |d| ≤ radius lattice units; None keeps all V of them.
    """

    lattice: Lattice
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.radius is not None and not self.radius >= 0:
            raise ValueError(f"expected radius >= 0 or None, got {self.radius}: None stands for the full range")

    @property
    def displacements(self) -> list[Displacement]:
        """One representative for each orbit: absolute values, sorted among axes of equal extent, nearest first."""
        within = (d for d in set(self._orbit_of_site()) if self.radius is None or _norm(d) <= self.radius**2 + 1e-9)
        return sorted(within, key=lambda d: (_norm(d), d))

    def spectrum(self, dtype: torch.dtype = torch.float64) -> Tensor:  # -> (n_kernels, *half extents)
        """The real Fourier transforms K̂_b(k) on the half grid of `torch.fft.rfftn`."""
        index = {d: b for b, d in enumerate(self.displacements)}
        row = torch.tensor([index.get(d, len(index)) for d in self._orbit_of_site()])
        kernels = torch.nn.functional.one_hot(row, len(index) + 1).T[:-1].to(torch.float64)
        kernels = (kernels / kernels.sum(1, keepdim=True)).reshape(-1, *self.lattice.extents)
        return torch.fft.rfftn(kernels, dim=self.lattice.axes).real.to(dtype).contiguous()

    def _orbit_of_site(self) -> list[Displacement]:
        extents = self.lattice.extents
        groups = [[mu for mu, n in enumerate(extents) if n == size] for size in dict.fromkeys(extents)]
        return [_representative(d, groups) for d in self.lattice.displacements().abs().tolist()]

    @classmethod
    def examples(cls) -> Iterator[OrbitKernels]:
        """Full range and local, on square, rectangular and cubic boxes."""
        yield cls(Lattice((4, 4)))
        yield cls(Lattice((3, 5)), radius=1.5)
        yield cls(Lattice((4, 4, 4)), radius=2)


def _representative(displacement: list[int], groups: list[list[int]]) -> Displacement:
    """Sort |d_μ| within each group of equal axes: equal for displacements on one orbit."""
    out = list(displacement)
    for axes in groups:
        for mu, value in zip(axes, sorted(displacement[mu] for mu in axes)):
            out[mu] = value
    return tuple(out)


def _norm(displacement: Displacement) -> int:
    return sum(n * n for n in displacement)
