"""Kernels between links, or between plaquettes, shared over orbits of pairs under translations and the point group."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import NamedTuple

import torch
from torch import Tensor

from lattices.lattice import Lattice
from symmetries.finite import Hyperoctahedral

Pair = tuple[int, int, tuple[int, ...]]
"""(p, q, r): the cell (q, x + r) seen from the cell (p, x), where p and q count sets of axes, as in `cells`."""


def cells(dimension: int, rank: int) -> list[tuple[int, ...]]:
    """The axes along which the cells of a site extend: links for rank 1, plaquettes μ < ν for rank 2."""
    return list(combinations(range(dimension), rank))


class Passage(NamedTuple):
    """A cell (kind, x + shift) that contains a moving variable at x, with this orientation."""

    kind: int
    shift: tuple[int, ...]
    sign: int


@dataclass(frozen=True)
class CellKernels:
    """The kernels K_b(p, q, r) that average over one orbit b of pairs of links or of plaquettes.

    Even kernels are constant on an orbit. Odd ones carry the sign ε of the two orientations, for functions of
    cells that change sign with their orientation; they vanish on orbits where the signs contradict each other.
    Weights are normalised to Σ_{q,r} |K_b| = 1, averaged over p.

    Args:
        lattice: d = 1, 2, 3, 4, and d >= rank.
        radius: keep pairs whose centres are at most this far apart, in lattice units; None keeps all.
        rank: 1 for links, 2 for plaquettes.
    """

    lattice: Lattice
    radius: float | None = None
    rank: int = 2

    def __post_init__(self) -> None:
        if self.radius is not None and not self.radius >= 0:
            raise ValueError(f"expected radius >= 0 or None, got {self.radius}: None stands for the full range")
        if not 1 <= self.rank <= self.lattice.dimension:
            raise ValueError(f"expected rank between 1 and {self.lattice.dimension}, got {self.rank}: 1 for links")

    @cached_property
    def cells(self) -> list[tuple[int, ...]]:
        """The axes of the cells of a site."""
        return cells(self.lattice.dimension, self.rank)

    @cached_property
    def orbits(self) -> list[dict[Pair, int]]:
        """{pair: sign} of each orbit, nearest first; sign 0 on all pairs of an orbit without odd kernel."""
        seen: set[Pair] = set()
        found = []
        for pair in sorted(self._pairs(), key=self._distance):
            if pair not in seen:
                orbit = self._orbit(pair)
                seen.update(orbit)
                found.append(orbit)
        return found

    def tensors(self) -> Tensor:  # -> (2, n_kernels, cells, cells, *extents): even and odd K_b(p, q, r)
        """All kernels, in float64."""
        n = len(self.cells)
        kernels = torch.zeros(2, len(self.orbits), n, n, *self.lattice.extents, dtype=torch.float64)
        for b, orbit in enumerate(self.orbits):
            for (p, q, r), sign in orbit.items():
                index: tuple[slice | int, ...] = (slice(None), b, p, q, *r)
                kernels[index] = n / len(orbit) * kernels.new_tensor([1.0, sign])
        return kernels

    def label(self, orbit: dict[Pair, int]) -> tuple[int, ...]:
        """What identifies an orbit on lattices of every size: two kinds and twice the displacement of the centres."""
        images = [(_folded(self._doubled(*pair), self.lattice.extents), pair[:2]) for pair in orbit]
        nearest, (p, q) = min(images, key=lambda image: (tuple(map(abs, image[0])), image))
        return p, q, *nearest

    def _pairs(self) -> Iterator[Pair]:
        n = range(len(self.cells))
        limit = None if self.radius is None else 4 * self.radius**2 + 1e-9
        for p, q in product(n, n):
            for r in product(*map(range, self.lattice.extents)):
                if limit is None or self._distance((p, q, r))[0] <= limit:
                    yield p, q, r

    def _distance(self, pair: Pair) -> tuple[int, Pair]:
        delta = _folded(self._doubled(*pair), self.lattice.extents)
        return sum(n * n for n in delta), pair

    def _doubled(self, p: int, q: int, r: tuple[int, ...]) -> tuple[int, ...]:
        """Twice the displacement between the centres."""
        sides = self.cells
        return tuple(2 * n + (mu in sides[q]) - (mu in sides[p]) for mu, n in enumerate(r))

    def _orbit(self, pair: Pair) -> dict[Pair, int]:
        images = [self._moved(g, pair) for g in _allowed(self.lattice)]
        orbit = dict(images)
        return orbit if all(orbit[image] == sign for image, sign in images) else dict.fromkeys(orbit, 0)

    def _moved(self, g: list[list[int]], pair: Pair) -> tuple[Pair, int]:
        """The image of a pair under a signed permutation, and the product of the changes of orientation."""
        sides = self.cells
        p, q, r = pair
        (new_p, sign_p), (new_q, sign_q) = _turned(g, sides[p], sides), _turned(g, sides[q], sides)
        delta = self._doubled(p, q, r)
        image = [sum(row[nu] * delta[nu] for nu in range(len(delta))) for row in g]
        inside = ((mu in sides[new_q]) - (mu in sides[new_p]) for mu in range(len(image)))
        back = tuple(((n - c) // 2) % size for n, c, size in zip(image, inside, self.lattice.extents))
        return (new_p, new_q, back), sign_p * sign_q

    @classmethod
    def examples(cls) -> Iterator[CellKernels]:
        """Plaquettes in two, three and four dimensions; links in one, two and three."""
        yield cls(Lattice((4, 4)))
        yield cls(Lattice((3, 5)), radius=1.5)
        yield cls(Lattice((2, 3, 4)), radius=1.0)
        yield cls(Lattice((2, 2, 2, 2)), radius=1.0)
        yield cls(Lattice((5,)), rank=1)
        yield cls(Lattice((3, 4)), radius=1.5, rank=1)
        yield cls(Lattice((2, 3, 4)), radius=1.0, rank=1)


def _allowed(lattice: Lattice) -> list[list[list[int]]]:
    extents = torch.tensor(lattice.extents)
    return [g.tolist() for g in Hyperoctahedral(lattice.dimension).elements if torch.equal(g.abs() @ extents, extents)]


def _turned(g: list[list[int]], side: tuple[int, ...], sides: list[tuple[int, ...]]) -> tuple[int, int]:
    """The cell that a cell is sent to, and ±1 by which orientation it gets there."""
    image = [next((mu, row[axis]) for mu, row in enumerate(g) if row[axis]) for axis in side]
    axes = [mu for mu, _ in image]
    disorder = sum(first > then for first, then in combinations(axes, 2))
    return sides.index(tuple(sorted(axes))), math.prod(sign for _, sign in image) * (-1) ** disorder


def _folded(doubled: tuple[int, ...], extents: tuple[int, ...]) -> tuple[int, ...]:
    """Doubled displacements modulo 2L, the shortest: -L < Δ ≤ L."""
    return tuple((n + size - 1) % (2 * size) - size + 1 for n, size in zip(doubled, extents))
