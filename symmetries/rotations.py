"""Rotations and reflections of space: O(3) and its irreducible representations, by e3nn (imported late)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symmetries.finite import Hyperoctahedral
from symmetries.group import Group, check_count, check_elements
from symmetries.representation import Representation, check_group


@dataclass(frozen=True)
class O3(Group):
    """The orthogonal group O(3): real 3 × 3 matrices, rotations and reflections of space."""

    element_shape = (3, 3)

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """The unit matrix."""
        return torch.eye(3, dtype=dtype or torch.float64, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """The matrix product."""
        return g @ h

    def inverse(self, g: Tensor) -> Tensor:
        """The transpose."""
        return check_elements(self, g).mT

    def generators(self) -> Tensor:
        """Rotations by one radian about the first two axes, and the inversion."""
        c, s = math.cos(1), math.sin(1)
        turns = [[[1, 0, 0], [0, c, -s], [0, s, c]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]]
        return torch.cat([torch.tensor(turns, dtype=torch.float64), -self.identity()[None]])

    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """n Haar-distributed matrices: the QR factor of Gaussian ones, with positive diagonal of R."""
        shape, dtype = (check_count(n), 3, 3), dtype or torch.float64
        q, r = torch.linalg.qr(torch.randn(shape, generator=generator, device=generator.device, dtype=dtype))
        return q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]

    @classmethod
    def examples(cls) -> Iterator[O3]:
        """O(3)."""
        yield cls()


@dataclass(frozen=True)
class RotationIrreps(Representation):
    """A sum of irreducible representations of O(3), or of its subgroup B_3 = O_h, named as in e3nn.

    D_l is read off e3nn's real spherical harmonics, Y_l(g x) = D_l(g) Y_l(x), at points that determine it:
    exact to rounding in the dtype of g, and differentiable at every g. (e3nn's own matrices are built in the
    default dtype and go through Euler angles, whose gradient is NaN at the identity.) The basis is e3nn's:
    "1o" is the vector, D = g itself.

    Args:
        irreps: for example "0e + 2x1o + 2e": multiplicity, degree l, parity e or o.
        group: O3(), or Hyperoctahedral(3).
    """

    irreps: str
    group: O3 | Hyperoctahedral = O3()

    def __post_init__(self) -> None:
        check_group(self.group, O3, Hyperoctahedral)
        if self.group.element_shape != (3, 3):
            raise ValueError(f"expected O3() or Hyperoctahedral(3), got {self.group}: rotations here are of space")
        self._parsed()

    @property
    def dim(self) -> int:  # type: ignore[override]
        """The sum of multiplicity times 2l + 1."""
        return self._parsed().dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The real orthogonal matrices, block-diagonal in the order of the name."""
        floating = g.dtype if g.is_floating_point() else torch.float64
        g = check_elements(self.group, g).to(dtype or floating)
        blocks = [b for m, irrep in self._parsed() for b in [_wigner(irrep.l, irrep.p, g)] * m]
        result = g.new_zeros(*g.shape[:-2], self.dim, self.dim)
        start = 0
        for block in blocks:
            stop = start + block.shape[-1]
            result[..., start:stop, start:stop] = block
            start = stop
        return result

    def _parsed(self) -> Any:
        from e3nn.o3 import Irreps

        try:
            return Irreps(self.irreps)
        except (ValueError, TypeError) as error:
            raise ValueError(f'expected irreps such as "0e + 2x1o", got {self.irreps!r}: see e3nn') from error

    @classmethod
    def examples(cls) -> Iterator[RotationIrreps]:
        """Scalar, vectors and a tensor of O(3); degree four under the cube."""
        yield cls("0e + 2x1o + 2e")
        yield cls("4e", Hyperoctahedral(3))


def _wigner(l: int, parity: int, g: Tensor) -> Tensor:  # (..., 3, 3) -> (..., 2l+1, 2l+1)
    """D with Y(g x) = D Y(x) for all x; reflections get an extra sign where parity differs from (-1)^l."""
    points = _sphere_points(4 * (2 * l + 1)).to(g.device)
    inverse = torch.linalg.pinv(_harmonics(l, points)).to(g.dtype)
    matrix = (inverse @ _harmonics(l, points.to(g.dtype) @ g.mT)).mT
    sign = torch.linalg.det(g.detach()).sign() if parity != (-1) ** l else g.new_ones(())
    return sign[..., None, None] * matrix


def _harmonics(l: int, x: Tensor) -> Tensor:  # (..., 3) -> (..., 2l+1)
    from e3nn.o3 import spherical_harmonics

    return spherical_harmonics(l, x, normalize=True)


def _sphere_points(n: int) -> Tensor:  # -> (n, 3)
    """n nearly uniform unit vectors on a golden spiral."""
    k = torch.arange(n, dtype=torch.float64)
    height, angle = 1 - (2 * k + 1) / n, math.pi * (3 - math.sqrt(5)) * k
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
