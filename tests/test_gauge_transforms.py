"""Maps of plaquettes: spectra of SU(N), mixtures on the circle, and the roots that invert them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from flows.transforms.circular import wrap
from flows.transforms.circular_mixture import CircularMixture, circular_mixture
from flows.transforms.roots import increasing_root
from flows.transforms.spectral import SpectralSpline
from symmetries.lie import SUN
from symmetries.spectra import eigenangles

SPECTRAL = list(SpectralSpline.examples())
every_spectrum = pytest.mark.parametrize("transform", SPECTRAL, ids=repr)
MIXTURES = list(CircularMixture.examples())


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


# --------------------------------------------------------------------------------------------------------- spectra


def matrices_and_parameters(transform: SpectralSpline, n: int = 50, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = seeded()
    u = SUN(transform.n).random(n, generator)
    return u, scale * torch.randn(n, transform.n_parameters, generator=generator, dtype=torch.float64)


@every_spectrum
def test_spectral_maps_are_conjugation_equivariant_and_invertible(transform: SpectralSpline) -> None:
    u, parameters = matrices_and_parameters(transform)
    h, log_det = transform.forward(u, parameters)
    omega = SUN(transform.n).random(len(u), seeded(2))
    turned, same = transform.forward(omega @ u @ omega.mH, parameters)
    torch.testing.assert_close(turned, omega @ h @ omega.mH, rtol=0, atol=1e-11)
    torch.testing.assert_close(same, log_det, rtol=0, atol=1e-10)
    assert SUN(transform.n).contains(h, 1e-12).all()
    back, inverse_log_det = transform.inverse(h, parameters)
    torch.testing.assert_close(back, u, rtol=0, atol=1e-11)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-10)


@every_spectrum
def test_eigenangles_keep_their_order_and_charge_conjugation_its_parities(transform: SpectralSpline) -> None:
    u, parameters = matrices_and_parameters(transform)
    h, _ = transform.forward(u, parameters)
    eigenvectors = torch.linalg.eig(u).eigenvectors
    rotated = eigenvectors.inverse() @ h @ eigenvectors
    assert (rotated - torch.diag_embed(rotated.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-10
    angles = eigenangles(h)
    assert (angles.diff(dim=-1) > 0).all()
    sign = torch.tensor([1.0 if p == "even" else -1.0 for p in transform.parity]).double()
    conjugate, _ = transform.forward(u.conj(), sign * parameters)
    torch.testing.assert_close(conjugate, h.conj(), rtol=0, atol=1e-11)


def meeting(n: int, distance: float) -> dict[str, Tensor]:
    """Matrices at, or `distance` from, the identity, a centre element, and a double eigenvalue."""
    group, generator = SUN(n), seeded()
    v = torch.randn(6, group.dim, generator=generator, dtype=torch.float64) + 0j
    near = group.exp(distance * torch.tensordot(v, group.algebra_basis(), 1))
    centre = torch.polar(torch.ones(1), torch.tensor([2 * math.pi / n])).to(near)
    pair = torch.tensor([0.7] * (n - 1) + [-0.7 * (n - 1)] if n > 2 else [math.pi, -math.pi]).double()
    frame = group.random(6, generator)
    double = frame @ torch.diag_embed(torch.polar(torch.ones_like(pair), pair)) @ frame.mH
    return {"identity": near, "centre": centre * near, "multiple": near @ double}


@every_spectrum
@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-8, 1e-5, 1e-3])
def test_spectral_derivatives_are_right_where_eigenvalues_meet(transform: SpectralSpline, distance: float) -> None:
    group = SUN(transform.n)
    basis = group.algebra_basis()
    for name, u in meeting(transform.n, distance).items():
        parameters = 0.5 * torch.randn(1, transform.n_parameters, generator=seeded(), dtype=torch.float64)
        parameters = parameters.expand(len(u), -1)
        xi = torch.zeros(len(u), group.dim, dtype=torch.float64, requires_grad=True)
        h, log_det = transform.forward(group.exp(torch.tensordot(xi + 0j, basis, 1)) @ u, parameters)
        moved = -2 * torch.einsum("aij,bjk,bki->ba", basis, h, h.detach().mH).real
        rows = [torch.autograd.grad(moved[:, a].sum(), xi, retain_graph=True)[0] for a in range(group.dim)]
        exact = torch.stack(rows, 1).slogdet().logabsdet
        assert (exact - log_det).abs().max() < 1e-5, name
        assert torch.autograd.grad(log_det.sum(), xi)[0].isfinite().all(), name


@every_spectrum
def test_the_haar_factor_is_needed(transform: SpectralSpline) -> None:
    u, parameters = matrices_and_parameters(transform, 4000, 0.3)
    log_det = transform.forward(u, parameters[:1].expand(4000, -1))[1]
    weights = log_det.exp()
    assert abs(weights.mean() - 1) < 4 * weights.std() / len(weights) ** 0.5
    angles, moved = eigenangles(u), eigenangles(transform.forward(u, parameters[:1].expand(4000, -1))[0])
    i, j = torch.triu_indices(transform.n, transform.n, 1)
    haar = [2 * torch.sin((a[:, i] - a[:, j]) / 2).abs().log().sum(1) for a in (angles, moved)]
    flat = (log_det + haar[0] - haar[1]).exp()
    assert abs(flat.mean() - 1) > 4 * flat.std() / len(flat) ** 0.5


# --------------------------------------------------------------------------------------------------------- circles


@pytest.mark.parametrize("transform", MIXTURES, ids=repr)
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_circular_mixtures(transform: CircularMixture, scale: float) -> None:
    generator = seeded()
    x = wrap(2 * torch.randn(500, generator=generator, dtype=torch.float64)).requires_grad_()
    parameters = scale * torch.randn(500, transform.n_parameters, generator=generator, dtype=torch.float64)
    y, log_slope = transform.forward(x, parameters)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.log(), log_slope.detach(), rtol=0, atol=1e-11)
    start = y.detach().requires_grad_()
    back, inverse_log_slope = transform.inverse(start, parameters)
    (inverse_slope,) = torch.autograd.grad(back.sum(), start)
    assert wrap(back - x).abs().max() < 1e-12
    torch.testing.assert_close(inverse_slope.log(), -log_slope.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse_log_slope, -log_slope, rtol=0, atol=1e-10)
    sign = torch.tensor([1.0 if p == "even" else -1.0 for p in transform.parity]).double()
    assert wrap(transform.forward(-x, sign * parameters)[0] + y).abs().max() < 1e-12


def test_a_lift_turns_once_and_zero_parameters_do_nothing() -> None:
    x = torch.linspace(-10, 10, 400, dtype=torch.float64)
    parameters = 2 * torch.randn(1, 10, generator=seeded(), dtype=torch.float64).expand(400, -1)
    y, _ = circular_mixture(x, parameters)
    assert (y.diff() > 0).all()
    torch.testing.assert_close(circular_mixture(x + 2 * math.pi, parameters)[0], y + 2 * math.pi)
    torch.testing.assert_close(circular_mixture(x, 0 * parameters)[0], x)


def test_roots_of_increasing_functions_with_their_derivatives() -> None:
    y = torch.linspace(-5, 5, 50, dtype=torch.float64, requires_grad=True)
    strength = torch.tensor(0.999, dtype=torch.float64, requires_grad=True)
    x = increasing_root(lambda x: (x - strength * x.sin(), 1 - strength * x.cos()), y, y.detach() - 1, y.detach() + 1)
    assert (x - strength * x.sin() - y).abs().max() < 1e-13
    slope, per_strength = torch.autograd.grad(x.sum(), (y, strength))
    torch.testing.assert_close(slope, 1 / (1 - strength * x.cos()).detach())
    torch.testing.assert_close(per_strength, (x.sin() / (1 - strength * x.cos())).sum().detach())
