"""Paths on the lattice and the products of links along them: transporters, plaquettes, staples, loops.

Links are matrices here: u of shape (batch, d, *extents, N, N), which `matrices` makes of a field (N = 1 for U(1)). A
path is a tuple of steps ±1, …, ±d: +μ goes from x to x + μ̂ along U_μ(x), -μ goes from x to x - μ̂ along U_μ(x - μ̂)†.
Axes are counted from 1 in paths, so that a step has a sign.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lattices.fields import FieldSpace
from symmetries.finite import Hyperoctahedral

Path = tuple[int, ...]

PLAQUETTE: Path = (1, 2, -1, -2)
RECTANGLE: Path = (1, 1, 2, -1, -1, -2)
CHAIR: Path = (1, 2, -1, 3, -2, -3)
SQUARE: Path = (1, 1, 2, 2, -1, -1, -2, -2)


def matrices(field: FieldSpace, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, d, *extents, N, N), complex
    """Links as unitary matrices: e^{iθ} as a 1 × 1 matrix for U(1)."""
    return x if field.target.shape else torch.polar(torch.ones_like(x), x)[..., None, None]


def planes(dimension: int) -> list[tuple[int, int]]:
    """The pairs of axes μ < ν, counted from 0."""
    return [(mu, nu) for mu in range(dimension) for nu in range(mu + 1, dimension)]


def shifted(v: Tensor, axis: int, step: int, dimension: int) -> Tensor:
    """v(x + step·axis) of a field of matrices (…, *extents, N, N); axis counted from 0."""
    return v.roll(-step, axis - dimension - 2)


def at_end(v: Tensor, path: Path, dimension: int) -> Tensor:
    """v at the end of the path that starts at x."""
    for axis in range(dimension):
        step = path.count(axis + 1) - path.count(-axis - 1)
        v = shifted(v, axis, step, dimension) if step else v
    return v


def transporter(u: Tensor, path: Path) -> Tensor:  # (batch, d, *extents, N, N) -> (batch, *extents, N, N)
    """The product of the links along a path that starts at x, for every x: (ΩUΩ†) covariant at both ends."""
    d = u.shape[1]
    _check(path, d)
    product: Tensor | None = None
    for i, step in enumerate(path):
        axis = abs(step) - 1
        here = path[:i] if step > 0 else path[: i + 1]
        link = at_end(u[:, axis], here, d)
        link = link if step > 0 else link.mH
        product = link if product is None else product @ link
    return torch.eye(u.shape[-1], dtype=u.dtype, device=u.device).expand_as(u[:, 0]) if product is None else product


def plaquettes(u: Tensor) -> Tensor:  # (batch, d, *extents, N, N) -> (batch, planes, *extents, N, N)
    """P_{μν}(x) = U_μ(x) U_ν(x + μ̂) U_μ(x + ν̂)† U_ν(x)†, μ < ν, based at x."""
    return torch.stack([transporter(u, (mu + 1, nu + 1, -mu - 1, -nu - 1)) for mu, nu in planes(u.shape[1])], 1)


def real_trace(m: Tensor) -> Tensor:  # (..., N, N) -> (...)
    """Re Tr m / N."""
    return m.diagonal(dim1=-2, dim2=-1).real.mean(-1)


@cache
def orientations(loop: Path, dimension: int) -> tuple[Path, ...]:
    """The images of a loop under the point group, each once whatever its direction and starting point, sorted.

    ⟨Re Tr⟩ over all of them and all x is invariant under the lattice. (1, 2, -1, -2) gives one loop for each plane.
    """
    _check(loop, dimension)
    if any(loop.count(step) != loop.count(-step) for step in loop):
        raise ValueError(f"expected a contractible loop, which ends where it starts, got {loop}: add its steps back")
    found: dict[frozenset[Path], Path] = {}
    for g in Hyperoctahedral(dimension).elements.tolist():
        image = tuple(_image(g, step) for step in loop)
        found.setdefault(frozenset(_equivalent(image)), min(_equivalent(image), key=_order))
    return tuple(sorted(found.values(), key=_order))


@cache
def staple_paths(loop: Path, dimension: int, axis: int) -> tuple[Path, ...]:
    """Paths from x + μ̂ to x that close the link (x, μ) to an image of `loop`, one for every passage through the link.

    Σ_loops Re Tr U_loop depends on U_μ(x) by Re Tr U_μ(x) A_μ(x), where A is the sum of these; axis counts from 0.
    """
    turned = [way for image in orientations(loop, dimension) for way in _equivalent(image)]
    return tuple(dict.fromkeys(way[1:] for way in turned if way[0] == axis + 1))


def staples(u: Tensor, loop: Path = PLAQUETTE) -> Tensor:  # (batch, d, *extents, N, N) -> the same shape
    """A_μ(x), the sum of the open loops from x + μ̂ back to x; the loop must pass through a link only once."""
    d = u.shape[1]
    sums = []
    for axis in range(d):
        paths = staple_paths(loop, d, axis)
        total = sum((transporter(u, path) for path in paths), torch.zeros_like(u[:, 0]))
        sums.append(shifted(total, axis, 1, d))
    return torch.stack(sums, 1)


def _image(matrix: list[list[int]], step: int) -> int:
    """Where a signed permutation sends a step."""
    column = [row[abs(step) - 1] for row in matrix]
    axis = next(nu for nu, entry in enumerate(column) if entry)
    return (axis + 1) * column[axis] * (1 if step > 0 else -1)


def _equivalent(loop: Path) -> list[Path]:
    """All starting points and both directions of a loop."""
    reverse = tuple(-step for step in reversed(loop))
    return [way[i:] + way[:i] for way in (loop, reverse) for i in range(len(loop))]


def _order(path: Path) -> tuple[tuple[int, bool], ...]:
    return tuple((abs(step), step < 0) for step in path)


def _check(path: Path, dimension: int) -> None:
    if any(type(step) is not int or not 1 <= abs(step) <= dimension for step in path):
        raise ValueError(f"expected steps ±1 … ±{dimension}, got {path}: axes are counted from 1, backwards is minus")
