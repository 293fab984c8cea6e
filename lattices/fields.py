"""FieldSpace: a target (R, Rⁿ, S¹, Sⁿ, a group) on the cells of a lattice. It owns the reference measure.

Layout of a batch of fields: (batch, *extents, *target) on sites, (batch, d, *extents, *target) on links.

| target      | one value          | reference measure       | tangent vector v at x           |
|-------------|--------------------|-------------------------|---------------------------------|
| Real()      | ()                 | dx                      | any real                        |
| Real(n)     | (n,)               | dⁿx                     | any                             |
| Circle()    | () in [-π, π)      | dθ                      | any real                        |
| Sphere(n)   | (n + 1,), unit     | area of Sⁿ              | v·x = 0                         |
| Links(G)    | element of G       | normalised Haar         | element of the algebra: exp(v)x |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lattices.lattice import Lattice
from symmetries.group import LieGroup
from symmetries.lie import SU2, U1
from symmetries.spectra import traceless_anti_hermitian


class Target(ABC):
    """The manifold that one cell's value lives on."""

    shape: tuple[int, ...]
    is_complex: bool = False

    @abstractmethod
    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Values of shape (*shape, *self.shape): from the normalised reference measure, or standard normal on R."""

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """The end of the geodesic that leaves x with velocity v."""

    @abstractmethod
    def distance_from(self, x: Tensor) -> Tensor:
        """How far each value is from the manifold: 0 on it."""

    def project(self, x: Tensor) -> Tensor:
        """The nearest value on the manifold; the geodesic of no velocity, where that brings values back."""
        return self.exp(x, torch.zeros_like(x))

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        """The tangent vector g with df = ⟨g, v⟩ for all v, from the derivative of f that autograd gives."""
        return derivative

    def cotangent(self, x: Tensor, v: Tensor) -> Tensor:
        """A derivative whose `gradient` at x is the tangent vector v: what to pair with dx to get ⟨v, dx⟩."""
        return v

    def normal(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A standard normal tangent vector at every value of x: the momenta of Hamiltonian dynamics."""
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)

    def inner(self, v: Tensor, w: Tensor) -> Tensor:  # (..., *shape) -> (...)
        """⟨v, w⟩ of tangent vectors, in the metric whose volume is the reference measure (up to a constant)."""
        product = v * w
        return product.flatten(product.ndim - len(self.shape)).sum(-1) if self.shape else product


@dataclass(frozen=True)
class Real(Target):
    """R (n = 0: one number per cell) or Rⁿ, with Lebesgue measure."""

    n: int = 0

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.n,) if self.n else ()

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        return torch.randn((*shape, *self.shape), generator=generator, dtype=dtype, device=generator.device)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return x + v

    def distance_from(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@dataclass(frozen=True)
class Circle(Target):
    """S¹ as an angle in [-π, π), with measure dθ."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return ()

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        uniform = torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)
        return 2 * math.pi * uniform - math.pi

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.remainder(x + v + math.pi, 2 * math.pi) - math.pi

    def distance_from(self, x: Tensor) -> Tensor:
        return (x.abs() - math.pi).clamp(min=0)


@dataclass(frozen=True)
class Sphere(Target):
    """The unit sphere Sⁿ in Rⁿ⁺¹, with the area measure; v is tangent."""

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"expected a sphere S^n with n >= 1, got n = {self.n}: use Sphere(2) for unit vectors")

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.n + 1,)

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        x = torch.randn((*shape, self.n + 1), generator=generator, dtype=dtype, device=generator.device)
        return x / x.norm(dim=-1, keepdim=True)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        angle = v.norm(dim=-1, keepdim=True)
        return angle.cos() * x + torch.sinc(angle / math.pi) * v

    def distance_from(self, x: Tensor) -> Tensor:
        return (x.norm(dim=-1) - 1).abs()

    def project(self, x: Tensor) -> Tensor:
        length = x.norm(dim=-1, keepdim=True)
        if not (length > 0).all():
            raise ValueError("expected vectors with a direction, got one of length 0 or NaN: leave it out")
        return x / length

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return derivative - (derivative * x).sum(-1, keepdim=True) * x

    def normal(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.gradient(x, super().normal(x, generator))


@dataclass(frozen=True)
class Links(Target):
    """A compact Lie group with its normalised Haar measure; exp(x, v) = exp(v) x for v in the algebra.

    The metric is ⟨v, w⟩ = v w on U(1) and -2 Tr(v w) on SU(N), for which the T_a of the group are orthonormal.
    """

    group: LieGroup

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self.group.element_shape)

    @property
    def is_complex(self) -> bool:  # type: ignore[override]
        return self.group.identity().is_complex()

    def random(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        dtype = dtype.to_complex() if self.is_complex else dtype
        return self.group.random(math.prod(shape), generator, dtype).reshape(*shape, *self.shape)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self.group.compose(self.group.exp(v), x)

    def distance_from(self, x: Tensor) -> Tensor:
        """Entries of |U†U - 1|, or |det U - 1| where that is larger; of an angle, its distance from [-π, π]."""
        if not self.shape:
            return (x - self.group.project(x)).abs()
        unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        special = (torch.linalg.det(x) - 1).abs()[..., None, None]
        return torch.maximum((x.mH @ x - unit).abs(), special)

    def project(self, x: Tensor) -> Tensor:
        return self.group.project(x)

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        """-½ [x D†], projected on the algebra: df = Re Tr(D† v x)."""
        return -0.5 * traceless_anti_hermitian(x @ derivative.mH) if self.shape else derivative

    def cotangent(self, x: Tensor, v: Tensor) -> Tensor:
        return 2 * v @ x if self.shape else v

    def normal(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.shape:
            return super().normal(x, generator)
        basis = self.group.algebra_basis(x.dtype, x.device)
        shape = (*x.shape[:-2], len(basis))
        components = torch.randn(shape, generator=generator, dtype=x.dtype.to_real(), device=x.device)
        return (components.to(x.dtype) @ basis.flatten(1)).unflatten(-1, self.shape)

    def inner(self, v: Tensor, w: Tensor) -> Tensor:
        return 2 * (v * w.conj()).real.sum((-2, -1)) if self.shape else v * w


@dataclass(frozen=True)
class Transformation:
    """A named, measure-preserving map of fields to fields: x ↦ g·x, batched.

    It is a frozen dataclass with `apply`; the concrete ones live in `lattices/invariance.py`.
    """

    def apply(self, x: Tensor, field: FieldSpace) -> Tensor:  # (batch, *event) -> (batch, *event)
        """The transformed batch g·x."""
        raise NotImplementedError(f"{type(self).__name__} defines no apply(x, field)")


@dataclass(frozen=True)
class FieldSpace:
    """All fields with values in `target` on the `cells` ("sites" or "links") of `lattice`.

    Example: `FieldSpace(Lattice((8, 8)))` is the space of real scalar fields, event_shape (8, 8).
    """

    lattice: Lattice
    target: Target = Real()
    cells: str = "sites"

    def __post_init__(self) -> None:
        if self.cells not in ("sites", "links"):
            raise ValueError(f"expected cells 'sites' or 'links', got {self.cells!r}: choose one of the two")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one configuration, without the batch axis."""
        links = (self.lattice.dimension,) if self.cells == "links" else ()
        return (*links, *self.lattice.extents, *self.target.shape)

    @property
    def lattice_axes(self) -> tuple[int, ...]:
        """Where the lattice axes are in a batch, counted from the end."""
        return tuple(axis - len(self.target.shape) for axis in self.lattice.axes)

    def random(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """n independent fields: uniform on compact targets, standard normal on R.  -> (n, *event)"""
        if n < 1:
            raise ValueError(f"expected n >= 1 fields, got {n}: ask for at least one")
        if not isinstance(generator, torch.Generator):
            got = type(generator).__name__
            raise TypeError(f"expected a torch.Generator, got {got}: pass torch.Generator().manual_seed(1)")
        cells = self.event_shape[: len(self.event_shape) - len(self.target.shape)]
        return self.target.random((n, *cells), generator, dtype)

    def act(self, g: Transformation, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, *event)
        """The transformed batch g·x; every g preserves the reference measure."""
        return g.apply(x, self)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:  # (batch, *event), tangent -> (batch, *event)
        """Move every cell along its geodesic: exp_x(v), with exp(x, 0) = x."""
        return self.target.exp(x, v)

    def contains(self, x: Tensor, tolerance: float = 1e-5) -> Tensor:  # (batch, *event) -> (batch,)
        """Which configurations are finite and on the target manifold within `tolerance`."""
        shaped = self._check_shape(x)
        near = self.target.distance_from(shaped).flatten(1) <= tolerance
        return near.all(1) & shaped.isfinite().flatten(1).all(1)

    def validate(self, x: Tensor, values: bool = True) -> Tensor:  # (batch, *event) -> the same tensor
        """Return x, or raise a ValueError/TypeError that says what is wrong with shape, dtype or (if asked) values."""
        if not values:
            return self._check_shape(x)
        bad = (~self.contains(x)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"expected finite fields on {self.target}, got NaN, Inf or values off the manifold in "
                f"{len(bad)} of {len(x)} configurations (first: number {bad[0]}): check where they come from; "
                "x = field.target.project(x) brings finite ones back"
            )
        return x

    def _check_shape(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a torch.Tensor of fields, got {type(x).__name__}: use torch.as_tensor")
        if not (x.is_complex() if self.target.is_complex else x.is_floating_point()):
            kind = "complex" if self.target.is_complex else "real floating point"
            raise TypeError(f"expected a {kind} field, got {x.dtype}: convert it, e.g. with x.to(torch.float64)")
        if tuple(x.shape[1:]) != self.event_shape or x.ndim != 1 + len(self.event_shape):
            hint = "add a batch axis with x[None]" if tuple(x.shape) == self.event_shape else "check the lattice"
            raise ValueError(f"expected shape (batch, *{self.event_shape}), got {tuple(x.shape)}: {hint}")
        if not len(x):
            raise ValueError("expected at least one configuration, got an empty batch: leave it out")
        return x

    @classmethod
    def examples(cls) -> Iterator[FieldSpace]:
        """One space for every target."""
        square = Lattice((4, 4))
        yield from (cls(square, target) for target in (Real(), Real(2), Circle(), Sphere(2)))
        yield from (cls(Lattice((2, 3)), Links(group), "links") for group in (U1(), SU2()))
        yield cls(Lattice((2, 3, 4)))
