"""Field spaces and symmetry claims by law, each law with something it must reject; moments of the measures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lattices.fields import Circle, FieldSpace, Links, Real, Sphere, Transformation
from lattices.invariance import (
    Exchange,
    PointGroup,
    PointTransformation,
    Sign,
    SignFlip,
    SiteSign,
    Translations,
    shared_symmetries,
)
from lattices.lattice import Lattice
from lattices.theories.ising import Spins
from symmetries.lie import SU2, U1
from tests.laws import fields as laws

SPACES = [*FieldSpace.examples(), FieldSpace(Lattice((4, 4)), Spins())]
CONTINUOUS = [space for space in SPACES if not isinstance(space.target, Spins)]
SIGNED = (Real, Sphere, Spins)


def name(space: object) -> str:
    return str(space).removeprefix("FieldSpace")


@pytest.mark.parametrize("space", SPACES, ids=name)
@pytest.mark.parametrize("law", laws.FIELD_LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[FieldSpace], None], space: FieldSpace) -> None:
    law(space)


@pytest.mark.parametrize("space", CONTINUOUS, ids=name)
def test_exp_has_its_velocity(space: FieldSpace) -> None:
    laws.exp_has_its_velocity(space)


@pytest.mark.parametrize("space", SPACES, ids=name)
def test_transformations_preserve_the_measure(space: FieldSpace) -> None:
    claims = [Translations(), Translations(2), Translations(parity=True)]
    claims += [PointGroup()] if space.cells == "sites" else []
    claims += [SignFlip()] if isinstance(space.target, SIGNED) else []
    extra: list[Transformation] = [SiteSign(), Exchange()] if isinstance(space.target, SIGNED) else []
    for g in [g for claim in claims for g in claim.generators(space)] + extra:
        laws.preserves_measure(space, g)


@pytest.mark.parametrize("extents", [(6,), (4, 4), (3, 3, 3)])
def test_point_group_acts(extents: tuple[int, ...]) -> None:
    laws.point_group_acts(FieldSpace(Lattice(extents)))
    laws.point_group_acts(FieldSpace(Lattice(extents), Sphere(2)))
    laws.point_group_acts(FieldSpace(Lattice(extents), Links(SU2()), "links"))
    laws.point_group_acts(FieldSpace(Lattice(extents), Links(U1()), "links"))


def test_point_group_generators_respect_extents() -> None:
    sizes = {extents: len(PointGroup().generators(FieldSpace(Lattice(extents)))) for extents in [(2, 3), (2, 3, 3)]}
    assert sizes == {(2, 3): 4, (2, 3, 3): 16}


@pytest.mark.parametrize("target", [Real(), Sphere(2)])
@pytest.mark.parametrize("extents", [(4,), (3, 4), (2, 3, 2)])
def test_negative_controls_touch_one_or_two_sites(extents: tuple[int, ...], target: Real) -> None:
    space = FieldSpace(Lattice(extents), target)
    x = space.random(2, laws.generator())
    for g, sites in ((SiteSign(), [0]), (Exchange(), [0, 1])):
        moved = (space.act(g, x) != x).reshape(2, space.lattice.volume, -1).any(-1)
        assert moved.nonzero()[:, 1].unique().tolist() == sites, g
        assert moved[:, sites].all(), g


def test_parity_translations_keep_the_checkerboard() -> None:
    space = FieldSpace(Lattice((4, 6, 2)))
    parity = (space.lattice.coordinates().sum(1) % 2).reshape(space.event_shape)[None]
    for g in Translations(parity=True).generators(space):
        assert torch.equal(space.act(g, parity), parity)
    assert not torch.equal(space.act(Translations().generators(space)[0], parity), parity)


@pytest.mark.parametrize(
    ("target", "square"),
    [(Real(), 1), (Real(3), 1), (Circle(), math.pi**2 / 3), (Sphere(2), 1 / 3), (Spins(), 1), (Links(SU2()), 1 / 4)],
)
def test_random_has_the_second_moment_of_its_measure(target: Real, square: float) -> None:
    x = laws.real(FieldSpace(Lattice((4, 4)), target).random(2000, laws.generator(5)))[:, 0].square()
    assert abs(x.mean().item() - square) <= 4 * x.std().item() / math.sqrt(len(x))


def test_geometry_is_checked() -> None:
    for extents in [(), (0, 4), (4, 4, 4, 4, 4), (4.0, 4), (-2,)]:
        with pytest.raises(ValueError, match=r"expected 1 to 4 extents"):
            Lattice(extents)
    with pytest.raises(ValueError, match="sites"):
        FieldSpace(Lattice((4,)), cells="plaquettes")
    with pytest.raises(ValueError, match="Sphere"):
        Sphere(0)
    tall = FieldSpace(Lattice((2, 3)))
    with pytest.raises(ValueError, match="invariant"):
        tall.act(PointTransformation(((0, 1), (1, 0))), tall.random(1, laws.generator()))
    with pytest.raises(ValueError, match="discrete"):
        Spins().exp(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("extents", [(4,), (2, 3), (3, 4, 2), (1, 4)])
def test_lattice_agrees_with_rolls(extents: tuple[int, ...]) -> None:
    lattice = Lattice(extents)
    x = torch.randn(lattice.volume, generator=laws.generator(), dtype=torch.float64)
    rolls = [x.reshape(extents).roll(-step, mu).flatten() for step in (1, -1) for mu in range(len(extents))]
    assert torch.equal(x[lattice.neighbours()], torch.stack(rolls, 1))
    laplacian = 2 * len(extents) * x - sum(rolls)
    spectral = torch.fft.ifftn(lattice.laplacian_spectrum() * torch.fft.fftn(x.reshape(extents))).real
    torch.testing.assert_close(spectral.flatten(), laplacian, atol=1e-13, rtol=0)
    steps = lattice.displacements()
    assert ((lattice.coordinates() - steps) % torch.tensor(extents) == 0).all()
    assert (steps.abs() * 2 <= torch.tensor(extents)).all()


# ------------------------------------------------------------------------------------- what the laws must reject


@dataclass(frozen=True)
class Stretched(Real):
    """A line whose exp moves twice as far and starts elsewhere, and whose random values are not centred."""

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return torch.rand(shape, dtype=dtype)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + 2 * v + 1e-6

    def distance_from(self, x: Tensor) -> Tensor:
        return (x.nan_to_num() < 0.5).to(x)


@dataclass(frozen=True)
class Double(Transformation):
    """x ↦ 2x: no measure is preserved."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return 2 * x


@dataclass(frozen=True)
class Backwards(PointTransformation):
    """An action from the wrong side."""

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:
        return PointTransformation(tuple(zip(*self.matrix))).apply(x, field)


@dataclass(frozen=True)
class Drifting(FieldSpace):
    """A space that acts twice with every transformation, and lets every field pass."""

    def act(self, g: Transformation, x: Tensor) -> Tensor:
        return g.apply(g.apply(x, self) + 1e-3, self)

    def validate(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("law", "space"),
    [
        (laws.random_is_contained, FieldSpace(Lattice((4,)), Stretched())),
        (laws.random_is_centred, FieldSpace(Lattice((4,)), Stretched())),
        (laws.exp_starts_at_its_point, FieldSpace(Lattice((4,)), Stretched())),
        (laws.exp_has_its_velocity, FieldSpace(Lattice((4,)), Stretched())),
        (laws.translations_act, Drifting(Lattice((4,)))),
        (laws.rejects_foreign_fields, Drifting(Lattice((4,)))),
        (laws.point_group_acts, Drifting(Lattice((4, 4)))),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_law_rejects(law: Callable[[FieldSpace], None], space: FieldSpace) -> None:
    with pytest.raises(AssertionError):
        law(space)


def test_transformation_laws_reject() -> None:
    with pytest.raises(AssertionError, match="volumes"):
        laws.preserves_measure(FieldSpace(Lattice((4,))), Double())
    with pytest.raises(AssertionError, match="compose"):
        laws.point_group_acts(FieldSpace(Lattice((4, 4))), Backwards)
    with pytest.raises(AssertionError, match="leaves"):
        laws.preserves_measure(FieldSpace(Lattice((4, 4)), Circle()), Double())
    laws.preserves_measure(FieldSpace(Lattice((4,))), Sign())


def test_claims_are_shared_by_implication() -> None:
    every, colours, blocks = Translations(), Translations(parity=True), Translations(2)
    order = [(every, colours), (every, blocks), (colours, blocks), (blocks, Translations(4))]
    assert all(wide.implies(narrow) and not narrow.implies(wide) for wide, narrow in order)
    assert not blocks.implies(Translations(3))
    assert not SignFlip().implies(every)
    assert shared_symmetries((every, SignFlip()), (SignFlip(), colours)) == (SignFlip(), colours)
    assert shared_symmetries((every,), (PointGroup(),)) == ()
