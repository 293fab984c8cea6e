"""Representations every group brings along: defining, regular, adjoint, and outer products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from symmetries.finite import Cyclic, Dihedral, Hyperoctahedral, Product, Symmetric
from symmetries.group import FiniteGroup, Group
from symmetries.lie import SUN, U1
from symmetries.phases import Charge, Planar
from symmetries.representation import Determinant, Representation, check_group, kronecker


@dataclass(frozen=True)
class Defining(Representation):
    """The matrices a group is defined by: permutation matrices of S_n, and B_d and SU(N) themselves.

    Args:
        group: Symmetric(n) (the matrix sends e_i to e_{g[i]}), Hyperoctahedral(d) or SUN(n).
    """

    group: Symmetric | Hyperoctahedral | SUN

    def __post_init__(self) -> None:
        check_group(self.group, Symmetric, Hyperoctahedral, SUN)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """n, d or N."""
        return self.group.element_shape[0]

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The matrices."""
        if isinstance(self.group, SUN):
            return g.to(dtype or g.dtype)
        matrix = _one_hot(g, self.dim) if isinstance(self.group, Symmetric) else g
        return matrix.to(dtype or torch.float64)

    @classmethod
    def examples(cls) -> Iterator[Defining]:
        """Of S_3, B_3 and SU(3)."""
        yield from map(cls, (Symmetric(3), Hyperoctahedral(3), SUN(3)))


@dataclass(frozen=True)
class Regular(Representation):
    """The regular representation: g sends the vector of h to that of g h; an irrep A occurs dim A times.

    Args:
        group: a finite group; the dimension is |G|.
    """

    group: FiniteGroup

    def __post_init__(self) -> None:
        check_group(self.group, FiniteGroup)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """|G|."""
        return self.group.order

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Permutation matrices of the elements."""
        batch = g.shape[: g.ndim - len(self.group.element_shape)]
        g = g.reshape(*batch, 1, *self.group.element_shape)
        image = self.group.index(self.group.compose(g, self.group.elements.to(g.device)))
        return _one_hot(image, self.dim).to(dtype or torch.float64)

    @classmethod
    def examples(cls) -> Iterator[Regular]:
        """Of Z_4 and B_2."""
        yield from map(cls, (Cyclic(4), Hyperoctahedral(2)))


@dataclass(frozen=True)
class Adjoint(Representation):
    """The action on the algebra, D_ab = -2 Tr(T_a g T_b g†): real, of dimension N² - 1, blind to centres."""

    group: SUN

    def __post_init__(self) -> None:
        check_group(self.group, SUN)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """N² - 1."""
        return self.group.dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The real orthogonal matrices."""
        basis = self.group.algebra_basis(g.dtype, g.device)
        turned = g[..., None, :, :] @ basis @ g.mH[..., None, :, :]
        return (-2 * torch.einsum("aij,...bji->...ab", basis, turned).real).to(dtype or g.dtype.to_real())

    @classmethod
    def examples(cls) -> Iterator[Adjoint]:
        """Spin one of SU(2), and the octet of SU(3)."""
        yield from map(cls, (SUN(2), SUN(3)))


@dataclass(frozen=True)
class Outer(Representation):
    """The representation A(g) ⊗ B(h) of a product group G × H; irreducible where A and B are."""

    left: Representation
    right: Representation

    @property
    def group(self) -> Product:  # type: ignore[override]
        """G × H."""
        return Product(self.left.group, self.right.group)  # type: ignore[arg-type]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """dim A · dim B."""
        return self.left.dim * self.right.dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The Kronecker product, first index slowest."""
        a, b = self.group.split(g)
        return kronecker(self.left.matrix(a, dtype), self.right.matrix(b, dtype))

    @classmethod
    def examples(cls) -> Iterator[Outer]:
        """A phase times the plane of the triangle."""
        yield cls(Charge(Cyclic(3), 1), Planar(Dihedral(3)))


def defining(group: Group) -> Representation:
    """The representation a group is introduced by: matrices, permutations, turns of the plane, or a phase."""
    if isinstance(group, U1):
        return Charge(group, 1)
    return Planar(group) if isinstance(group, Cyclic | Dihedral) else Defining(group)  # type: ignore[arg-type]


def sign(group: Group) -> Representation:
    """The determinant of the defining representation: -1 for odd permutations and for reflections."""
    return Determinant(defining(group))


def _one_hot(image: Tensor, n: int) -> Tensor:  # (..., n) -> (..., n, n)
    """The matrix that sends e_i to e_{image[i]}."""
    return torch.nn.functional.one_hot(image.long(), n).mT
