"""The finite groups of lattices and spins: cyclic, dihedral, symmetric, hyperoctahedral, and products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import torch
from torch import Tensor

from symmetries.group import FiniteGroup, check_count, check_elements


@dataclass(frozen=True)
class Cyclic(FiniteGroup):
    """The cyclic group Z_n of integers modulo n; elements are scalars k with k + l mod n as product.

    Args:
        n: the order, at least 1.
    """

    n: int
    element_shape = ()

    def __post_init__(self) -> None:
        check_count(self.n)

    @cached_property
    def elements(self) -> Tensor:  # type: ignore[override]
        """0, 1, …, n-1."""
        return torch.arange(self.n)

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """Zero."""
        return torch.zeros((), dtype=dtype or torch.int64, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """g + h mod n."""
        return (g + h).remainder(self.n)

    def inverse(self, g: Tensor) -> Tensor:
        """-g mod n."""
        return (-g).remainder(self.n)

    def generators(self) -> Tensor:
        """One step."""
        return torch.ones(1, dtype=torch.int64).remainder(self.n)

    @classmethod
    def examples(cls) -> Iterator[Cyclic]:
        """The trivial group, Z_2 of φ → -φ, and Z_6."""
        yield from map(cls, (1, 2, 6))


@dataclass(frozen=True)
class Dihedral(FiniteGroup):
    """The dihedral group D_n of the regular n-gon; the element (a, s) is r^a f^s with f r f = r⁻¹.

    r turns by 2π/n, f reflects on the first axis; D_4 is the point group of the square lattice.

    Args:
        n: number of rotations, at least 1; the order is 2n.
    """

    n: int
    element_shape = (2,)

    def __post_init__(self) -> None:
        check_count(self.n)

    @cached_property
    def elements(self) -> Tensor:  # type: ignore[override]
        """All rotations, then all reflections."""
        return torch.tensor([(a, s) for s in range(2) for a in range(self.n)])

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """(0, 0)."""
        return torch.zeros(2, dtype=dtype or torch.int64, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """(a, s)(b, t) = (a + (-1)^s b, s + t)."""
        (a, s), (b, t) = g.unbind(-1), h.unbind(-1)
        return torch.stack([(a + (1 - 2 * s) * b).remainder(self.n), (s + t).remainder(2)], -1)

    def inverse(self, g: Tensor) -> Tensor:
        """(a, s)⁻¹ = (-(-1)^s a, s)."""
        a, s = g.unbind(-1)
        return torch.stack([((2 * s - 1) * a).remainder(self.n), s], -1)

    def generators(self) -> Tensor:
        """The rotation r and the reflection f."""
        return torch.tensor([(1 % self.n, 0), (0, 1)])

    @classmethod
    def examples(cls) -> Iterator[Dihedral]:
        """The symmetries of the segment, the triangle and the square."""
        yield from map(cls, (1, 3, 4))


@dataclass(frozen=True)
class Symmetric(FiniteGroup):
    """The symmetric group S_n of permutations; the element g sends i to g[i], and (g h)[i] = g[h[i]].

    Args:
        n: number of things permuted, at least 1; the order is n!.
    """

    n: int

    def __post_init__(self) -> None:
        check_count(self.n)

    @property
    def element_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(n,)."""
        return (self.n,)

    @property
    def order(self) -> int:
        """n!."""
        return math.factorial(self.n)

    @cached_property
    def elements(self) -> Tensor:  # type: ignore[override]
        """All permutations in lexicographic order; memory n · n!."""
        return torch.tensor(list(permutations(range(self.n))))

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """0, 1, …, n-1."""
        return torch.arange(self.n, dtype=dtype or torch.int64, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """g[h]."""
        g, h = torch.broadcast_tensors(g, h)
        return g.gather(-1, h.long())

    def inverse(self, g: Tensor) -> Tensor:
        """The permutation that sorts g."""
        return g.argsort(-1).to(g.dtype)

    def generators(self) -> Tensor:
        """The n-1 swaps of neighbours (the identity for n = 1)."""
        swaps = [[*range(i), i + 1, i, *range(i + 2, self.n)] for i in range(self.n - 1)]
        return torch.tensor(swaps or [[0]])

    @classmethod
    def examples(cls) -> Iterator[Symmetric]:
        """S_1, S_3 and S_4."""
        yield from map(cls, (1, 3, 4))


@dataclass(frozen=True)
class Hyperoctahedral(FiniteGroup):
    """The point group B_d of the hypercubic lattice: d × d signed permutation matrices, order 2^d d!.

    B_2 is D_4, B_3 is O_h. A matrix g sends the displacement r to g r.

    Args:
        d: dimension, 1 to 4 (orders 2, 8, 48, 384).
    """

    d: int

    def __post_init__(self) -> None:
        if check_count(self.d, name="d") > 4:
            raise ValueError(f"expected 1 <= d <= 4, got {self.d}: lattices have at most four dimensions")

    @property
    def element_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(d, d)."""
        return (self.d, self.d)

    @cached_property
    def elements(self) -> Tensor:  # type: ignore[override]
        """Every permutation of the axes with every choice of signs: (2^d d!, d, d)."""
        axes = torch.eye(self.d, dtype=torch.int64)[torch.tensor(list(permutations(range(self.d))))]
        signs = torch.tensor(list(product((1, -1), repeat=self.d)))
        return (signs[None, :, :, None] * axes[:, None]).flatten(0, 1)

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """The unit matrix."""
        return torch.eye(self.d, dtype=dtype or torch.int64, device=device)

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """The matrix product (written as a sum: integers have no matrix product on accelerators)."""
        return (g[..., :, :, None] * h[..., None, :, :]).sum(-2)

    def inverse(self, g: Tensor) -> Tensor:
        """The transpose."""
        return check_elements(self, g).mT

    def generators(self) -> Tensor:
        """The reflection of the first axis, and the swaps of neighbouring axes."""
        swaps = Symmetric(self.d).generators()[: self.d - 1]
        reflection = torch.tensor([-1] + [1] * (self.d - 1)).diag()
        return torch.cat([reflection[None], torch.eye(self.d, dtype=torch.int64)[swaps]])

    @classmethod
    def examples(cls) -> Iterator[Hyperoctahedral]:
        """Point groups of the chain, the square and the cube."""
        yield from map(cls, (1, 2, 3))


@dataclass(frozen=True)
class Product(FiniteGroup):
    """The direct product G × H: elements are the entries of g followed by those of h, flattened.

    Args:
        left: the finite group G.
        right: the finite group H.
    """

    left: FiniteGroup
    right: FiniteGroup

    def __post_init__(self) -> None:
        for factor in (self.left, self.right):
            if not isinstance(factor, FiniteGroup):
                raise TypeError(f"expected two finite groups, got {factor!r}: pass for example Cyclic(2)")

    @property
    def element_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """(entries of g + entries of h,)."""
        return (math.prod(self.left.element_shape) + math.prod(self.right.element_shape),)

    @property
    def order(self) -> int:
        """|G| |H|."""
        return self.left.order * self.right.order

    @cached_property
    def elements(self) -> Tensor:  # type: ignore[override]
        """Every pair, the second factor fastest."""
        return self._join(self.left.elements[:, None], self.right.elements[None]).flatten(0, 1)

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """The pair of identities."""
        return self._join(self.left.identity(dtype, device), self.right.identity(dtype, device))

    def compose(self, g: Tensor, h: Tensor) -> Tensor:
        """(a, b)(c, d) = (a c, b d)."""
        (a, b), (c, d) = self.split(g), self.split(h)
        return self._join(self.left.compose(a, c), self.right.compose(b, d))

    def inverse(self, g: Tensor) -> Tensor:
        """(a, b)⁻¹ = (a⁻¹, b⁻¹)."""
        a, b = self.split(g)
        return self._join(self.left.inverse(a), self.right.inverse(b))

    def generators(self) -> Tensor:
        """The generators of either factor, with the identity of the other."""
        first = self._join(self.left.generators(), self.right.identity())
        return torch.cat([first, self._join(self.left.identity(), self.right.generators())])

    def split(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """The two factors of an element."""
        size = math.prod(self.left.element_shape)
        batch = check_elements(self, g).shape[:-1]
        return (
            g[..., :size].reshape((*batch, *self.left.element_shape)),
            g[..., size:].reshape((*batch, *self.right.element_shape)),
        )

    def _join(self, a: Tensor, b: Tensor) -> Tensor:
        """The element made of two factors; batch axes broadcast."""
        a = a.reshape(*a.shape[: a.ndim - len(self.left.element_shape)], -1)
        b = b.reshape(*b.shape[: b.ndim - len(self.right.element_shape)], -1)
        batch = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
        return torch.cat([a.expand(*batch, -1), b.expand(*batch, -1)], -1)

    @classmethod
    def examples(cls) -> Iterator[Product]:
        """Z_2 × D_4, and a nested product."""
        yield cls(Cyclic(2), Hyperoctahedral(2))
        yield cls(cls(Cyclic(2), Cyclic(2)), Symmetric(3))
