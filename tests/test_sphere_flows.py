"""Flows on spheres: poles and antipodes, normalisation, symmetries, SU(2), context, bad input, and a short training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from flows.architectures.sphere import KINDS, TRANSFORMS, SphereFlow
from flows.bases import White
from flows.bijection import Bijection, Chain
from flows.conditioners.height_networks import NetworkSpec
from flows.distribution import Transformed
from flows.layers.mobius import HouseholderRotation, MobiusLayer, ZonalLayer
from flows.layers.recursive_sphere import RecursiveSphere, polar_angle
from flows.layers.su2_sphere import AsSU2
from flows.training import fit
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.heights import HeightMixture, HeightSpline
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.fields import Circle, FieldSpace, Links, Real, Sphere
from lattices.invariance import Translations
from lattices.lattice import Lattice
from lattices.spins import AxisRotations, GlobalRotations, SpinPointGroup
from lattices.theories.phi4 import Phi4
from lattices.theories.sphere_mixture import SphereMixture
from symmetries.lie import SU2
from symmetries.quaternions import quaternion_from_su2, su2_from_quaternion
from tests.laws import bijections as laws

with torch.random.fork_rng():
    torch.manual_seed(0)
    LAYERS = [b for cls in (RecursiveSphere, ZonalLayer, MobiusLayer, HouseholderRotation) for b in cls.examples()]
    LAYERS += list(AsSU2.examples())
    RECURSIVE = [b for b in LAYERS if isinstance(b, RecursiveSphere)]
POINT = Lattice((1,))
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda b: f"{type(b).__name__}-{b.domain.target}")
every_recursive = pytest.mark.parametrize("layer", RECURSIVE, ids=lambda b: str(b.domain.target))
every_dimension = pytest.mark.parametrize("dimension", [1, 2, 3, 4], ids=lambda d: f"S{d}")


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def point(dimension: int) -> FieldSpace:
    return FieldSpace(POINT, Sphere(dimension))


def strong(layer: Bijection, scale: float = 0.5) -> Bijection:
    """A copy far from the identity."""
    return laws.perturbed(layer, seeded(3), scale).double()


def built(recipe: SphereFlow, action: SphereMixture) -> Transformed:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return recipe.build(action)


def special(n: int) -> Tensor:  # -> (batch, n)
    """Poles of all the heights, exactly, and within 1e-8 and 1e-12 of them."""
    axes = torch.cat([torch.eye(n, dtype=torch.float64), -torch.eye(n, dtype=torch.float64)])
    x = torch.cat([axes + step * axes.roll(k, 0) for step in (0, 1e-12, 1e-8) for k in (1, n - 1)])
    return x / x.norm(dim=-1, keepdim=True)


def at(layer: Bijection, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Fields that have one of these values on all sites, and context."""
    cells = layer.domain.event_shape[:-1]
    z = x.view(len(x), *(1 for _ in cells), -1).expand(len(x), *cells, -1).contiguous()
    return z, laws.couplings(layer, len(x), seeded(7))


# --------------------------------------------------------------------------------------------------- all the layers


@every_layer
def test_layers_start_as_the_identity(layer: Bijection) -> None:
    laws.starts_as_identity(layer, seeded())


@every_recursive
def test_recursive_maps_are_exact_at_the_poles(layer: Bijection) -> None:
    f = strong(layer)
    z, context = at(f, special(f.domain.event_shape[-1]))
    for direction in (f, laws.Inverse(f)):
        x, log_det = direction(z, context)
        back, reverse = direction.inverse(x, context)
        assert (back - z).abs().max() < 1e-11
        assert (log_det + reverse).abs().max() < 1e-7
        assert (laws.jacobian(direction, z, context).slogdet().logabsdet - log_det).abs().max() < 1e-5


@every_recursive
def test_densities_are_continuous_at_the_poles(layer: Bijection) -> None:
    f, n = strong(layer), layer.domain.event_shape[-1]
    axes = torch.cat([torch.eye(n), -torch.eye(n)]).double()
    for axis in axes:
        beside = axis + 1e-7 * torch.randn(10, n, generator=seeded(), dtype=torch.float64)
        x, context = at(f, torch.cat([axis[None], beside / beside.norm(dim=-1, keepdim=True)]))
        context = None if context is None else context[:1].expand(len(x), -1)
        for direction in (f.forward, f.inverse):
            assert (direction(x, context)[1].diff()).abs().max() < 1e-4


def test_without_the_lengths_a_density_jumps_at_the_poles() -> None:
    """The control: a circle map that does not fade out sees every direction from the pole in its own way."""
    f = strong(RecursiveSphere(point(2), CircularMixture(3), HeightSpline(3)))
    f._told = lambda heights, radius, context: f.networks[len(heights)](heights, context, radius)  # type: ignore
    beside = torch.tensor([[1e-9, 0.0, 1.0], [-1e-9, 0.0, 1.0]], dtype=torch.float64)
    assert f(beside[:, None])[1].diff().abs() > 1e-2


@every_recursive
def test_single_precision_is_finite_at_the_poles(layer: Bijection) -> None:
    f = strong(layer).float()
    z, context = at(f, special(f.domain.event_shape[-1]).float())
    z.requires_grad_()
    for direction in (f.forward, f.inverse):
        f.zero_grad()
        x, log_det = direction(z, None if context is None else context.float())
        gradients = torch.autograd.grad(x.sum() + log_det.sum(), (z, *f.parameters()))
        assert torch.cat([x.flatten(), log_det, *(g.flatten() for g in gradients)]).isfinite().all()
        assert f.codomain.contains(x).all()


@every_dimension
def test_pushed_uniform_densities_are_normalised(dimension: int) -> None:
    """The mean of |det ∂f⁻¹/∂x| over the sphere is 1, in standard errors."""
    layers = [RecursiveSphere(point(dimension), CircularMixture(3), HeightSpline(4)), ZonalLayer(point(dimension))]
    f = strong(Chain(*layers, HouseholderRotation(point(dimension)), MobiusLayer(point(dimension))), 0.4 / dimension)
    with torch.no_grad():
        weight = f.inverse(point(dimension).random(10_000, seeded()))[1].exp()
    ess = weight.mean() ** 2 / weight.square().mean()
    assert ess > 0.05
    assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(len(weight))
    assert weight.std() > 0.1
    half = weight.sqrt()  # the control: half the log-det
    assert abs(half.mean() - 1) > 4 * half.std() / math.sqrt(len(weight))


def test_on_the_circle_it_is_the_map_of_the_angle() -> None:
    layer, angle = strong(RecursiveSphere(point(1), CircularMixture(3))), CircularMixture(3)
    z = point(1).random(20, seeded())
    x, log_det = layer(z)
    theta, slope = angle.forward(polar_angle(z[:, 0]), layer.networks[0].start.expand(20, -1))
    assert torch.allclose(x[:, 0], torch.stack([theta.cos(), theta.sin()], -1), atol=1e-14)
    assert torch.allclose(log_det, slope, atol=1e-14)


@every_layer
def test_nan_stays_in_its_sample(layer: Bijection) -> None:
    f, z, context = laws.situation(layer, seeded())
    spoilt = z.clone()
    spoilt[1] = float("nan")
    for direction in (f.forward, f.inverse):
        (y, log_det), (clean, clean_log_det) = direction(spoilt, context), direction(z, context)
        others = [0, 2, 3]
        assert laws.gap(f.codomain, y[others], clean[others]) < 1e-13
        assert torch.allclose(log_det[others], clean_log_det[others])
        assert y[1].isnan().any()


def test_context_moves_the_density_and_has_to_be_there() -> None:
    for layer in (RecursiveSphere(point(2), spec=NetworkSpec((4,), 1)), ZonalLayer(point(2), n_context=1)):
        f, z = strong(layer), point(2).random(3, seeded())
        x, y = (f(z, torch.full((3, 1), value, dtype=torch.float64))[0] for value in (0.0, 1.0))
        assert (x - y).abs().max() > 1e-2
        with pytest.raises(ValueError, match="context"):
            f(z)


# --------------------------------------------------------------------------------------------- rotations, symmetries


@every_dimension
@pytest.mark.parametrize("scale", [0.3, 100.0])
def test_householder_rotations_are_rotations(dimension: int, scale: float) -> None:
    matrix = strong(HouseholderRotation(point(dimension)), scale).matrix()
    assert (matrix @ matrix.mT - torch.eye(dimension + 1)).abs().max() < 1e-14
    assert torch.linalg.det(matrix).item() == pytest.approx(1)
    assert (matrix - torch.eye(dimension + 1)).abs().max() > 0.1


def test_householder_rotations_reach_every_rotation() -> None:
    layer, target = HouseholderRotation(point(3)), torch.linalg.qr(torch.randn(4, 4, generator=seeded())).Q.double()
    target[0] *= torch.linalg.det(target).sign()
    optimiser = torch.optim.LBFGS(strong(layer, 0.1).parameters(), max_iter=60, line_search_fn="strong_wolfe")
    layer.normals = optimiser.param_groups[0]["params"][0]

    def distance() -> Tensor:
        optimiser.zero_grad()
        loss = (layer.matrix() - target).square().sum()
        loss.backward()
        return loss

    optimiser.step(distance)
    assert distance().item() < 1e-10


@pytest.mark.parametrize("count", [0, 1, 3, 2.0], ids=str)
def test_reflections_come_in_pairs(count: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        HouseholderRotation(point(2), count)


def test_only_zonal_maps_commute_with_rotations_about_the_axis() -> None:
    laws.equivariant_as_claimed(ZonalLayer(point(3), HeightMixture(3)), seeded())
    other = RecursiveSphere(point(3))
    other.symmetries = (AxisRotations(),)
    with pytest.raises(AssertionError, match="commute"):
        laws.equivariant_as_claimed(other, seeded())


def test_claims_about_spins_imply_each_other() -> None:
    turn, mirror = SpinPointGroup.cyclic(4), SpinPointGroup((((1.0, 0.0), (0.0, -1.0)),))
    assert GlobalRotations().implies(AxisRotations())
    assert GlobalRotations().implies(turn)
    assert AxisRotations().implies(turn)
    assert not AxisRotations().implies(mirror)
    assert not turn.implies(AxisRotations())
    assert SpinPointGroup((*turn.matrices, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)))).implies(turn)
    assert len(AxisRotations().generators(point(3))) == 3


def test_axis_rotations_fix_the_axis_and_point_groups_close() -> None:
    field = point(2)
    north = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64)
    for g in AxisRotations().generators(field):
        assert torch.equal(field.act(g, north), north)
    (turn,) = SpinPointGroup.cyclic(5).generators(field)
    x = y = field.random(4, seeded())
    for _ in range(5):
        y = field.act(turn, y)
    assert torch.allclose(x, y)
    assert not torch.allclose(x, field.act(turn, x))


def test_claims_refuse_what_is_no_symmetry() -> None:
    with pytest.raises(ValueError, match="orthogonal"):
        SpinPointGroup((((1.0, 0.1), (0.0, 1.0)),))
    with pytest.raises(ValueError, match="square"):
        SpinPointGroup((((1.0, 0.0),),))
    with pytest.raises(ValueError, match="matrices on"):
        SpinPointGroup.cyclic(3, 3).generators(point(3))
    with pytest.raises(ValueError, match="order"):
        SpinPointGroup.cyclic(1)
    with pytest.raises(TypeError, match="unit vectors"):
        AxisRotations().generators(FieldSpace(POINT, Circle()))


# ------------------------------------------------------------------------------------------------------------ SU(2)


def test_quaternions_are_su2() -> None:
    u = SU2().random(50, seeded())
    a = quaternion_from_su2(u)
    assert torch.allclose(su2_from_quaternion(a), u, atol=1e-14)
    assert torch.allclose(a.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    assert torch.allclose(a[:, 0], u.diagonal(dim1=-2, dim2=-1).sum(-1).real / 2)
    left = quaternion_from_su2(u[:1] @ u)  # the group acts by rotations of S³
    assert torch.allclose(left @ left.mT, a @ a.mT, atol=1e-13)


def test_sphere_flows_give_haar_densities_on_su2() -> None:
    """Importance sampling of ∫ dU exp(β/2 Tr U) = 2 I_1(β)/β by a flow on S³, in the normalised Haar measure."""
    beta = 2.0
    exact = math.log(2 * torch.special.i1(torch.tensor(beta, dtype=torch.float64)).item() / beta)
    layer = AsSU2(strong(Chain(RecursiveSphere(point(3), CircularMixture(3)), HouseholderRotation(point(3))), 0.3))
    flow = Transformed(White(layer.domain), layer)
    with torch.no_grad():
        u, log_prob = flow.sample_with_log_prob(20_000, generator=seeded())
    log_w = beta * quaternion_from_su2(u)[:, 0, 0, 0] - log_prob
    weight = torch.exp(log_w - exact)
    assert 1 / (torch.softmax(log_w, 0).square().sum() * len(log_w)) > 0.1
    error = 4 * weight.std() / math.sqrt(len(weight))
    assert abs(weight.mean() - 1) < error
    assert abs(weight.mean() * 2 * math.pi**2 - 1) > error  # the control: the area is not the Haar measure
    assert torch.allclose(flow.log_prob(u), log_prob, atol=1e-9)


def test_su2_adapters_refuse_other_maps() -> None:
    with pytest.raises(TypeError, match=r"Sphere\(3\)"):
        AsSU2(ZonalLayer(point(2)))
    with pytest.raises(ValueError, match="one-dimensional"):
        AsSU2(ZonalLayer(FieldSpace(Lattice((2, 2)), Sphere(3))))
    assert AsSU2(ZonalLayer(point(3))).symmetries == (Translations(),)


# ------------------------------------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", list(SphereMixture.examples()), ids=lambda a: str(a.field.target))
def test_recipes_estimate_the_exact_partition_function(kind: str, transform: str, action: SphereMixture) -> None:
    recipe = SphereFlow(kind, transform, n_layers=2, n_bins=4, hidden=(4,))
    flow = laws.perturbed(built(recipe, action), seeded(3), 0.3)
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(20_000, generator=seeded())
    weight = torch.exp(-action.energy(x) - log_prob - action.log_z())
    assert weight.sum() ** 2 / weight.square().sum() > 200
    assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(len(weight))
    assert torch.allclose(flow.log_prob(x[:50]), log_prob[:50], atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_recipes_keep_their_dtype(dtype: torch.dtype) -> None:
    x, log_prob = SphereFlow().build(SphereMixture(), dtype).sample_with_log_prob(3, generator=seeded())
    assert x.dtype == log_prob.dtype == dtype


def test_densities_refuse_points_off_the_sphere() -> None:
    flow = SphereFlow().build(SphereMixture())
    for x in (torch.ones(2, 1, 3).double(), torch.full((2, 1, 3), float("nan")).double()):
        with pytest.raises(ValueError, match="off the manifold"):
            flow.log_prob(x)
    with pytest.raises(ValueError, match="shape"):
        flow.log_prob(torch.ones(2, 3).double())


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "mobius"}, {"transform": "affine"}, {"n_layers": 0}, {"n_bins": 0}, {"hidden": (0,)}, {"n_context": -1}],
    ids=str,
)
def test_recipes_refuse_nonsense(wrong: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        SphereFlow(**wrong)


def test_spheres_only() -> None:
    with pytest.raises(TypeError, match="unit vectors"):
        SphereFlow().build(next(Phi4.examples()))
    for field in (FieldSpace(POINT, Real()), FieldSpace(POINT, Links(SU2()), "links")):
        for layer in (RecursiveSphere, ZonalLayer, MobiusLayer, HouseholderRotation):
            with pytest.raises(TypeError, match="unit vectors"):
                layer(field)


@every_dimension
@pytest.mark.parametrize("concentration", [0.0, 300.0])
def test_limits_of_the_concentration(dimension: int, concentration: float) -> None:
    """A uniform target is exact at the start; a sharp one, of two coincident centres, leaves everything finite."""
    centres = (1.0, *(0.0,) * dimension) * 2
    action = SphereMixture(centres, dimension, concentration)
    flow = built(SphereFlow(n_bins=3, hidden=(3,)), action)
    x, log_prob = flow.sample_with_log_prob(100, generator=seeded())
    log_w = -action.energy(x) - log_prob
    log_w.sum().backward()
    assert all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)
    if not concentration:
        assert torch.allclose(log_w, torch.full_like(log_w, action.log_z()), atol=1e-12)


@pytest.mark.parametrize("recipe", [SphereFlow(n_layers=1), SphereFlow("zonal", n_layers=6, n_bins=4)], ids=str)
def test_a_short_training_lowers_the_divergence(recipe: SphereFlow) -> None:
    """From more than one nat, with path gradients, below 0.5 in 60 steps."""
    action = SphereMixture()
    flow = built(recipe, action)
    update = GradientUpdate(learning_rate=0.02, batch_size=128)
    history = fit(Problem(flow, action), update, 60, generator=seeded()).history
    first, last = (record["loss"] + action.log_z() for record in (history[0], history[-1]))
    assert first > 1
    assert last < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_four_modes_are_learned(transform: str) -> None:
    """A thousand numbers reach a true divergence below 0.03 nats, and 96 % effective samples."""
    action = SphereMixture()
    flow = built(SphereFlow(transform=transform), action)
    fit(Problem(flow, action), GradientUpdate(learning_rate=0.01), 1500, generator=seeded())
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(20_000, generator=seeded(2))
    log_w = -action.energy(x) - log_prob - action.log_z()
    weight, error = log_w.exp(), 4 / math.sqrt(len(x))
    assert -log_w.mean() < 0.03
    assert weight.mean() ** 2 / weight.square().mean() > 0.96
    assert abs(weight.mean() - 1) < error * weight.std()
    assert sum(p.numel() for p in flow.parameters()) < 1000
