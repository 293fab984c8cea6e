"""Irreducible representations of permutations, in Young's orthogonal form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from symmetries.finite import Hyperoctahedral, Symmetric
from symmetries.group import Group
from symmetries.representation import Representation, check_group


@dataclass(frozen=True)
class Young(Representation):
    """The irreducible representation of S_n of one partition of n, in Young's orthogonal form.

    The swap of i and i+1 acts on standard tableaux with 1/r on the diagonal and √(1 - 1/r²) between partners,
    where r is the content of i+1 minus that of i. Cost: n(n-1)/2 matrix products for each element.

    Args:
        group: Symmetric(n).
        partition: row lengths, non-increasing, adding up to n: (n,) is trivial, (1, …, 1) the sign.

    References: James and Kerber 1981, The Representation Theory of the Symmetric Group, section 3.4.
    """

    group: Symmetric
    partition: tuple[int, ...]

    def __post_init__(self) -> None:
        check_group(self.group, Symmetric)
        if tuple(self.partition) not in set(partitions(self.group.n)):
            raise ValueError(
                f"expected non-increasing positive row lengths adding up to {self.group.n}, "
                f"got {self.partition}: pass one of {list(partitions(self.group.n))}"
            )

    @property
    def dim(self) -> int:  # type: ignore[override]
        """The number of standard tableaux."""
        return len(self._tableaux())

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The orthogonal matrices: bubble-sort g and multiply the swaps it took."""
        swaps = self._swaps().to(device=g.device, dtype=dtype or torch.float64)
        result = torch.eye(self.dim, dtype=swaps.dtype, device=g.device).expand(*g.shape[:-1], -1, -1)
        for last in range(self.group.n - 1, 0, -1):
            for i in range(last):
                wrong = g[..., i] > g[..., i + 1]
                swapped = torch.cat([g[..., :i], g[..., [i + 1, i]], g[..., i + 2 :]], -1)
                g = torch.where(wrong[..., None], swapped, g)
                result = torch.where(wrong[..., None, None], swaps[i] @ result, result)
        return result

    def _tableaux(self) -> list[tuple[int, ...]]:
        """Standard tableaux as words: the row of each number."""
        words: list[tuple[int, ...]] = [()]
        for _ in range(self.group.n):
            words = [(*w, row) for w in words for row, length in enumerate(self.partition) if _fits(w, row, length)]
        return words

    def _swaps(self) -> Tensor:  # -> (n-1, dim, dim)
        words, n = self._tableaux(), self.group.n
        swaps = torch.zeros(n - 1, len(words), len(words), dtype=torch.float64)
        for i in range(n - 1):
            for a, word in enumerate(words):
                inverse = 1 / (_content(word, i + 1) - _content(word, i))
                swaps[i, a, a] = inverse
                if abs(inverse) < 1:
                    partner = words.index((*word[:i], word[i + 1], word[i], *word[i + 2 :]))
                    swaps[i, a, partner] = math.sqrt(1 - inverse**2)
        return swaps

    @classmethod
    def examples(cls) -> Iterator[Young]:
        """The doublets of S_3 and S_4, and a triplet of S_4."""
        yield cls(Symmetric(3), (2, 1))
        yield cls(Symmetric(4), (2, 2))
        yield cls(Symmetric(4), (2, 1, 1))


@dataclass(frozen=True)
class AxisPermutation(Representation):
    """A representation of S_d as one of B_d, blind to signs: g acts by the permutation i → j, g e_i = ± e_j.

    Args:
        of: a representation of Symmetric(d), d <= 4.
    """

    of: Representation

    def __post_init__(self) -> None:
        check_group(self.of.group, Symmetric)

    @property
    def group(self) -> Group:  # type: ignore[override]
        """B_d."""
        return Hyperoctahedral(self.of.group.element_shape[0])

    @property
    def dim(self) -> int:  # type: ignore[override]
        """That of the representation of S_d."""
        return self.of.dim

    def matrix(self, g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix of the permutation of axes."""
        return self.of.matrix(g.abs().argmax(-2), dtype)

    @classmethod
    def examples(cls) -> Iterator[AxisPermutation]:
        """E_g of the cube."""
        yield cls(Young(Symmetric(3), (2, 1)))


def partitions(n: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """The partitions of n into non-increasing positive parts, largest first."""
    if n == 0:
        yield ()
    for part in range(min(n, largest or n), 0, -1):
        yield from ((part, *rest) for rest in partitions(n - part, part))


def _fits(word: tuple[int, ...], row: int, length: int) -> bool:
    """Whether the next number may go at the end of this row: there is room, and the row above is longer."""
    return word.count(row) < min(length, word.count(row - 1) if row else length)


def _content(word: tuple[int, ...], i: int) -> int:
    """Column minus row of the number at position i."""
    return word[:i].count(word[i]) - word[i]
