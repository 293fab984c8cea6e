"""Symmetries of link fields: gauge transformations, charge conjugation, the centre; and one that is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lattices.fields import FieldSpace, Links, Transformation
from lattices.invariance import Symmetry
from symmetries.group import LieGroup
from symmetries.lie import SUN


@dataclass(frozen=True)
class GaugeTransformation(Transformation):
    """U_μ(x) ↦ Ω(x) U_μ(x) Ω(x + μ̂)⁻¹ with a random gauge function Ω, another one for every configuration.

    Args:
        seed: of the gauge functions; one seed is one transformation of batches of one size.
    """

    seed: int

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        group, sites = require_links(field), replace(field, cells="sites")
        omega = sites.random(len(x), torch.Generator().manual_seed(self.seed), x.dtype.to_real()).to(x.device)
        ahead = torch.stack([omega.roll(-1, axis) for axis in field.lattice_axes], 1)
        return group.compose(group.compose(omega[:, None], x), group.inverse(ahead))


@dataclass(frozen=True)
class Conjugation(Transformation):
    """U ↦ U*: of angles, θ ↦ -θ."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        require_links(field)
        return x.conj() if x.is_complex() else -x


@dataclass(frozen=True)
class CentreTransformation(Transformation):
    """Multiply the links in direction `axis` that leave the slice x_axis = 0 by a phase of the centre.

    The phase is e^{2πi/N} in SU(N) and e^{i} in U(1). Contractible loops do not notice, Polyakov loops turn.
    """

    axis: int

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        group, y = require_links(field), x.clone()
        view = y.select(1, self.axis).select(1 + self.axis, 0)
        if isinstance(group, SUN):
            view *= complex(math.cos(2 * math.pi / group.n), math.sin(2 * math.pi / group.n))
        else:
            view.copy_(group.compose(view, torch.ones_like(view)))
        return y


@dataclass(frozen=True)
class OneLink(Transformation):
    """Multiply the first link at the origin by a fixed element: preserves Haar measure, changes the loops there."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        group = require_links(field)
        y = x.clone()
        view = y.select(1, 0)
        for _ in field.lattice.extents:
            view = view.select(1, 0)
        view.copy_(group.compose(group.exp(group.algebra_basis(x.dtype, x.device).sum(0)), view))
        return y


@dataclass(frozen=True)
class GaugeInvariance(Symmetry):
    """All gauge transformations; there is no finite list of generators, so random ones stand for them."""

    def generators(self, field: FieldSpace) -> list[Transformation]:
        return [GaugeTransformation(seed) for seed in (1, 2)]


@dataclass(frozen=True)
class ChargeConjugation(Symmetry):
    """U ↦ U*."""

    def generators(self, field: FieldSpace) -> list[Transformation]:
        return [Conjugation()]


@dataclass(frozen=True)
class CentreSymmetry(Symmetry):
    """The centre of the group, once for every axis: Z_N of SU(N), the constants of U(1)."""

    def generators(self, field: FieldSpace) -> list[Transformation]:
        return [CentreTransformation(axis) for axis in range(field.lattice.dimension)]


def require_links(field: FieldSpace) -> LieGroup:
    """The group of a field on links; ValueError for other fields."""
    if field.cells != "links" or not isinstance(field.target, Links):
        raise ValueError(
            f"expected a field of group elements on links, got {field}: use FieldSpace(…, Links(G), 'links')"
        )
    return field.target.group
