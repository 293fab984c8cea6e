"""Periodic convolutions in one to four dimensions, with kernels that may be shared over the point group."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flows.spectral import point_group_orbits
from lattices.lattice import Lattice


def periodic_halo(lattice: Lattice, radius: int) -> Tensor:  # -> (L_1 + 2 radius, …)
    """Flat site indices of the box with `radius` further periodic layers around it, for any radius.

    One gather with them replaces the padding of all valid convolutions whose radii add up to `radius`.
    """
    sites = torch.arange(lattice.volume).reshape(lattice.extents)
    for axis, extent in enumerate(lattice.extents):
        sites = sites.index_select(axis, torch.arange(-radius, extent + radius) % extent)
    return sites


def convolve(x: Tensor, kernel: Tensor) -> Tensor:  # (batch, in, *box), (out, in, *size) -> (batch, out, *smaller box)
    """The valid correlation y_o(s) = Σ_{i,δ} K_oi(δ) x_i(s + δ) in one to four dimensions.

    Four dimensions are a sum of three-dimensional ones over the slices of the kernel. Cost O(V · |K|).
    """
    if kernel.ndim < 6:
        return (F.conv1d, F.conv2d, F.conv3d)[kernel.ndim - 3](x, kernel)
    n = x.shape[2] - kernel.shape[2] + 1
    slices = [
        F.conv3d(x[:, :, i : i + n].transpose(1, 2).flatten(0, 1), part) for i, part in enumerate(kernel.unbind(2))
    ]
    return torch.stack(slices).sum(0).unflatten(0, (len(x), n)).transpose(1, 2)


@final
class OrbitConvolution(nn.Module):
    """A valid convolution whose kernel has one free number per orbit of displacements, or per displacement.

    Args:
        lattice: tells the dimension and which axes may be exchanged.
        channels: numbers of input and output channels.
        radius: displacements |δ_μ| <= radius, so kernels of (2 radius + 1)ᵈ entries.
        point_group: share numbers over the point group; with scalar channels the map is then equivariant.
        dtype: of the parameters.

    Shape: (batch, in, *box) -> (batch, out, *(box - 2 radius)).
    """

    orbits: Tensor

    def __init__(
        self, lattice: Lattice, channels: tuple[int, int], radius: int, point_group: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        size = 2 * radius + 1
        box = Lattice((size,) * lattice.dimension)
        far = tuple(size * extent for extent in lattice.extents)  # no displacement wraps; equal axes stay equal
        shared = point_group_orbits(box.coordinates() - radius, far)
        orbits = shared if point_group else torch.arange(box.volume)
        self.register_buffer("orbits", orbits.reshape(box.extents), persistent=False)
        n_in, n_out = channels
        bound = math.sqrt(3 / (n_in * box.volume))  # uniform with variance 1 / fan-in
        self.weight = nn.Parameter(torch.empty(n_out, n_in, int(orbits.max()) + 1, dtype=dtype).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight[..., self.orbits])


def check_sizes(hidden: tuple[int, ...], kernel_size: int, n_context: int) -> None:
    """Raise ValueError unless these sizes make a periodic convolutional network."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size >= 1, got {kernel_size}: pass 3 or 5")
    if not hidden or min(hidden) < 1:
        raise ValueError(f"expected hidden layers of at least one channel, got {hidden}: pass (8, 8)")
    if n_context < 0:
        raise ValueError(f"expected n_context >= 0, got {n_context}: pass the number of couplings")
