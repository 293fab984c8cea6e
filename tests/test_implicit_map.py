"""Implicit potential maps: they minimise what they say they minimise, and inherit the symmetry of their potential."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from flows.bijection import Bijection
from flows.layers.exponential_map import ExponentialMap
from flows.layers.implicit_map import ImplicitMap
from flows.transforms.network_potentials import NetworkPotential
from flows.transforms.sphere_features import Coordinates, Features, HarmonicInvariants
from flows.transforms.symmetrized import SymmetrizedPotential, generated_group
from lattices.fields import FieldSpace, Sphere
from lattices.lattice import Lattice
from lattices.spins import AxisRotations, SpinPointGroup
from tests.laws import bijections as laws

POINT = FieldSpace(Lattice((1,)), Sphere(2))
CYCLE, QUARTER_TURN = ((0, 1, 0), (0, 0, 1), (1, 0, 0)), ((0, -1, 0), (1, 0, 0), (0, 0, 1))
INVERSION = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
CUBE = SpinPointGroup((CYCLE, QUARTER_TURN, INVERSION))
GOLDEN = (1 + math.sqrt(5)) / 2


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def icosahedron() -> SpinPointGroup:
    """Rotations by 2π/5 about a vertex and by 2π/3 about a face, and the inversion."""
    axis = torch.tensor([0, 1, GOLDEN], dtype=torch.float64) / math.hypot(1, GOLDEN)
    cross = torch.linalg.cross(torch.eye(3, dtype=torch.float64), axis.expand(3, 3)).mT
    angle = 2 * math.pi / 5
    turn = torch.eye(3, dtype=torch.float64) - math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return SpinPointGroup((CYCLE, tuple(map(tuple, turn.tolist())), INVERSION))


def network(features: Features | None = None, hidden: tuple[int, ...] = (6, 5), scale: float = 1.0) -> NetworkPotential:
    """A network far from its start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        potential = NetworkPotential(features or Coordinates(3), hidden, 4)
    return laws.perturbed(potential, seeded(), scale)


def layer(features: Features | None = None, hidden: tuple[int, ...] = (6, 5)) -> ImplicitMap:
    return ImplicitMap(POINT, network(features, hidden))


def test_the_image_minimises_cost_plus_potential() -> None:
    f, x = layer(), POINT.random(50, seeded())
    y, _ = f(x)

    def objective(y: Tensor) -> Tensor:
        distance = 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))
        return (distance.square() / 2 + f.explicit.potential.value(y))[..., 0]

    least = objective(y)
    others = torch.stack([objective(POINT.random(1, seeded(k)).expand_as(x)) for k in range(40)])
    directions = (normalize(POINT.target.normal(y, seeded(k)), dim=-1) for k in range(20))
    near = torch.stack([objective(POINT.exp(y, 1e-3 * v)) for v in directions])
    assert (others > least).all()
    assert (near > least).all()


def test_the_map_is_the_exponential_of_the_gradient_of_the_minimum() -> None:
    f = layer()
    x = POINT.random(20, seeded()).requires_grad_()
    y, _ = f(x)
    y = y.detach()
    dot = (x * y).sum(-1)
    phi = dot.acos().square() / 2 + f.explicit.potential.value(y)  # the envelope theorem: y* is held fixed
    (derivative,) = torch.autograd.grad(phi.sum(), x)
    gradient = POINT.target.gradient(x.detach(), derivative)
    assert (POINT.exp(x.detach(), -gradient) - y).abs().max() < 1e-12


def test_it_is_the_inverse_of_the_exponential_map() -> None:
    potential = network()
    f, g = ImplicitMap(POINT, potential), ExponentialMap(POINT, potential)
    z = POINT.random(20, seeded())
    x, log_det = f(z)
    back, explicit_log_det = g(x)
    assert (back - z).abs().max() < 1e-13
    assert (log_det + explicit_log_det).abs().max() < 1e-12


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_networks_of_any_size_keep_their_bounds(scale: float) -> None:
    potential = network(scale=scale)
    x = POINT.random(500, seeded())[:, 0]
    gradient, hessian = potential.derivatives(x)
    tangent = torch.eye(3, dtype=x.dtype) - x[:, :, None] * x[:, None]
    curved = tangent @ hessian @ tangent - (x * gradient).sum(-1)[:, None, None] * tangent
    assert (tangent @ gradient[..., None]).norm(dim=1).max() < potential.limit
    assert torch.linalg.eigvalsh(curved).min() > -potential.limit
    laws.round_trip(ImplicitMap(POINT, potential), seeded())


def test_bounds_of_features_are_attained_by_no_point() -> None:
    for features in (Coordinates(3), HarmonicInvariants(CUBE, (4, 6, 8)), HarmonicInvariants(icosahedron(), (6, 10))):
        x = POINT.random(2000, seeded())[:, 0]
        frame = laws.sphere_frame(x)
        _, gradient, hessian = features.jet(x)
        slopes = torch.linalg.matrix_norm(gradient @ frame, ord=2)
        t = frame[:, :, 0]
        radial = (gradient @ x[..., None])[..., 0]
        curvature = (torch.einsum("bmij,bi,bj->bm", hessian, t, t) - radial).norm(dim=-1)
        assert slopes.max() < features.slope + 1e-12
        assert curvature.max() < features.curvature + 1e-12


# -------------------------------------------------------------------------------------------------------- symmetries


def equivariant() -> list[Bijection]:
    """One map for every way to make a potential invariant."""
    return [
        layer(Coordinates(3, zonal=True)),
        layer(HarmonicInvariants(CUBE, (4, 6)), ()),
        layer(HarmonicInvariants(icosahedron(), (6, 10)), (4,)),
        ImplicitMap(POINT, SymmetrizedPotential(network(), CUBE.matrices)),
    ]


@pytest.mark.parametrize("f", equivariant(), ids=["axis", "cube", "icosahedron", "mean over the cube"])
def test_invariant_potentials_give_equivariant_maps(f: ImplicitMap) -> None:
    assert any(isinstance(claim, AxisRotations | SpinPointGroup) for claim in f.symmetries)
    laws.equivariant_as_claimed(f, seeded())
    x = POINT.random(10, seeded())
    assert (f(x)[0] - x).abs().max() > 1e-4


def test_a_false_claim_is_rejected() -> None:
    f = layer(HarmonicInvariants(CUBE, (4, 6)), ())
    f.symmetries = (*f.symmetries, icosahedron())
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(f, seeded())


def test_invariant_harmonics_are_harmonic_invariant_and_as_many_as_known() -> None:
    for group, known in ((CUBE, {4: 1, 6: 1, 8: 1, 10: 1}), (icosahedron(), {6: 1, 10: 1})):
        features = HarmonicInvariants(group, tuple(range(1, 11)))
        assert features.n_features == sum(known.values())
        x = POINT.random(20, seeded())[:, 0]
        value, _, hessian = features.jet(x)
        assert hessian.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max() < 1e-9  # Laplace's equation in R³
        moved = features.jet(x @ generated_group(group).mT).value
        assert (moved - value).abs().max() < 1e-11


def test_the_groups_have_their_orders() -> None:
    assert len(generated_group(CUBE)) == 48
    assert len(generated_group(icosahedron())) == 120
    assert len(generated_group(SpinPointGroup.cyclic(5))) == 5
    rotation = ((math.cos(1), -math.sin(1), 0.0), (math.sin(1), math.cos(1), 0.0), (0.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="at most 1000 elements"):
        generated_group(SpinPointGroup((rotation,)))


def test_groups_without_invariants_are_refused() -> None:
    with pytest.raises(ValueError, match="got none of degrees"):
        HarmonicInvariants(CUBE, (1, 2, 3, 5))
    with pytest.raises(ValueError, match="degrees from 1 to 12"):
        HarmonicInvariants(CUBE, (0,))
