"""Couplings of gauge links: exact at large strength, Haar measure normalised, finite where eigenvalues meet."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from flows.architectures.gauge_coupling import GaugeCoupling
from flows.bijection import Bijection, Chain, Inverse
from flows.conditioners.loop_convolutions import LoopConvolutions, LoopSpec
from flows.layers.gauge_coupling import PlaquetteCoupling
from flows.layers.gauge_residual import ResidualCoupling
from flows.layers.spectral_coupling import SpectralCoupling
from flows.transforms.affine import Affine
from flows.transforms.circular import wrap
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.spectral import SpectralSpline
from lattices.exact.gauge import gauge_torus_log_z
from lattices.fields import FieldSpace
from lattices.lattice import Lattice
from lattices.link_partitions import LinkPartition, link_parity, link_stripes
from lattices.theories.phi4 import Phi4
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.wilson import link_field
from symmetries.spectra import traceless_anti_hermitian
from tests.laws import bijections as laws

with torch.random.fork_rng():
    torch.manual_seed(0)
    LAYERS = [layer for cls in (PlaquetteCoupling, SpectralCoupling, ResidualCoupling) for layer in cls.examples()]

every = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{type(layer).__name__}-{layer.domain.target}")


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def strong(layer: Bijection, scale: float = 0.5) -> Bijection:
    """A copy far from the identity."""
    return laws.perturbed(layer, seeded(3), scale).double()


# ----------------------------------------------------------------------------------------------------------- layers


@every
def test_layers_start_as_the_identity(layer: Bijection) -> None:
    laws.starts_as_identity(layer, seeded())


@every
def test_log_det_is_the_finite_difference_in_tangent_space(layer: Bijection) -> None:
    f, field, step = strong(layer), layer.domain, 1e-4
    z, context = laws.random_fields(field, 1, seeded()), laws.couplings(layer, 1, seeded())
    x, claimed = f(z, context)
    assert laws.gap(field, x, z) > 1e-2
    numbers = laws.n_coordinates(field)
    n = math.prod(numbers)
    directions = torch.cat((torch.eye(n), -torch.eye(n))).double().reshape(2 * n, *numbers)
    v = step * laws.as_tangent(field, z.expand(2 * n, *z.shape[1:]), directions)
    with torch.no_grad():
        ahead, behind = f(field.exp(z, v), None if context is None else context.expand(2 * n, -1))[0].split(n)
    difference = ahead - behind if ahead.is_complex() else wrap(ahead - behind)
    columns = laws.as_coordinates(field, x.expand_as(difference), difference) / (2 * step)
    assert (columns.slogdet().logabsdet - claimed).abs() < 1e-5


@every
@pytest.mark.parametrize("backwards", [False, True])
def test_gradients_of_images_and_log_dets_are_finite_differences(layer: Bijection, backwards: bool) -> None:
    f, field, step = strong(layer, 0.3), layer.domain, 1e-5
    f = Inverse(f) if backwards else f
    z, context = laws.random_fields(field, 1, seeded()), laws.couplings(layer, 1, seeded())
    v = torch.randn(1, *laws.n_coordinates(field), generator=seeded(2), dtype=torch.float64)
    weight = torch.randn(z.shape, generator=seeded(3), dtype=torch.float64)
    start = {name: p.detach() for name, p in f.named_parameters()}
    shifts = {name: torch.randn(p.shape, generator=seeded(4), dtype=torch.float64) for name, p in start.items()}

    def value(e: Tensor) -> Tensor:  # links move along v, parameters along the shifts
        moved = {name: p + 0.1 * e * shifts[name] for name, p in start.items()}
        ahead = field.exp(z, laws.as_tangent(field, z, e * v))
        y, log_det = torch.func.functional_call(f, moved, (ahead, context))
        return torch.stack([((y if y.is_complex() else y.sin()) * weight).real.sum(), log_det.sum()])

    exact = torch.autograd.functional.jacobian(value, torch.zeros((), dtype=torch.float64))
    ahead, behind = (value(torch.tensor(e, dtype=torch.float64)) for e in (step, -step))
    torch.testing.assert_close(exact, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5)


@every
def test_frozen_links_stay_and_active_ones_stay_in_the_group(layer: Bijection) -> None:
    f, z = strong(layer), laws.random_fields(layer.domain, 3, seeded())
    x, _ = f(z, laws.couplings(layer, 3, seeded()))
    partition = layer.partition
    frozen = torch.ones(z.flatten(1, 1 + layer.domain.lattice.dimension).shape[1], dtype=torch.bool)
    frozen[partition.links] = False
    flat = [y.flatten(1, 1 + layer.domain.lattice.dimension) for y in (z, x)]
    assert torch.equal(flat[0][:, frozen], flat[1][:, frozen])
    assert layer.domain.contains(x, 1e-12).all()


@every
@pytest.mark.parametrize("distance", [0.0, 1e-8])
def test_values_and_gradients_are_finite_where_eigenvalues_meet(layer: Bijection, distance: float) -> None:
    f, field = strong(layer, 0.2), layer.domain
    unit = torch.zeros(2, *laws.n_coordinates(field), dtype=torch.float64)
    ones = field.target.group.identity(field.random(1, seeded()).dtype).expand(2, *field.event_shape)
    shift = distance * torch.randn(unit.shape, generator=seeded(), dtype=torch.float64)
    z = field.exp(ones, laws.as_tangent(field, ones, shift)).detach().requires_grad_()
    for direction in (f.forward, f.inverse):
        x, log_det = direction(z, laws.couplings(layer, 2, seeded()))
        gradients = torch.autograd.grad(x.real.sum() + log_det.sum(), [z, *f.parameters()], allow_unused=True)
        assert x.isfinite().all()
        assert log_det.isfinite().all()
        assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("moves", ["plaquette", "residual"])
def test_the_mean_jacobian_over_haar_measure_is_one(n: int, moves: str) -> None:
    theory = U1Gauge((4, 4), 1.0) if n == 1 else SUNGauge((4, 4), n, 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        chain = GaugeCoupling(n_cycles=1, moves=moves, hidden=(3,), n_bins=4).build(theory).bijection
    f = laws.perturbed(Chain(*chain.layers[:2]), seeded(4), 0.1)
    with torch.no_grad():
        jacobian = f.forward(theory.field.random(2000, seeded()))[1].exp()
    assert jacobian.mean() ** 2 / jacobian.square().mean() > 0.2  # at least 400 effective samples
    assert jacobian.std() > 0.1
    assert abs(jacobian.mean() - 1) < 4 * jacobian.std() / len(jacobian) ** 0.5


@pytest.mark.parametrize("moves", ["plaquette", "residual"])
def test_long_chains_stay_unitary_both_ways(moves: str) -> None:
    field = link_field((4, 4), 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = GaugeCoupling(n_cycles=2, moves=moves, hidden=(4,), n_bins=4, depth=1).build(SUNGauge((4, 4), 3, 1.0))
    f, z = laws.perturbed(flow.bijection, seeded(), 0.15), field.random(2, seeded())
    with torch.no_grad():
        x, log_det = f(z)
        back, inverse_log_det = f.inverse(x)
    assert log_det.abs().max() > 1
    assert field.contains(x, 1e-12).all()
    assert field.contains(back, 1e-12).all()
    assert laws.gap(field, back, z) < 1e-11
    assert (log_det + inverse_log_det).abs().max() < 1e-10


# --------------------------------------------------------------------------------------------------------- residual


def stout(n: int, rho: float) -> ResidualCoupling:
    """A layer with all coefficients equal to ρ."""
    field = link_field((4, 4), n)
    layer = ResidualCoupling(field, link_parity(field.lattice, 0, 0), LoopSpec((2,)))
    torch.nn.init.constant_(layer.conditioner.even_head.bias, math.atanh(rho * len(layer.staples) / layer.limit))
    return layer


def holomorphic_log_det(layer: ResidualCoupling, z: Tensor) -> Tensor:
    """Half the real log det of the complex N² × N² derivative ∂U'/∂U at fixed U†: right to first order alone."""
    n = z.shape[-1]
    u, staples = layer._split(z, None)

    def step(u: Tensor, dagger: Tensor) -> Tensor:
        m = u @ staples.detach()
        a = (m - staples.detach().mH @ dagger) / 2
        a = a - torch.eye(n, dtype=a.dtype) * a.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        return torch.linalg.matrix_exp(-a) @ u

    columns = []
    for direction in torch.eye(n * n, dtype=z.dtype).unflatten(-1, (n, n)):
        columns.append((step(u + 1e-6 * direction, u.mH) - step(u - 1e-6 * direction, u.mH)).flatten(-2) / 2e-6)
    return torch.linalg.slogdet(torch.stack(columns, -1)).logabsdet.sum(1)


@pytest.mark.parametrize("n", [2, 3])
def test_the_real_block_is_right_at_large_strength_and_the_holomorphic_one_is_not(n: int) -> None:
    z = link_field((4, 4), n).random(2, seeded())
    errors = {}
    for rho in (0.001, 0.15):
        layer = stout(n, rho)
        exact = laws.jacobian(layer, z, None).slogdet().logabsdet
        torch.testing.assert_close(layer(z)[1], exact, rtol=0, atol=1e-10)
        errors[rho] = (holomorphic_log_det(layer, z) - exact).abs().max().item()
    assert errors[0.15] > 1e-2


def test_the_stout_step_is_its_formula() -> None:
    layer, field = stout(3, 0.15), link_field((4, 4), 3)
    z = field.random(2, seeded())
    u, x = z, layer(z)[0]
    up = u[:, 1] @ u[:, 0].roll(-1, 2) @ u[:, 1].roll(-1, 1).mH
    down = u[:, 1].roll(1, 2).mH @ u[:, 0].roll(1, 2) @ u[:, 1].roll((-1, 1), (1, 2))
    q = traceless_anti_hermitian(0.15 * (up + down) @ u[:, 0].mH)
    expected = torch.linalg.matrix_exp(q) @ u[:, 0]
    even = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    torch.testing.assert_close(x[:, 0][:, even], expected[:, even])
    action = SUNGauge((4, 4), 3, 1.0)
    assert (action.energy(x) < action.energy(z)).all()


def test_an_inverse_that_does_not_converge_says_so() -> None:
    layer = stout(3, 0.15)
    layer.max_iterations = 2
    with pytest.raises(RuntimeError, match=r"converge in 2 iterations.*lower limit=0\.9"):
        layer.inverse(link_field((4, 4), 3).random(2, seeded()))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_inverse_converges_close_to_the_limit(n: int) -> None:
    layer = stout(n, 0.44)
    x = layer.domain.random(3, seeded())
    z, log_det = layer.inverse(x)
    back, forward_log_det = layer(z)
    assert laws.gap(layer.domain, back, x) < 1e-12
    assert (log_det + forward_log_det).abs().max() < 1e-10


# ----------------------------------------------------------------------------------------------- conditioners, recipe


def test_conditioners_look_at_frozen_loops_alone() -> None:
    field = link_field((4, 4), 1)
    partition = link_stripes(field.lattice, 0, 1)
    network = laws.perturbed(LoopConvolutions(field, partition, ("even", "odd"), LoopSpec((3,))), seeded(), 0.5)
    x = field.random(2, seeded())
    moved = partition.merge(x, partition.split(x) + 1)
    torch.testing.assert_close(network(x), network(moved))
    others = link_stripes(field.lattice, 0, 2)
    assert (network(x) - network(others.merge(x, others.split(x) + 1))).abs().max() > 1e-3
    network.loops[0].links = network.loops[0].links.roll(1, 1)  # look at the loops beside the frozen ones
    shifted = LinkPartition(field.lattice, (0, 1), partition_mask(others), partition.translations)
    assert (network(x) - network(shifted.merge(x, shifted.split(x) + 1))).abs().max() > 1e-3


def partition_mask(partition: LinkPartition) -> Tensor:
    mask = torch.zeros(partition.lattice.volume, dtype=torch.bool)
    return mask.index_fill(0, partition.sites, True).reshape(partition.lattice.extents)


@pytest.mark.parametrize("recipe", list(GaugeCoupling.examples()), ids=lambda r: f"{r.moves}-{r.transform}")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_recipes_start_at_haar_measure(recipe: GaugeCoupling, n: int) -> None:
    theory = U1Gauge((4, 4), 1.0) if n == 1 else SUNGauge((4, 4), n, 1.0)
    flow = recipe.build(theory, torch.float32)
    context = torch.zeros(3, 1) if recipe.n_context else None
    x, log_prob = flow.sample_with_log_prob(3, context, generator=seeded())
    assert log_prob.dtype == torch.float32
    assert log_prob.abs().max() < 1e-4
    assert theory.field.contains(x).all()


@pytest.mark.parametrize(
    ("n", "moves"),
    [
        (1, "plaquette"),
        pytest.param(2, "plaquette", marks=pytest.mark.slow),
        pytest.param(3, "plaquette", marks=pytest.mark.slow),
        pytest.param(2, "residual", marks=pytest.mark.slow),
    ],
)
def test_a_trained_flow_finds_the_exact_free_energy(n: int, moves: str) -> None:
    theory = U1Gauge((4, 4), 1.0) if n == 1 else SUNGauge((4, 4), n, 2.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = GaugeCoupling(n_cycles=1, moves=moves, hidden=(4,), n_bins=4).build(theory)
    optimiser, generator = torch.optim.Adam(flow.parameters(), 0.03), seeded()
    for _ in range(25):
        x, log_prob = flow.sample_with_log_prob(32, generator=generator)
        optimiser.zero_grad()
        (theory.energy(x) + log_prob).mean().backward()
        optimiser.step()
    with torch.no_grad():
        x, log_prob = flow.sample_with_log_prob(2000, generator=generator)
        w = (-theory.energy(x) - log_prob).exp()
    assert w.mean() ** 2 / w.square().mean() > 0.2
    error = w.std() / w.mean() / len(w) ** 0.5
    assert abs(w.mean().log() - gauge_torus_log_z((4, 4), n, theory.beta)) < 4 * error


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PlaquetteCoupling(link_field((4, 4), 2), stripes()), TypeError, "U\\(1\\) links"),
        (lambda: PlaquetteCoupling(link_field((4, 8), 1), stripes()), TypeError, "links on Lattice"),
        (lambda: PlaquetteCoupling(link_field((4, 4), 1), stripes(), Affine()), TypeError, "map of the circle"),
        (lambda: SpectralCoupling(link_field((4, 4), 3), stripes(), SpectralSpline(2)), TypeError, "SU\\(2\\) links"),
        (lambda: ResidualCoupling(link_field((4, 8), 1), stripes()), ValueError, "links on Lattice"),
        (lambda: ResidualCoupling(link_field((4, 4), 2), stripes(), limit=1.0), ValueError, "0 < limit < 1"),
        (lambda: ResidualCoupling(FieldSpace(Lattice((4, 4))), stripes()), ValueError, "group elements on links"),
        (lambda: LoopSpec(kernel_size=2), ValueError, "odd kernel_size"),
        (lambda: LoopSpec(hidden=()), ValueError, "at least one channel"),
        (lambda: LoopSpec(n_context=-1), ValueError, "n_context >= 0"),
        (
            lambda: LoopConvolutions(link_field((4, 4), 1), parity(), ("even",), LoopSpec(rectangles=False)),
            ValueError,
            "rectangles=True",
        ),
        (lambda: LoopConvolutions(link_field((4, 4), 2), stripes(), ("odd",)), ValueError, "even parameters alone"),
        (lambda: SpectralSpline(1), ValueError, "n >= 2"),
        (lambda: SpectralSpline(3, depth=0), ValueError, "depth >= 1"),
        (lambda: CircularMixture(0), ValueError, "n_components >= 1"),
        (lambda: GaugeCoupling(n_cycles=0), ValueError, "n_cycles >= 1"),
        (lambda: GaugeCoupling(moves="up"), ValueError, "plaquette, residual"),
        (lambda: GaugeCoupling(transform="affine"), ValueError, "mixture, spline"),
        (lambda: GaugeCoupling().build(Phi4((4, 4), 1.0, 1.0)), ValueError, "group elements on links"),
        (lambda: GaugeCoupling().build(U1Gauge((6, 6), 1.0)), ValueError, r"\(6, 8\) fits"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def stripes() -> LinkPartition:
    return link_stripes(Lattice((4, 4)), 0, 0)


def parity() -> LinkPartition:
    return link_parity(Lattice((4, 4)), 0, 0)
