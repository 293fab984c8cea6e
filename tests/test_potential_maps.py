"""Exponential maps of potentials: diffeomorphisms for all parameters, closed Jacobians, inverses that never lie."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from flows.architectures.potential import PotentialFlow
from flows.bases import White
from flows.bijection import Bijection
from flows.distribution import Transformed
from flows.layers.concave_map import concave_map
from flows.layers.exponential_map import ExponentialMap
from flows.layers.implicit_map import ImplicitMap
from flows.transforms.network_potentials import NetworkPotential
from flows.transforms.potentials import (
    Derivatives,
    PolynomialPotential,
    Potential,
    RadialPotential,
    SoftMinimumPotential,
)
from flows.transforms.sphere_features import Coordinates
from flows.transforms.sphere_roots import sphere_root
from flows.transforms.stumpff import stumpff
from flows.transforms.symmetrized import SymmetrizedPotential
from flows.updates.natural import sample_tangents
from lattices.fields import Circle, FieldSpace, Sphere
from lattices.lattice import Lattice
from lattices.spins import SpinPointGroup
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.xy import XY
from tests.laws import bijections as laws

FAMILIES = (RadialPotential, PolynomialPotential, SoftMinimumPotential, SymmetrizedPotential, NetworkPotential)
with torch.random.fork_rng():
    torch.manual_seed(0)
    POTENTIALS = [potential for family in FAMILIES for potential in family.examples()]
    LAYERS = [layer for cls in (ExponentialMap, ImplicitMap) for layer in cls.examples()]

every = pytest.mark.parametrize("potential", POTENTIALS, ids=lambda p: f"{type(p).__name__}-{p.n}")
layers = pytest.mark.parametrize("layer", LAYERS, ids=lambda f: f"{type(f).__name__}-{f.domain.target}")


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def point(n: int) -> FieldSpace:
    """One unit vector of n components."""
    return FieldSpace(Lattice((1,)), Sphere(n - 1))


def strong(module: Potential | Bijection, scale: float) -> Potential | Bijection:
    """A copy with parameters far from those at the start."""
    return laws.perturbed(module, seeded(3), scale)


def difficult_points(potential: Potential, n_random: int = 40) -> Tensor:  # -> (batch, n)
    """Random points; poles; where the potential has centres, they and their antipodes."""
    random = point(potential.n).random(n_random, seeded())[:, 0]
    special = [random, torch.eye(potential.n, dtype=random.dtype), -torch.eye(potential.n, dtype=random.dtype)]
    for name, value in potential.named_parameters():
        if "centres" in name:
            centres = torch.nn.functional.normalize(value.detach(), dim=-1)
            special += [centres, -centres]
    return torch.cat(special)


class Saddle(Potential):
    """φ = a x₀²/2, which breaks the promise of potentials for a > 1: its map folds the sphere."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.n, self.strength = 3, strength

    def value(self, x: Tensor) -> Tensor:
        return self.strength * x[..., 0].square() / 2

    def derivatives(self, x: Tensor) -> Derivatives:
        e = x.new_tensor([1.0, 0, 0])
        return Derivatives(self.strength * x[..., :1] * e, self.strength * torch.outer(e, e).expand(*x.shape, 3))


def least_stretch(potential: Potential, x: Tensor) -> float:
    """The smallest eigenvalue of Hess_x d²(x, y)/2 + Hess φ at y = exp_x(∇φ), in units of the first's smallest."""
    gradient, hessian = potential.derivatives(x)
    tangent = torch.eye(potential.n, dtype=x.dtype) - x[:, :, None] * x[:, None]
    v = (tangent @ gradient[..., None])[..., 0]
    r = v.norm(dim=-1)
    assert (r < math.pi).all()
    along = v[:, :, None] * v[:, None] / r.square().clamp(min=1e-30)[:, None, None]
    contact = along + (r / r.tan().clamp(min=-1e300)).nan_to_num(1.0)[:, None, None] * (tangent - along)
    curved = tangent @ hessian @ tangent - (x * gradient).sum(-1)[:, None, None] * tangent
    frames = laws.sphere_frame(x)
    return torch.linalg.eigvalsh(frames.mT @ (contact + curved) @ frames).min().item()


# ------------------------------------------------------------------------------------------------------- potentials


@every
def test_derivatives_are_those_of_the_value(potential: Potential) -> None:
    potential = strong(potential, 0.7)
    x = difficult_points(potential, 5)[:20].requires_grad_()
    gradient, hessian = potential.derivatives(x)
    (exact,) = torch.autograd.grad(potential.value(x).sum(), x, create_graph=True)
    assert (gradient - exact).abs().max() < 1e-12
    rows = [torch.autograd.grad(exact[:, i].sum(), x, retain_graph=True)[0] for i in range(potential.n)]
    assert (hessian - torch.stack(rows, 1)).abs().max() < 1e-10


@every
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
def test_every_parameter_gives_a_diffeomorphism(potential: Potential, scale: float) -> None:
    potential = strong(potential, scale)
    assert least_stretch(potential, difficult_points(potential, 2000)) > 0


def test_a_potential_that_is_too_strong_folds_the_sphere() -> None:
    x = point(3).random(2000, seeded())[:, 0]
    assert least_stretch(Saddle(0.9), x) > 0
    assert least_stretch(Saddle(1.2), x) < 0


def test_quadratic_polynomials_contain_every_small_quadratic_form() -> None:
    matrix = torch.randn(3, 3, generator=seeded(), dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix + matrix.mT)
    potential = PolynomialPotential(3, 3)
    target = 0.9 * values / (2 * values.abs().sum())  # x·A x with 2 Tr|A| = 0.9
    with torch.no_grad():
        potential.axes[1].copy_(vectors.mT)
        alpha = 2 * target
        potential.weights[1] = alpha / (1 - alpha.abs().sum())
    x = difficult_points(potential)
    exact = torch.einsum("bi,ij,bj->b", x, vectors @ target.diag() @ vectors.mT, x)
    assert (potential.value(x) - exact).abs().max() < 1e-14


def test_the_soft_minimum_tends_to_the_smallest_distance() -> None:
    potential = SoftMinimumPotential(3, 4, temperature=1e-6)
    with torch.no_grad():
        potential.rounding.fill_(50)
    x = difficult_points(potential, 200)
    squares = (x @ potential.centres.mT).clamp(-1, 1).acos().square() / 2
    error = (-potential.value(x) - squares.amin(1)).abs().max()
    assert error < 0.1  # γ log n_components and π (2 - 2ρ)^½ at antipodes


def test_stumpff_functions_are_smooth_at_zero() -> None:
    r = torch.linspace(0.3, math.pi, 100, dtype=torch.float64)
    exact = (r.cos(), r.sin() / r, (1 - r.cos()) / r**2, (r - r.sin()) / r**3)
    assert all((a - b).abs().max() < 2e-15 for a, b in zip(stumpff(r.square()), exact))
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(stumpff(s)[m], s)[0].item() for m in range(4)]
    assert slopes == pytest.approx([-1 / 2, -1 / 6, -1 / 24, -1 / 120], rel=1e-15)


# ------------------------------------------------------------------------------------------------------------ layers


@layers
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_laws_hold_near_and_far_from_the_start(layer: Bijection, scale: float) -> None:
    f = strong(layer, scale)
    for law in (laws.well_formed, laws.round_trip, laws.log_det_is_jacobian, laws.pushes_score):
        law(f, seeded())
    laws.equivariant_as_claimed(f, seeded())


@every
def test_jacobians_at_poles_centres_and_antipodes(potential: Potential) -> None:
    f = ExponentialMap(point(potential.n), strong(potential, 0.5))
    z = difficult_points(f.potential, 1)[:, None]
    x, log_det = f(z)
    assert f.domain.contains(x).all()
    assert (laws.jacobian(f, z, None).slogdet().logabsdet - log_det).abs().max() < 1e-10
    back, reverse = f.inverse(x)
    assert (back - z).abs().max() < 1e-10
    assert (reverse + log_det).abs().max() < 1e-9


@every
def test_float32_has_finite_values_and_gradients_everywhere(potential: Potential) -> None:
    f = ExponentialMap(point(potential.n), strong(potential, 1.0)).float()
    x = difficult_points(f.potential)[:, None].float()
    for direction in (f.forward, f.inverse):
        f.zero_grad()
        y, log_det = direction(x)
        (y.sum() + log_det.sum()).backward()
        assert y.isfinite().all()
        assert log_det.isfinite().all()
        assert all(p.grad.isfinite().all() for p in f.parameters())


@pytest.mark.parametrize("family", [RadialPotential, SoftMinimumPotential])
def test_coincident_centres_and_large_concentration(family: type[Potential]) -> None:
    potential = family(3, 4)
    with torch.no_grad():
        potential.centres.copy_(potential.centres[:1].expand(4, -1))
        for name in {"weights", "sharpness", "rounding"} & dict(potential.named_parameters()).keys():
            getattr(potential, name).add_(20)
    f = ExponentialMap(point(3), potential)
    laws.log_det_is_jacobian(f, seeded())
    x = difficult_points(potential)[:, None]
    y, log_det = f(x)
    (y.sum() + log_det.sum()).backward()
    assert all(p.grad.isfinite().all() for p in f.parameters())


def test_one_bump_moves_latitudes_as_the_formula_says() -> None:
    potential = RadialPotential(3, 1)
    with torch.no_grad():
        potential.centres.copy_(torch.tensor([[0.0, 0.0, 1.0]]))
        potential.weights.fill_(3.0)  # α = 3/4
    theta = torch.linspace(0, math.pi, 50, dtype=torch.float64)
    z = torch.stack([theta.sin(), torch.zeros_like(theta), theta.cos()], -1)[:, None]
    beta = torch.nn.functional.softplus(potential.sharpness.detach())
    expected = theta - 0.75 * theta.sin() * torch.exp(beta * (theta.cos() - 1))
    x, _ = ExponentialMap(point(3), potential)(z)
    assert (torch.atan2(x[:, 0, 0], x[:, 0, 2]) - expected).abs().max() < 1e-14


@layers
def test_gradients_of_the_inverse_are_finite_differences(layer: Bijection) -> None:
    f, step = strong(layer, 0.3), 1e-6
    x = laws.random_fields(layer.domain, 3, seeded())
    weight = torch.randn(x.shape, generator=seeded(2), dtype=x.dtype)

    def paired() -> Tensor:
        z, log_det = (f.inverse if isinstance(f, ExponentialMap) else f.forward)(x)
        return (weight * z).sum() + log_det.sum()

    gradients = torch.autograd.grad(paired(), list(f.parameters()))
    direction = [torch.randn(p.shape, generator=seeded(4), dtype=p.dtype) for p in f.parameters()]
    claimed = sum((g * d).sum() for g, d in zip(gradients, direction))
    ends = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(f.parameters(), direction):
                p.add_(sign * step * d)
            ends.append(paired())
    assert ((ends[0] - ends[1]) / (2 * step) - claimed).abs() < 1e-6 * (1 + claimed.abs())


@layers
def test_tangents_are_per_sample_gradients(layer: Bijection) -> None:
    flow = Transformed(White(layer.domain), strong(layer, 0.5))
    x, log_prob, tangents = sample_tangents(flow, 3, None, seeded())
    exact = flow.log_prob(x)
    for i in range(3):
        row = torch.autograd.grad(exact[i], list(flow.parameters()), retain_graph=True)
        assert (torch.cat([g.flatten() for g in row]) - tangents[i]).abs().max() < 1e-9
    assert (exact - log_prob).abs().max() < 1e-10


# ----------------------------------------------------------------------------------------------------------- inverses


def test_points_that_are_not_reached_are_reported() -> None:
    def onto_a_cap(x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.nn.functional.normalize(x + 2 * torch.eye(3, dtype=x.dtype)[0], dim=-1)
        return y, torch.eye(3, dtype=x.dtype).expand(len(x), 3, 3)

    with pytest.raises(RuntimeError, match=r"1 of 2 points unsolved, the worst 2\.0"):
        sphere_root(onto_a_cap, torch.tensor([[1.0, 0, 0], [-0.8, 0.6, 0]], dtype=torch.float64))


def test_nan_is_not_solved() -> None:
    f = ExponentialMap(point(3), RadialPotential(3, 2))
    with pytest.raises(RuntimeError, match="1 of 2 points"):
        f.inverse(torch.tensor([[[1.0, 0, 0]], [[math.nan, 0, 1]]], dtype=torch.float64))


def test_roots_of_a_rotation_are_found_from_far_away() -> None:
    angle = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def rotation(x: Tensor) -> tuple[Tensor, Tensor]:
        c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
        matrix = torch.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(3, 3)
        return x @ matrix.mT, matrix.expand(len(x), 3, 3)

    y = torch.tensor([[1.0, 0, 0], [0.6, 0, 0.8], [0, 0, 1]], dtype=torch.float64)
    x = sphere_root(rotation, y)
    assert (rotation(x)[0] - y).abs().max() < 1e-14
    (slope,) = torch.autograd.grad(x[0, 1], angle)
    assert slope.item() == pytest.approx(-math.cos(3.0))  # x = (cos a, -sin a, 0)


# ----------------------------------------------------------------------------------------------- symmetry, use, misuse


def test_a_potential_without_symmetry_commutes_with_nothing() -> None:
    f = strong(concave_map(point(3), 3), 0.5)
    turn = SpinPointGroup.cyclic(4)
    f.symmetries = (*f.symmetries, turn)
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(f, seeded())


def test_a_law_rejects_the_jacobian_of_another_potential() -> None:
    f = strong(concave_map(point(3), 3), 0.5)
    other = strong(concave_map(point(3), 3), 0.6)
    f._move, move = other._move, f._move
    wrong = other.forward
    f._move = move
    f.forward = lambda z, context=None: (ExponentialMap.forward(f, z)[0], wrong(z)[1])
    with pytest.raises(AssertionError, match="log-det"):
        laws.log_det_is_jacobian(f, seeded())


@pytest.mark.parametrize("recipe", list(PotentialFlow.examples()), ids=lambda recipe: recipe.kind)
def test_recipes_build_normalised_flows(recipe: PotentialFlow) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        flow = strong(recipe.build(SphereMixture()), 0.5)
    x = point(3).random(20000, seeded())
    density = flow.log_prob(x).detach().exp() * 4 * math.pi
    assert abs(density.mean() - 1) < 4 * density.std() / len(x) ** 0.5
    assert density.std() > 1e-3


def test_misuse_is_explained() -> None:
    for build, error, message in (
        (lambda: RadialPotential(1), ValueError, "n >= 2"),
        (lambda: RadialPotential(3, 0), ValueError, "n_components >= 1"),
        (lambda: PolynomialPotential(3, degree=0), ValueError, "degree >= 1"),
        (lambda: SoftMinimumPotential(3, temperature=0), ValueError, "temperature"),
        (lambda: SymmetrizedPotential(RadialPotential(3), (((0, 1), (1, 0)),)), ValueError, "3 × 3"),
        (lambda: NetworkPotential(Coordinates(3), strength=1.0), ValueError, "strength < 1"),
        (lambda: NetworkPotential(Coordinates(3), (0,)), ValueError, "hidden width"),
        (lambda: ExponentialMap(point(3), RadialPotential(2)), ValueError, "match S"),
        (lambda: ImplicitMap(FieldSpace(Lattice((1,)), Circle()), RadialPotential(2)), TypeError, "unit vectors"),
        (lambda: concave_map(FieldSpace(Lattice((2,)))), TypeError, "unit vectors"),
        (lambda: PotentialFlow("convex"), ValueError, "expected a kind"),
        (lambda: PotentialFlow(zonal=True), ValueError, "zonal"),
        (lambda: PotentialFlow(n_layers=0), ValueError, "n_layers"),
        (lambda: PotentialFlow().build(XY((2,), 1.0)), TypeError, "unit vectors"),
    ):
        with pytest.raises(error, match=message):
            build()
