"""Couplings of spins: densities by quadrature, vanishing fields and poles, global rotations, exact partition sums."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn

from flows.architectures.spin_coupling import SpinCouplingFlow
from flows.conditioners.vector_convolutions import VectorConvolutions, VectorSpec
from flows.distribution import Transformed
from flows.layers.spin_coupling import AxialMap, SpinCoupling, colatitude_spline
from flows.objectives import ReverseKL
from flows.training import batch_ess, fit
from flows.updates.gradient import GradientUpdate
from flows.updates.update import Problem
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Real, Sphere
from lattices.invariance import PointGroup, Translation, Translations
from lattices.lattice import Lattice
from lattices.spins import GlobalRotations
from lattices.theories.on import ON
from lattices.theories.phi4 import Phi4
from lattices.theories.xy import XY
from tests.laws import bijections as laws

with torch.random.fork_rng():
    torch.manual_seed(0)
    LAYERS = list(SpinCoupling.examples())
SQUARE = Lattice((4, 4))

every = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.domain.target}-{layer.domain.lattice}")
components = pytest.mark.parametrize("n", [2, 3, 5])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def strong(target: Circle | Sphere, lattice: Lattice = SQUARE, scale: float = 0.5, n_context: int = 0) -> SpinCoupling:
    """A layer far from the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = VectorSpec((4, 3), n_context=n_context)
        layer = SpinCoupling(FieldSpace(lattice, target), AxialMap(5), spec)
    return laws.perturbed(layer, seeded(2), scale)


def unit(*components: float) -> Tensor:
    s = torch.tensor(components, dtype=torch.float64)
    return s / s.norm()


def bends(n: int, n_bins: int = 5, scale: float = 1.5) -> Tensor:  # -> (n, 3 n_bins + 1)
    return scale * torch.randn(n, 3 * n_bins + 1, generator=seeded(4), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------- colatitude splines


@components
@pytest.mark.parametrize("inverse", [False, True])
def test_splines_of_the_colatitude_keep_the_area_of_the_sphere(n: int, inverse: bool) -> None:
    angle = (torch.arange(40_000, dtype=torch.float64) + 0.5) * math.pi / 40_000
    axis, across = 2 * torch.eye(n, dtype=torch.float64)[:2]
    s = (angle.cos()[:, None] * axis + angle.sin()[:, None] * across) / 2
    image, log_det = colatitude_spline(s, axis.expand_as(s), bends(1).expand(len(s), -1), inverse)
    assert log_det.abs().max() > 0.5
    area = angle.sin() ** (n - 2)
    for weigh in (torch.ones_like, torch.exp, torch.square):
        direct, moved = (area * weigh(s[:, 0])).sum(), (area * log_det.exp() * weigh(image[:, 0])).sum()
        assert (moved / direct - 1).abs() < 1e-6


@components
@dtypes
def test_poles_stay_where_they_are_with_the_slope_of_the_spline(n: int, dtype: torch.dtype) -> None:
    axis = torch.randn(1, n, generator=seeded(), dtype=torch.float64)
    pole = axis / axis.norm()
    tangent = torch.linalg.qr(pole.T, mode="complete").Q[:, 1]
    bend, near = bends(1).to(dtype), 10 * torch.finfo(dtype).eps ** 0.5
    for sign in (1, -1):
        tiny = [sign * pole * math.cos(t) + math.sin(t) * tangent for t in (0.0, 1e-10, near)]
        s = torch.cat(tiny).to(dtype).requires_grad_()
        image, log_det = colatitude_spline(s, axis.to(dtype).expand_as(s), bend.expand(3, -1))
        assert (image[0] - s[0]).norm() < near
        assert (image.norm(dim=-1) - 1).abs().max() < 10 * torch.finfo(dtype).eps
        assert (log_det - log_det[2]).abs().max() < 100 * near
        (log_det.sum() + image.sum()).backward()
        assert s.grad is not None
        assert s.grad.isfinite().all()


@components
def test_splines_fade_where_there_is_no_axis(n: int) -> None:
    s = torch.nn.functional.normalize(torch.randn(4, n, generator=seeded(), dtype=torch.float64), dim=-1)
    direction = torch.randn(n, generator=seeded(2), dtype=torch.float64)
    for length, bound in ((0.0, 0.0), (1e-30, 0.0), (1e-7, 1e-12), (1e-3, 1e-4)):
        axis = (length * direction).expand_as(s).clone().requires_grad_()
        image, log_det = colatitude_spline(s, axis, bends(4))
        assert (image - s).abs().max() <= bound + 1e-15
        assert log_det.abs().max() <= bound + 1e-15
        (image.sum() + log_det.sum()).backward()
        assert axis.grad is not None
        assert axis.grad.norm(dim=-1).max() < 1


# --------------------------------------------------------------------------------------------------------- the layers


@every
def test_layers_start_as_the_identity(layer: SpinCoupling) -> None:
    laws.starts_as_identity(layer, seeded())


@every
@pytest.mark.parametrize("law", laws.BIJECTION_LAWS, ids=lambda law: law.__name__)
def test_layers_far_from_the_identity_keep_the_laws(layer: SpinCoupling, law: laws.Law) -> None:
    law(laws.perturbed(layer, seeded(3), 0.4), seeded())


@every
def test_layers_claim_their_symmetries_and_move_their_colour_alone(layer: SpinCoupling) -> None:
    translations = Translations(parity=True) if layer.partition == "checkerboard" else Translations(step=2)
    assert set(layer.symmetries) == {translations, PointGroup(), GlobalRotations()}
    f, z = laws.perturbed(layer, seeded(3), 0.4), laws.random_fields(layer.domain, 2, seeded())
    x, _ = f(z, laws.couplings(f, 2, seeded()))
    odd = (layer.domain.lattice.coordinates() % 2).sum(1).reshape(layer.domain.lattice.extents)
    moving = (odd % 2 if layer.partition == "checkerboard" else odd) == layer.colour
    assert (x - z)[:, ~moving].abs().max() == 0
    assert (x - z)[:, moving].abs().max() > 1e-2


class Preferring(nn.Module):
    """A conditioner that adds a vector of its own choice: it does not turn with the spins."""

    def __init__(self, conditioner: VectorConvolutions) -> None:
        super().__init__()
        self.conditioner = conditioner

    def forward(self, frozen: Tensor, sites: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        numbers, vectors = self.conditioner(frozen, sites, context)
        return numbers, vectors + 0.1 * torch.eye(frozen.shape[-1], dtype=frozen.dtype)[0]


@pytest.mark.parametrize("target", [Circle(), Sphere(2)])
def test_a_preferred_component_breaks_the_global_rotations(target: Circle | Sphere) -> None:
    layer = strong(target, scale=0.2)
    laws.equivariant_as_claimed(layer, seeded())
    layer.conditioner = Preferring(layer.conditioner)
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(layer, seeded())


@pytest.mark.parametrize("target", [Circle(), Sphere(2)])
def test_colours_do_not_commute_with_odd_translations(target: Circle | Sphere) -> None:
    layer = strong(target)
    z = laws.random_fields(layer.domain, 2, seeded())
    step = Translation((0, 1))
    moved = step.apply(layer(z)[0], layer.domain)
    assert laws.gap(layer.domain, layer(step.apply(z, layer.domain))[0], moved) > 1e-2


def cancelling(field: FieldSpace, dtype: torch.dtype) -> Tensor:
    """Fields whose odd sites carry s on odd rows and -s on even ones: every sum over a shell of an even site is 0."""
    z = laws.random_fields(field, 3, seeded()).to(dtype)
    s = z[:, :1, 1:2]
    odd_rows = (field.lattice.coordinates()[:, 0] % 2 == 1).reshape(1, *field.lattice.extents)
    odd_sites = field.lattice.coordinates().sum(1).reshape(1, *field.lattice.extents) % 2 == 1
    if isinstance(field.target, Circle):
        return torch.where(odd_sites, torch.where(odd_rows, s, s - s.sign() * math.pi), z)
    return torch.where(odd_sites[..., None], torch.where(odd_rows[..., None], s, -s), z)


@dtypes
@pytest.mark.parametrize("target", [Circle(), Sphere(2)])
def test_frozen_spins_that_cancel_move_nothing(target: Circle | Sphere, dtype: torch.dtype) -> None:
    layer = strong(target).to(dtype)
    z = cancelling(layer.domain, dtype).requires_grad_()
    x, log_det = layer(z)
    rounding = 100 * torch.finfo(dtype).eps
    assert laws.gap(layer.domain, x, z) < rounding
    assert log_det.abs().max() < rounding
    ((x * torch.randn(x.shape, generator=seeded(5), dtype=dtype)).sum() + log_det.sum()).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert layer.push_score(z, torch.zeros_like(z)).score.isfinite().all()


@dtypes
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("target", [Circle(), Sphere(2)])
def test_spins_parallel_and_opposite_to_their_neighbours(
    target: Circle | Sphere, sign: int, dtype: torch.dtype
) -> None:
    """All spins in a row: a pole of every map, which stays in place with finite derivatives."""
    layer = strong(target).to(dtype)
    s = laws.random_fields(layer.domain, 3, seeded())[:, :1, :1]
    even = (layer.domain.lattice.coordinates().sum(1) % 2 == 0).reshape(4, 4, *(1 for _ in target.shape))
    opposite = s - s.sign() * math.pi if isinstance(target, Circle) else -s
    z = torch.where(even, s if sign > 0 else opposite, s).to(dtype).requires_grad_()
    x, log_det = layer(z)
    assert laws.gap(layer.domain, x, z) < 100 * torch.finfo(dtype).eps ** 0.5
    back, reverse_log_det = layer.inverse(x)
    assert laws.gap(layer.domain, back, z) < 100 * torch.finfo(dtype).eps ** 0.5
    assert (log_det + reverse_log_det).abs().max() < 1e4 * torch.finfo(dtype).eps ** 0.5
    (x.sum() + log_det.sum()).backward()
    assert z.grad is not None
    assert all(g is not None and g.isfinite().all() for g in (z.grad, *(p.grad for p in layer.parameters())))


@pytest.mark.parametrize("target", [Circle(), Sphere(2)])
def test_single_precision_stays_finite_with_large_weights(target: Circle | Sphere) -> None:
    layer = strong(target, scale=10.0).float()
    z = laws.random_fields(layer.domain, 64, seeded()).float().requires_grad_()
    for direction in (layer.forward, layer.inverse):
        layer.zero_grad()
        x, log_det = direction(z)
        assert layer.domain.contains(x).all()
        assert log_det.isfinite().all()
        log_det.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("target", [Circle(), Sphere(2)])
def test_weights_carry_over_to_a_larger_lattice_where_tiles_stay_tiles(target: Circle | Sphere) -> None:
    small, large = strong(target), strong(target, Lattice((8, 8)), scale=0.1)
    large.load_state_dict(small.state_dict())
    z = laws.random_fields(small.domain, 2, seeded())
    (x, log_det), (tiled, tiled_log_det) = small(z), large(_tiled(z))
    assert laws.gap(large.domain, tiled, _tiled(x)) < 1e-12
    assert (tiled_log_det - 4 * log_det).abs().max() < 1e-11


def _tiled(z: Tensor) -> Tensor:
    return torch.cat([torch.cat([z, z], 1)] * 2, 2)


def test_context_matters_and_has_to_be_given() -> None:
    layer = strong(Circle(), n_context=1)
    z, ones = laws.random_fields(layer.domain, 2, seeded()), torch.ones(2, 1, dtype=torch.float64)
    assert laws.gap(layer.domain, layer(z, ones)[0], layer(z, -ones)[0]) > 1e-3
    with pytest.raises(ValueError, match="context"):
        layer(z)


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("extents", [(3, 4), (4, 5), (7,)])
def test_odd_extents_have_no_checkerboard(extents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="even extents"):
        SpinCoupling(FieldSpace(Lattice(extents), Circle()))


def test_faults_are_named() -> None:
    with pytest.raises(TypeError, match="angles or unit vectors"):
        SpinCoupling(FieldSpace(SQUARE, Real()))
    with pytest.raises(TypeError, match="angles or unit vectors"):
        SpinCouplingFlow().build(Phi4(extents=(4, 4), mass_squared=1.0, quartic=0.0))
    for partition, colour in (("checkerboard", 2), ("corners", 3), ("corners", -1)):
        with pytest.raises(ValueError, match="colour"):
            SpinCoupling(FieldSpace(SQUARE, Circle()), colour=colour, partition=partition)
    with pytest.raises(ValueError, match="partition"):
        SpinCoupling(FieldSpace(SQUARE, Circle()), partition="stripes")
    for n_bins, n_rounds in ((1, 1), (-2, 1), (4, 0)):
        with pytest.raises(ValueError, match="n_bins"):
            AxialMap(n_bins, n_rounds)
    for wrong in ({"n_layers": 0}, {"transform": "affine"}, {"partition": "stripes"}, {"base": "gaussian"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SpinCouplingFlow(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel_size"):
        VectorSpec(kernel_size=2)


# ------------------------------------------------------------------------------------------------------ exact answers


def trained(action: Action, recipe: SpinCouplingFlow, n_steps: int) -> Transformed:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = recipe.build(action)
    update = GradientUpdate(ReverseKL(path_gradient=False), learning_rate=2e-2, batch_size=128)
    fit(Problem(flow, action), update, n_steps, generator=seeded())
    return flow


SMALL = SpinCouplingFlow(n_layers=6, n_bins=4, hidden=(6,))
EXACT = [  # log Z in the normalised measure, from sums over characters
    (XY(extents=(2, 2), beta=1.0), replace(SMALL, base="trees"), 3.6953950205 + 4 * math.log(2 * math.pi)),
    (ON(extents=(2, 2), n=3, beta=1.0), SMALL, 2.6097630992 + 4 * math.log(4 * math.pi)),
]


@pytest.mark.parametrize(("action", "recipe", "log_z"), EXACT, ids=["XY on trees", "O(3)"])
def test_trained_flows_find_the_partition_sum(action: Action, recipe: SpinCouplingFlow, log_z: float) -> None:
    flow = trained(action, recipe, 50)
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(4000, generator=seeded(7))
        log_weights = -action(x) - log_prob
    assert batch_ess(log_weights) > 0.8
    weights = (log_weights - log_z).exp()
    assert (weights.mean() - 1).abs() < 4 * weights.std() / len(weights) ** 0.5


def test_an_untrained_flow_is_its_base_and_claims_the_rotations() -> None:
    action = ON(extents=(4, 4), n=3, beta=1.2)
    flow = SpinCouplingFlow(n_layers=2, hidden=(4,)).build(action)
    x, log_prob = flow.sample_with_log_prob(3, generator=seeded())
    assert (log_prob + 16 * math.log(4 * math.pi)).abs().max() < 1e-12
    assert action.field.contains(x).all()
    assert GlobalRotations() in flow.symmetries
