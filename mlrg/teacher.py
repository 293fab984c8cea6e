"""Teacher: a conditional hierarchical flow of a family of actions, with an exact likelihood at every level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from flows.bases import GaussianField
from flows.distribution import Transformed
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.training import Fit, Settings, fit
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.action import Family
from lattices.blocking import Blocking
from lattices.fields import FieldSpace
from mlrg.couplings import CouplingSpace
from mlrg.ensembles import Ensemble
from mlrg.hierarchy import Details, HierarchicalFlow


@dataclass(frozen=True)
class Recipe:
    """What a hierarchical flow is made of: plain numbers, the same for every level.

    Args:
        coarsest: block until the shortest axis has this many sites.
        frequencies, modulations: of the features, in units of 1/σ, σ² the mean variance of the level's Gaussian.
        smoothing: masses of the smoothed features of the coarsest lattice.
        radius, tails: of the kernels, in lattice units of the level.
        n_times: Legendre polynomials in time.
        n_steps: of the integrator (rk4 in training).
        context_degree: coefficients are polynomials of this degree in the couplings.
        blocking: "average" or "decimation".
    """

    coarsest: int = 1
    frequencies: tuple[float, ...] = (1.2, 2.4, 3.6, 4.8)
    modulations: tuple[float, ...] = (1.2, 2.4)
    smoothing: tuple[float, ...] = (0.8,)
    radius: float = 1.5
    tails: tuple[float, ...] = (0.6, 1.2)
    n_times: int = 3
    n_steps: int = 8
    context_degree: int = 2
    blocking: str = "average"

    def build(self, family: Family, space: CouplingSpace, dtype: torch.dtype = torch.float64) -> HierarchicalFlow:
        """The untrained flow: the exact hierarchy of the best Gaussian at the centre of the couplings."""
        if tuple(family.names) != space.names:
            raise ValueError(f"expected a space of {family.names}, got {space.names}: name the couplings of the family")
        blocking = Blocking(self.blocking)
        bases = [GaussianField.of(family.at(space.centre), dtype)]
        while min(bases[-1].field.lattice.extents) > self.coarsest:
            fine = bases[-1]
            coarse = FieldSpace(blocking.coarse(fine.field.lattice), fine.field.target)
            bases.append(GaussianField(coarse, blocking.spectrum(fine.spectrum.double()), dtype))
        top = Transformed(bases[-1], self._flow(bases[-1], space, None))
        levels = (Details(base, self._flow(base, space, self.blocking), blocking) for base in bases[-2::-1])
        return HierarchicalFlow(top, tuple(levels), space)

    def _flow(self, base: GaussianField, space: CouplingSpace, blocking: str | None) -> ContinuousFlow:
        sigma = float(base.spectrum.double().mean().sqrt())
        colours = base.field.target.shape[0] + 1 if base.field.target.shape else 0
        spec = VectorFieldSpec(
            frequencies=tuple(omega / sigma for omega in self.frequencies),
            smoothing=() if blocking else self.smoothing,
            radius=self.radius,
            tails=self.tails,
            n_times=self.n_times,
            odd=not colours,
            colours=colours,
            blocking=blocking,
            modulations=tuple(nu / sigma for nu in self.modulations) if blocking else (),
            n_context=len(space.names),
            context_degree=self.context_degree,
        )
        return ContinuousFlow(base.field, spec, self.n_steps, dtype=base.spectrum.dtype)


@final
class Teacher:
    """A family on one lattice and the hierarchical flow that has learned it over a range of couplings.

    Args:
        family: the actions, e.g. IsingDualFamily((16, 16), ("nearest",)).
        space: names and range of the couplings.
        flow: on the field of the family.
        recipe: what the flow was built from.
    """

    def __init__(self, family: Family, space: CouplingSpace, flow: HierarchicalFlow, recipe: Recipe) -> None:
        if flow.field != family.field:
            raise ValueError(f"expected a flow on {family.field}, got {flow.field}: use the same lattice")
        self.family, self.space, self.flow, self.recipe = family, space, flow, recipe

    def __repr__(self) -> str:
        return f"Teacher({self.family}, {self.space}, levels={len(self.flow.details) + 1})"

    @property
    def extent(self) -> int:
        """Sites along the first axis."""
        return self.family.field.lattice.extents[0]

    @torch.no_grad()
    def draw(self, couplings: Tensor, n: int, generator: torch.Generator, chunk: int = 2**17) -> Ensemble:
        """n fields from the flow at one J (n_couplings,), with the log-densities that reweight them exactly."""
        context = self.space.require(couplings)[None]
        per_pass = max(1, chunk // self.family.field.lattice.volume)
        parts = [
            self.flow.sample_with_log_prob(min(per_pass, n - start), context.to(self._dtype), generator)
            for start in range(0, n, per_pass)
        ]
        x, log_prob = (torch.cat(columns) for columns in zip(*parts))
        return Ensemble(self.family, x.double(), log_prob.double(), torch.arange(n))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.flow.parameters()).dtype

    def precise(self, n_steps: int = 6, method: str = "dop853") -> Teacher:
        """The same teacher in float64 with a high-order integrator: what is quoted."""
        flow = self.recipe.build(self.family, self.space)
        flow.load_state_dict(self.flow.state_dict())
        for module in flow.modules():
            if isinstance(module, ContinuousFlow):
                module.n_steps, module.method = n_steps, method
        return Teacher(self.family, self.space, flow, self.recipe)


def train(
    family: Family,
    space: CouplingSpace,
    recipe: Recipe = Recipe(),
    *,
    generator: torch.Generator,
    n_steps: int = 12,
    update: NaturalGradient | None = None,
    dtype: torch.dtype = torch.float32,
    start: Teacher | None = None,
    directory: Path | str | None = None,
) -> tuple[Teacher, Fit]:
    """Train a conditional teacher on the action alone; `start` hands over the levels of a smaller lattice.

    Args:
        family, space: what to learn, and where.
        n_steps, update: natural-gradient steps; by default four samples for every parameter.
        directory: keep checkpoints there and resume from them.
    """
    flow = recipe.build(family, space, dtype)
    if start is not None:
        carry_over(start.flow, flow)
    n_parameters = sum(p.numel() for p in flow.parameters())
    update = update or NaturalGradient(n_samples=4 * n_parameters, chunk=512, damping=1e-3)
    settings = Settings(directory, checkpoint_every=1, resume=directory is not None)
    problem = Problem(flow, family, lambda n, g: space.sample(n, g).to(dtype))
    history = fit(problem, update, n_steps, generator=generator, settings=settings)
    return Teacher(family, space, flow, recipe), history


@torch.no_grad()
def carry_over(source: HierarchicalFlow, target: HierarchicalFlow) -> None:
    """Copy trained levels to another lattice: the k-th blocking to the k-th, the deepest one to all that go deeper.

    Near criticality p(x_k | x_{k+1}) depends on L only through corrections that fall exponentially with it, and on k
    only through irrelevant couplings: what a small lattice has learned is what a large one starts from.
    """
    pairs = []
    if source.coarsest.field.lattice == target.coarsest.field.lattice:
        pairs.append((source.coarsest.bijection, target.coarsest.bijection))
    fine_to_coarse = source.levels[::-1]
    for k, level in enumerate(target.levels[::-1]):
        if fine_to_coarse:
            pairs.append((fine_to_coarse[min(k, len(fine_to_coarse) - 1)].bijection, level.bijection))
    for old, new in pairs:
        if not isinstance(old, ContinuousFlow) or not isinstance(new, ContinuousFlow):
            raise TypeError(f"expected continuous flows on every level, got {old} and {new}: copy others yourself")
        moved = old.transferred(new.domain.lattice, new.spec.radius)
        if moved.theta.shape != new.theta.shape:
            got = tuple(moved.theta.shape)
            raise ValueError(f"expected parameters {tuple(new.theta.shape)}, got {got}: train both with one recipe")
        new.theta.copy_(moved.theta)
