"""Laws of distributions: each raises AssertionError, naming the distribution that breaks it.

All take one distribution and a seeded generator. Means are compared in standard errors, after enough effective
samples are found.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from flows.bases import White
from flows.distribution import Distribution, Transformed
from lattices.fields import Circle, FieldSpace, Real
from tests.laws.bijections import allowed, couplings, gap, perturbed

TOLERANCE = 1e-10
LIMIT = 4.0  # standard errors
Law = Callable[[Distribution, Generator], None]


def situation(distribution: Distribution, generator: Generator, n: int = 6) -> tuple[Distribution, Tensor | None]:
    """A perturbed copy in float64, and context for n samples."""
    return perturbed(distribution, generator).double(), couplings(distribution, n, generator)


def rounding(distribution: Distribution, x: Tensor, context: Tensor | None) -> float:
    """How far off two exact log-densities may be: rounding, and the stated error of an integrated flow."""
    if isinstance(distribution, Transformed):
        return 10 * allowed(distribution.bijection, distribution.bijection.inverse(x, context)[0], context)
    return TOLERANCE


def differ(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the larger of 1 and the values."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


def one_context(context: Tensor | None, n: int) -> Tensor | None:
    """The first row of a context, n times: one density for all samples."""
    return None if context is None else context[:1].expand(n, -1)


def well_formed(distribution: Distribution, generator: Generator) -> None:
    """Samples in the space, one finite log-density each, repeatable from the generator and from nothing else."""
    q, context = situation(distribution, generator)
    state = generator.get_state()
    x, log_prob = q.sample_with_log_prob(6, context, generator)
    assert x.shape == (6, *q.field.event_shape), f"{q}: samples of shape {tuple(x.shape)}"
    assert q.field.contains(x).all(), f"{q} leaves {q.field}"
    assert log_prob.shape == (6,), f"{q}: log-densities of shape {tuple(log_prob.shape)}"
    assert log_prob.isfinite().all(), f"{q}: log-densities are not finite"
    elsewhere = torch.get_rng_state()
    assert torch.equal(q.sample(6, context, generator.set_state(state)), x), f"{q} ignores the generator"
    assert torch.equal(torch.get_rng_state(), elsewhere), f"{q} touches the global generator"


def knows_its_samples(distribution: Distribution, generator: Generator) -> None:
    """log_prob(x) of a sample is what sample_with_log_prob said."""
    q, context = situation(distribution, generator)
    x, log_prob = q.sample_with_log_prob(6, context, generator)
    error = differ(q.log_prob(x, context), log_prob)
    assert error < rounding(q, x, context), f"{q}: log_prob of a sample is {error:.1e} off"


def normalised(distribution: Distribution, generator: Generator, n_points: int = 400) -> None:
    """∫ q = 1 by the trapezoidal rule, for at most two real or angular coordinates."""
    q, context = situation(distribution, generator)
    x, cell = grid(q, one_context(context, 4000), generator, n_points)
    total = (q.log_prob(x, one_context(context, len(x))).exp().sum() * cell).item()
    assert abs(total - 1) < 1e-5, f"{q}: the density integrates to {total}"


def grid(q: Distribution, context: Tensor | None, generator: Generator, n: int) -> tuple[Tensor, float]:
    """Points (n^coordinates, *event) of an equidistant grid that holds all the mass, and the volume of its cells."""
    dimension = math.prod(q.field.event_shape)
    if dimension > 2 or not isinstance(q.field.target, Real | Circle):
        raise TypeError(f"expected at most two real or angular coordinates, got {q.field}")
    reach = math.pi if isinstance(q.field.target, Circle) else 3 * q.sample(4000, context, generator).abs().max().item()
    axis = torch.linspace(-reach, reach, n + 1, dtype=torch.float64)[:-1]
    return torch.cartesian_prod(*[axis] * dimension).reshape(-1, *q.field.event_shape), (2 * reach / n) ** dimension


def reweights_to_one(distribution: Distribution, generator: Generator, n: int = 4000) -> None:
    """E_q[r/q] = 1 for a density r inside q: a fitted Gaussian on real targets, uniform on compact ones."""
    q, context = situation(distribution, generator)
    context = one_context(context, n)
    fitted, (x, log_prob) = q.sample(n, context, generator), q.sample_with_log_prob(n, context, generator)
    weights = (reference(q.field, fitted)(x) - log_prob).double().exp().detach()
    effective = (weights.sum() ** 2 / weights.square().sum()).item()
    assert effective > n / 20, f"{q}: only {effective:.0f} of {n} samples count: nothing can be said"
    z = abs(weights.mean().item() - 1) / (weights.std().item() / math.sqrt(n) + 1e-12)
    assert z < LIMIT, f"{q}: E[r/q] is {z:.1f} standard errors from 1"


def reference(field: FieldSpace, fitted: Tensor) -> Callable[[Tensor], Tensor]:
    """The log-density of a Gaussian a little narrower than these samples; the uniform one on compact targets."""
    if not isinstance(field.target, Real):
        return White(field).log_prob
    flat = fitted.detach().double().flatten(1)
    gaussian = MultivariateNormal(flat.mean(0), 0.7 * flat.T.cov())
    return lambda x: gaussian.log_prob(x.double().flatten(1))


def scores_its_density(distribution: Distribution, generator: Generator) -> None:
    """score(x) = ∇ log q(x) by autograd, detached; a Transformed gives the same in one pass."""
    q, context = situation(distribution, generator)
    x = q.sample(6, context, generator).detach()
    y = x.clone().requires_grad_()
    log_prob = q.log_prob(y, context)
    derivative = torch.autograd.grad(log_prob.sum(), y)[0] if log_prob.requires_grad else torch.zeros_like(x)
    exact = q.field.target.gradient(x, derivative)
    score = q.score(x, context)
    assert not score.requires_grad, f"{q}: the score keeps a graph"
    assert differ(score, exact) < rounding(q, x, context), f"{q}: the score is {differ(score, exact):.1e} off"


def scores_its_samples(flow: Transformed, generator: Generator) -> None:
    """sample_scored gives latents, their images, log q and ∇ log q there, in one pass."""
    q, context = situation(flow, generator)
    assert isinstance(q, Transformed)
    z, (x, log_prob, score) = q.sample_scored(6, context, generator)
    error = max(
        gap(q.field, q.bijection(z, context)[0], x),
        differ(q.log_prob(x, context), log_prob),
        differ(score, Distribution.score(q, x, context)),
    )
    assert error < 10 * rounding(q, x, context), f"{q}: sample_scored is {error:.1e} off"


def symmetric_as_claimed(distribution: Distribution, generator: Generator) -> None:
    """log q(g·x) = log q(x) for every generator of every claimed symmetry."""
    q, context = situation(distribution, generator)
    x = q.sample(6, context, generator)
    for g in (g for symmetry in q.symmetries for g in symmetry.generators(q.field)):
        error = differ(q.log_prob(q.field.act(g, x), context), q.log_prob(x, context))
        assert error < rounding(q, x, context), f"{q} changes by {error:.1e} under {g}"


def batch_independent(distribution: Distribution, generator: Generator) -> None:
    """The log-density of a configuration does not depend on its companions."""
    q, context = situation(distribution, generator)
    x = q.sample(6, context, generator)
    rows = range(len(x))
    alone = [q.log_prob(x[i : i + 1], None if context is None else context[i : i + 1]) for i in rows]
    assert differ(torch.cat(alone), q.log_prob(x, context)) < TOLERANCE, f"{q}: log q depends on the batch"


def keeps_dtype(distribution: Distribution, generator: Generator) -> None:
    """Converted to float32 or float64, it samples fields and log-densities in that precision."""
    for dtype in (torch.float32, torch.float64):
        q, context = copy.deepcopy(distribution).to(dtype), couplings(distribution, 6, generator, dtype)
        x, log_prob = q.sample_with_log_prob(6, context, generator)
        found = {x.real.dtype, log_prob.dtype, q.log_prob(x, context).dtype, q.score(x, context).real.dtype}
        assert found == {dtype}, f"{q}: {found} for {dtype}"


DISTRIBUTION_LAWS: tuple[Law, ...] = (
    well_formed,
    knows_its_samples,
    reweights_to_one,
    scores_its_density,
    symmetric_as_claimed,
    batch_independent,
    keeps_dtype,
)
