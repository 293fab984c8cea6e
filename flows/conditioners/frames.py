"""Frames: the ordered pairs of directions a feature can look in, and which weights the point group makes equal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor

from lattices.loops import Path, orientations


def canonical(steps: Iterable[int]) -> Path:
    """Axes named 1, 2, … in the order they appear in, positive at first: equal for sequences that B_d relates."""
    names: dict[int, tuple[int, int]] = {}
    found = []
    for step in steps:
        sign = 1 if step > 0 else -1
        name, first = names.setdefault(abs(step), (len(names) + 1, sign))
        found.append(name * first * sign)
    return tuple(found)


def signed_axes(dimension: int) -> list[int]:
    """1, …, d, -1, …, -d."""
    return [sign * axis for sign in (1, -1) for axis in range(1, dimension + 1)]


@dataclass(frozen=True)
class Frames:
    """With `point_group` the 2d (2d - 2) pairs of orthogonal directions at a site, which B_d permutes; else one frame.

    A feature W_i has an index i for frames. A map of features commutes with the point group if its weights are the
    same for all (i, j, direction) that an element of B_d relates, and the same in every frame where it is pointwise.

    Args:
        dimension: d >= 2.
        point_group: treat all directions alike.

    References: Aronsson, Müller and Schuh 2023, arXiv:2303.11448.
    """

    dimension: int
    point_group: bool

    @property
    def pairs(self) -> list[Path]:
        """The frames, as paths of two steps; one empty path if directions are distinguished."""
        steps = signed_axes(self.dimension)
        return [(s, t) for s in steps for t in steps if abs(s) != abs(t)] if self.point_group else [()]

    def loops(self, loop: Path) -> list[list[list[Path]]]:
        """For each channel and each frame the paths to average: the loop as it looks from there."""
        images = orientations(loop, self.dimension)
        if not self.point_group:
            return [[[image]] for image in images]
        return [[self._seen(canonical(loop), pair) for pair in self.pairs]]

    def between(self, radius: int) -> Tensor:  # -> (frames, frames, 1 + 2 d radius)
        """Which of its weights a convolution uses for output frame, input frame and displacement 0, ±μ̂, ±2μ̂, …"""
        displacements = [(0, 0)] + [(step, k) for k in range(1, radius + 1) for step in signed_axes(self.dimension)]
        keys = [[self._key((*i, *j), *far) for j in self.pairs for far in displacements] for i in self.pairs]
        return self._labels(keys).unflatten(1, (len(self.pairs), -1))

    def directions(self) -> Tensor:  # -> (frames, 2 d)
        """Which weight a link in direction 1, …, d, -1, …, -d uses for each frame at its beginning."""
        return self._labels([[self._key(i, step, 1) for step in signed_axes(self.dimension)] for i in self.pairs])

    def _key(self, frames: Path, step: int, distance: int) -> tuple[Path, int]:
        steps = (*frames, step) if distance else frames
        return (canonical(steps) if self.point_group else steps), distance

    def _labels(self, keys: list[list[tuple[Path, int]]]) -> Tensor:
        known = {key: n for n, key in enumerate(dict.fromkeys(key for row in keys for key in row))}
        return torch.tensor([[known[key] for key in row] for row in keys])

    def _seen(self, loop: Path, pair: Path) -> list[Path]:
        """The images of a loop whose first two axes are those of the pair; further axes take all places."""
        further = max(map(abs, loop)) - 2
        free = [axis for axis in range(1, self.dimension + 1) if axis not in map(abs, pair)]
        places = product(permutations(free, further), product((1, -1), repeat=further))
        maps = [(*pair, *(sign * axis for axis, sign in zip(axes, signs))) for axes, signs in places]
        return [tuple(axes[abs(step) - 1] * (1 if step > 0 else -1) for step in loop) for axes in maps]
