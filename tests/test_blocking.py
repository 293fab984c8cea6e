"""Blocking against dense matrices: orthogonal rows, exact block covariance, and the symmetries it keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flows.bases import GaussianField
from lattices.blocking import Blocking, BlockPointGroup
from lattices.fields import FieldSpace, Real
from lattices.invariance import PointGroup, SignFlip, Symmetry, Translation, Translations, shared_symmetries
from lattices.lattice import Lattice

BLOCKINGS = list(Blocking.examples())
AVERAGE, DECIMATION = Blocking(), Blocking("decimation")
EVERYTHING = (Translations(), PointGroup())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def matrix(blocking: Blocking, lattice: Lattice) -> Tensor:  # -> (V coarse, V)
    sites = torch.eye(lattice.volume, dtype=torch.float64).reshape(-1, *lattice.extents)
    return blocking.down(sites, lattice.dimension).flatten(1).T


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=str)
@pytest.mark.parametrize("blocks", [(3,), (2, 1), (1, 2, 2)], ids=str)
def test_blocking_is_orthogonal(blocking: Blocking, blocks: tuple[int, ...]) -> None:
    lattice = Lattice(tuple(blocking.size * n for n in blocks))
    B = matrix(blocking, lattice)
    assert blocking.coarse(lattice).extents == blocks
    torch.testing.assert_close(B @ B.T, torch.eye(len(B), dtype=torch.float64))
    c = torch.randn(2, *blocks, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(blocking.up(c, len(blocks)).flatten(1), c.flatten(1) @ B)
    x = torch.randn(2, *lattice.extents, generator=seeded(), dtype=torch.float64)
    details = blocking.details(x, len(blocks))
    torch.testing.assert_close(details.flatten(1), x.flatten(1) - x.flatten(1) @ B.T @ B)
    assert blocking.down(details, len(blocks)).abs().max() < 1e-14
    torch.testing.assert_close(blocking.details(details, len(blocks)), details)


@pytest.mark.parametrize("blocking", BLOCKINGS, ids=str)
@pytest.mark.parametrize("blocks", [(3,), (1, 2), (2, 1, 2)], ids=str)
def test_block_spectrum_is_that_of_the_dense_covariance(blocking: Blocking, blocks: tuple[int, ...]) -> None:
    lattice = Lattice(tuple(blocking.size * n for n in blocks))
    spectrum = GaussianField.free(lattice, 0.3).spectrum
    sites = torch.eye(lattice.volume, dtype=torch.float64).reshape(-1, *lattice.extents)
    axes = tuple(range(1, lattice.dimension + 1))
    covariance = torch.fft.ifftn(torch.fft.fftn(sites, dim=axes) * spectrum, dim=axes).real.flatten(1)
    B, coarse = matrix(blocking, lattice), blocking.spectrum(spectrum)
    blocked = B @ covariance @ B.T
    torch.testing.assert_close(torch.linalg.eigvalsh(blocked), coarse.flatten().sort().values)
    column = torch.fft.ifftn(coarse).real.flatten()
    torch.testing.assert_close(blocked[0], column)


LIFTED = [(blocking, claim) for blocking in BLOCKINGS for claim in (Translations(), PointGroup(), SignFlip())]
LIFTED += [(AVERAGE, Translations(2)), (AVERAGE, BlockPointGroup()), (DECIMATION, Translations(2))]


@pytest.mark.parametrize(("blocking", "claim"), LIFTED, ids=str)
def test_lifted_symmetries_act_on_the_block_field(blocking: Blocking, claim: Symmetry) -> None:
    fine, coarse = (FieldSpace(Lattice((n, n)), Real(2)) for n in (4 * blocking.size, 4))
    x = fine.random(2, seeded())
    pairs = list(zip(blocking.lift(claim).generators(fine), claim.generators(coarse), strict=True))
    assert pairs
    for g, induced in pairs:
        torch.testing.assert_close(blocking.down(fine.act(g, x), 2), coarse.act(induced, blocking.down(x, 2)))


def test_other_transformations_tear_blocks_apart() -> None:
    fine, coarse = FieldSpace(Lattice((8, 8))), FieldSpace(Lattice((4, 4)))
    x = fine.random(2, seeded())
    for blocking, claim in ((AVERAGE, PointGroup()), (DECIMATION, BlockPointGroup())):
        pairs = zip(claim.generators(fine), PointGroup().generators(coarse))
        gaps = [blocking.down(fine.act(g, x), 2) - coarse.act(h, blocking.down(x, 2)) for g, h in pairs]
        assert max(gap.abs().max() for gap in gaps) > 0.1
    moved = blocking.down(fine.act(Translation((1, 0)), x), 2)
    assert (moved - blocking.down(x, 2).roll(1, 1)).abs().max() > 0.1


@pytest.mark.parametrize("extents", [(4, 4), (4, 6), (2, 4, 4)], ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_block_point_group_fixes_the_centre_of_a_block(extents: tuple[int, ...], size: int) -> None:
    field = FieldSpace(Lattice(extents))
    corner = torch.zeros(1, *extents)
    corner[(0, *(slice(0, min(size, n)) for n in extents))] = 1
    for g in BlockPointGroup(size).generators(field):
        assert torch.equal(field.act(g, corner), corner)
    assert len(BlockPointGroup(size).generators(field)) == len(PointGroup().generators(field))


@pytest.mark.parametrize(
    ("claim", "claims", "expected"),
    [
        (BlockPointGroup(), EVERYTHING, True),
        (BlockPointGroup(4), (Translations(2), BlockPointGroup(2)), True),
        (BlockPointGroup(3), (Translations(2), PointGroup()), True),
        (BlockPointGroup(2), (Translations(2), PointGroup()), False),
        (BlockPointGroup(2), (BlockPointGroup(4),), False),
        (BlockPointGroup(2), (Translations(),), False),
        (PointGroup(), (BlockPointGroup(2), Translations(2)), False),
        (Translations(4), (Translations(2), PointGroup()), True),
    ],
)
def test_what_follows_from_claims(claim: Symmetry, claims: tuple[Symmetry, ...], expected: bool) -> None:
    assert claim.follows_from(claims) == expected
    assert (claim in shared_symmetries((claim,), claims)) == expected


def test_claims_that_are_shared_with_a_block() -> None:
    blocks = (Translations(2), BlockPointGroup(), SignFlip())
    assert shared_symmetries(blocks, (*EVERYTHING, SignFlip())) == blocks
    assert shared_symmetries(blocks, (Translations(2), PointGroup())) == (Translations(2),)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blocking("median"), "average"),
        (lambda: Blocking(size=1), "size of 2 or more"),
        (lambda: Blocking().coarse(Lattice((6, 4)), 2), "divisible by 4 to block 2 times"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
