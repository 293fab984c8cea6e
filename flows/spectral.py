"""Operators that are diagonal in momentum space, and the orbits that make them equivariant."""

from __future__ import annotations

import torch
from torch import Tensor

from lattices.fields import FieldSpace, Real


def multiply_modes(field: FieldSpace, gain: Tensor, x: Tensor) -> Tensor:  # (..., *extents), (batch, *event) -> x
    """Multiply the Fourier modes of real fields by a real, even gain: y = F⁻¹ (gain(k) · F x).

    The operator is symmetric and its determinant is Π_k gain(k) for each component of the field. Cost O(V log V).

    Args:
        field: real fields on sites.
        gain: one factor per mode in FFT order with gain(-k) = gain(k), for all configurations or for each.
        x: the fields, shape (batch, *event).
    """
    extents, axes = field.lattice.extents, field.lattice_axes
    half = gain[..., : extents[-1] // 2 + 1]
    half = half.reshape(*half.shape, *(1 for _ in field.target.shape))
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * half, s=extents, dim=axes)


def point_group_orbits(displacements: Tensor, extents: tuple[int, ...]) -> Tensor:  # (n, d) -> (n,)
    """Number the orbits of displacements (or momenta) under the point group of a periodic box.

    Two displacements share an orbit when reflections of axes and exchanges of axes of equal extent map one to the
    other: |d_μ| modulo periods, sorted among equal extents. Orbits are numbered from 0 in lexicographic order.

    Args:
        displacements: integer vectors; a component means the same modulo its extent.
        extents: the sites along each axis.
    """
    size = torch.tensor(extents, device=displacements.device)
    folded = displacements.remainder(size)
    folded = torch.minimum(folded, size - folded)
    for extent in set(extents):
        equal = (size == extent).nonzero().flatten()
        folded[:, equal] = folded[:, equal].sort(-1).values
    return torch.unique(folded, dim=0, return_inverse=True)[1]


def require_real_sites(field: FieldSpace, purpose: str) -> FieldSpace:
    """Return a space of real fields on sites; a clear TypeError for anything else."""
    if not isinstance(field.target, Real) or field.cells != "sites":
        raise TypeError(f"expected real fields on sites for {purpose}, got {field}: use FieldSpace(lattice)")
    return field
