"""Coordinates of a torus, u = M t with M in GL(D, Z), and flows that act in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from flows.bijection import Bijection, Scored
from flows.conditioners.torus_networks import TorusSpec
from flows.layers.torus import TorusAutoregressive, require_torus, torus
from flows.transforms.circular import wrap
from flows.transforms.circular_mobius import Mobius
from lattices.invariance import SignFlip, Symmetry
from lattices.spins import AngleShifts, GlobalRotations

Matrix = tuple[tuple[int, ...], ...]


def separating_coordinates(directions: Sequence[Sequence[int]], dimension: int) -> Matrix:  # -> (D, D)
    """A matrix M in GL(D, Z) whose first rows m are a basis of all whole vectors with m·s = 0 for every direction s.

    In the coordinates u = M t the first D - r angles are invariant under the shifts t ↦ t + a s, r the rank of the
    directions, and the others only are shifted. By Euclid's algorithm on the rows of the unit matrix.

    Args:
        directions: whole vectors s of D entries.
        dimension: D.
    """
    still = [[int(i == j) for j in range(dimension)] for i in range(dimension)]
    moving: list[list[int]] = []
    for s in directions:
        if len(s) != dimension:
            raise ValueError(f"expected directions of {dimension} whole numbers, got {tuple(s)}: give one per angle")
        moving += _reduced(still, s)
    return tuple(map(tuple, [*still, *moving]))


def _reduced(rows: list[list[int]], s: Sequence[int]) -> list[list[int]]:
    """Combine the rows until at most one has m·s ≠ 0, and take it out."""
    while True:
        steps = {i: step for i, row in enumerate(rows) if (step := sum(m * v for m, v in zip(row, s)))}
        if len(steps) < 2:
            return [rows.pop(i) for i in steps]
        pivot = min(steps, key=lambda i: abs(steps[i]))
        for i in steps.keys() - {pivot}:
            n = steps[i] // steps[pivot]
            rows[i] = [m - n * k for m, k in zip(rows[i], rows[pivot])]


def _inverted(matrix: Matrix, dimension: int) -> Matrix:
    """The whole inverse of a matrix of determinant ±1; ValueError for other ones."""
    m = torch.tensor(matrix)
    if m.shape != (dimension, dimension) or m.is_floating_point():
        raise ValueError(f"expected {dimension} × {dimension} whole numbers, got {matrix}: pass rows of integers")
    inverse = torch.linalg.inv_ex(m.double())[0].round().nan_to_num().long()
    if not torch.equal(m @ inverse, torch.eye(dimension, dtype=torch.long)):
        raise ValueError(f"expected a matrix of determinant 1 or -1, got {matrix}: others do not map once onto T^D")
    return tuple(map(tuple, inverse.tolist()))


@final
class InCoordinates(Bijection):
    """M⁻¹ ∘ f ∘ M: a flow f of T^D that acts in the coordinates u = M t. The log-det is that of f.

    Where f leaves coordinates alone, it commutes with shifts along the columns of M⁻¹ that belong to them: with M from
    `separating_coordinates` and f on its first D - r angles, with all shifts of those directions. Nothing is lost: an
    invariant density is uniform in the other coordinates.

    Args:
        bijection: f.
        matrix: the rows of M, whole, with determinant ±1.

    Symmetries: t ↦ t + a M⁻¹ s for each t ↦ t + a s of f; t ↦ -t where f has it, and the global O(2) that
    they make up.
    """

    matrix: Tensor
    inverse_matrix: Tensor

    def __init__(self, bijection: Bijection, matrix: Matrix) -> None:
        super().__init__()
        inverse = _inverted(matrix, require_torus(bijection.domain))
        self.domain = self.codomain = bijection.domain
        self.bijection = bijection
        self.register_buffer("matrix", torch.tensor(matrix), persistent=False)
        self.register_buffer("inverse_matrix", torch.tensor(inverse), persistent=False)
        self.symmetries: tuple[Symmetry, ...] = tuple(_claims(bijection.symmetries, inverse))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, log_det = self.bijection(self._to(z), context)
        return self._from(u), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, log_det = self.bijection.inverse(self._to(x), context)
        return self._from(u), log_det

    def push_score(self, z: Tensor, score: Tensor, context: Tensor | None = None) -> Scored:
        """Scores are covectors: M⁻ᵀ s in the coordinates u, and back by Mᵀ."""
        there = score @ self.inverse_matrix.to(score.dtype)
        u, log_det, there = self.bijection.push_score(self._to(z.detach()), there, context)
        return Scored(self._from(u), log_det, there @ self.matrix.to(score.dtype))

    def _to(self, t: Tensor) -> Tensor:
        return wrap(t @ self.matrix.to(t.dtype).T)

    def _from(self, u: Tensor) -> Tensor:
        return wrap(u @ self.inverse_matrix.to(u.dtype).T)

    @classmethod
    def examples(cls) -> Iterator[InCoordinates]:
        """Invariant under one shift of T², and under two of T³, conditional and odd."""
        yield cls(TorusAutoregressive(torus(2), (0,)), separating_coordinates([(1, -1)], 2))
        odd = TorusAutoregressive(torus(3), (0,), Mobius(), TorusSpec(1, (2,), odd=True, n_context=1))
        yield cls(odd, separating_coordinates([(2, 3, -1), (0, 2, 4)], 3))


def _claims(inner: tuple[Symmetry, ...], inverse: Matrix) -> tuple[Symmetry, ...]:
    """What the symmetries in the coordinates u are in the angles t; with all angles alike they make up O(2)."""
    shifts = [_along(inverse, claim.direction) for claim in inner if isinstance(claim, AngleShifts)]
    claims: tuple[Symmetry, ...] = tuple(map(AngleShifts, shifts)) + (SignFlip(),) * (SignFlip() in inner)
    return claims + (GlobalRotations(),) * (SignFlip() in inner and (1,) * len(inverse) in shifts)


def _along(inverse: Matrix, direction: tuple[int, ...]) -> tuple[int, ...]:
    """The direction in the angles t, or the opposite one, so that its first entry is positive."""
    moved = tuple(sum(m * v for m, v in zip(row, direction)) for row in inverse)
    return max(moved, tuple(-v for v in moved))
