"""Groups: what can be composed and undone, before anything is said about where it acts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor


class Group(ABC):
    """A group whose elements are tensors of one shape, with any number of leading batch axes.

    (g h) k = g (h k),  e g = g,  g⁻¹ g = e. The product g h acts with h first. Concrete groups are frozen
    dataclasses: they hold no tensors, compare by value, and print as they are typed.
    """

    element_shape: tuple[int, ...]

    @abstractmethod
    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """The neutral element, without batch axes."""

    @abstractmethod
    def compose(self, g: Tensor, h: Tensor) -> Tensor:  # (..., *element), (..., *element) -> (..., *element)
        """The product g h; batch axes broadcast."""

    @abstractmethod
    def inverse(self, g: Tensor) -> Tensor:  # (..., *element) -> (..., *element)
        """The element g⁻¹."""

    @abstractmethod
    def generators(self) -> Tensor:  # -> (n_generators, *element)
        """A few elements whose products fill the group (a Lie group: densely); laws are tested on them."""

    @abstractmethod
    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """Draw n elements from the uniform (Haar) measure: (n, *element), on the generator's device."""

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[Group]:
        """Small instances: documentation first, test data second."""


class FiniteGroup(Group):
    """A group that can list its elements, as integer tensors (int64)."""

    elements: Tensor  # (order, *element), the identity first; cached, not to be written to

    @property
    def order(self) -> int:
        """The number of elements |G|."""
        return len(self.elements)

    def index(self, g: Tensor) -> Tensor:  # (..., *element) -> (...)
        """The position of each g in `elements`; cost |G| per element. Raises ValueError for strangers."""
        batch = check_elements(self, g).shape[: g.ndim - len(self.element_shape)]
        same = g.reshape(-1, 1, *self.element_shape) == self.elements.to(g.device)
        same = same.flatten(2).all(-1) if self.element_shape else same
        if not same.any(-1).all():
            raise ValueError(f"expected elements of {self}, got a tensor that is not among its elements")
        return same.to(torch.uint8).argmax(-1).reshape(batch)

    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """Draw n elements, each with probability 1/|G|."""
        check_count(n)
        pick = torch.randint(self.order, (n,), generator=generator, device=generator.device)
        return self.elements.to(device=generator.device, dtype=dtype)[pick]


class LieGroup(Group):
    """A compact Lie group: elements and algebra share `element_shape`; the real algebra has `dim` directions.

    exp(v) is the exponential of an algebra element, log its inverse near the identity (the shortest one).
    """

    dim: int

    @abstractmethod
    def algebra_basis(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """Orthonormal directions T_a of the algebra: (dim, *element)."""

    @abstractmethod
    def exp(self, v: Tensor) -> Tensor:  # (..., *element) -> (..., *element)
        """The group element exp(v) of an algebra element v; differentiable everywhere."""

    @abstractmethod
    def log(self, g: Tensor) -> Tensor:  # (..., *element) -> (..., *element)
        """The shortest algebra element v with exp(v) = g."""

    def identity(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        """The neutral element exp(0)."""
        return self.exp(torch.zeros_like(self.algebra_basis(dtype, device)[0]))

    def generators(self) -> Tensor:  # -> (dim, *element)
        """The elements exp(T_a), whose products are dense in the group."""
        return self.exp(self.algebra_basis())

    def project(self, g: Tensor) -> Tensor:  # (..., *element) -> (..., *element)
        """The group element nearest to g: removes the rounding that long products collect."""
        return self.exp(self.log(g))

    def contains(self, g: Tensor, tolerance: float = 1e-10) -> Tensor:  # (..., *element) -> (...) bool
        """Whether g⁻¹ project(g) is the identity within `tolerance` in every entry; False for NaN."""
        shift = self.compose(self.inverse(check_elements(self, g)), self.project(g))
        near = (shift - self.identity(shift.dtype, shift.device)).abs() <= tolerance
        return near.flatten(g.ndim - len(self.element_shape)).all(-1) if self.element_shape else near


def check_elements(group: Group, g: Tensor) -> Tensor:
    """Return g if its trailing axes are those of an element of `group`; a clear ValueError otherwise."""
    shape = tuple(group.element_shape)
    if tuple(g.shape[g.ndim - len(shape) :]) != shape or g.ndim < len(shape):
        raise ValueError(
            f"expected elements of {group} with shape (..., {', '.join(map(str, shape))}), "
            f"got {tuple(g.shape)}: put batch axes in front"
        )
    return g


def check_count(n: int, smallest: int = 1, name: str = "n") -> int:
    """Return n if it is an integer of at least `smallest`; a clear TypeError or ValueError otherwise."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"expected {name} to be an int, got {n!r}: pass a whole number")
    if n < smallest:
        raise ValueError(f"expected {name} >= {smallest}, got {n}: pass a larger whole number")
    return n
