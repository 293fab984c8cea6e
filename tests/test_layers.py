"""Every bijection keeps the laws; every law rejects an object that breaks it; couplings and networks in detail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flows.architectures.coupling import TRANSFORMS, CouplingFlow
from flows.bijection import Bijection, Chain
from flows.conditioners.convolution import OrbitConvolution, convolve, periodic_halo
from flows.conditioners.parity_convolutions import ConvolutionSpec, ParityConvolutions
from flows.layers.coupling import Coupling
from flows.layers.fourier import FourierScaling
from flows.layers.gauge_coupling import PlaquetteCoupling
from flows.layers.gauge_residual import ResidualCoupling
from flows.layers.integrated import IntegratedFlow
from flows.layers.spectral_coupling import SpectralCoupling
from flows.transforms.affine import Affine
from flows.transforms.odd_spline import OddSpline
from flows.transforms.spline import RationalQuadraticSpline
from lattices.exact.phi4 import phi4_moments
from lattices.fields import Circle, FieldSpace, Real
from lattices.invariance import PointGroup, SignFlip, Translation, Translations
from lattices.lattice import Lattice
from lattices.theories.phi4 import Phi4
from tests.discovery import examples
from tests.laws import bijections as laws
from tests.laws.faulty import LeftShift, Mobius, circles, faulty_bijections

with torch.random.fork_rng():
    torch.manual_seed(0)
    BIJECTIONS = examples(Bijection)
GAUGE = PlaquetteCoupling | SpectralCoupling | ResidualCoupling
IDENTITIES = [p for p in BIJECTIONS if isinstance(p.values[0], FourierScaling | Coupling | IntegratedFlow | GAUGE)]
FAULTY = [(name, faulty) for name, objects in faulty_bijections().items() for faulty in objects]
COMPACT_LAWS = [law for law in laws.BIJECTION_LAWS if law not in (laws.trains_every_parameter, laws.pushes_score)]
SQUARE = Lattice((4, 4))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coupling(transform: Affine | OddSpline | RationalQuadraticSpline, lattice: Lattice = SQUARE) -> Coupling:
    conditioner = ParityConvolutions(lattice, transform.parity, ConvolutionSpec((4, 3)))
    return laws.perturbed(Coupling(FieldSpace(lattice), transform, conditioner), seeded(2), 0.3)


# -------------------------------------------------------------------------------------------------------- the laws


@pytest.mark.parametrize("law", laws.BIJECTION_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("bijection", BIJECTIONS)
def test_bijection(bijection: Bijection, law: laws.Law) -> None:
    law(bijection, seeded())


@pytest.mark.parametrize("bijection", IDENTITIES)
def test_starts_as_identity(bijection: Bijection) -> None:
    laws.starts_as_identity(bijection, seeded())


@pytest.mark.parametrize("law", COMPACT_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("make", [circles, Mobius, LeftShift], ids=lambda make: make.__name__)
def test_laws_hold_on_compact_targets(make: Callable[[], Bijection], law: laws.Law) -> None:
    law(make(), seeded())


@pytest.mark.parametrize(("name", "faulty"), FAULTY, ids=lambda value: value if isinstance(value, str) else "")
def test_law_rejects(name: str, faulty: Bijection) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(laws, name)(faulty, seeded())


def test_every_law_has_a_negative_control() -> None:
    assert {law.__name__ for law in laws.BIJECTION_LAWS} | {"starts_as_identity"} == set(faulty_bijections())


# ------------------------------------------------------------------------------------------------------- couplings


@pytest.mark.parametrize("transform", [Affine(), RationalQuadraticSpline(4, 3.0), OddSpline(3)], ids=repr)
def test_packed_is_masked(transform: Affine | OddSpline | RationalQuadraticSpline) -> None:
    layer, x = coupling(transform), FieldSpace(SQUARE).random(5, seeded())
    active = layer.partition.mask(layer.colour)
    everywhere = layer.conditioner(x.masked_fill(active, 0), torch.arange(16)).unflatten(1, (4, 4))
    y, log_slope = transform.forward(x, everywhere)
    packed, log_det = layer(x)
    torch.testing.assert_close(packed, torch.where(active, y, x))
    torch.testing.assert_close(log_det, log_slope.masked_fill(~active, 0).sum((1, 2)))
    assert torch.equal(packed[:, ~active], x[:, ~active])


def test_one_step_is_no_symmetry_of_a_checkerboard() -> None:
    layer, z = coupling(Affine()), FieldSpace(SQUARE).random(2, seeded())
    step = Translation((1, 0))
    assert laws.gap(layer.domain, layer(step.apply(z, layer.domain))[0], step.apply(layer(z)[0], layer.domain)) > 1e-2


@pytest.mark.parametrize("symmetry", [PointGroup(), SignFlip()], ids=repr)
def test_a_claim_that_is_given_up_is_broken(symmetry: PointGroup | SignFlip) -> None:
    spec = ConvolutionSpec((4, 3), point_group=symmetry != PointGroup(), odd=symmetry != SignFlip())
    layer = Coupling(FieldSpace(SQUARE), Affine(), ParityConvolutions(SQUARE, Affine().parity, spec))
    assert symmetry not in layer.symmetries
    layer.symmetries = (symmetry,)
    with pytest.raises(AssertionError, match="does not commute"):
        laws.equivariant_as_claimed(laws.perturbed(layer, seeded(), 0.3), seeded())


def test_context_changes_the_map() -> None:
    for layer in (p.values[0] for p in BIJECTIONS if getattr(p.values[0], "n_context", 0)):
        moved, z, context = laws.situation(layer, seeded())
        assert context is not None
        assert laws.gap(layer.domain, moved(z, context)[0], moved(z, context + 1)[0]) > 1e-3


# -------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("extents", [(5,), (3, 4), (2, 3, 4), (2, 3, 2, 3)], ids=str)
def test_convolution_is_its_definition(extents: tuple[int, ...]) -> None:
    lattice, radius, generator = Lattice(extents), 2, seeded()
    x = torch.randn(2, 3, *extents, generator=generator, dtype=torch.float64)
    kernel = torch.randn(4, 3, *(3 for _ in extents), generator=generator, dtype=torch.float64)
    padded = x.flatten(2)[..., periodic_halo(lattice, radius)]
    exact = torch.zeros(2, 4, *extents, dtype=torch.float64)
    for step in torch.cartesian_prod(*[torch.arange(3)] * len(extents)).reshape(-1, len(extents)).tolist():
        entry = kernel
        for s in step:
            entry = entry[:, :, s]
        shifted = x.roll([1 - s for s in step], lattice.axes)
        exact += torch.einsum("oi,bi...->bo...", entry, shifted)
    inside = convolve(padded, kernel)
    for axis, extent in enumerate(extents):
        inside = inside.narrow(2 + axis, radius - 1, extent)
    torch.testing.assert_close(inside, exact)


@pytest.mark.parametrize(("extents", "n_orbits"), [((4, 4), 6), ((4, 6), 9), ((4, 4, 4), 10), ((5,), 3)], ids=str)
def test_kernels_are_shared_over_orbits(extents: tuple[int, ...], n_orbits: int) -> None:
    lattice = Lattice(extents)
    shared, free = (OrbitConvolution(lattice, (1, 1), 2, point_group, torch.float64) for point_group in (True, False))
    assert shared.weight.shape == (1, 1, n_orbits)
    assert free.weight.shape == (1, 1, 5 ** len(extents))
    kernel = shared.weight[0][:, shared.orbits]
    assert all(torch.equal(kernel, kernel.flip(axis)) for axis in range(1, kernel.ndim))


# ---------------------------------------------------------------------------------------------------- architecture


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_architecture_starts_as_its_base_with_the_symmetries_of_the_action(transform: str) -> None:
    action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
    flow = CouplingFlow(n_layers=2, transform=transform, hidden=(3, 2)).build(action)
    x = flow.sample(4, generator=seeded())
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x))
    assert set(flow.symmetries) == {Translations(parity=True), PointGroup(), SignFlip()}
    laws.equivariant_as_claimed(flow.bijection, seeded())
    laws.round_trip(flow.bijection, seeded())


def test_single_precision_architecture() -> None:
    action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
    x, log_prob = CouplingFlow(n_layers=2).build(action, torch.float32).sample_with_log_prob(3, generator=seeded())
    assert {x.dtype, log_prob.dtype} == {torch.float32}


@pytest.mark.slow
def test_trained_splines_find_the_exact_free_energy() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
        flow = CouplingFlow(n_layers=4, transform="spline").build(action)
    optimiser, generator = torch.optim.Adam(flow.parameters(), 5e-3), seeded()
    for _ in range(200):
        x, log_prob = flow.sample_with_log_prob(128, generator=generator)
        optimiser.zero_grad()
        (action.energy(x) + log_prob).mean().backward()
        optimiser.step()
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(20_000, generator=generator)
        w = (-action.energy(x) - log_prob).exp()
    assert w.mean() ** 2 / w.square().mean() > 0.9
    exact = phi4_moments((4, 4), -4.0, 8.0).log_z
    error = w.std() / w.mean() / len(w) ** 0.5
    assert abs(w.mean().log() - exact) < 4 * error


# -------------------------------------------------------------------------------------------------------- mistakes


def fresh(extents: tuple[int, ...]) -> ParityConvolutions:
    return ParityConvolutions(Lattice(extents), Affine().parity, ConvolutionSpec((2,), n_context=1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Coupling(FieldSpace(Lattice((3, 4))), Affine(), fresh((3, 4))), ValueError, "even extents"),
        (lambda: Coupling(FieldSpace(SQUARE), Affine(), fresh((4, 6))), ValueError, "expected a conditioner for"),
        (lambda: Coupling(FieldSpace(SQUARE), OddSpline(), fresh((4, 4))), ValueError, "expected a conditioner for"),
        (lambda: Coupling(FieldSpace(SQUARE), Affine(), fresh((4, 4)), 2), ValueError, "colour 0 or 1"),
        (lambda: Coupling(FieldSpace(SQUARE, Circle()), Affine(), fresh((4, 4))), TypeError, "real scalar field"),
        (lambda: Coupling(FieldSpace(SQUARE, Real(2)), Affine(), fresh((4, 4))), TypeError, "real scalar field"),
        (lambda: FourierScaling(FieldSpace(SQUARE, Circle())), TypeError, "real fields on sites"),
        (lambda: FourierScaling(FieldSpace(SQUARE), n_context=2)(torch.zeros(1, 4, 4)), ValueError, r"\(batch, 2\)"),
        (lambda: fresh((4, 4))(torch.zeros(1, 4, 4), torch.arange(2), torch.zeros(3)), ValueError, r"\(batch, 1\)"),
        (lambda: ConvolutionSpec(kernel_size=4), ValueError, "odd kernel_size"),
        (lambda: ConvolutionSpec(hidden=()), ValueError, "at least one channel"),
        (lambda: ConvolutionSpec(n_context=-1), ValueError, "n_context >= 0"),
        (lambda: CouplingFlow(n_layers=0), ValueError, "n_layers >= 1"),
        (lambda: CouplingFlow(transform="cubic"), ValueError, "affine, monotone, odd-spline, spline"),
        (lambda: Chain(), ValueError, "at least one layer"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
