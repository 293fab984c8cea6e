"""The order in which a lattice is filled from coarse to fine, and who is already there when a site is filled."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, permutations, product
from typing import NamedTuple

import torch
from torch import Tensor

from lattices.lattice import Lattice

Step = tuple[int, ...]
"""A displacement."""

Signed = tuple[tuple[int, int], ...]
"""A signed permutation: for every axis of the image, where it comes from and its sign."""

Key = tuple[Step, ...]
"""The first member of an orbit: one displacement, or three."""

Class = tuple[int, tuple[int, ...], int]
"""(stage, which axes are between two coarse sites, half): sites of one class are filled together. The stage is the
logarithm of the spacing of the coarser grid; 0 stands for the last class of an even lattice, all its odd sites."""


class Level(NamedTuple):
    """Sites that are filled together, and their parents at m displacements, the nearest first."""

    label: Class
    sites: Tensor  # (n,) int64, in storage order
    parents: Tensor  # (n, m) int64; the origin where there is no parent
    present: Tensor  # (n, m) float64: 1, or 0 where there is no parent
    orbits: Tensor  # (K, m) float64: means over the displacements of one orbit
    triples: Tensor  # (T, near, pairs) float64: means over orbits of (y; z < w) among the nearest displacements
    keys: tuple[Key, ...]  # of the K orbits (y,) and the T orbits (y, z, w): one representative each


@dataclass(frozen=True)
class Multiscale:
    """Sites in the order of a hierarchy of grids: those of the coarsest one by one, then each refinement in classes.

    An axis of L = o 2^k sites is halved k times. A refinement fills, between the sites of the coarser grid, first
    those displaced along an even number of axes, then those along an odd number; each class is filled in two halves,
    like a checkerboard. The last class on an even lattice holds all odd sites, whose nearest neighbours are all there.

    Orbits are those of the reflections of the axes, and of their permutations where all axes play the same part.

    Args:
        lattice: any box.
        n_orbits: orbits of parents that a site looks at, nearest first; the last class looks at its neighbours only.
        n_near: parents that enter triples, whole orbits of them; the last class has no triples.
    """

    lattice: Lattice
    n_orbits: int = 8
    n_near: int = 8

    def __post_init__(self) -> None:
        if self.n_orbits < 1 or self.n_near < 0:
            raise ValueError(f"expected n_orbits >= 1 and n_near >= 0, got {self}: nearest parents are the least")

    def precursor(self, label: Class, known: Collection[Class]) -> tuple[Class, int] | None:
        """The class of a smaller lattice that is like this one, and how many times finer it is."""
        for halvings in range(label[0]):
            finer = (label[0] - halvings, *label[1:])
            if finer in known:
                return finer, 2**halvings
        return (label, 1) if label in known else None

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
        x, group, last = self.lattice.coordinates(), self._group(label), label[0] == 0
        rows = (x[filled] - x[sites][:, None]).tolist()
        at = [{self._folded(step): parent for step, parent in zip(row, filled)} for row in rows]
        orbit = {step: self._orbit((step,), group) for step in set(chain(*at))}
        orbits = sorted(set(orbit.values()), key=lambda key: (_norm(key[0]), key))
        orbits = [key for key in orbits if _norm(key[0]) == 1] if last else orbits[: self.n_orbits]
        steps = [step for key in orbits for step in sorted(orbit) if orbit[step] == key]
        reach = max((_norm(step) for step in steps[: self.n_near]), default=-1)
        near = [step for step in steps if _norm(step) <= reach and not last]
        single = [orbit[step] for step in steps]
        triple = self._triples(near, group)
        means, products = (
            _means(single),
            _means(triple).reshape(-1 if near[1:] else 0, len(near), math.comb(len(near), 2)),
        )
        return Level(
            label,
            torch.tensor(sites),
            torch.tensor([[row.get(step, 0) for step in steps] for row in at]),
            torch.tensor([[float(step in row) for step in steps] for row in at], dtype=torch.float64),
            means,
            products,
            tuple(dict.fromkeys(single + triple)),
        )

    def _triples(self, steps: list[Step], group: list[Signed]) -> list[Key]:
        """The orbits of y and a pair z < w, in that order."""
        return [self._orbit((y, *pair), group) for y in steps for pair in combinations(steps, 2)]

    def _orbit(self, steps: tuple[Step, ...], group: list[Signed]) -> Key:
        """The first of all images of one displacement, or of (y; z, w), whose last two are exchanged freely."""
        images = ([self._folded([sign * step[mu] for mu, sign in g]) for step in steps] for g in group)
        return min((image[0], *sorted(image[1:])) for image in images)

    def _folded(self, step: Sequence[int]) -> Step:
        """-L/2 < d ≤ L/2."""
        return tuple((n + (size - 1) // 2) % size - (size - 1) // 2 for n, size in zip(step, self.lattice.extents))

    def _group(self, label: Class) -> list[Signed]:
        """Reflections, with permutations of the axes of a square box that play the same part in a class."""
        axes = range(self.lattice.dimension)
        alike = len(set(self.lattice.extents)) == len(set(label[1])) == 1
        orders = permutations(axes) if alike else [tuple(axes)]
        return [tuple(zip(order, signs)) for order in orders for signs in product((1, -1), repeat=len(axes))]

    @classmethod
    def examples(cls) -> Iterator[Multiscale]:
        """Powers of two, odd factors, odd lattices, and one to three dimensions."""
        yield cls(Lattice((8, 8)))
        yield cls(Lattice((4, 6)))
        yield cls(Lattice((5,)), n_orbits=2)
        yield cls(Lattice((3, 3)))
        yield cls(Lattice((2, 4, 4)))


def _norm(step: Step) -> int:
    return sum(n * n for n in step)


def _means(keys: list[Key]) -> Tensor:  # -> (K, len(keys))
    """The averages over equal keys, in order of appearance."""
    kinds = list(dict.fromkeys(keys))
    members = torch.zeros(len(kinds), len(keys), dtype=torch.float64)
    members[[kinds.index(key) for key in keys], range(len(keys))] = 1
    return members / members.sum(1, keepdim=True)
