"""`latflow check RUN`: everything a trained flow promises, verified again on the flow itself, with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, NamedTuple

import torch
import tyro
from torch import Tensor

from flows import parallel
from flows.commands.free_energy import both_sides, free_energies
from flows.commands.parsing import parse, say
from flows.commands.sample import LARGEST_SHARE, Source
from flows.data import Points
from flows.distribution import Transformed
from flows.layers.integrated import IntegratedFlow
from flows.layers.plaquette_features import from_coordinates, to_coordinates
from flows.quantities import quantities
from flows.report import Corrected, HMCRun
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.loops import matrices
from lattices.statistics import reweighted_mean

ROUNDING = 1e-8
"""What equivariance, exact to rounding, may be off, in nats or units of the field."""

LARGEST_JACOBIAN = {"sites": 1100, "links": 600}
"""Dimensions of the field space up to which the full Jacobian matrix is differentiated: for a minute or so."""


@dataclass(frozen=True)
class Options:
    """Verify a trained flow: exact laws on a few samples, statistical ones on many. Exit code 1 if any fails.

    Args:
        source: which trained flow.
        n: number of samples of the statistical checks.
        least_ess: effective sample size (per sample) below which the check fails.
        hmc: how the target is sampled, for the consistency of log Z.
        tolerance: of inverse and log-det, where integration errors count; symmetries hold to rounding.
    """

    source: Annotated[Source, tyro.conf.arg(name="")]
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    least_ess: float = 0.1
    hmc: HMCRun = field(default_factory=lambda: HMCRun(n_chains=64, n_steps=200))
    tolerance: float = 1e-3


class Check(NamedTuple):
    """One law, the number that tells, and the largest that passes (or the least, for an ESS)."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """False for NaN."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        relation = "≥" if self.at_least else "≤"
        return f"{'PASS' if self.passed else 'FAIL'}  {self.name:<58} {self.value:9.2e} {relation} {self.limit:.0e}"


def main(arguments: Sequence[str]) -> int:
    """Run all checks, print each as it comes, and return 1 if any failed."""
    options = parse(Options, arguments, "check", Options.__doc__)
    if parallel.world_size() > 1 or options.n < 2:
        raise ValueError(f"expected one process and -n >= 2, got {parallel.world_size()} and {options.n}: change that")
    trained = options.source.load()
    generator = parallel.rank_generator(options.source.seed, "check", options.source.device)
    say(f"{trained.action}, {trained.directory}\n")
    failed, checks = 0, exact_checks(trained.flow, trained.action, options.tolerance, generator)
    if not isinstance(trained.action, Points):
        corrected, forward = both_sides(trained, options.n, options.hmc, 4, generator)
        checks = chain(checks, statistical_checks(corrected, forward, trained.action, options.least_ess))
    for check in checks:
        say(str(check))
        failed += not check.passed
    say(f"\n{'all checks passed' if not failed else f'{failed} checks FAILED'}")
    return int(failed > 0)


@torch.no_grad()
def exact_checks(flow: Transformed, action: Action, tolerance: float, generator: torch.Generator) -> Iterator[Check]:
    """Laws that hold sample by sample: symmetry, inverse, log-det, integration."""
    z, _ = flow.base.sample_with_log_prob(16, generator=generator)
    x, log_det = flow.bijection(z)
    yield from symmetry_checks(flow, action, z)
    back, back_log_det = flow.bijection.inverse(x)
    yield Check("inverse: |f⁻¹(f(z)) - z|", _apart(action.field, back, z), tolerance)
    yield Check("inverse: |log det f + log det f⁻¹|", _worst(log_det + back_log_det), tolerance)
    if _coordinates(action.field, z[:1], z[:1]).numel() <= LARGEST_JACOBIAN[action.field.cells]:
        yield Check("Jacobian: |log det - autograd|", _worst(log_det[:1] - _log_det(flow, z[:1])), tolerance)
    if isinstance(flow.bijection, IntegratedFlow):
        error = float(flow.bijection.integration_error(z, log_prob=flow.base.log_prob).max())
        yield Check(f"integration: {flow.bijection.n_steps} steps of {flow.bijection.method}", error, tolerance)


def symmetry_checks(flow: Transformed, action: Action, z: Tensor) -> Iterator[Check]:
    """|f(gz) - g f(z)|, |log q(gx) - log q(x)| and |S(gx) - S(x)| on the generators of each claimed symmetry."""
    field, (x, log_det) = action.field, flow.bijection(z)
    log_q = flow.base.log_prob(z) - log_det
    for symmetry in flow.symmetries:
        worst, invariance = 0.0, 0.0
        for g in symmetry.generators(field):
            moved, moved_log_det = flow.bijection(field.act(g, z))
            worst = max(worst, _apart(field, moved, field.act(g, x)))
            density = flow.base.log_prob(field.act(g, z)) - moved_log_det
            invariance = max(invariance, _worst(density - log_q))
        yield Check(f"{symmetry}: |f(gz) - g f(z)|", worst, ROUNDING)
        yield Check(f"{symmetry}: |log q(gx) - log q(x)|", invariance, ROUNDING)
    if isinstance(action, Points):
        return
    energy = action.energy(x)
    for symmetry in action.symmetries:
        change = max((_worst(action.energy(field.act(g, x)) - energy) for g in symmetry.generators(field)), default=0.0)
        yield Check(f"{symmetry}: |S(gx) - S(x)|", change, ROUNDING)


def statistical_checks(corrected: Corrected, forward: Tensor, action: Action, least_ess: float) -> Iterator[Check]:
    """Laws that hold on average, in standard errors: log Z from both sides, its bounds, an identity; the weights."""
    rows = free_energies(corrected, forward, action)
    flow, target = rows["log Z, flow samples"], rows["log Z, target samples"]
    yield Check("normalisation: log ⟨w⟩_q against -log ⟨1/w⟩_p (z)", abs(flow.z_score(target)), 4)
    yield Check("lower bound below log Z (z)", rows["lower bound (ELBO)"].z_score(flow), 4)
    yield Check("upper bound above log Z (z)", -rows["upper bound (EUBO)"].z_score(flow), 4)
    if identity := quantities(action).identity:
        found = reweighted_mean(corrected.samples.measured[identity.name], corrected.samples.log_weights)
        yield Check(f"Schwinger–Dyson: {identity.text} (z)", abs(found.z_score(identity.value)), 4)
    ess = corrected.ess
    yield Check(f"ESS at n = {ess.n}, lower end of its interval", ess.low, least_ess, at_least=True)
    yield Check("largest weight, share of the sum", ess.max_weight, LARGEST_SHARE)


def _log_det(flow: Transformed, z: Tensor) -> Tensor:  # (1, *event) -> (1,)
    """log|det ∂x/∂z| by automatic differentiation, in orthonormal coordinates of the tangent spaces at z and at x."""
    field, end = flow.field, flow.bijection(z)[0]

    def moved(xi: Tensor) -> Tensor:  # (1, *cells, dim) -> (1, *cells, dim)
        x = flow.bijection(field.exp(z, _tangent(field, z, xi)))[0]
        return _coordinates(field, x @ end.mH if x.is_complex() else x, end)

    jacobian = torch.func.jacrev(moved, chunk_size=64)(torch.zeros_like(_coordinates(field, z, z)))
    size = math.isqrt(jacobian.numel())
    return torch.linalg.slogdet(jacobian.reshape(1, size, size)).logabsdet


def _tangent(field: FieldSpace, x: Tensor, xi: Tensor) -> Tensor:  # (..., *dim) -> (..., *target)
    """The tangent vector at x with the given coordinates."""
    if field.cells == "links":
        return from_coordinates(field, xi, x.dtype)
    return (_frame(x) @ xi[..., None])[..., 0] if isinstance(field.target, Sphere) else xi


def _coordinates(field: FieldSpace, v: Tensor, x: Tensor) -> Tensor:  # (..., *target) -> (..., *dim)
    """Of elements of an algebra in its orthonormal basis, of vectors in the frame at x; numbers are their own."""
    if field.cells == "links":
        return to_coordinates(field, v)
    return (v[..., None, :] @ _frame(x))[..., 0, :] if isinstance(field.target, Sphere) else v


def _frame(x: Tensor) -> Tensor:  # (..., n + 1) -> (..., n + 1, n)
    """Orthonormal tangent vectors at the points of a sphere: the reflection that takes the last axis to ±x."""
    last = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    normal = x + last[-1] * torch.where(x[..., -1:] < 0, -1.0, 1.0)
    reflection = last - 2 * normal[..., :, None] * normal[..., None, :] / normal.square().sum(-1)[..., None, None]
    return reflection[..., :-1]


def _apart(field: FieldSpace, x: Tensor, y: Tensor) -> float:
    """The largest difference of two fields; angles are the same modulo 2π."""
    if field.cells == "links":
        return _worst(matrices(field, x) - matrices(field, y))
    return _worst(field.exp(x, -y) if isinstance(field.target, Circle) else x - y)


def _worst(difference: Tensor) -> float:
    return float(difference.abs().max())
