"""Representations: how a group acts on vectors, and what it leaves alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from symmetries.finite import Cyclic, Dihedral
from symmetries.group import FiniteGroup, Group, check_elements


class Representation(ABC):
    """A homomorphism g → D(g) of a group into invertible matrices: D(g h) = D(g) D(h), unitary here.

    A + B is the direct sum, A * B the tensor product. Representations are frozen dataclasses without tensors.
    """

    group: Group
    dim: int

    @abstractmethod
    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:  # -> (..., dim, dim)
        """The matrices D(g); `dtype` is double precision for finite groups, and follows g for Lie groups."""

    def character(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:  # (..., *element) -> (...)
        """The trace χ(g) = Tr D(g), a function of the conjugacy class."""
        return self.matrix(g, dtype).diagonal(dim1=-2, dim2=-1).sum(-1)

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[Representation]:
        """Small instances: documentation first, test data second."""

    def __add__(self, other: Representation) -> DirectSum:
        return DirectSum(self, other)

    def __mul__(self, other: Representation) -> TensorProduct:
        return TensorProduct(self, other)


@dataclass(frozen=True)
class Trivial(Representation):
    """The representation D(g) = 1."""

    group: Group
    dim = 1

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Ones of shape (..., 1, 1)."""
        batch = check_elements(self.group, g).shape[: g.ndim - len(self.group.element_shape)]
        return g.new_ones((*batch, 1, 1), dtype=dtype or real_dtype(g))

    @classmethod
    def examples(cls) -> Iterator[Trivial]:
        """The trivial representation of Z_3."""
        yield cls(Cyclic(3))


@dataclass(frozen=True)
class DirectSum(Representation):
    """The block-diagonal representation A ⊕ B of dimension dim A + dim B; characters add."""

    left: Representation
    right: Representation

    def __post_init__(self) -> None:
        check_same_group(self.left, self.right)

    @property
    def group(self) -> Group:  # type: ignore[override]
        """The common group."""
        return self.left.group

    @property
    def dim(self) -> int:  # type: ignore[override]
        """dim A + dim B."""
        return self.left.dim + self.right.dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """diag(A(g), B(g))."""
        a, b = self.left.matrix(g, dtype), self.right.matrix(g, dtype)
        corner = a.new_zeros((*a.shape[:-1], b.shape[-1]))
        return torch.cat([torch.cat([a, corner], -1), torch.cat([corner.mT, b], -1)], -2)

    @classmethod
    def examples(cls) -> Iterator[DirectSum]:
        """1 ⊕ 1 ⊕ 1 of D_3."""
        yield Trivial(Dihedral(3)) + Trivial(Dihedral(3)) + Trivial(Dihedral(3))


@dataclass(frozen=True)
class TensorProduct(Representation):
    """The representation A ⊗ B of dimension dim A · dim B; characters multiply."""

    left: Representation
    right: Representation

    def __post_init__(self) -> None:
        check_same_group(self.left, self.right)

    @property
    def group(self) -> Group:  # type: ignore[override]
        """The common group."""
        return self.left.group

    @property
    def dim(self) -> int:  # type: ignore[override]
        """dim A · dim B."""
        return self.left.dim * self.right.dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The Kronecker product, first index slowest."""
        return kronecker(self.left.matrix(g, dtype), self.right.matrix(g, dtype))

    @classmethod
    def examples(cls) -> Iterator[TensorProduct]:
        """(1 ⊕ 1) ⊗ (1 ⊕ 1) of Z_2."""
        twice = Trivial(Cyclic(2)) + Trivial(Cyclic(2))
        yield twice * twice


@dataclass(frozen=True)
class Determinant(Representation):
    """The one-dimensional representation det A(g): the sign of a permutation, or of a reflection."""

    of: Representation
    dim = 1

    @property
    def group(self) -> Group:  # type: ignore[override]
        """The group of A."""
        return self.of.group

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """det A(g), as (..., 1, 1)."""
        return torch.linalg.det(self.of.matrix(g, dtype))[..., None, None]

    @classmethod
    def examples(cls) -> Iterator[Determinant]:
        """The determinant of 1 ⊕ 1 of Z_3."""
        yield cls(Trivial(Cyclic(3)) + Trivial(Cyclic(3)))


def invariant_projector(representation: Representation, dtype: torch.dtype | None = None) -> Tensor:
    """The projector on what a finite group leaves alone: P = (1/|G|) Σ_g D(g) = P², Tr P = its dimension."""
    return representation.matrix(finite_group(representation).elements, dtype).mean(0)


def isotypic_projector(
    representation: Representation, irrep: Representation, dtype: torch.dtype | None = None
) -> Tensor:
    """The projector on all copies of an irreducible A: P_A = (dim A/|G|) Σ_g χ_A(g)* D(g)."""
    check_same_group(representation, irrep)
    elements = finite_group(representation).elements
    weights = irrep.dim * irrep.character(elements, dtype).conj()
    return (weights[:, None, None] * representation.matrix(elements, dtype)).mean(0)


def multiplicity(representation: Representation, irrep: Representation) -> int:
    """How often an irreducible A occurs: (1/|G|) Σ_g χ_A(g)* χ(g)."""
    check_same_group(representation, irrep)
    elements = finite_group(representation).elements
    return round((irrep.character(elements).conj() * representation.character(elements)).mean().real.item())


def finite_group(representation: Representation) -> FiniteGroup:
    """The group of a representation, if its elements can be listed; a clear TypeError otherwise."""
    if not isinstance(representation.group, FiniteGroup):
        raise TypeError(f"expected a finite group to sum over, got {representation.group}: sample it instead")
    return representation.group


def check_same_group(left: Representation, right: Representation) -> None:
    """Raise ValueError unless both represent the same group."""
    if left.group != right.group:
        raise ValueError(
            f"expected two representations of one group, got {left.group} and {right.group}: "
            "build both with the same group"
        )


def check_group(group: Group, *kinds: type) -> None:
    """Raise TypeError unless the group is one of the kinds a representation is made for."""
    if not isinstance(group, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"expected a {names} group, got {group!r}: choose a representation made for it")


def kronecker(a: Tensor, b: Tensor) -> Tensor:  # (..., m, m), (..., n, n) -> (..., mn, mn)
    """The Kronecker product of matrices, batch axes aligned, first index slowest."""
    return (a[..., :, None, :, None] * b[..., None, :, None, :]).flatten(-4, -3).flatten(-2, -1)


def real_dtype(g: Tensor) -> torch.dtype:
    """float64 for integer elements; the real counterpart of g's dtype otherwise."""
    return g.dtype.to_real() if g.is_floating_point() or g.is_complex() else torch.float64
