"""Who moves and who is frozen: partitions of the sites into equal parts, packed into smaller grids.

| partition      | number of parts | one part is a grid of      | keeps                                          |
|----------------|-----------------|----------------------------|------------------------------------------------|
| `checkerboard` | 2: even, odd    | (L_1, …, L_d / 2)          | translations by an even number of steps        |
| `stripes`      | `period`        | L_axis / period, the rest L | translations across, by `period` along `axis` |
| `blocks`       | size^d corners  | (L_1 / size, …, L_d / size) | translations by `size`                        |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from lattices.lattice import Lattice


@final
class Partition(nn.Module):
    """Disjoint parts of the sites, each packed into a grid of its own; index buffers that move with the module.

        merge(split(x)) = x,    split(x)[k] = x[sites of colour k, in storage order]

    Packing touches every value once and saves the work on masked sites. Cost V.

    Args:
        colours: which part each site belongs to, 0 … n - 1, all of one size; shape extents.
        shape: the grid that one part is packed into, V / n sites.
    """

    indices: Tensor  # (n, V / n)
    order: Tensor  # (V,)

    def __init__(self, colours: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.extents, self.shape = tuple(colours.shape), tuple(shape)
        self.n_parts = int(colours.max()) + 1
        packed = colours.flatten().argsort(stable=True)
        if torch.bincount(colours.flatten()).unique().numel() > 1 or len(packed) != self.n_parts * _volume(shape):
            raise ValueError(f"expected parts of one size {shape}, got {torch.bincount(colours.flatten()).tolist()}")
        self.register_buffer("indices", packed.reshape(self.n_parts, -1), persistent=False)
        self.register_buffer("order", packed.argsort(), persistent=False)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:  # (batch, *extents, *target) -> n × (batch, *shape, *target)
        """The parts of x, one for each colour."""
        sites = x.flatten(1, len(self.extents))
        return tuple(sites.index_select(1, part).unflatten(1, self.shape) for part in self.indices)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:  # n × (batch, *shape, *target) -> (batch, *extents, *target)
        """The field that was split."""
        packed = torch.cat([part.flatten(1, len(self.shape)) for part in parts], 1)
        return packed.index_select(1, self.order).unflatten(1, self.extents)

    def mask(self, part: int) -> Tensor:  # -> extents, bool
        """True on the sites of one part."""
        mask = torch.zeros_like(self.order, dtype=torch.bool)
        return mask.index_fill(0, self.indices[part], True).reshape(self.extents)

    @classmethod
    def examples(cls) -> Iterator[Partition]:
        """Checkerboards in every dimension, stripes along each axis, blocks."""
        yield from (checkerboard(Lattice(extents)) for extents in [(6,), (4, 4), (2, 6), (2, 4, 4), (2, 2, 2, 4)])
        yield from (stripes(Lattice((4, 6)), axis, period) for axis, period in [(0, 2), (1, 2), (-1, 3)])
        yield from (blocks(Lattice(extents)) for extents in [(6,), (4, 4), (2, 4, 4)])


def checkerboard(lattice: Lattice) -> Partition:
    """Even sites (x_1 + … + x_d even) and odd sites: no two neighbours in one part. All extents must be even.

    Even site x is packed at (x_1, …, ⌊x_d / 2⌋), and so is odd site x.
    """
    lattice.require_even("a checkerboard")
    parity = lattice.coordinates().sum(1) % 2
    return Partition(parity.reshape(lattice.extents), (*lattice.extents[:-1], lattice.extents[-1] // 2))


def stripes(lattice: Lattice, axis: int = -1, period: int = 2) -> Partition:
    """Part k holds the sites with x_axis = k modulo `period`."""
    if not -lattice.dimension <= axis < lattice.dimension:
        raise ValueError(f"expected an axis of {lattice.extents}, got {axis}: count from 0 to {lattice.dimension - 1}")
    axis %= lattice.dimension
    periods = tuple(period if mu == axis else 1 for mu in range(lattice.dimension))
    return _residues(lattice, periods, "stripes")


def blocks(lattice: Lattice, size: int = 2) -> Partition:
    """Part k holds corner k of every size × … × size block: part 0 the sites whose coordinates `size` divides."""
    return _residues(lattice, (size,) * lattice.dimension, "blocks")


def _residues(lattice: Lattice, periods: tuple[int, ...], purpose: str) -> Partition:
    """Sites by their coordinates modulo the periods, the last coordinate running fastest."""
    if min(periods) < 1 or any(n % period for n, period in zip(lattice.extents, periods)):
        raise ValueError(f"expected extents divisible by {periods} for {purpose}, got {lattice.extents}: change either")
    residues = lattice.coordinates() % torch.tensor(periods)
    colours = torch.zeros(lattice.volume, dtype=torch.long)
    for mu, period in enumerate(periods):
        colours = colours * period + residues[:, mu]
    coarse = tuple(n // period for n, period in zip(lattice.extents, periods))
    return Partition(colours.reshape(lattice.extents), coarse)


def _volume(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
