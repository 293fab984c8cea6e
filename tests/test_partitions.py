"""Partitions: disjoint, complete, packed where promised, differentiable, and refused where they do not fit."""

from __future__ import annotations

import pytest
import torch

from lattices.lattice import Lattice
from lattices.partitions import Partition, blocks, checkerboard, stripes


def field(partition: Partition, *target: int) -> torch.Tensor:
    return torch.randn(3, *partition.extents, *target, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("partition", list(Partition.examples()), ids=lambda p: f"{p.extents}/{p.n_parts}")
def test_split_and_merge(partition: Partition) -> None:
    for target in ((), (3,), (2, 2)):
        x = field(partition, *target)
        parts = partition.split(x)
        assert [part.shape for part in parts] == [(3, *partition.shape, *target)] * partition.n_parts
        assert torch.equal(partition.merge(parts), x)
    masks = torch.stack([partition.mask(k) for k in range(partition.n_parts)])
    assert (masks.sum(0) == 1).all()
    x = field(partition)
    for mask, part in zip(masks, partition.split(x)):
        assert torch.equal(x[:, mask], part.flatten(1))


@pytest.mark.parametrize("extents", [(6,), (4, 4), (2, 6), (2, 4, 4), (2, 2, 2, 4)])
def test_checkerboard_has_no_neighbours_in_one_part(extents: tuple[int, ...]) -> None:
    lattice = Lattice(extents)
    even = checkerboard(lattice).mask(0).flatten()
    assert even[0]
    assert not (even[:, None] == even[lattice.neighbours()]).any()
    assert (stripes(Lattice((4, 4))).mask(0).flatten()[:, None] == stripes(Lattice((4, 4))).mask(0).flatten()).any()


def test_packed_layout() -> None:
    lattice = Lattice((4, 6))
    x = torch.arange(24.0).reshape(1, 4, 6)
    even, odd = checkerboard(lattice).split(x)
    assert even[0, 1].tolist() == [7, 9, 11]
    assert odd[0, 1].tolist() == [6, 8, 10]
    assert torch.equal(blocks(lattice).split(x)[0], x[:, ::2, ::2])
    assert torch.equal(blocks(lattice).split(x)[3], x[:, 1::2, 1::2])
    assert torch.equal(stripes(lattice, axis=1, period=3).split(x)[2], x[:, :, 2::3])
    assert torch.equal(stripes(lattice, axis=-2).split(x)[1], x[:, 1::2])


def test_gradients_and_devices() -> None:
    partition = checkerboard(Lattice((4, 4)))
    x = field(partition).requires_grad_()
    even, odd = partition.split(x)
    partition.merge([2 * even, odd]).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (1.0 + partition.mask(0)).double().expand_as(x))
    assert partition.state_dict() == {}
    meta = partition.to("meta")
    assert meta.merge(meta.split(x.detach().to("meta"))).device.type == "meta"


def test_partitions_that_do_not_fit() -> None:
    for extents in [(3,), (4, 3), (3, 4), (4, 4, 5)]:
        with pytest.raises(
            ValueError, match=r"expected even extents for a checkerboard, got .*: make each extent even"
        ):
            checkerboard(Lattice(extents))
    with pytest.raises(ValueError, match="divisible"):
        blocks(Lattice((4, 6)), size=4)
    with pytest.raises(ValueError, match="divisible"):
        stripes(Lattice((4, 6)), axis=0, period=3)
    with pytest.raises(ValueError, match="divisible"):
        stripes(Lattice((4, 6)), period=0)
    with pytest.raises(ValueError, match="axis"):
        stripes(Lattice((4, 6)), axis=2)
    with pytest.raises(ValueError, match="one size"):
        Partition(torch.tensor([0, 1, 1, 1]), (2,))
