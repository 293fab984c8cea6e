"""Spins on circles and spheres: unit vectors, and the global rotations and reflections of all of them alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.fields import Circle, FieldSpace, Sphere, Transformation
from lattices.invariance import Sign, SignFlip, Symmetry

TOLERANCE = 1e-9  # of the orthogonality of a matrix


def require_spins(field: FieldSpace) -> int:
    """The number n of components of the spins of a field on sites; TypeError unless they live on S¹ or Sⁿ⁻¹."""
    if field.cells != "sites" or not isinstance(field.target, Circle | Sphere):
        raise TypeError(f"expected angles or unit vectors on sites, got {field}: use Circle() or Sphere(n) on sites")
    return field.target.n + 1 if isinstance(field.target, Sphere) else 2


def unit_vectors(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *extents, n)
    """The spins as unit vectors: (cos θ, sin θ) of angles, those of clocks included, x itself on spheres."""
    return x if field.target.shape else torch.stack([x.cos(), x.sin()], -1)


def from_vectors(field: FieldSpace, s: Tensor) -> Tensor:  # (batch, *extents, n) -> (batch, *event)
    """The field of spins closest to these vectors, of any length but zero: clocks snap to one of their states."""
    if field.target.shape:
        return s / s.norm(dim=-1, keepdim=True)
    angles = torch.atan2(s[..., 1], s[..., 0])
    return field.exp(angles, torch.zeros_like(angles))


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
        return (
            self == other or other == SignFlip() or isinstance(other, ClockRotations | AxisRotations | SpinPointGroup)
        )

    def generators(self, field: FieldSpace) -> list[Transformation]:
        """Rotations by one radian, which generate densely, and a reflection."""
        n = require_spins(field)
        if isinstance(field.target, Circle):
            return [AngleMap(1.0), Sign()]
        return _rotations(n, n - 1)


@dataclass(frozen=True)
class AngleShifts(Symmetry):
    """t ↦ t + a s for every angle a: translations along one direction of a torus.

    Args:
        direction: s, one whole number for each site in storage order.
    """

    direction: tuple[int, ...]

    def implies(self, other: Symmetry) -> bool:
        """Also every multiple of the direction."""
        if not isinstance(other, AngleShifts) or len(other.direction) != len(self.direction):
            return False
        pairs = list(zip(self.direction, other.direction))
        return any(other.direction) and all(a * d == b * c for a, b in pairs for c, d in pairs)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        """The shift by one radian, which generates densely."""
        return [Shift(tuple(map(float, self.direction)))]


@dataclass(frozen=True)
class IndependentShifts(Symmetry):
    """A shift of its own for every angle: the symmetry of the uniform distribution on a torus."""

    def implies(self, other: Symmetry) -> bool:
        return isinstance(other, IndependentShifts | AngleShifts)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        """One shift by the square roots of 2, 3, …: with π, they are as good as independent."""
        return [Shift(tuple(math.sqrt(k + 2) for k in range(field.lattice.volume)))]


@dataclass(frozen=True)
class ClockRotations(Symmetry):
    """The dihedral group of q directions of the plane, acting on all angles alike: θ ↦ θ + 2π/q and θ ↦ -θ."""

    q: int

    def implies(self, other: Symmetry) -> bool:
        return other == SignFlip() or (isinstance(other, ClockRotations) and self.q % other.q == 0)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        return [AngleMap(2 * math.pi / self.q), Sign()]


@dataclass(frozen=True)
class AxisRotations(Symmetry):
    """The O(n - 1) of the rotations and reflections, the same of every spin, that fix the last of its n axes."""

    def implies(self, other: Symmetry) -> bool:
        if not isinstance(other, SpinPointGroup):
            return self == other
        return all(matrix[-1][-1] > 1 - TOLERANCE for matrix in other.matrices)  # orthogonal, so that is the last axis

    def generators(self, field: FieldSpace) -> list[Transformation]:
        """Rotations by one radian, which generate densely, and a reflection."""
        n = _require_sphere(field, "rotations about an axis")
        return _rotations(n, n - 2)


@dataclass(frozen=True)
class SpinPointGroup(Symmetry):
    """A point group of spin space: orthogonal matrices that act on every spin alike.

    Args:
        matrices: generators R, each a tuple of n rows of n numbers.
    """

    matrices: tuple[tuple[tuple[float, ...], ...], ...]

    def __post_init__(self) -> None:
        for matrix in self.matrices:
            n = len(matrix)
            if any(len(row) != n for row in matrix):
                raise ValueError(f"expected square matrices, got {matrix}: pass n rows of n numbers")
            rows = torch.tensor(matrix, dtype=torch.float64)
            if not torch.allclose(rows @ rows.mT, torch.eye(n, dtype=torch.float64), rtol=0, atol=TOLERANCE):
                raise ValueError(f"expected orthogonal matrices, got {matrix}: other maps change the area")

    @classmethod
    def cyclic(cls, order: int, n: int = 3) -> SpinPointGroup:
        """Rotations by 2π/order in the plane of the first two of n axes."""
        if type(order) is not int or order < 2 or n < 2:
            raise ValueError(f"expected order >= 2 and n >= 2 axes, got {order!r} and {n}: order 4 is a quarter turn")
        return cls((_rows(_plane_rotation(n, 0, 2 * math.pi / order)),))

    def implies(self, other: Symmetry) -> bool:
        return isinstance(other, SpinPointGroup) and set(other.matrices) <= set(self.matrices)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        n = _require_sphere(field, "a point group of spins")
        wrong = next((matrix for matrix in self.matrices if len(matrix) != n), None)
        if wrong is not None:
            raise ValueError(f"expected {n} × {n} matrices on {field.target}, got {len(wrong)} rows: use one dimension")
        return [SpinRotation(matrix) for matrix in self.matrices]


def _require_sphere(field: FieldSpace, what: str) -> int:
    if not isinstance(field.target, Sphere):
        raise TypeError(
            f"expected unit vectors for {what}, got {field.target}: use Sphere(n), or angles and their shifts"
        )
    return field.target.n + 1


def _rotations(n: int, n_planes: int) -> list[Transformation]:
    """One radian in each of the first planes of neighbouring axes, and a reflection of the first axis."""
    mirror = torch.eye(n, dtype=torch.float64)
    mirror[0, 0] = -1
    return [SpinRotation(_rows(matrix)) for matrix in (*(_plane_rotation(n, axis) for axis in range(n_planes)), mirror)]


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))


def _plane_rotation(n: int, axis: int, angle: float = 1.0) -> Tensor:  # -> (n, n)
    """A rotation, by one radian unless told, in the plane of an axis and the next one."""
    matrix, (c, s) = torch.eye(n, dtype=torch.float64), (math.cos(angle), math.sin(angle))
    matrix[axis : axis + 2, axis : axis + 2] = matrix.new_tensor([[c, -s], [s, c]])
    return matrix
