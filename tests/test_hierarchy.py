"""Hierarchical flows: marginals against brute-force integration, Gaussians exactly, tangents, training, mistakes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flows.bases import GaussianField
from flows.distribution import Transformed
from flows.layers.continuous import ContinuousFlow, VectorFieldSpec
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.action import Family
from lattices.blocking import Blocking, BlockPointGroup
from lattices.fields import FieldSpace, Real
from lattices.invariance import PointGroup, SignFlip, Translation, Translations
from lattices.lattice import Lattice
from lattices.statistics import effective_sample_size
from lattices.theories.families import phi4_form_d
from lattices.theories.free_field import FreeField
from lattices.theories.phi4 import Phi4
from mlrg.coarsening import OrthogonalSplit, Pyramid
from mlrg.couplings import CouplingSpace
from mlrg.hierarchy import Details, HierarchicalFlow
from tests.laws.bijections import perturbed

BETA = CouplingSpace(("beta",), (0.4,), (0.6,))
SPEC = VectorFieldSpec((0.7, 1.4), radius=1.5, n_times=2)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hierarchy(
    base: GaussianField,
    n_levels: int = 1,
    kind: str = "average",
    spec: VectorFieldSpec = SPEC,
    couplings: CouplingSpace | None = None,
    n_steps: int = 4,
) -> HierarchicalFlow:
    """Untrained levels on the Gaussian `base` and on its blocked Gaussians."""
    blocking, bases = Blocking(kind), [base]
    for _ in range(n_levels):
        coarse = FieldSpace(blocking.coarse(bases[-1].field.lattice), base.field.target)
        bases.append(GaussianField(coarse, blocking.spectrum(bases[-1].spectrum)))
    n = len(couplings.names) if couplings else 0
    plain, kept = (VectorFieldSpec(**{**vars(spec), "blocking": b, "n_context": n}) for b in (None, kind))
    top = Transformed(bases[-1], ContinuousFlow(bases[-1].field, plain, n_steps))
    levels = (Details(b, ContinuousFlow(b.field, kept, n_steps), blocking) for b in bases[-2::-1])
    return HierarchicalFlow(top, tuple(levels), couplings)


def free(*extents: int, mass_squared: float = 0.7) -> GaussianField:
    return GaussianField.free(Lattice(extents), mass_squared)


def detail_grid(n: int, split: OrthogonalSplit, reach: float = 2.8) -> tuple[Tensor, float]:
    """Details on an equidistant grid of n points along each coordinate, and the volume of a cell."""
    n_details = split.field.lattice.volume - split.coarse.lattice.volume
    axis = torch.linspace(-reach, reach, n + 1, dtype=torch.float64)[:-1]
    return torch.cartesian_prod(*[axis] * n_details).reshape(-1, *split.detail_shape), (2 * reach / n) ** n_details


# ------------------------------------------------------------------------------------------- marginals


@pytest.mark.parametrize("kind", ["average", "decimation"])
@pytest.mark.parametrize("extents", [(2, 2), (4,)], ids=str)
def test_marginal_by_brute_force_integration_over_details(extents: tuple[int, ...], kind: str) -> None:
    """∫ dd q(merge(c, d)) = q₁(c): the log-density is normalised over details at every block field."""
    flow = perturbed(hierarchy(free(*extents, mass_squared=1.5), kind=kind, n_steps=6), seeded(), 0.15)
    split = OrthogonalSplit(flow.field, Blocking(kind))
    details, cell = detail_grid(22 if len(extents) == 2 else 50, split)
    blocks = flow.marginal(1).sample(1, generator=seeded()).detach()
    block = blocks.expand(len(details), *blocks.shape[1:])
    with torch.no_grad():
        x, log_det = split.merge(block, details)
        integral = (flow.log_prob(x) + log_det).exp().sum() * cell
        exact = flow.marginal(1).log_prob(blocks).exp()
        assert integral.item() == pytest.approx(exact.item(), rel=3e-5)  # the integration error of the flow
        untrained = hierarchy(free(*extents, mass_squared=1.5), kind=kind).marginal(1).log_prob(blocks)
    assert (untrained - flow.marginal(1).log_prob(blocks)).abs().max() > 1e-3  # the parameters matter


@pytest.mark.parametrize("kind", ["average", "decimation"])
def test_levels_add_up_and_marginals_are_their_partial_sums(kind: str) -> None:
    flow = perturbed(hierarchy(free(4, 4), 2, kind), seeded())
    x = flow.sample(5, generator=seeded())
    terms = flow.level_log_probs(x)
    assert len(terms) == 3
    torch.testing.assert_close(flow.log_prob(x), sum(terms))
    for k in range(3):
        marginal = flow.marginal(k)
        torch.testing.assert_close(marginal.log_prob(flow.block(x, k)), sum(terms[: 3 - k]))
        assert set(marginal.parameters()) <= set(flow.parameters())
    parts, _ = Pyramid.orthogonal(flow.field, 2, Blocking(kind)).split(x)
    torch.testing.assert_close(flow.block(x, 2), parts[0])


@pytest.mark.parametrize("kind", ["average", "decimation"])
@pytest.mark.parametrize(("extents", "n_levels"), [((8,), 3), ((4, 8), 2), ((4, 2, 4), 1)], ids=str)
def test_untrained_levels_are_the_gaussian(extents: tuple[int, ...], n_levels: int, kind: str) -> None:
    base = free(*extents)
    flow = hierarchy(base, n_levels, kind, VectorFieldSpec((0.7,), n_times=1), n_steps=1)
    x = base.sample(6, generator=seeded())
    torch.testing.assert_close(flow.log_prob(x), base.log_prob(x), rtol=1e-12, atol=1e-10)
    y, log_prob = flow.sample_with_log_prob(2000, generator=seeded())
    torch.testing.assert_close(log_prob, base.log_prob(y), rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(flow.score(x), base.score(x))
    fluctuation = (y * -base.score(y)).flatten(1).sum(1)  # x·C⁻¹x is χ² with V degrees of freedom
    volume = base.field.lattice.volume
    assert abs(fluctuation.mean() - volume) < 4 * (2 * volume / len(y)) ** 0.5


def test_colours_are_a_hierarchy_too() -> None:
    lattice = Lattice((2, 4))
    base = GaussianField(FieldSpace(lattice, Real(2)), free(2, 4).spectrum)
    flow = hierarchy(base, 1, spec=VectorFieldSpec((0.7,), n_times=1, odd=False, colours=3), n_steps=8)
    x = base.sample(4, generator=seeded())
    torch.testing.assert_close(flow.log_prob(x), base.log_prob(x), rtol=1e-12, atol=1e-10)
    moved = perturbed(flow, seeded())
    y, log_prob = moved.sample_with_log_prob(4, generator=seeded())
    torch.testing.assert_close(moved.log_prob(y), log_prob, rtol=1e-6, atol=1e-6)
    assert (log_prob - flow.log_prob(y)).abs().max() > 1e-2


@pytest.mark.parametrize("n_blockings", [1, 2])
def test_blocked_samples_have_the_marginal_density(n_blockings: int) -> None:
    """E[r(c)/q_k(c)] = 1 for c = the blocked samples of the whole flow, and not under the law without levels."""
    flow = perturbed(hierarchy(free(4, 4), 2), seeded(), 0.2)
    marginal, n = flow.marginal(n_blockings), 4000
    with torch.no_grad():
        c = flow.block(flow.sample(n, generator=seeded()), n_blockings)
        inside = GaussianField(marginal.field, 0.6 * c.var() * torch.ones(marginal.field.lattice.extents))
        weights = (inside.log_prob(c) - marginal.log_prob(c)).exp()
    assert weights.sum() ** 2 / weights.square().sum() > n / 20
    assert abs(weights.mean() - 1) < 4 * weights.std() / n**0.5
    assert not abs((2**0.1 * weights).mean() - 1) < 4 * weights.std() / n**0.5


# ------------------------------------------------------------------------------------------- symmetries


def test_symmetries_are_those_of_blocks_of_all_levels() -> None:
    two, dropped = (hierarchy(free(8, 8), 2, kind) for kind in ("average", "decimation"))
    assert set(two.symmetries) == {Translations(4), BlockPointGroup(4), SignFlip()}
    assert set(two.marginal(1).symmetries) == {Translations(2), BlockPointGroup(2), SignFlip()}
    assert set(two.marginal(2).symmetries) == {Translations(), PointGroup(), SignFlip()}
    assert set(dropped.symmetries) == {Translations(4), PointGroup(), SignFlip()}
    moved = perturbed(two, seeded(), 0.3)
    x = moved.sample(3, generator=seeded())
    for step, kept in ((4, True), (2, False), (1, False)):
        gap = (moved.log_prob(Translation((step, 0)).apply(x, moved.field)) - moved.log_prob(x)).abs().max()
        assert (gap < 1e-9) == kept


# ------------------------------------------------------------------------------------------- tangents


@pytest.mark.parametrize(("kind", "couplings"), [("average", BETA), ("decimation", None)], ids=str)
def test_tangents_are_derivatives_of_log_density(kind: str, couplings: CouplingSpace | None) -> None:
    spec = VectorFieldSpec((0.7,), radius=1.0, n_times=2)
    flow = perturbed(hierarchy(free(4, 2), 1, kind, spec, couplings, n_steps=48), seeded())
    context = couplings.sample(3, seeded()) if couplings else None
    x, log_prob, tangents = flow.sample_tangents(3, context, seeded())
    ends, epsilon = [], 1e-4
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=1e-6, atol=1e-6)
        start = torch.nn.utils.parameters_to_vector(flow.parameters())
        direction = torch.randn(len(start), generator=seeded(3), dtype=torch.float64)
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(start + sign * epsilon * direction, flow.parameters())
            ends.append(flow.log_prob(x, context))
    slope = (ends[0] - ends[1]) / (2 * epsilon)
    torch.testing.assert_close(tangents @ direction, slope, rtol=1e-2, atol=1e-2)  # trapezoidal rule, h = 1/48
    assert not torch.allclose(-tangents @ direction, slope, rtol=1e-2, atol=1e-2)


# ------------------------------------------------------------------------------------------- training and storage


def train(problem: Problem, n_steps: int, n_samples: int = 512) -> float:
    """The effective sample size, as a fraction, after a few natural-gradient steps."""
    update = NaturalGradient(n_samples=n_samples, trust=2.0)
    state, generator = update.init(problem), seeded()
    for step in range(n_steps):
        state, _ = update.step(problem, state, step / n_steps, generator)
    return overlap(problem)


@torch.no_grad()
def overlap(problem: Problem, n: int = 2000) -> float:
    context = problem.context(1, seeded(5))
    context = None if context is None else context.expand(n, -1)
    x, log_prob = problem.flow.sample_with_log_prob(n, context, seeded(6))
    return effective_sample_size(-problem.energy(x, context) - log_prob).value


def test_another_mass_is_found_through_the_levels() -> None:
    spec = VectorFieldSpec((), n_times=1)
    problem = Problem(hierarchy(free(4, 4, mass_squared=1.5), 2, spec=spec), FreeField((4, 4), mass_squared=0.5))
    assert overlap(problem) < 0.75
    assert train(problem, 8) > 0.98


def test_phi4_is_learned_through_the_levels() -> None:
    action = Phi4((4, 4), mass_squared=-4.0, quartic=8.0)
    spec = VectorFieldSpec((0.7, 1.4, 2.1), radius=1.5, n_times=1)
    problem = Problem(hierarchy(GaussianField.of(action), 1, spec=spec), action)
    assert overlap(problem) < 0.3
    assert train(problem, 5) > 0.75


def test_a_conditional_hierarchy_learns_a_family() -> None:
    family: Family = phi4_form_d((4, 4))
    space = CouplingSpace(("beta", "quartic"), (0.4, 0.8), (0.6, 1.2))
    base = GaussianField.of(family.at(space.centre))
    spec = VectorFieldSpec((0.7, 1.4), radius=1.5, n_times=2, context_degree=1)
    problem = Problem(hierarchy(base, 1, spec=spec, couplings=space), family, space.sample)
    assert overlap(problem) < 0.1
    assert train(problem, 6, 1024) > 0.4
    x, J = problem.flow.sample(3, space.sample(3, seeded()), seeded()), space.sample(3, seeded())
    with torch.no_grad():
        unit = problem.flow.coarsest.log_prob(problem.flow.block(x, 1), space.unit(J))
        torch.testing.assert_close(problem.flow.marginal(1).log_prob(problem.flow.block(x, 1), J), unit)
        assert (problem.flow.log_prob(x, J) - problem.flow.log_prob(x, J.flip(0))).abs().max() > 1e-3


def test_state_round_trip_and_single_precision() -> None:
    flow, fresh = perturbed(hierarchy(free(4, 4), 2), seeded()), hierarchy(free(4, 4), 2)
    x = flow.sample(3, generator=seeded())
    assert not torch.equal(fresh.log_prob(x), flow.log_prob(x))
    fresh.load_state_dict(flow.state_dict())
    assert torch.equal(fresh.log_prob(x), flow.log_prob(x))
    single = fresh.float()
    assert single.log_prob(x.float()).dtype == torch.float32
    torch.testing.assert_close(single.log_prob(x.float()).double(), flow.log_prob(x), rtol=1e-4, atol=1e-4)


def test_trained_levels_move_to_a_larger_lattice() -> None:
    """Orbit weights of a level carry over: fields that repeat are mapped as before."""
    spec = VectorFieldSpec((0.7,), radius=1.0, n_times=2, blocking="average", modulations=(0.5,))
    small = perturbed(ContinuousFlow(FieldSpace(Lattice((4, 4))), spec, 4), seeded())
    large = small.transferred(Lattice((8, 8)), radius=1.0)
    z = small.domain.random(3, seeded())
    x, log_det = small(z)
    tiled, tiled_log_det = large(z.repeat(1, 2, 2))
    torch.testing.assert_close(tiled, x.repeat(1, 2, 2))
    torch.testing.assert_close(tiled_log_det, 4 * log_det)
    assert Details(free(8, 8), large).block(tiled).shape == (3, 4, 4)


# ------------------------------------------------------------------------------------------- mistakes


def conditional(context: Tensor | None) -> Tensor:
    return hierarchy(free(4, 2), couplings=BETA).sample(1, context, seeded())


def disordered() -> HierarchicalFlow:
    flow = hierarchy(free(4, 4), 2)
    return HierarchicalFlow(flow.coarsest, tuple(flow.levels[::-1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (disordered, "coarse → fine"),
        (lambda: hierarchy(free(4, 6), 2), "divisible by 2"),
        (lambda: hierarchy(free(4, 4), 2).marginal(3), "0 to 2 blockings"),
        (lambda: Details(free(4, 4), ContinuousFlow(FieldSpace(Lattice((4, 4))))), "that keeps"),
        (lambda: Details(free(4, 4), hierarchy(free(2, 2)).levels[0].bijection), "expected a flow on"),
        (lambda: hierarchy(free(4, 2)).log_prob(torch.zeros(1, 2, 2).double()), "expected shape"),
        (lambda: hierarchy(free(4, 2)).sample(1, torch.ones(1, 1).double()), "0 couplings"),
        (lambda: conditional(torch.ones(1, 2).double()), r"\(batch, 1\)|1\)"),
        (lambda: conditional(None), "context"),
        (lambda: CouplingSpace(("a",), (1.0,), (0.0,)), "lower < upper"),
        (lambda: CouplingSpace(("a", "a"), (0.0, 0.0), (1.0, 1.0)), "different names"),
        (lambda: CouplingSpace(("a",), (0.0,), ()), "as many bounds"),
        (lambda: BETA.require(torch.tensor([[0.5], [0.7]])), r"beta in \[0.4, 0.6\], got beta=0.7"),
        (lambda: BETA.require(torch.zeros(2, 2)), "one column each"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_coupling_space_is_a_box() -> None:
    space = CouplingSpace(("a", "b"), (0.0, -1.0), (1.0, 3.0), odd=("field",))
    corners = torch.tensor(list(itertools.product((0.0, 1.0), (-1.0, 3.0))))
    assert sorted(map(tuple, space.unit(corners).tolist())) == sorted(itertools.product((-1.0, 1.0), repeat=2))
    drawn = space.sample(101, seeded())
    assert space.contains(drawn).all()
    assert torch.equal(space.require(drawn), drawn)
    torch.testing.assert_close(space.sample(100, seeded()).mean(0), space.centre)
    assert not space.contains(torch.tensor([[float("nan"), 0.0], [2.0, 0.0]])).any()
