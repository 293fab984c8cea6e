"""Symmetry claims: printable statements that tests prove on generators, and the transformations they are made of.

A `Transformation` maps fields to fields. A `Symmetry` is a claim ("translations", "point group", …) that knows its
generators on a given field space. Actions and bijections list their claims in `symmetries`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lattices.fields import FieldSpace, Links, Target, Transformation
from symmetries.finite import Hyperoctahedral


@dataclass(frozen=True)
class Translation(Transformation):
    """(g·x)(s) = x(s - displacement), periodic."""

    displacement: tuple[int, ...]

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return x.roll(self.displacement, field.lattice_axes)


@dataclass(frozen=True)
class PointTransformation(Transformation):
    """(g·x)(R s) = x(s) with R a signed permutation matrix about the origin.

    On links the value moves with the link, and is inverted where R turns the link round: (g·U)(R ℓ) = U(ℓ).

    Args:
        matrix: rows of the d × d matrix R; the extents of the lattice must be invariant under it.
    """

    matrix: tuple[tuple[int, ...], ...]

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        if field.cells == "links":
            return self._links(x, field)
        rotation = torch.tensor(self.matrix)
        source = rotation.abs().argmax(1).tolist()  # the axis that ends up as axis mu
        axes = [axis % x.ndim for axis in field.lattice_axes]
        order = list(range(x.ndim))
        for mu, nu in enumerate(source):
            order[axes[mu]] = axes[nu]
        y = x.permute(order)
        if y.shape != x.shape:
            raise ValueError(f"expected extents invariant under {self.matrix}, got {field.lattice.extents}")
        mirrored = [axis for axis, row in zip(axes, rotation.sum(1).tolist()) if row < 0]
        return y.flip(mirrored).roll([1] * len(mirrored), mirrored) if mirrored else y

    def _links(self, x: Tensor, field: FieldSpace) -> Tensor:
        """The links (x, μ) from R x to R x ± ν̂, those with the lower sign stored as the inverse of (R x - ν̂, ν)."""
        sites, invert = replace(field, cells="sites"), _inverse(field.target)
        moved = [self.apply(component, sites) for component in x.unbind(1)]
        links = []
        for row, axis in zip(self.matrix, field.lattice_axes):
            source = next(mu for mu, entry in enumerate(row) if entry)
            links.append(moved[source] if row[source] > 0 else invert(moved[source]).roll(-1, axis))
        return torch.stack(links, 1)


def _inverse(target: Target) -> Callable[[Tensor], Tensor]:
    """What turning a link round does to its value: the group inverse, or a sign on other targets."""
    return target.group.inverse if isinstance(target, Links) else torch.neg


@dataclass(frozen=True)
class Sign(Transformation):
    """g·x = -x, on targets that contain -x."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return -x


@dataclass(frozen=True)
class SiteSign(Transformation):
    """Flip the sign of the field at the origin alone: preserves the measure, and is a symmetry of hardly anything."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        origin = torch.arange(field.lattice.volume, device=x.device) == 0
        return torch.where(origin.reshape(*field.lattice.extents, *(1 for _ in field.target.shape)), -x, x)


def simplex(q: int) -> Tensor:  # -> (q, q - 1)
    """The corners e_a of a regular simplex: unit vectors with e_a·e_b = (q δ_ab - 1)/(q - 1), in float64.

    They sum to zero, and Σ_a e_a e_aᵀ = q/(q - 1). For q = 2 they are +1 and -1.
    """
    if type(q) is not int or q < 2:
        raise ValueError(f"expected a whole number q >= 2 of states, got {q!r}: q = 2 is the Ising model")
    k = torch.arange(1, q, dtype=torch.float64)
    columns = torch.ones(q, q - 1, dtype=torch.float64).triu() - k.diag_embed(-1)[:, : q - 1]
    return columns * (q / ((q - 1) * k * (k + 1))).sqrt()


@dataclass(frozen=True)
class Colours(Transformation):
    """Permute the q corners of the simplex in R^(q-1), the same on every site: g·e_a = e_{π(a)}, extended linearly.

    Args:
        permutation: (π(0), …, π(q-1)).
    """

    permutation: tuple[int, ...]

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        q = len(self.permutation)
        corners = simplex(q)
        matrix = (q - 1) / q * corners[list(self.permutation)].mT @ corners
        return x @ matrix.mT.to(x)


@dataclass(frozen=True)
class Exchange(Transformation):
    """Exchange the values at the origin and at the next site of the last axis: almost never a symmetry."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        pairs = field.lattice.volume
        flat = x.reshape(len(x), -1, pairs, *field.target.shape)
        order = torch.arange(pairs, device=x.device)
        order[:2] = order[:2].flip(0)
        return flat[:, :, order].reshape(x.shape)


class Symmetry(ABC):
    """A claim that a group acts without changing the object that makes it."""

    @abstractmethod
    def generators(self, field: FieldSpace) -> list[Transformation]:
        """Transformations that generate the group on `field`."""

    def implies(self, other: Symmetry) -> bool:
        """Whether this claim contains the other one: its group is a subgroup of this one."""
        return self == other

    def follows_from(self, claims: tuple[Symmetry, ...]) -> bool:
        """Whether these claims together contain this one."""
        return any(claim.implies(self) for claim in claims)


@dataclass(frozen=True)
class Translations(Symmetry):
    """Translations by multiples of `step` sites along each axis (step 2: those that keep a 2 × 2 block grid), or,
    with `parity`, all translations that keep the checkerboard: x_1 + … + x_d changes by an even number."""

    step: int = 1
    parity: bool = False

    def implies(self, other: Symmetry) -> bool:
        if not isinstance(other, Translations) or (self.parity and not other.parity and other.step % 2):
            return False
        return self == other or (other.step % self.step == 0 and (self.step == 1 or not other.parity))

    def generators(self, field: FieldSpace) -> list[Transformation]:
        d = field.lattice.dimension
        unit = torch.eye(d, dtype=torch.long)
        shifts = unit * self.step
        if self.parity:
            shifts = torch.cat([2 * unit[:1], unit[:1] + unit[1:], unit[:1] - unit[1:]])
        return [Translation(tuple(shift)) for shift in shifts.tolist()]


@dataclass(frozen=True)
class PointGroup(Symmetry):
    """The hyperoctahedral group B_d about the origin, restricted to what the extents allow."""

    def generators(self, field: FieldSpace) -> list[Transformation]:
        extents = torch.tensor(field.lattice.extents)
        group = Hyperoctahedral(field.lattice.dimension)
        equal = bool((extents == extents[0]).all())
        candidates = group.generators() if equal else group.elements
        allowed = [g for g in candidates if torch.equal(g.abs() @ extents, extents)]
        return [PointTransformation(tuple(map(tuple, g.tolist()))) for g in allowed]


@dataclass(frozen=True)
class SignFlip(Symmetry):
    """The global Z₂: x ↦ -x."""

    def implies(self, other: Symmetry) -> bool:
        return self == other or other == ColourPermutations(2)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        return [Sign()]


@dataclass(frozen=True)
class ColourPermutations(Symmetry):
    """The permutations S_q of the q colours, as rotations and reflections of R^(q-1) that permute the `simplex`.

    For q = 2 it is `SignFlip`.
    """

    q: int

    def implies(self, other: Symmetry) -> bool:
        return self == other or (self.q == 2 and other == SignFlip())

    def generators(self, field: FieldSpace) -> list[Transformation]:
        if field.target.shape != (self.q - 1,):
            raise ValueError(f"expected fields in R^{self.q - 1} for {self.q} colours, got {field.target}: change q")
        first, *others = range(self.q)
        return [Colours((others[0], first, *others[1:])), Colours((*others, first))]


def shared_symmetries(*claims: tuple[Symmetry, ...]) -> tuple[Symmetry, ...]:
    """The claims that hold for all of several objects: those of any one that follow from the claims of every other."""
    everything = dict.fromkeys(claim for own in claims for claim in own)
    return tuple(s for s in everything if all(s.follows_from(own) for own in claims))
