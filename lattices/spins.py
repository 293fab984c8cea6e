"""Spins on circles and spheres: unit vectors, and the global rotations and reflections of all of them alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.fields import Circle, FieldSpace, Sphere, Transformation
from lattices.invariance import Sign, SignFlip, Symmetry


def require_spins(field: FieldSpace) -> int:
    """The number n of components of the spins of a field on sites; TypeError unless they live on S¹ or Sⁿ⁻¹."""
    if field.cells != "sites" or not isinstance(field.target, Circle | Sphere):
        raise TypeError(f"expected angles or unit vectors on sites, got {field}: use Circle() or Sphere(n) on sites")
    return field.target.n + 1 if isinstance(field.target, Sphere) else 2


def unit_vectors(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *extents, n)
    """The spins as unit vectors: (cos θ, sin θ) on circles, x itself on spheres."""
    return torch.stack([x.cos(), x.sin()], -1) if isinstance(field.target, Circle) else x


def turned(s: Tensor) -> Tensor:  # (..., 2) -> (..., 2)
    """∂(cos θ, sin θ)/∂θ: the vector turned by a right angle."""
    return torch.stack([-s[..., 1], s[..., 0]], -1)


@dataclass(frozen=True)
class AngleMap(Transformation):
    """θ ↦ shift ± θ on every circle of the lattice.

    Args:
        shift: in radians.
        reflect: with the lower sign.
    """

    shift: float
    reflect: bool = False

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return field.exp(-x if self.reflect else x, torch.full_like(x, self.shift))


@dataclass(frozen=True)
class Shift(Transformation):
    """t ↦ t + a, with an angle of its own at every site, in storage order."""

    angles: tuple[float, ...]

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return field.exp(x, x.new_tensor(self.angles).reshape(field.lattice.extents).expand_as(x))


@dataclass(frozen=True)
class SpinRotation(Transformation):
    """s ↦ R s on every sphere of the lattice, R orthogonal.

    Args:
        matrix: the rows of R, n × n.
    """

    matrix: tuple[tuple[float, ...], ...]

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return x @ x.new_tensor(self.matrix).mT


@dataclass(frozen=True)
class GlobalRotations(Symmetry):
    """The global O(n): the same rotation or reflection of every spin. It contains s ↦ -s, and θ ↦ -θ on circles."""

    def implies(self, other: Symmetry) -> bool:
        return self == other or other == SignFlip() or isinstance(other, ClockRotations)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        """Rotations by one radian, which generate densely, and a reflection."""
        n = require_spins(field)
        if isinstance(field.target, Circle):
            return [AngleMap(1.0), Sign()]
        planes = [_plane_rotation(n, axis) for axis in range(n - 1)]
        mirror = torch.eye(n, dtype=torch.float64)
        mirror[0, 0] = -1
        return [SpinRotation(tuple(map(tuple, matrix.tolist()))) for matrix in (*planes, mirror)]


@dataclass(frozen=True)
class AngleShifts(Symmetry):
    """t ↦ t + a s for every angle a: translations along one direction of a torus.

    Args:
        direction: s, one whole number for each site in storage order.
    """

    direction: tuple[int, ...]

    def generators(self, field: FieldSpace) -> list[Transformation]:
        """The shift by one radian, which generates densely."""
        return [Shift(tuple(map(float, self.direction)))]


@dataclass(frozen=True)
class ClockRotations(Symmetry):
    """The dihedral group of q directions of the plane, acting on all angles alike: θ ↦ θ + 2π/q and θ ↦ -θ."""

    q: int

    def implies(self, other: Symmetry) -> bool:
        return other == SignFlip() or (isinstance(other, ClockRotations) and self.q % other.q == 0)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        return [AngleMap(2 * math.pi / self.q), Sign()]


def _plane_rotation(n: int, axis: int) -> Tensor:  # -> (n, n)
    """One radian in the plane of an axis and the next one."""
    matrix, (c, s) = torch.eye(n, dtype=torch.float64), (math.cos(1.0), math.sin(1.0))
    matrix[axis : axis + 2, axis : axis + 2] = matrix.new_tensor([[c, -s], [s, c]])
    return matrix
