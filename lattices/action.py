"""Action: the energy functional S(x) of weight exp(-S), with a force and an algebra; ActionFamily: S = Σ J_a O_a(x)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import TypeVar

import torch
from torch import Tensor

from lattices.fields import FieldSpace, Transformation
from lattices.invariance import Symmetry, shared_symmetries

T = TypeVar("T", bound="Action")


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
        """-∂S/∂x, by automatic differentiation unless a theory knows it in closed form."""
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return -torch.autograd.grad(self.energy(y).sum(), y)[0]

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


class ActionFamily(ABC):
    """Actions linear in their couplings: S(x; J) = Σ_a J_a O_a(x).

    The renormalization group lives on families: `operators` are measured once, every J is then a scalar product.
    """

    names: tuple[str, ...]

    @property
    @abstractmethod
    def field(self) -> FieldSpace:
        """The space that x lives in."""

    @abstractmethod
    def operators(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n)
        """O_a(x), extensive, in the order of `names`."""

    @abstractmethod
    def at(self, couplings: Tensor) -> Action:  # (n,) -> Action
        """The action with these couplings."""

    def energy(self, x: Tensor, couplings: Tensor) -> Tensor:  # (batch, *event), (n,) or (batch, n) -> (batch,)
        """S(x; J), with one J for all or one for each configuration."""
        if couplings.shape[-1] != len(self.names):
            raise ValueError(f"expected couplings {self.names}, got shape {tuple(couplings.shape)}: one per operator")
        return (self.operators(x) * couplings).sum(-1)

    @classmethod
    @abstractmethod
    def examples(cls) -> Iterator[ActionFamily]:
        """Small instances: documentation first, test data second."""
