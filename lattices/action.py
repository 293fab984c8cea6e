"""Action: the energy S(x) of weight exp(-S), its force and an algebra; Family: S(x; J), actions by named couplings."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

from lattices.fields import FieldSpace, Transformation
from lattices.invariance import Symmetry, shared_symmetries
from lattices.lattice import Lattice

T = TypeVar("T", bound="Action")
F = TypeVar("F", bound="Family")


class Action(ABC):
    """A functional S(x) on a field space, the target density being exp(-S(x)) / Z.

    A theory implements `field`, `energy` and `symmetries`, and names one `broken` transformation that is no symmetry
    (the negative control of its tests). Two actions on the same space add; a number scales.

    `action(x)` validates its input (shape, dtype, finite values); `action.energy(x)` does not, for inner loops.
    """

    @property
    @abstractmethod
    def field(self) -> FieldSpace:
        """The space that x lives in, with its reference measure."""

    @property
    @abstractmethod
    def symmetries(self) -> tuple[Symmetry, ...]:
        """What is claimed to leave S unchanged."""

    @property
    @abstractmethod
    def broken(self) -> Transformation:
        """A transformation that changes S."""

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        """S(x) for each configuration, in the dtype of x."""

    def force(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
        """-∂S/∂x, a tangent vector (of a group: in its algebra); by automatic differentiation unless in closed form."""
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            derivative = torch.autograd.grad(self.energy(y).sum(), y)[0]
        return -self.field.target.gradient(y.detach(), derivative)

    def gaussian_spectrum(self) -> Tensor | None:  # -> (*extents) or None
        """Variances of the Fourier modes in the best Gaussian approximation of exp(-S): where flows may start.

        In FFT order: x = ifft(√C fft(white noise)) has the covariance of that Gaussian. None where there is none.
        """
        return None

    @classmethod
    @abstractmethod
    def examples(cls: type[T]) -> Iterator[T]:
        """Small instances: documentation first, test data second."""

    def __call__(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        return self.energy(self.field.validate(x))

    def __add__(self, other: Action) -> Action:
        if not isinstance(other, Action):
            raise TypeError(f"expected an Action to add, got {other!r}: a constant changes log Z alone, add it there")
        return Combination(((1.0, self), (1.0, other)))

    def __mul__(self, factor: float) -> Action:
        if not isinstance(factor, Real) or not math.isfinite(factor):
            raise TypeError(f"expected a finite number to scale an action with, got {factor!r}: pass a float")
        return Combination(((float(factor), self),))

    __rmul__ = __mul__

    def __sub__(self, other: Action) -> Action:
        return self + (-1.0) * other


@dataclass(frozen=True)
class Combination(Action):
    """The linear combination Σ_i c_i S_i of actions on one field space; claims the symmetries common to all.

    The path from an easy to a hard action is `(1 - t) * easy + t * hard`.
    """

    terms: tuple[tuple[float, Action], ...]

    def __post_init__(self) -> None:
        spaces = {action.field for _, action in self.terms}
        if len(spaces) != 1:
            raise ValueError(f"expected actions on one field space, got {spaces}: build them on the same lattice")

    @property
    def field(self) -> FieldSpace:
        return self.terms[0][1].field

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return shared_symmetries(*(action.symmetries for _, action in self.terms))

    @property
    def broken(self) -> Transformation:
        return self.terms[0][1].broken

    def energy(self, x: Tensor) -> Tensor:
        return torch.stack([c * action.energy(x) for c, action in self.terms]).sum(0)

    def force(self, x: Tensor) -> Tensor:
        return torch.stack([c * action.force(x) for c, action in self.terms]).sum(0)

    @classmethod
    def examples(cls) -> Iterator[Combination]:
        """A quarter of the way from a free field to φ⁴."""
        from lattices.theories.free_field import FreeField
        from lattices.theories.phi4 import Phi4

        easy, hard = (
            FreeField(extents=(4, 4), mass_squared=1.0),
            Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0),
        )
        yield cls(((0.75, easy), (0.25, hard)))


class Family(ABC):
    """Actions S(x; J) that differ by the values of named couplings J: where the renormalization group moves.

    Teachers are trained over a range of J, so `energy` takes one J for each configuration and is differentiable in J.
    A family implements `names`, `field`, `energy`, `at` and `examples`; it is a frozen dataclass with `extents`, or
    has its own `on`. Families linear in J derive from `ActionFamily`; `Section` fixes some couplings of a family.

    `check(J)` validates couplings (shape, finite, stable); `energy` checks their shape alone, for inner loops.
    """

    names: tuple[str, ...]

    @property
    @abstractmethod
    def field(self) -> FieldSpace:
        """The space that x lives in."""

    @abstractmethod
    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:  # (batch, *event), (n,) or (batch, n) -> (batch,)
        """S(x; J) in the dtype of x, with one J for all or one for each configuration."""

    @abstractmethod
    def at(self, couplings: Tensor) -> Action:  # (n,) -> Action
        """The action with these couplings; ValueError if there is none."""

    def on(self: F, lattice: Lattice | tuple[int, ...]) -> F:
        """The same family, couplings and all, on another lattice of the same dimension."""
        if not is_dataclass(self) or not hasattr(self, "extents"):
            raise TypeError(f"expected a dataclass with extents, got {type(self).__name__}: give it an on(lattice)")
        extents = (lattice if isinstance(lattice, Lattice) else Lattice(lattice)).extents
        if len(extents) != len(self.extents):
            raise ValueError(f"expected {len(self.extents)} extents, got {extents}: couplings depend on the dimension")
        return replace(self, extents=extents)

    def check(self, couplings: Tensor) -> Tensor:  # (n,) or (batch, n) -> the same tensor
        """Return J, or raise a ValueError: wrong shape, not finite, or no stable action. Cost one `at` per row."""
        check_couplings(self.names, couplings)
        for row in couplings.detach().reshape(-1, len(self.names)).unique(dim=0):
            self.at(row)
        return couplings

    @classmethod
    @abstractmethod
    def examples(cls: type[F]) -> Iterator[F]:
        """Small instances: documentation first, test data second."""


def check_couplings(names: tuple[str, ...], couplings: Tensor, batch: int | None = None) -> None:
    """Raise unless couplings are (n,) or (batch, n), and finite if no `batch` is given (inner loops give one)."""
    if couplings.ndim not in (1, 2) or couplings.shape[-1] != len(names):
        raise ValueError(f"expected couplings {names}, got shape {tuple(couplings.shape)}: one per operator")
    if batch is not None:
        if couplings.ndim == 2 and len(couplings) not in (1, batch):
            raise ValueError(f"expected one row of couplings for each of {batch} fields, got {len(couplings)} rows")
    elif not couplings.isfinite().all():
        raise ValueError(f"expected finite couplings {names}, got NaN or Inf: check where they come from")


def named_couplings(names: tuple[str, ...], couplings: Tensor) -> dict[str, float]:
    """{name: value} of the couplings (n,) of one action; ValueError for another shape, NaN or Inf."""
    if couplings.ndim != 1:
        raise ValueError(f"expected couplings {names} of one action, got shape {tuple(couplings.shape)}: pass one row")
    check_couplings(names, couplings)
    return dict(zip(names, couplings.tolist()))


class ActionFamily(Family):
    """Actions linear in their couplings: S(x; J) = Σ_a J_a O_a(x).

    `operators` are measured once, every J is then a scalar product.
    """

    @abstractmethod
    def operators(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n)
        """O_a(x), extensive, in the order of `names`."""

    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:  # (batch, *event), (n,) or (batch, n) -> (batch,)
        """S(x; J), with one J for all or one for each configuration."""
        check_couplings(self.names, couplings, len(x))
        operators = self.operators(x)
        return (operators * couplings.to(operators)).sum(-1)
