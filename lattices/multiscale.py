"""The order in which a lattice is filled from coarse to fine, and who is already there when a site is filled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lattices.lattice import Lattice

Class = tuple[int, tuple[int, ...], int]
"""(stage, which axes are between two coarse sites, half): sites of one class are filled together. The stage is the
logarithm of the spacing of the coarser grid; 0 stands for the last class of an even lattice, all its odd sites."""


class Level(NamedTuple):
    """Sites that are filled together, and their parents in K orbits of displacements, the nearest orbit first.

    Sites without any parent in an orbit have zero weights there; padded entries point to the origin with weight zero.
    """

    label: Class
    sites: Tensor  # (n,) int64, in storage order
    parents: Tensor  # (K, n, m) int64
    weights: Tensor  # (K, n, m) float64, the mean over the orbit: 1 over the number of its parents


@dataclass(frozen=True)
class Multiscale:
    """Sites in the order of a hierarchy of grids: those of the coarsest one by one, then each refinement in classes.

    An axis of L = o 2^k sites is halved k times. A refinement fills, between the sites of the coarser grid, first
    those displaced along an even number of axes, then those along an odd number; each class is filled in two halves,
    like a checkerboard. The last class on an even lattice holds all odd sites, whose nearest neighbours are all there.

    Args:
        lattice: any box.
        n_orbits: the number of orbits of parents that a site looks at, nearest first; the last class has only one.
    """

    lattice: Lattice
    n_orbits: int = 8

    def __post_init__(self) -> None:
        if self.n_orbits < 1:
            raise ValueError(f"expected n_orbits >= 1, got {self.n_orbits}: nearest parents are the least")

    @cached_property
    def levels(self) -> list[Level]:
        """All levels but the first, which is the origin and has no parents."""
        members: dict[Class, list[int]] = {}
        for site, x in enumerate(self.lattice.coordinates().tolist()):
            members.setdefault(self._class(x), []).append(site)
        order = sorted(members, key=lambda label: (-label[0], sum(label[1]) % 2, label[1], label[2]))
        filled = list(members[order[0]])
        levels = []
        for label in order[1:]:
            levels.append(self._level(label, members[label], filled))
            filled += members[label]
        return levels

    def _halvings(self) -> list[int]:
        return [(n & -n).bit_length() - 1 for n in self.lattice.extents]

    def _class(self, x: list[int]) -> Class:
        """Coarsest sites are classes of their own, above all stages."""
        halvings = self._halvings()
        stages = max(halvings)
        for stage in range(stages, 0, -1):
            coarse = [2 ** min(stage, k) for k in halvings]
            fine = [2 ** min(stage - 1, k) for k in halvings]
            between = tuple(int(c % big != 0) for c, big in zip(x, coarse))
            if any(between) and not any(c % small for c, small in zip(x, fine)):
                if stage == 1 and sum(between) % 2 and min(halvings) > 0:
                    return 0, (1,) * len(x), 0
                return stage, between, sum(c // big for c, big in zip(x, coarse)) % 2
        spacing = [2**k for k in halvings]
        number = 0
        for c, n, size in zip(x, self.lattice.extents, spacing):
            number = number * (n // size) + c // size
        return stages + 1, (0,) * len(x), number

    def _level(self, label: Class, sites: list[int], filled: list[int]) -> Level:
        extents = torch.tensor(self.lattice.extents)
        x = self.lattice.coordinates()
        steps = (x[filled] - x[sites][:, None]) % extents
        steps = torch.minimum(steps, extents - steps)  # (n, parents, d)
        if self._symmetric(label):
            steps = steps.sort(-1).values
        keys = [[tuple(step) for step in row] for row in steps.tolist()]
        orbits = sorted({key for row in keys for key in row}, key=lambda key: (sum(n * n for n in key), key))
        kept = orbits[: self.n_orbits if label[0] else 1]
        chosen = [[[p for p, key in zip(filled, row) if key == orbit] for row in keys] for orbit in kept]
        width = max(len(parents) for row in chosen for parents in row)
        index = [[parents + [0] * (width - len(parents)) for parents in row] for row in chosen]
        weight = [[[1 / max(1, len(p))] * len(p) + [0.0] * (width - len(p)) for p in row] for row in chosen]
        return Level(label, torch.tensor(sites), torch.tensor(index), torch.tensor(weight, dtype=torch.float64))

    def _symmetric(self, label: Class) -> bool:
        """Whether all axes play the same part in a class of a box of equal sides."""
        return len(set(self.lattice.extents)) == 1 and len(set(label[1])) == 1

    @classmethod
    def examples(cls) -> Iterator[Multiscale]:
        """Powers of two, odd factors, odd lattices, and one to three dimensions."""
        yield cls(Lattice((8, 8)))
        yield cls(Lattice((4, 6)))
        yield cls(Lattice((5,)), n_orbits=2)
        yield cls(Lattice((3, 3)))
        yield cls(Lattice((2, 4, 4)))
