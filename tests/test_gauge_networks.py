"""Networks of links: they keep the symmetries they claim, and every law rejects a network that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flows.conditioners import gauge_layers
from flows.conditioners.frames import Frames, canonical, signed_axes
from flows.conditioners.gauge_equivariant import AlgebraNetwork, GaugeNetwork, GaugeNetworkSpec, GaugeTrunk
from flows.conditioners.gauge_layers import Bilinear, TraceGate, TransportedConvolution, loop_features
from lattices.fields import FieldSpace, Transformation
from lattices.gauge import Conjugation, GaugeInvariance, GaugeTransformation, OneLink
from lattices.invariance import PointGroup, Translations
from lattices.lattice import Lattice
from lattices.loops import CHAIR, PLAQUETTE, RECTANGLE, matrices, real_trace, transporter
from lattices.theories.wilson import link_field
from symmetries.finite import Hyperoctahedral

Network = GaugeNetwork | AlgebraNetwork


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perturbed(module: Any, seed: int = 2) -> Any:
    """All parameters moved away from zero."""
    generator = seeded(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return module


def networks() -> Iterator[Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind in (GaugeNetwork, AlgebraNetwork):
            yield from (
                pytest.param(perturbed(network), id=f"{kind.__name__}-{i}") for i, network in enumerate(kind.examples())
            )


NETWORKS = list(networks())
ALGEBRAS = [p for p in NETWORKS if isinstance(p.values[0], AlgebraNetwork)]
INVARIANTS = [p for p in NETWORKS if isinstance(p.values[0], GaugeNetwork)]


def situation(network: Network, n: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor | None]:
    """Random links and, where the network reads one, a context."""
    n_context = network.spec.n_context
    context = torch.randn(n, n_context, generator=seeded(3), dtype=dtype) if n_context else None
    return network.field.random(n, seeded(), dtype), context


def site_moved(network: Network, out: Tensor, g: Transformation) -> Tensor:
    """Numbers on sites go with the sites, internal transformations leave them alone."""
    sites = FieldSpace(network.field.lattice)
    if g.__class__.__module__ != "lattices.invariance":
        return out
    return torch.stack([sites.act(g, channel) for channel in out.unbind(1)], 1)


def gap(network: Network, g: Transformation) -> float:
    """How far the network is from commuting with g."""
    x, context = situation(network)
    turned = network.field.act(g, x)
    with torch.no_grad():
        out, after = network(x, context), network(turned, context)
    if isinstance(network, GaugeNetwork):
        return float((after - site_moved(network, out, g)).abs().max())
    u, v = network.field.exp(turned, after), network.field.act(g, network.field.exp(x, out))
    return float((matrices(network.field, u) - matrices(network.field, v)).abs().max())


# ------------------------------------------------------------------------------------------------------ the networks


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_keep_what_they_claim(network: Network) -> None:
    for symmetry in network.symmetries:
        for g in symmetry.generators(network.field):
            assert gap(network, g) < 1e-11, (symmetry, g)
    assert gap(network, OneLink()) > 1e-4


@pytest.mark.parametrize("network", [p for p in NETWORKS if not p.values[0].spec.point_group])
def test_a_network_that_knows_directions_breaks_the_point_group(network: Network) -> None:
    assert max(gap(network, g) for g in PointGroup().generators(network.field)) > 1e-4


@pytest.mark.parametrize("network", [p for p in NETWORKS if not p.values[0].spec.charge_conjugation])
def test_a_network_of_imaginary_parts_breaks_charge_conjugation(network: Network) -> None:
    if network.field.target.shape != (2, 2):  # traces of SU(2) are real
        assert gap(network, Conjugation()) > 1e-4


def test_a_network_of_one_corner_breaks_translations(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS[0].values[0]
    mask = torch.ones(2, *network.field.lattice.extents)
    mask[0, 0, 0] = 0.5
    monkeypatch.setattr(network.trunk, "links", lambda x, frozen: matrices(network.field, x) * mask[..., None, None])
    assert gap(network, GaugeTransformation(1)) < 1e-11
    assert min(gap(network, g) for g in Translations().generators(network.field)) > 1e-4


def test_an_untransported_convolution_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    d = 2
    monkeypatch.setattr(gauge_layers, "transported", lambda u, w, step: w.roll(-step // abs(step), abs(step) - d - 3))
    network = NETWORKS[1].values[0]
    assert network.field.lattice.dimension == d
    translations = [g for s in network.symmetries[1:2] for g in s.generators(network.field)]
    assert max(gap(network, g) for g in translations) < 1e-11
    assert gap(network, GaugeInvariance().generators(network.field)[0]) > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_configurations_do_not_see_each_other(network: Network) -> None:
    x, context = situation(network, 3)
    each = [network(x[i : i + 1], None if context is None else context[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(network(x, context), torch.cat(each), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_precision_is_that_of_the_links(network: Network) -> None:
    x, context = situation(network)
    dtype = torch.complex64 if x.is_complex() else torch.float32
    double = network(x, context).detach()
    single = network(x.to(dtype), None if context is None else context.float()).detach()
    assert single.dtype.to_real() == torch.float32
    assert double.dtype.to_real() == torch.float64
    assert float((single - double).abs().max()) < 1e-4 * (1 + float(double.abs().max()))


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_move_to_other_devices_and_precisions(network: Network) -> None:
    x, context = situation(network, dtype=torch.float32)
    assert deepcopy(network).float()(x, context).dtype == network(x, context).dtype
    told = None if context is None else context.to("meta")
    assert deepcopy(network).to("meta")(x.to("meta"), told).shape == network(x, context).shape


@pytest.mark.parametrize("network", NETWORKS)
def test_a_gradient_reaches_every_parameter_and_the_links(network: Network) -> None:
    x, context = situation(network)
    out = network(x.requires_grad_(), context)
    weights = torch.randn(out.shape, generator=seeded(5), dtype=torch.float64)
    loss = (weights * (out.real if out.is_complex() else out)).sum() + (out.abs() ** 2).sum()
    gradients = torch.autograd.grad(loss, [x, *network.parameters()])
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_finite_at_identity_links(network: Network) -> None:
    group, (x, context) = network.field.target.group, situation(network)  # type: ignore[attr-defined]
    unit = group.identity(x.dtype) if x.is_complex() else x.new_zeros(())
    flat = unit.expand_as(x).clone().requires_grad_()
    out = network(flat, context)
    gradients = torch.autograd.grad(
        (out.abs() ** 2).sum() + out.real.sum(), [flat, *network.parameters()], allow_unused=True
    )
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    if isinstance(network, AlgebraNetwork):
        assert float(out.detach().abs().max()) < 1e-12  # nothing distinguishes a direction in the algebra


@pytest.mark.parametrize("kind", [GaugeNetwork, AlgebraNetwork])
def test_new_networks_are_zero(kind: type) -> None:
    for network in kind.examples():  # type: ignore[attr-defined]
        x, context = situation(network)
        assert not network(x, context).any()


@pytest.mark.parametrize("network", ALGEBRAS)
def test_velocities_are_in_the_algebra(network: AlgebraNetwork) -> None:
    x, context = situation(network)
    v = network(x, context).detach()
    assert v.shape == x.shape
    if network.field.target.shape:
        torch.testing.assert_close(v, -v.mH)
        assert float(v.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max()) < 1e-12
    assert float(v.abs().max()) > 1e-3


@pytest.mark.parametrize("network", [p for p in NETWORKS if p.values[0].spec.n_context])
def test_couplings_change_the_output(network: Network) -> None:
    x, context = situation(network)
    assert context is not None
    assert float((network(x, context) - network(x, context + 1)).detach().abs().max()) > 1e-4
    with pytest.raises(ValueError, match="context"):
        network(x)


# ------------------------------------------------------------------------------------------------------- frozen links


def stripes(lattice: Lattice) -> Tensor:
    """Frozen are all links but those of the first axis on every fourth slice of the last."""
    mask = torch.ones(lattice.dimension, *lattice.extents, dtype=torch.bool)
    mask[0, ..., ::4] = False
    return mask


def small(kind: type, n: int = 2, extents: tuple[int, ...] = (2, 4)) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        spec, field = GaugeNetworkSpec((2,), hidden=4), link_field(extents, n)
        return perturbed(kind(field, 1, spec) if kind is GaugeNetwork else kind(field, spec))


@pytest.mark.parametrize("n", [1, 2])
def test_nothing_depends_on_links_that_are_not_frozen(n: int) -> None:
    network = small(GaugeNetwork, n)
    x, mask = network.field.random(2, seeded()), stripes(network.field.lattice)
    other = network.field.random(2, seeded(9))
    column = mask.reshape(mask.shape + (1,) * len(network.field.target.shape))
    assert torch.equal(network(x, frozen=mask), network(torch.where(column, x, other), frozen=mask))
    change = network(x, frozen=mask) - network(torch.where(column, other, x), frozen=mask)
    assert float(change.detach().abs().max()) > 1e-5
    turned = network.field.act(GaugeTransformation(3), x)
    torch.testing.assert_close(network(turned, frozen=mask), network(x, frozen=mask))


@pytest.mark.parametrize("n", [1, 2])
def test_moving_links_by_frozen_ones_has_one_block_per_link(n: int) -> None:
    network = small(AlgebraNetwork, n)
    x, mask = network.field.random(1, seeded()), stripes(network.field.lattice)
    active = (~mask).nonzero()
    for cell in active[:2].tolist():
        y, index = x.clone(), (0, *cell)
        y[index] = network.field.random(1, seeded(7))[index]
        change = (network(y, frozen=mask) - network(x, frozen=mask))[0][~mask]
        touched = change.abs().reshape(len(active), -1).amax(1) > 1e-12
        assert touched.tolist() == [row.tolist() == cell for row in active]
    turned = network.field.act(GaugeTransformation(3), x)
    u = network.field.exp(turned, network(turned, frozen=mask))
    v = network.field.act(GaugeTransformation(3), network.field.exp(x, network(x, frozen=mask)))
    torch.testing.assert_close(u, v)


# ---------------------------------------------------------------------------------------------------------- the parts


def turned_matrices(w: Tensor, omega: Tensor) -> Tensor:
    return omega[:, None, None] @ w @ omega[:, None, None].mH


@pytest.mark.parametrize("frames", [Frames(3, False), Frames(3, True)], ids=str)
@pytest.mark.parametrize("n", [2, 3])
def test_parts_are_covariant_and_traces_invariant(n: int, frames: Frames) -> None:
    field = link_field((3, 2, 4), n)
    x, g = field.random(2, seeded()), GaugeTransformation(8)
    omega = replace(field, cells="sites").random(2, torch.Generator().manual_seed(8))
    u, turned = x, field.act(g, x)
    w = loop_features(u, (PLAQUETTE, RECTANGLE, CHAIR), frames)
    convolution, product, gate = TransportedConvolution(frames, (w.shape[1], 2), 2), Bilinear((2, 2)), TraceGate(2)
    after = loop_features(turned, (PLAQUETTE, RECTANGLE, CHAIR), frames)
    torch.testing.assert_close(after, turned_matrices(w, omega))
    w, after = convolution(u, w), convolution(turned, after)
    torch.testing.assert_close(after, turned_matrices(w, omega))
    w, after = gate(product(w, w)), gate(product(after, after))
    torch.testing.assert_close(after, turned_matrices(w, omega))
    torch.testing.assert_close(real_trace(after), real_trace(w))


def test_products_of_transported_plaquettes_are_larger_loops() -> None:
    """P_12(x) times P_12(x + 1̂) carried to x is, up to cyclic order, the rectangle: the network can make it."""
    u = link_field((3, 4), 3).random(2, seeded())
    plaquette = loop_features(u, (PLAQUETTE,), Frames(u.shape[1], False))
    carried = gauge_layers.transported(u, plaquette, 1)
    torch.testing.assert_close(real_trace(carried @ plaquette)[:, 0, 0], real_trace(transporter(u, RECTANGLE)))


def test_transport_there_and_back_is_nothing() -> None:
    u = link_field((3, 4, 2), 3).random(2, seeded())
    w = loop_features(u, (PLAQUETTE,), Frames(u.shape[1], False))
    for axis in (1, 2, 3):
        there = gauge_layers.transported(u, w, axis)
        torch.testing.assert_close(gauge_layers.transported(u, there, -axis), w)


def images(dimension: int, steps: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Of a sequence of signed axes under all of B_d, by brute force."""
    found = set()
    for g in Hyperoctahedral(dimension).elements.tolist():
        sends = {mu + 1: next((nu + 1) * row[mu] for nu, row in enumerate(g) if row[mu]) for mu in range(dimension)}
        found.add(tuple(sends[abs(step)] * (1 if step > 0 else -1) for step in steps))
    return found


@pytest.mark.parametrize("dimension", [2, 3])
def test_weights_are_shared_exactly_over_the_point_group(dimension: int) -> None:
    frames, steps = Frames(dimension, True), signed_axes(dimension)
    shared, pairs = frames.between(1)[..., 1:], frames.pairs
    first: dict[int, set[tuple[int, ...]]] = {}
    for i, j, k in torch.cartesian_prod(*(torch.arange(n) for n in shared.shape)).tolist():
        words = (*pairs[i], *pairs[j], steps[k])
        orbit = first.setdefault(int(shared[i, j, k]), images(dimension, words))
        assert words in orbit
    assert sum(map(len, first.values())) == shared.numel()


@pytest.mark.parametrize("loop", [PLAQUETTE, RECTANGLE, CHAIR])
def test_frames_see_every_image_of_a_loop(loop: tuple[int, ...]) -> None:
    frames = Frames(3, True)
    (channel,) = frames.loops(loop)
    assert len(channel) == len(frames.pairs) == 24
    assert {path for paths in channel for path in paths} == images(3, loop)
    assert all(canonical(path) == canonical(loop) for paths in channel for path in paths)


def test_mistakes_are_explained() -> None:
    field = link_field((4, 4), 2)
    x = field.random(1, seeded())
    mistakes: dict[str, Any] = {
        "group elements on links": lambda: GaugeTrunk(FieldSpace(Lattice((4, 4))), GaugeNetworkSpec()),
        "small loops": lambda: GaugeTrunk(link_field((4,), 2), GaugeNetworkSpec()),
        "contractible": lambda: GaugeTrunk(field, GaugeNetworkSpec(loops=((1, 1, 1, 1),))),
        "steps ±1": lambda: GaugeTrunk(field, GaugeNetworkSpec(loops=(CHAIR,), point_group=True)),
        "n_outputs": lambda: GaugeNetwork(field, 0),
        "at least one channel": lambda: GaugeNetworkSpec(()),
        "radius": lambda: GaugeNetworkSpec(radius=0),
        "mask of links": lambda: GaugeNetwork(field, 1)(x, frozen=torch.ones(4, 4)),
    }
    for match, mistake in mistakes.items():
        with pytest.raises(ValueError, match=match):
            mistake()


def test_a_network_learns_a_loop_it_was_not_given() -> None:
    """Least squares on traces of the second layer finds the 1 × 2 rectangle: the sum over bilinear terms is exact."""
    field = link_field((4, 4), 2)
    x = field.random(4, seeded())
    u = matrices(field, x)
    target = real_trace(transporter(u, RECTANGLE)).flatten()
    w = loop_features(u, (PLAQUETTE,), Frames(u.shape[1], False))
    rays = torch.cat([gauge_layers.transported(u, w, step) for step in (1, -1, 2, -2)], 1)
    products = gauge_layers.extended(w)[:, :, None] @ gauge_layers.extended(rays)[:, None]
    features = real_trace(products).flatten(1, 2).movedim(1, -1).flatten(0, -2)
    found = features @ torch.linalg.lstsq(features, target[:, None], driver="gelsd").solution
    assert float((found[:, 0] - target).abs().max()) < 1e-10
    alone = real_trace(w).flatten()[:, None]
    assert float((alone @ torch.linalg.lstsq(alone, target[:, None]).solution - target[:, None]).abs().max()) > 0.1


def test_modules_have_names_for_their_parameters() -> None:
    names = [name for name, _ in GaugeNetwork(link_field((4, 4), 2), 1).named_parameters()]
    assert len(names) == len(set(names)) == 12
    assert isinstance(GaugeNetwork(link_field((4, 4), 2), 1), nn.Module)
