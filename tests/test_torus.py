"""Flows of the torus: networks that keep an order, layers against their definition, coordinates, and training."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from normflows.flows import CircularCoupledRationalQuadraticSpline
from torch import Tensor
from torch.func import jacrev, vmap

from flows.architectures.torus import TorusFlow
from flows.bijection import Bijection, Chain
from flows.conditioners.torus_networks import TorusNetwork, TorusSpec
from flows.distribution import Transformed
from flows.layers.torus import TorusAutoregressive, TorusCoupling, require_torus, torus
from flows.layers.torus_coordinates import InCoordinates, separating_coordinates
from flows.normflows_bridge import FromNormflows
from flows.objectives import ReverseKL
from flows.transforms.affine import Affine
from flows.transforms.circular import CircularSpline, wrap
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.circular_mobius import Mobius
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.invariance import SignFlip
from lattices.lattice import Lattice
from lattices.spins import AngleShifts, GlobalRotations
from lattices.theories.phi4 import Phi4
from lattices.theories.torus_correlated import TorusCorrelated
from lattices.theories.torus_mixture import UNIMODAL, TorusMixture
from lattices.theories.xy import XY
from tests.laws import bijections as laws
from tests.laws import distributions

DOUBLE = torch.float64
CLASSES = (TorusCoupling, TorusAutoregressive, InCoordinates)
with torch.random.fork_rng():
    torch.manual_seed(0)
    LAYERS = [
        pytest.param(layer, id=f"{cls.__name__}-{i}") for cls in CLASSES for i, layer in enumerate(cls.examples())
    ]
TARGETS: list[Action] = [TorusMixture(UNIMODAL), TorusMixture(), TorusCorrelated()]
every = pytest.mark.parametrize("layer", LAYERS)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(recipe: TorusFlow, action: Action, dtype: torch.dtype = DOUBLE) -> Transformed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return recipe.build(action, dtype)


def their_splines(n_layers: int = 2, n_hidden: int = 16, n_bins: int = 8) -> Chain:
    """normflows' circular coupling splines on T², alternating halves, in our containers: what to compare with."""
    angles = torus(2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [
            CircularCoupledRationalQuadraticSpline(
                2, 1, n_hidden, [0, 1], num_bins=n_bins, tail_bound=math.pi, reverse_mask=bool(k % 2)
            )
            for k in range(n_layers)
        ]
    return Chain(*(FromNormflows(layer.double(), angles) for layer in layers))


# -------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("spec", [TorusSpec(), TorusSpec(1, (6, 5)), TorusSpec(2, (4,), odd=True)], ids=repr)
def test_parameters_depend_on_lower_levels_and_on_nothing_else(spec: TorusSpec) -> None:
    levels, moved = (2, 0, None, 1, 3), (4, 0, 3)
    network = laws.perturbed(TorusNetwork(levels, moved, Mobius().parity, spec), seeded(), 0.5)
    x = torus(5).random(1, seeded())
    slopes = jacrev(lambda x: network(x)[0])(x)[:, :, 0].abs().amax(1)  # (n_moved, D)
    lower = [[other is not None and other < levels[i] for other in levels] for i in moved]  # type: ignore[operator]
    assert ((slopes > 1e-8) == torch.tensor(lower)).all()


def test_a_network_without_masks_would_break_the_order() -> None:
    network = laws.perturbed(TorusNetwork((0, 1, 2), (0, 1, 2), Mobius().parity, TorusSpec(1, (4,))), seeded(), 0.5)
    network.layers[0].mask.fill_(True)
    slopes = jacrev(lambda x: network(x)[0])(torus(3).random(1, seeded()))[:, :, 0].abs().amax(1)
    assert slopes[1, 1] > 1e-8


def test_a_network_starts_at_zero_and_wastes_no_weights() -> None:
    network = TorusNetwork((0, 1), (0, 1), CircularMixture(4).parity, TorusSpec(2))
    assert sum(p.numel() for p in network.parameters()) == 2 * 13 + 13 * 4
    assert not network(torus(2).random(3, seeded())).any()
    alone = TorusNetwork((0,), (0,), Mobius().parity, TorusSpec(2, (8,)))
    assert [tuple(p.shape) for p in alone.parameters()] == [(1, 3)]


def test_networks_sort_their_parameters_into_even_and_odd_ones() -> None:
    parity = CircularSpline(3).parity
    sign = torch.tensor([1.0 if p == "even" else -1.0 for p in parity], dtype=DOUBLE)
    x = torus(3).random(4, seeded())
    for odd in (True, False):
        network = laws.perturbed(TorusNetwork((0, 1, 2), (1, 2), parity, TorusSpec(2, (5,), odd)), seeded(), 0.5)
        assert ((network(-x) - sign * network(x)).abs().max() < 1e-14) == odd


# ---------------------------------------------------------------------------------------------------------- layers


@every
def test_starts_as_identity(layer: Bijection) -> None:
    laws.starts_as_identity(layer, seeded())


def test_a_moved_start_is_rejected() -> None:
    layer = TorusCoupling(torus(2), (0,), (1,))
    layer.network.bias.data += 0.01
    with pytest.raises(AssertionError, match="away from the identity"):
        laws.starts_as_identity(layer, seeded())


def test_autoregressive_is_its_definition() -> None:
    layer = laws.perturbed(TorusAutoregressive(torus(3), (2, 0, 1), CircularMixture(3)), seeded(), 0.3)
    z = torus(3).random(5, seeded())
    x, log_det = z.clone(), z.new_zeros(5)
    for step, angle in enumerate((2, 0, 1)):
        others = z.clone()
        others[:, [(2, 0, 1)[later] for later in range(step, 3)]] = 0.5  # must not matter
        x[:, angle], log_slope = layer.transform.forward(z[:, angle], layer.network(others)[:, step])
        log_det = log_det + log_slope
    torch.testing.assert_close(layer(z), (x, log_det), rtol=1e-13, atol=1e-13)


def test_a_coupling_leaves_frozen_and_idle_angles_alone() -> None:
    layer = laws.perturbed(TorusCoupling(torus(4), (0, 2), (3,)), seeded(), 0.3)
    z = torus(4).random(5, seeded())
    assert torch.equal(layer(z)[0][:, :3], z[:, :3])
    assert layer.symmetries == (AngleShifts((0, 1, 0, 0)),)


@pytest.mark.parametrize("false", [SignFlip(), AngleShifts((1, 0)), AngleShifts((0, 1))], ids=repr)
def test_a_false_claim_is_rejected(false: SignFlip | AngleShifts) -> None:
    layer = TorusCoupling(torus(2), (0,), (1,))
    layer.symmetries = (false,)
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(laws.perturbed(layer, seeded(), 0.3), seeded())


@every
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_finite_with_gradients_at_the_ends_of_the_chart(layer: Bijection, dtype: torch.dtype) -> None:
    ends = torch.tensor([math.pi, -math.pi, 0.0], dtype=dtype)
    values = torch.cat((ends, ends.nextafter(ends + 1), ends.nextafter(ends - 1)))
    moved = laws.perturbed(layer, seeded(), 0.5).to(dtype)
    z = values[:, None].repeat(1, layer.domain.lattice.volume).requires_grad_()
    context = laws.couplings(layer, len(z), seeded(), dtype)
    for direction in (moved.forward, moved.inverse):
        x, log_det = direction(z, context)
        gradients = torch.autograd.grad(x.sum() + log_det.sum(), (z, *moved.parameters()))
        assert all(t.isfinite().all() for t in (x, log_det, *gradients))
        assert moved.codomain.contains(x.detach()).all()
    assert moved.push_score(z, torch.ones_like(z), context).score.isfinite().all()


@every
def test_nan_stays_nan_in_its_sample(layer: Bijection) -> None:
    z = layer.domain.random(3, seeded())
    z[1] = math.nan
    context = laws.couplings(layer, 3, seeded())
    for direction in (layer.forward, layer.inverse):
        x, log_det = direction(z, context)
        assert x.isnan().any(1).tolist() == log_det.isnan().tolist() == [False, True, False]


def test_normflows_agrees_on_the_jacobian_but_not_on_the_ends_of_the_chart() -> None:
    theirs = laws.perturbed(their_splines(), seeded(), 0.3)
    laws.log_det_is_jacobian(theirs, seeded())
    beyond = torch.full((1, 2), math.nextafter(math.pi, 4), dtype=DOUBLE)
    ours = built(TorusFlow(transform="spline", n_bins=8), TARGETS[1]).bijection
    jumps = [wrap(flow(beyond)[0] - math.pi).abs().max() for flow in (their_splines(), ours)]  # both are identities
    assert jumps[0] > 1 > 1e-12 > jumps[1]


# ----------------------------------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_coordinates_separate_what_moves_from_what_stays(dimension: int) -> None:
    for n in range(dimension + 1):
        directions = torch.randint(-4, 5, (n, dimension), generator=seeded(n))
        matrix = torch.tensor(separating_coordinates(directions.tolist(), dimension))
        assert torch.linalg.det(matrix.double()).abs().item() == pytest.approx(1)
        rank = int(torch.linalg.matrix_rank(directions.double())) if n else 0
        steps = matrix @ directions.T
        assert not steps[: dimension - rank].any()
        assert int(torch.linalg.matrix_rank(steps[dimension - rank :].double())) == rank if rank else True


def test_a_wave_is_one_of_its_coordinates() -> None:
    (crest,) = (s.direction for s in TorusCorrelated((3, 5)).symmetries if isinstance(s, AngleShifts))
    first, _ = separating_coordinates([crest], 2)
    assert first in ((3, 5), (-3, -5))


def test_a_flow_that_moves_a_shifted_coordinate_has_no_shift_symmetry() -> None:
    matrix = separating_coordinates([(1, -1)], 2)
    everything = InCoordinates(TorusAutoregressive(torus(2)), matrix)
    assert everything.symmetries == ()
    everything.symmetries = (AngleShifts((1, -1)),)
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(everything, seeded())


# ---------------------------------------------------------------------------------------------------- architecture


@pytest.mark.parametrize("recipe", list(TorusFlow.examples()), ids=lambda recipe: recipe.kind)
@pytest.mark.parametrize("action", [*TorusMixture.examples(), *TorusCorrelated.examples()], ids=repr)
def test_every_action_on_a_torus_gets_a_normalised_flow(action: Action, recipe: TorusFlow) -> None:
    n_shifts = sum(isinstance(s, AngleShifts) for s in action.symmetries)
    if recipe.kind == "coupling" and action.field.lattice.volume - n_shifts < 2:
        with pytest.raises(ValueError, match="use TorusAutoregressive for one"):
            recipe.build(action)
        return
    flow = built(recipe, action)
    claims = flow.bijection.symmetries
    assert sum(isinstance(s, AngleShifts) for s in claims) == n_shifts
    laws.equivariant_as_claimed(flow.bijection, seeded())
    distributions.knows_its_samples(flow, seeded())
    if action.field.lattice.volume == 2:
        distributions.normalised(flow, seeded(), n_points=400 if recipe.transform == "spline" else 128)


@pytest.mark.parametrize("transform", ["mixture", "mobius", "spline"])
def test_global_rotations_of_a_chain_of_spins_are_kept(transform: str) -> None:
    action = XY((3,), beta=1.0)
    flow = built(TorusFlow(transform=transform, n_bins=3), action).bijection
    assert set(flow.symmetries) == {AngleShifts((1, 1, 1)), SignFlip(), GlobalRotations()}
    laws.equivariant_as_claimed(flow, seeded())
    assert built(TorusFlow(symmetric=False), action).bijection.symmetries == ()


def test_single_precision_architecture() -> None:
    flow = built(TorusFlow(), TARGETS[1], torch.float32)
    x, log_prob = laws.perturbed(flow, seeded()).sample_with_log_prob(100, generator=seeded())
    assert {x.dtype, log_prob.dtype} == {torch.float32}


def test_one_coupling_conditional_on_context_depends_on_it() -> None:
    flow = laws.perturbed(built(TorusFlow(kind="coupling", n_context=1), TARGETS[1]), seeded())
    x = flow.field.random(3, seeded())
    low, high = (flow.log_prob(x, torch.full((1, 1), value, dtype=DOUBLE)) for value in (0.0, 1.0))
    assert (low - high).abs().min() > 1e-4


def test_layers_vectorise_over_samples() -> None:
    layer = laws.perturbed(TorusAutoregressive(torus(2), None, CircularMixture(2)), seeded(), 0.3)
    z = torus(2).random(6, seeded())
    one_by_one = vmap(lambda z: layer(z[None]))(z)
    torch.testing.assert_close(one_by_one[0][:, 0], layer(z)[0])


# -------------------------------------------------------------------------------------------------------- training


def divergence(flow: Transformed, action: Action, n: int = 20_000) -> tuple[float, float]:
    """The true KL(q|p) = ⟨log q + S⟩ + log Z, and its standard error."""
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(n, generator=seeded(7))
        excess = log_prob + action.energy(x)
    return float(excess.mean()) + action.log_z(), float(excess.std()) / n**0.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(("action", "rate"), [(TARGETS[2], 0.1), (TARGETS[0], 0.2)], ids=["correlated", "unimodal"])
def test_training_reaches_the_exact_normalisation(action: Action, rate: float) -> None:
    flow = built(TorusFlow(n_layers=1, n_harmonics=0), action)
    assert divergence(flow, action)[0] > 0.2
    problem, generator = Problem(flow, action), seeded()
    update = GradientUpdate(ReverseKL(), learning_rate=rate, batch_size=128)
    state = update.init(problem)
    for step in range(150):
        state, _ = update.step(problem, state, step / 150, generator)
    after, error = divergence(flow, action)
    assert error < 1e-3
    assert -4 * error < after < 0.01 - 4 * error


@pytest.mark.slow
def test_training_finds_three_modes() -> None:
    action, generator = TorusMixture(), seeded()
    flow = built(TorusFlow(), action)
    problem, update = Problem(flow, action), GradientUpdate(ReverseKL(), learning_rate=0.05, batch_size=256)
    state = update.init(problem)
    for step in range(400):
        state, _ = update.step(problem, state, step / 400, generator)
    after, error = divergence(flow, action, n=100_000)
    assert error < 1e-4
    assert -4 * error < after < 1e-3 - 4 * error


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TorusCoupling(torus(1), (), (0,)), ValueError, "use TorusAutoregressive for one"),
        (lambda: TorusCoupling(torus(2), (0,), (0,)), ValueError, "different angles"),
        (lambda: TorusAutoregressive(torus(2), (0, 2)), ValueError, "out of 0…1"),
        (lambda: TorusAutoregressive(torus(2), ()), ValueError, "different angles"),
        (lambda: TorusAutoregressive(torus(2), None, Affine()), TypeError, "map of the circle"),
        (lambda: require_torus(FieldSpace(Lattice((2, 2)), Circle())), TypeError, "expected a torus"),
        (lambda: require_torus(FieldSpace(Lattice((2,)), Sphere(1))), TypeError, "expected a torus"),
        (lambda: TorusSpec(n_harmonics=-1), ValueError, "n_harmonics"),
        (lambda: TorusSpec(hidden=(0,)), ValueError, "hidden >= 1"),
        (lambda: TorusAutoregressive(torus(5), None, None, TorusSpec(1, (3,))), ValueError, "4 hidden units"),
        (lambda: TorusNetwork((0, None), (1,), Mobius().parity), ValueError, "level for the moved angle 1"),
        (
            lambda: TorusNetwork((0, 1), (1,), ("odd",), TorusSpec(n_context=2))(torch.zeros(1, 2)),
            ValueError,
            "context",
        ),
        (lambda: separating_coordinates([(1, 2)], 3), ValueError, "3 whole numbers"),
        (lambda: InCoordinates(TorusAutoregressive(torus(2)), ((2, 0), (0, 1))), ValueError, "determinant 1 or -1"),
        (lambda: InCoordinates(TorusAutoregressive(torus(2)), ((1, 1), (1, 1))), ValueError, "determinant 1 or -1"),
        (lambda: InCoordinates(TorusAutoregressive(torus(2)), ((1,),)), ValueError, "2 × 2 whole numbers"),
        (lambda: TorusFlow(kind="cubic"), ValueError, "autoregressive, coupling"),
        (lambda: TorusFlow(transform="affine"), ValueError, "mixture, mobius, spline"),
        (lambda: TorusFlow(n_layers=0), ValueError, "n_layers >= 1"),
        (lambda: TorusFlow().build(Phi4((4,), 1.0, 1.0)), TypeError, "expected a torus"),
        (lambda: TorusFlow().build(XY((4, 4), 1.0)), TypeError, "expected a torus"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
