"""Teacher and student on one plaquette: the exact weights of the four outer spins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlrg.cluster.bond import Bond
from mlrg.cluster.spins import Spins

MOST_STATES = 2**20


@dataclass(frozen=True)
class Plaquette:
    """The decorated square and the cross with the same bond energy, on the same four outer sites.

        teacher:  W(o₀o₁o₂o₃) = Π_i Σ_h e^{-E(h, o_i) - E(h, o_{i+1})}     outer sites are vertices, edges are summed
        student:  W'(o₀o₁o₂o₃) = Σ_c Π_i e^{-E(o_i, c)}                    outer sites are edges, the vertex is summed

    Replacing every second square of a decorated (Lieb) lattice by a cross makes a Lieb lattice of spacing √2: the
    replacement is the step of the renormalization group. Outer sites run around the plaquette; 0 and 2 are opposite.
    A site has N = |G|^d states. Time N⁵ and memory N⁴, nothing is stored: a change of J can never be stale.

    Args:
        bond: the bond energy; N⁴ may not exceed 2²⁰.
    Shape: (..., n) -> (..., N, N, N, N), logarithms of unnormalised weights.
    References: W. Hou, Y.-Z. You, arXiv:2306.11054 (2023).
    """

    bond: Bond

    def __post_init__(self) -> None:
        n_states = self.bond.spins.n_values ** (4 * self.bond.on_site.dim)
        if n_states > MOST_STATES:
            raise ValueError(
                f"expected at most {MOST_STATES} states of the outer spins, got {n_states} for "
                f"{self.bond.representation} of {self.bond.spins.name}: choose a smaller representation or group"
            )

    def teacher(self, J: Tensor) -> Tensor:  # (..., n) -> (..., N, N, N, N)
        """log W of the four vertices of the decorated square."""
        return self._square(self.log_bonds(self.bond.matrices(J)))

    def student(self, J: Tensor) -> Tensor:  # (..., n) -> (..., N, N, N, N)
        """log W' of the four edges of the cross."""
        first, second = self._arms(J)
        a = (first - first.amax((-2, -1), keepdim=True)).exp()
        b = (second - second.amax((-2, -1), keepdim=True)).exp()
        shift = first.amax((-2, -1)) + second.amax((-2, -1))
        n = round(a.shape[-2] ** 0.5)
        return ((a @ b.mT).log() + shift[..., None, None]).unflatten(-1, (n, n)).unflatten(-3, (n, n))

    def coupled_teacher(self, J: Tensor) -> Tensor:  # (n,) -> (M, M, M, M), M <= N
        """log W without the spins that no coupling reaches: they are free, and only multiply the weight."""
        matrices = self.bond.matrices(J)
        size = matrices.abs().amax((0, 1))
        keep = torch.maximum(size.amax(0), size.amax(1)) > 1e-7 * size.max().clamp(min=1e-300)
        return self._square(self.log_bonds(matrices[..., keep, :][..., keep]))

    def log_bonds(self, matrices: Tensor) -> Tensor:  # (..., classes, 4, d, d) -> (..., 4, N, N)
        """-E of every state of an edge (rows) and a vertex (columns), for the four directions."""
        states = _states(self.bond.spins.n_values, matrices.shape[-1])
        pairs = self.bond.spins.kernel[:, states.mT[:, None, :, None], states.mT[None, :, None, :]]
        return torch.einsum("...krab,kabxy->...rxy", matrices, pairs.to(matrices))

    def _square(self, bonds: Tensor) -> Tensor:
        """The horizontal edges point both ways along the first axis, the vertical ones along the second."""
        top = sum_out(bonds[..., 0, :, :], bonds[..., 2, :, :])
        side = sum_out(bonds[..., 1, :, :], bonds[..., 3, :, :])
        left, bottom, right = side[..., None, :, :, None], top.mT[..., None, None, :, :], side[..., :, None, None, :]
        return top[..., :, :, None, None] + left + bottom + right

    def _arms(self, J: Tensor) -> tuple[Tensor, Tensor]:  # two halves of the cross, (..., N², N) each
        o = self.log_bonds(self.bond.matrices(J))
        halves = [o[..., r, :, None, :] + o[..., r + 1, None, :, :] for r in (0, 2)]
        return halves[0].flatten(-3, -2), halves[1].flatten(-3, -2)

    @cached_property
    def n_states(self) -> int:
        """The number N of states of one site."""
        return self.bond.spins.n_values**self.bond.on_site.dim

    @classmethod
    def examples(cls) -> Iterator[Plaquette]:
        """The published representations of S2, and A1 of Z3 and S3."""
        yield from map(cls, Bond.examples())


def plaquette(group: str = "S2", representation: str = "A1") -> Plaquette:
    """The plaquette of a group ("S2", "Z3", "S3") and an on-site representation of D4 ("A1", "A1+E", …)."""
    return Plaquette(Bond(Spins(group), representation))


def sum_out(left: Tensor, right: Tensor) -> Tensor:  # (..., h, a), (..., h, b) -> (..., a, b)
    """log Σ_h e^{left(h, a) + right(h, b)}, by one matrix product of safely scaled weights."""
    a, b = (x - x.amax((-2, -1), keepdim=True) for x in (left, right))
    return (a.exp().mT @ b.exp()).log() + left.amax((-2, -1), keepdim=True) + right.amax((-2, -1), keepdim=True)


def _states(n_values: int, d: int) -> Tensor:  # -> (n_values^d, d), the last spin fastest
    return torch.cartesian_prod(*[torch.arange(n_values)] * d).reshape(-1, d)
