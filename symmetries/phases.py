"""Phases, and rotations of the plane: the irreducible representations of Z_n, U(1) and D_n."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from symmetries.finite import Cyclic, Dihedral
from symmetries.lie import U1
from symmetries.representation import Representation, check_group, real_dtype


@dataclass(frozen=True)
class Charge(Representation):
    """The phase of charge q: e^{2πi q k/n} on Z_n, e^{i q θ} on U(1); complex, irreducible.

    Args:
        group: Cyclic(n) or U1().
        charge: any integer q.
    """

    group: Cyclic | U1
    charge: int
    dim = 1

    def __post_init__(self) -> None:
        check_group(self.group, Cyclic, U1)

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The phase, as (..., 1, 1); a real dtype asks for its complex counterpart."""
        unit = 2 * math.pi / self.group.n if isinstance(self.group, Cyclic) else 1.0
        angle = self.charge * unit * g.to((dtype or real_dtype(g)).to_real())
        return torch.polar(torch.ones_like(angle), angle)[..., None, None]

    @classmethod
    def examples(cls) -> Iterator[Charge]:
        """A faithful phase of Z_5, and charge two of U(1)."""
        yield cls(Cyclic(5), 1)
        yield cls(U1(), 2)


@dataclass(frozen=True)
class Planar(Representation):
    """Rotations and reflections of the plane: r turns by 2π w/n, f = diag(1, -1); real, of dimension two.

    Args:
        group: Cyclic(n) or Dihedral(n).
        winding: any integer w; on D_n irreducible unless 2w is a multiple of n.
    """

    group: Cyclic | Dihedral
    winding: int = 1
    dim = 2

    def __post_init__(self) -> None:
        check_group(self.group, Cyclic, Dihedral)

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The 2 × 2 matrices R(2π w a/n) diag(1, (-1)^s)."""
        g = g.to(dtype or torch.float64)
        turn, flip = g.unbind(-1) if isinstance(self.group, Dihedral) else (g, torch.zeros_like(g))
        angle, hand = 2 * math.pi * self.winding / self.group.n * turn, 1 - 2 * flip
        rows = [angle.cos(), -hand * angle.sin(), angle.sin(), hand * angle.cos()]
        return torch.stack(rows, -1).unflatten(-1, (2, 2))

    @classmethod
    def examples(cls) -> Iterator[Planar]:
        """The turning triangle, the symmetric square, and winding two of the pentagon."""
        yield cls(Cyclic(3))
        yield cls(Dihedral(4))
        yield cls(Dihedral(5), 2)


@dataclass(frozen=True)
class Alternating(Representation):
    """The sign (-1)^a of the rotation r^a, on D_n with n even (B1: reflections on the axes keep it)."""

    group: Dihedral
    dim = 1

    def __post_init__(self) -> None:
        check_group(self.group, Dihedral)
        if self.group.n % 2:
            raise ValueError(f"expected Dihedral(n) with n even, got {self.group}: no alternating sign exists")

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(-1)^a, as (..., 1, 1)."""
        return (1 - 2 * g[..., :1, None].remainder(2)).to(dtype or torch.float64)

    @classmethod
    def examples(cls) -> Iterator[Alternating]:
        """B1 of the square."""
        yield cls(Dihedral(4))
