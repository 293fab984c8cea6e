"""Blocking: the orthogonal coarse-graining x ↦ B x of a field, by block averages or by decimation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, Symmetry, Translation, Translations
from lattices.lattice import Lattice


@dataclass(frozen=True)
class BlockTransformation(Transformation):
    """A point transformation about the centre of a block: x ↦ R(x - a) + a with a = (size - 1)/2 along each axis.

    Args:
        rotation: R about the origin.
        displacement: a - R a, whole numbers.
    """

    rotation: Transformation
    displacement: Translation

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return self.displacement.apply(self.rotation.apply(x, field), field)


@dataclass(frozen=True)
class BlockPointGroup(Symmetry):
    """The point group about the centre of a block of `size` sites along each axis: it maps blocks to blocks.

    Two centres are a translation apart: it follows from one of them and translations by the difference of the sizes.
    """

    size: int = 2

    def follows_from(self, claims: tuple[Symmetry, ...]) -> bool:
        sizes = [1] * (PointGroup() in claims) + [claim.size for claim in claims if isinstance(claim, BlockPointGroup)]
        shifts = [Translations(abs(self.size - size)) for size in sizes if size != self.size]
        return self.size in sizes or any(shift.follows_from(claims) for shift in shifts)

    def generators(self, field: FieldSpace) -> list[Transformation]:
        rotations = PointGroup().generators(field)
        shifts = [[(self.size - 1) * (sum(row) < 0) for row in r.matrix] for r in rotations]  # type: ignore[attr-defined]
        return [BlockTransformation(r, Translation(tuple(s))) for r, s in zip(rotations, shifts)]


@dataclass(frozen=True)
class Blocking:
    """A linear map B of fields to a lattice with 1/size of the sites along each axis, B Bᵀ = 1.

        average:     (B x)_X = size^{-d/2} Σ_{x in block X} x      (the low-pass half of a Haar wavelet)
        decimation:  (B x)_X = x_{size X}

    Both are orthogonal, so that a field splits into its block field c = B x and details (1 - BᵀB) x with no Jacobian.
    They commute with translations by `size` steps and with the point group. Cost V.

    Args:
        kind: "average" or "decimation".
        size: linear size of a block, 2 or more.
    """

    kind: str = "average"
    size: int = 2

    def __post_init__(self) -> None:
        if self.kind not in ("average", "decimation"):
            raise ValueError(f'expected kind "average" or "decimation", got {self.kind!r}: choose one of the two')
        if not isinstance(self.size, int) or self.size < 2:
            raise ValueError(f"expected a block size of 2 or more, got {self.size!r}: 2 is the usual one")

    def coarse(self, lattice: Lattice, times: int = 1) -> Lattice:
        """The lattice of the block field after that many blockings."""
        factor = self.size**times
        if any(n % factor for n in lattice.extents):
            raise ValueError(
                f"expected extents divisible by {factor} to block {times} times by {self.size}, got {lattice.extents}: "
                f"use a larger lattice or fewer blockings"
            )
        return Lattice(tuple(n // factor for n in lattice.extents))

    def down(self, x: Tensor, dimension: int) -> Tensor:  # (batch, *extents, *target) -> (batch, *coarse, *target)
        """B x, the block field."""
        if self.kind == "decimation":
            return x[self._kept(dimension)]
        blocked = x
        for axis in range(1, 2 * dimension, 2):
            blocked = blocked.unflatten(axis, (-1, self.size))
        return blocked.sum(tuple(range(2, 2 * dimension + 1, 2))) / self.size ** (dimension / 2)

    def up(self, c: Tensor, dimension: int) -> Tensor:  # (batch, *coarse, *target) -> (batch, *extents, *target)
        """Bᵀ c: the field without details whose block field is c."""
        if self.kind == "decimation":
            extents = [n * self.size for n in c.shape[1 : 1 + dimension]]
            x = c.new_zeros(len(c), *extents, *c.shape[1 + dimension :])
            x[self._kept(dimension)] = c
            return x
        for axis in range(1, dimension + 1):
            c = c.repeat_interleave(self.size, axis)
        return c / self.size ** (dimension / 2)

    def details(self, x: Tensor, dimension: int) -> Tensor:  # (batch, *extents, *target) -> the same
        """(1 - BᵀB) x: what the block field does not tell, as a field on the fine lattice."""
        return x - self.up(self.down(x, dimension), dimension)

    def _kept(self, dimension: int) -> tuple[slice, ...]:
        """The index of the sites that decimation keeps."""
        return (slice(None), *[slice(None, None, self.size)] * dimension)

    def lift(self, claim: Symmetry) -> Symmetry:
        """The symmetry of the fine field that acts as `claim` on the block field, generator by generator."""
        if isinstance(claim, Translations):
            return replace(claim, step=claim.step * self.size)
        if self.kind == "average" and isinstance(claim, PointGroup | BlockPointGroup):
            return BlockPointGroup(self.size * getattr(claim, "size", 1))
        return claim

    def spectrum(self, spectrum: Tensor) -> Tensor:  # extents -> coarse extents
        """The covariance B C Bᵀ of the block field of a Gaussian field with the variances C(k), in FFT order too."""
        d = spectrum.ndim
        extents = [n // self.size for n in spectrum.shape]
        origin = spectrum.new_zeros(1, *extents)
        origin[(0,) * (d + 1)] = 1
        axes = tuple(range(1, d + 1))
        column = torch.fft.ifftn(torch.fft.fftn(self.up(origin, d), dim=axes) * spectrum, dim=axes).real
        return torch.fft.fftn(self.down(column, d), dim=axes)[0].real.contiguous()

    @classmethod
    def examples(cls) -> Iterator[Blocking]:
        """Both kinds."""
        yield cls()
        yield cls("decimation")
        yield cls("average", 3)
