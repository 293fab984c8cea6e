"""Potentials made invariant: means over a finite group of rotations and reflections of the sphere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from flows.transforms.potentials import Derivatives, Potential, RadialPotential, SoftMinimumPotential
from lattices.spins import SpinPointGroup

MAX_ORDER = 1000


@final
class SymmetrizedPotential(Potential):
    """The mean of a potential over a finite group of orthogonal matrices: φ̄(x) = (1/|G|) Σ_g φ(g x).

    Its exponential map commutes with G: exp_gx(∇φ̄(gx)) = g exp_x(∇φ̄(x)). Cost |G| times that of φ.

    Args:
        potential: φ.
        generators: orthogonal n × n matrices, each as a tuple of rows; the group they generate is closed numerically.
    Symmetries: the group.
    """

    elements: Tensor

    def __init__(self, potential: Potential, generators: tuple[tuple[tuple[float, ...], ...], ...]) -> None:
        super().__init__()
        self.n, self.potential = potential.n, potential
        claim = SpinPointGroup(generators)
        elements = generated_group(claim)
        if elements.shape[-1] != potential.n:
            raise ValueError(
                f"expected {self.n} × {self.n} matrices, got {tuple(elements.shape[1:])}: match the sphere"
            )
        self.register_buffer("elements", elements.to(next(potential.parameters()).dtype))
        self.symmetries = (claim,)

    def value(self, x: Tensor) -> Tensor:
        return self.potential.value(self._images(x)).mean(0)

    def derivatives(self, x: Tensor) -> Derivatives:
        gradient, hessian = self.potential.derivatives(self._images(x))
        return Derivatives(
            torch.einsum("gij,g...i->...j", self.elements, gradient) / len(self.elements),
            torch.einsum("gij,g...ik,gkl->...jl", self.elements, hessian, self.elements) / len(self.elements),
        )

    def _images(self, x: Tensor) -> Tensor:  # (..., n) -> (order, ..., n)
        return torch.einsum("gij,...j->g...i", self.elements, x)

    @classmethod
    def examples(cls) -> Iterator[SymmetrizedPotential]:
        """Bumps on S² with the symmetry of a triangle, and a soft minimum on S¹ with that of a square."""
        yield cls(RadialPotential(3, 2), (((0, 1, 0), (0, 0, 1), (1, 0, 0)),))
        yield cls(SoftMinimumPotential(2, 2), (((0, -1), (1, 0)), ((1, 0), (0, -1))))


def generated_group(claim: SpinPointGroup) -> Tensor:  # -> (order, n, n)
    """All products of the generators, in float64; ValueError if there are more than `MAX_ORDER`."""
    generators = torch.tensor(claim.matrices, dtype=torch.float64)
    elements = new = torch.eye(generators.shape[-1], dtype=torch.float64)[None]
    while len(new):
        products = _distinct((generators[:, None] @ new).flatten(0, 1))
        new = products[_distances(products, elements).amin(1) > 1e-6]
        elements = torch.cat([elements, new])
        if len(elements) > MAX_ORDER:
            raise ValueError(f"expected a group of at most {MAX_ORDER} elements, got more: use angles 2π/k")
    return elements


def _distinct(matrices: Tensor) -> Tensor:  # (m, n, n) -> (at most m, n, n)
    """The first of every set of equal matrices."""
    equal = _distances(matrices, matrices) < 1e-6
    return matrices[equal.int().argmax(1) == torch.arange(len(matrices))]


def _distances(a: Tensor, b: Tensor) -> Tensor:  # (m, n, n), (k, n, n) -> (m, k)
    return torch.cdist(a.flatten(1), b.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
