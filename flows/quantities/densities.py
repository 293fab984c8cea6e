"""The quantities of densities on one sphere or one torus: mean directions, second moments, pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from flows import density_plots, plots
from flows.quantities.quantities import Average, Identity, Quantities, mean
from flows.tables import Column
from lattices.action import Action
from lattices.exact import on_link
from lattices.fields import Circle, Sphere
from lattices.invariance import Translations
from lattices.statistics import Estimate
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.torus_correlated import TorusCorrelated
from lattices.theories.torus_mixture import TorusMixture

Wave = tuple[int, ...]
SCHWINGER_DYSON = "⟨|∇S|² - ∇²S⟩"


def is_density(action: Action) -> bool:
    """Whether a field is one point of a sphere or a torus, not spins on a lattice that could be translated."""
    field = action.field
    single = field.lattice.volume == 1
    fixed = isinstance(field.target, Circle) and not Translations().follows_from(action.symmetries)
    return fixed or (single and isinstance(field.target, Circle | Sphere))


@dataclass(frozen=True)
class DensityQuantities(Quantities):
    """Coordinates and their squares on a sphere; on a torus cos k·t and sin k·t of the shortest waves k."""

    @property
    def waves(self) -> list[Wave]:
        """Each angle, and up to T⁴ twice each angle, sums and differences of two."""
        return shortest_waves(self.action.field.lattice.volume)

    @property
    def names(self) -> list[str]:
        """The rows, in the order of what `measure` calls moments."""
        if isinstance(self.action.field.target, Sphere):
            coordinates = [f"x{_small(a + 1)}" for a in range(self.action.field.target.shape[0])]
            return [f"⟨{x}⟩" for x in coordinates] + [f"⟨{x}²⟩" for x in coordinates]
        return [f"⟨{function} {_phase(wave)}⟩" for function in ("cos", "sin") for wave in self.waves]

    def moments(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch, n)
        """The numbers called `names`; they need no energy."""
        points = x.flatten(1)
        if isinstance(self.action.field.target, Sphere):
            return torch.cat([points, points.square()], 1)
        phases = points @ points.new_tensor(self.waves).mT
        return torch.cat([phases.cos(), phases.sin()], 1)

    def measure(self, x: Tensor) -> dict[str, Tensor]:  # (batch, *event) -> {name: (batch, …)}
        """The moments, the points themselves, and |∇S|² - ∇²S."""
        moments, force = self.moments(x), self.action.force(x)
        balance = self.action.field.target.inner(force, force).flatten(1).sum(1) - laplacian(self.action, x)
        return {"moments": moments, "points": x.flatten(1), "first": moments[:, 0], "schwinger_dyson": balance}

    def rows(self, measured: Mapping[str, Tensor], average: Average) -> dict[str, Estimate]:
        rows = {name: mean(average, values) for name, values in zip(self.names, measured["moments"].unbind(-1))}
        return rows | {SCHWINGER_DYSON: mean(average, measured["schwinger_dyson"])}

    def exact(self) -> dict[str, float]:
        """log Z and all moments of the mixtures and of the wave; the identity."""
        found, action = {SCHWINGER_DYSON: 0.0}, self.action
        if isinstance(action, SphereMixture | TorusMixture | TorusCorrelated):
            found["log Z"] = action.log_z()
        if isinstance(action, SphereMixture):
            found |= zip(self.names, sphere_moments(action))
        if isinstance(action, TorusMixture | TorusCorrelated):
            values = [characteristic(action, wave) for wave in self.waves]
            found |= zip(self.names, [z.real for z in values] + [z.imag for z in values])
        return found

    @property
    def identity(self) -> Identity:
        return Identity(f"{SCHWINGER_DYSON} = 0", "schwinger_dyson", 0.0)

    @property
    def slow(self) -> tuple[str, str]:
        return self.names[0][1:-1], "first"

    def start(self, n: int, generator: torch.Generator) -> Tensor:  # -> (n, *event)
        """Uniform points."""
        return self.action.field.random(n, generator)

    def draw(self, columns: Sequence[Column], samples: Mapping[str, Tensor], indices: Tensor, folder: Path) -> None:
        plots.metropolis_history(samples["first"], indices, folder / "metropolis.png", self.slow[0])
        density_plots.density(self.action, samples["points"], samples["log_weights"], folder / "density.png")


def laplacian(action: Action, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
    """∇²S by automatic differentiation: of S(x/|x|) in the space around a sphere. Cost D gradients."""
    sphere = isinstance(action.field.target, Sphere)

    def energy(y: Tensor) -> Tensor:  # (*event) -> ()
        return action.energy((y / y.norm() if sphere else y)[None])[0]

    hessian = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(energy)))(x)
    size = x[0].numel()
    return hessian.reshape(len(x), size, size).diagonal(dim1=1, dim2=2).sum(1)


def shortest_waves(dimension: int) -> list[Wave]:
    """Whole vectors k: e_i; up to D = 4 also 2e_i, e_i + e_j and e_i - e_j."""
    unit = torch.eye(dimension, dtype=torch.long)
    pairs = [unit[i] + sign * unit[j] for i, j in combinations(range(dimension), 2) for sign in (1, -1)]
    rows = [*unit, *(2 * unit), *pairs] if dimension <= 4 else [*unit]
    return [tuple(row.tolist()) for row in rows]


def sphere_moments(action: SphereMixture) -> list[float]:
    """⟨x_a⟩ = Σ_k w_k u_1 μ_ka and ⟨x_a²⟩ - 1/n = Σ_k w_k u_2 (μ_ka² - 1/n), u_l = λ_l(κ)/λ_0 of one link."""
    n, weights = action.dimension + 1, torch.tensor(action.weights, dtype=torch.float64)
    means = torch.tensor(action.centres, dtype=torch.float64).reshape(-1, n)
    ratios, shares = on_link(n, action.concentration).ratios, weights / weights.sum()
    second = 1 / n + ratios[2] * (shares @ means.square() - 1 / n)
    return [*(ratios[1] * (shares @ means)).tolist(), *second.tolist()]


def characteristic(action: TorusMixture | TorusCorrelated, wave: Wave) -> complex:
    """⟨e^{ik·t}⟩: Σ_j w_j e^{ik·c_j} Π_i u_{|k_i|}(κ) of mixtures; u_{|j|}(κ) e^{ijφ} of a wave m where k = j m."""
    ratios = on_link(2, action.concentration).ratios
    if isinstance(action, TorusCorrelated):
        multiples = [j for j in (-2, -1, 1, 2) if tuple(j * m for m in action.wave) == wave]
        return sum(complex(ratios[abs(j)]) * _unit(j * action.phase) for j in multiples) + 0j
    centres = torch.tensor(action.centres, dtype=torch.float64).reshape(-1, len(wave))
    phases = (centres @ centres.new_tensor(wave)).tolist()
    mixed = sum(w * _unit(phase) for w, phase in zip(action.weights, phases)) / math.fsum(action.weights)
    return mixed * math.prod(float(ratios[abs(k)]) for k in wave)


def _unit(phase: float) -> complex:
    return complex(math.cos(phase), math.sin(phase))


def _small(number: int) -> str:
    """A subscript."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _phase(wave: Wave) -> str:
    """k·t in words: t₁, 2t₂, t₁-t₂."""
    terms = [f"{'-' if k < 0 else '+'}{abs(k) if abs(k) > 1 else ''}t{_small(i + 1)}" for i, k in enumerate(wave) if k]
    text = "".join(terms).removeprefix("+")
    return f"({text})" if len(terms) > 1 else text
