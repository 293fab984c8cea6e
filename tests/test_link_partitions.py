"""Link masks: every link once in a cycle, frozen loops without active links, clear refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lattices.invariance import Translations
from lattices.lattice import Lattice
from lattices.link_partitions import (
    LinkPartition,
    Transport,
    frozen_loops,
    link_cycle,
    link_parity,
    link_stripes,
    links_along,
    parity_cycle,
    require_frozen_staples,
)
from lattices.loops import CHAIR, PLAQUETTE, RECTANGLE, matrices, transporter
from lattices.theories.wilson import link_field

CYCLES: list[tuple[tuple[int, ...], int]] = [
    ((4, 4), 4), ((4, 8), 4), ((6, 3), 3), ((2, 4), 2), ((4, 4, 4), 4), ((3, 3, 3), 3), ((4, 4, 4, 4), 4),
    ((2, 2, 4, 2), 2),
]  # fmt: skip
PARITIES = [(2, 4), (4, 4), (2, 4, 2), (2, 2, 2, 2)]
PARTITIONS = [p for extents, period in CYCLES for p in link_cycle(Lattice(extents), period)[:2]]
PARTITIONS += [p for extents in PARITIES for p in parity_cycle(Lattice(extents))[-1:]]

WHOLE = [link_cycle(Lattice(extents), period) for extents, period in CYCLES]
WHOLE += [link_cycle(Lattice((4,) * d), turn=turn) for d, turn in ((3, 1), (4, 1), (4, 2))]
WHOLE += [parity_cycle(Lattice(extents)) for extents in PARITIES]

every = pytest.mark.parametrize("partition", PARTITIONS, ids=lambda p: f"{p.lattice.extents}-{p.axes}-{len(p.links)}")


def is_active(partition: LinkPartition) -> torch.Tensor:  # -> (d, *extents), bool
    lattice = partition.lattice
    mask = torch.zeros(lattice.dimension * lattice.volume, dtype=torch.bool)
    return mask.index_fill(0, partition.links, True).reshape(lattice.dimension, *lattice.extents)


def depends(partition: LinkPartition, path: tuple[int, ...]) -> torch.Tensor:  # -> extents, bool
    """Where the product of links along a path changes with the active links: measured on U(1) fields."""
    field = link_field(partition.lattice.extents, 1)
    x = field.random(1, torch.Generator().manual_seed(0))
    moved = torch.where(is_active(partition), x + 0.3, x)
    gap = transporter(matrices(field, x), path) - transporter(matrices(field, moved), path)
    return gap.abs().flatten(-2).squeeze(0).squeeze(-1) > 1e-12


# ---------------------------------------------------------------------------------------------------------- cycles


@pytest.mark.parametrize("cycle", WHOLE, ids=lambda cycle: f"{cycle[0].lattice.extents}-{len(cycle)}")
def test_every_link_moves_once_in_a_cycle(cycle: list[LinkPartition]) -> None:
    assert (torch.stack([is_active(p) for p in cycle]).sum(0) == 1).all()


def test_lengths_of_cycles() -> None:
    assert [len(link_cycle(Lattice((4,) * d))) for d in (2, 3, 4)] == [8, 12, 16]
    assert [len(link_cycle(Lattice((2,) * d), period=2)) for d in (2, 3, 4)] == [4, 6, 8]
    assert [len(parity_cycle(Lattice((2,) * d))) for d in (2, 3, 4)] == [4, 6, 8]


def test_a_cycle_that_forgets_links_is_seen() -> None:
    assert (torch.stack([is_active(p) for p in link_cycle(Lattice((4, 4)))[:-1]]).sum(0) == 0).any()


# ----------------------------------------------------------------------------------------------------------- loops


@every
def test_frozen_loops_do_not_feel_active_links(partition: LinkPartition) -> None:
    loops = frozen_loops(partition)
    assert loops
    for path, mask in loops.items():
        assert not (depends(partition, path) & mask).any()
        assert torch.equal(mask, partition.passes(path) == 0)


@every
def test_active_plaquettes_are_felt_and_disjoint(partition: LinkPartition) -> None:
    starts = is_active(partition)[partition.axes[0]]
    assert depends(partition, partition.plaquette)[starts].all()
    assert (partition.passes(partition.plaquette)[starts] == 1).all()
    visited = links_along(partition.lattice, partition.plaquette)[:, partition.sites]
    counts = torch.isin(visited, partition.links).sum(0)
    assert (counts == 1).all()
    assert len(visited[torch.isin(visited, partition.links)].unique()) == len(partition.links)


@every
def test_staples_of_active_links_are_frozen(partition: LinkPartition) -> None:
    mu = partition.axes[0] + 1
    paths = require_frozen_staples(partition)
    assert len(paths) == 2 * (partition.lattice.dimension - 1)
    for path in paths:
        staple_links = links_along(partition.lattice, (mu, *path))[1:, partition.sites]
        assert not torch.isin(staple_links, partition.links).any()


def test_masks_that_touch_are_rejected() -> None:
    lattice = Lattice((4, 4))
    neighbours = torch.zeros(4, 4, dtype=torch.bool)
    neighbours[:, :2] = True
    with pytest.raises(ValueError, match="one active link in every active plaquette"):
        LinkPartition(lattice, (0, 1), neighbours, Translations(4))
    ladder = torch.zeros(4, 4, 4, dtype=torch.bool)
    ladder[:, 0, :2] = True  # no two in a plaquette (0, 1), but opposite ones in the plane (0, 2)
    crossing = LinkPartition(Lattice((4, 4, 4)), (0, 1), ladder, Translations(4))
    with pytest.raises(ValueError, match="frozen staples"):
        require_frozen_staples(crossing)
    wrong = frozen_loops(link_stripes(lattice, 0, 0))[PLAQUETTE].roll(1, 1)
    assert (depends(link_stripes(lattice, 0, 0), PLAQUETTE) & wrong).any()


def test_frozen_fractions() -> None:
    for period in (2, 3, 4):
        loops = frozen_loops(link_stripes(Lattice((12, 12)), 0, 0, period))
        frozen = loops[PLAQUETTE].double().mean().item() if PLAQUETTE in loops else 0.0
        assert frozen == pytest.approx((period - 2) / period)
    around = frozen_loops(link_parity(Lattice((4, 4)), 0, 0))
    assert list(around) == [(1, 2, 2, -1, -2, -2)]


# ------------------------------------------------------------------------------------------------------- transport


@pytest.mark.parametrize("n", [1, 3])
def test_transport_is_the_transporter_at_some_sites(n: int) -> None:
    lattice, sites = Lattice((2, 3, 4)), torch.tensor([0, 5, 23])
    field = link_field(lattice.extents, n)
    x = field.random(2, torch.Generator().manual_seed(0))
    for path in (PLAQUETTE, RECTANGLE, CHAIR, (-1, 3, 3), (2,)):
        u = transporter(matrices(field, x), path).flatten(1, 3)[:, sites]
        local = Transport(lattice, path, sites)
        product = local(x) if n > 1 else torch.polar(torch.ones(2, 3).double(), local(x))[..., None, None]
        torch.testing.assert_close(product, u)
        if len(path) > 1:
            torch.testing.assert_close(local.trace(x), u.diagonal(dim1=-2, dim2=-1).mean(-1))


def test_split_merge_and_devices() -> None:
    partition = link_stripes(Lattice((4, 4)), 1, 3)
    x = torch.randn(2, 2, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    active = partition.split(x)
    assert torch.equal(active, x.flatten(1, 3)[:, is_active(partition).flatten()])
    assert torch.equal(partition.merge(x, active), x)
    changed = (partition.merge(x, active + 1) != x).all(0).all(-1)
    assert torch.equal(changed, is_active(partition))
    assert partition.to("meta").split(x.to("meta")).device.type == "meta"
    assert partition.state_dict() == {}


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: link_stripes(Lattice((4, 6)), 0, 0), r"multiples of \(1, 4\).*got \(4, 6\): \(4, 8\) fits"),
        (lambda: link_stripes(Lattice((4, 4, 3)), 0, 0), r"\(1, 4, 2\).*\(4, 4, 4\) fits"),
        (lambda: link_stripes(Lattice((5, 4)), 0, 4), "0 <= residue < period"),
        (lambda: link_stripes(Lattice((5, 4)), 0, 0, period=1), "period >= 2"),
        (lambda: link_stripes(Lattice((4,)), 0, 0), "at least two axes"),
        (lambda: link_stripes(Lattice((4, 4)), 0, 0, transverse=0), "two different axes"),
        (lambda: link_stripes(Lattice((4, 4)), 2, 0), "two different axes"),
        (lambda: link_cycle(Lattice((4, 6))), r"\(4, 8\) fits"),
        (
            lambda: link_parity(Lattice((3, 4)), 0, 0),
            r"multiples of \(2, 2\) for parities, got \(3, 4\): \(4, 4\) fits",
        ),
        (lambda: link_parity(Lattice((4, 4)), 0, 2), "parity 0 or 1"),
        (lambda: parity_cycle(Lattice((4,))), "at least two axes"),
    ],
)
def test_lattices_that_do_not_fit(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
