"""How do I send my own theory through the renormalization group? One class: operators, and the action they make.

A scalar field in wells that no polynomial makes, S = Σ_x [-β Σ_μ φ_x φ_{x+μ} + φ⁴ + a cos πφ]: the family below has
the operators of β and a; a course varies β at a = 1. Cluster updates, flows, lessons and analysis need to know
nothing else. The theory has the symmetry of the Ising model, so ν = 1 and Δσ = 1/8 are its reference; nobody
has published β_c. Answer from a 2×2 student: β_c = 0.652(12), ν = 0.69(5), Δσ = 0.18(2), statistical errors only:
so small a lattice is far from ν = 1, larger ones are one argument of `Course` away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.updates.natural import NaturalGradient
from lattices.action import Action, ActionFamily
from lattices.fields import FieldSpace, Transformation
from lattices.invariance import PointGroup, SignFlip, SiteSign, Symmetry, Translations
from lattices.lattice import Lattice
from lattices.theories.families import Section
from mlrg.analysis import pair_results
from mlrg.couplings import CouplingSpace
from mlrg.course import Course, run_course
from mlrg.systems import System
from mlrg.teacher import Recipe, train


@dataclass(frozen=True)
class CosineWells(ActionFamily):
    """S = -β Σ φ_x φ_{x+μ} + a Σ cos πφ + b Σ φ⁴, linear in its couplings."""

    extents: tuple[int, ...]
    names = ("beta", "wells", "quartic")

    @property
    def field(self) -> FieldSpace:
        return FieldSpace(Lattice(self.extents))

    def operators(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch, 3)
        hopping = sum(x * x.roll(-1, axis) for axis in self.field.lattice_axes)
        return torch.stack([o.flatten(1).sum(1) for o in (-hopping, (math.pi * x).cos(), x**4)], 1)

    def at(self, couplings: Tensor) -> Well:
        if not float(couplings[2]) > 0:
            raise ValueError(f"expected quartic > 0, got {float(couplings[2])}: the field must be bound")
        return Well(self, tuple(couplings.tolist()))

    @classmethod
    def examples(cls) -> Iterator[CosineWells]:
        """A small torus."""
        yield cls((4, 4))


@dataclass(frozen=True)
class Well(Action):
    """One action of the family: what chains and flows ask for."""

    family: CosineWells
    couplings: tuple[float, ...]

    @property
    def field(self) -> FieldSpace:
        return self.family.field

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return Translations(), PointGroup(), SignFlip()

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *extents) -> (batch,)
        return self.family.energy(x, x.new_tensor(self.couplings))

    def gaussian_spectrum(self) -> Tensor:  # -> extents
        """A gap of ¼ stands for the wells: flows start there, nothing depends on it."""
        return 1 / (0.5 + self.couplings[0] * self.field.lattice.laplacian_spectrum())

    @classmethod
    def examples(cls) -> Iterator[Well]:
        """Near the transition."""
        yield cls(CosineWells((4, 4)), (0.65, 1.0, 1.0))


FAMILY = Section(CosineWells((2, 2)), ("beta",), (0.0, 1.0, 1.0), ((1.0,), (0.0,), (0.0,)))
RECIPE = Recipe(frequencies=(0.8, 1.6), modulations=(1.2,), tails=(), n_times=2, n_steps=4, context_degree=1)
SYSTEM = System(
    "cosine-wells", FAMILY, CouplingSpace(("beta",), (0.35,), (1.05,)), CouplingSpace(("beta",), (0.58,), (0.74,)),
    ((0.4,), (1.0,)), RECIPE, 1.75, {"y_t": 1.0, "nu": 1.0, "delta_sigma": 0.125},
)  # fmt: skip


def main(n_steps: int = 6, n_lessons: int = 3, n_samples: int = 4000, n_training: int = 1000) -> dict[str, float]:
    """Train a student on 2×2 sites, teach it by 4×4, read the critical coupling off."""
    update, generator = NaturalGradient(n_training, 512, damping=1e-3), torch.Generator().manual_seed(0)
    student, _ = train(FAMILY, SYSTEM.space, RECIPE, generator=generator, n_steps=n_steps, update=update)
    teacher = student.precise()
    course = Course(SYSTEM.name, (2,), (1,), n_lessons, n_samples=n_samples, source="chains", n_replicates=50)
    lessons = run_course(course, lambda extent: teacher, which=SYSTEM, report=print)
    found = pair_results(course, SYSTEM, 2, 1, lessons[2, 1])
    if "problem" in found:
        raise ValueError(found["problem"])
    critical, nu = found["critical_coupling"], found["nu"]
    print(f"β_c = {critical}, ν = {nu}, Δσ = {found['delta_sigma']}, residual KL {found['residual_kl']}")
    return {"critical_coupling": critical.value, "error": critical.error, "nu": nu.value, "nu_error": nu.error}


if __name__ == "__main__":
    main()
