"""Lie groups: closed forms agree with general ones, with right gradients also where eigenvalues meet."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from symmetries import defining as standard
from symmetries import spectra
from symmetries.lie import SU2, SU3, SUN, U1

SPECIAL = [SU2(), SU3(), SUN(4)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def algebra(group: SUN, n: int, scale: float = 1.0) -> Tensor:
    basis = group.algebra_basis()
    coordinates = scale * torch.randn(n, group.dim, generator=seeded(3), dtype=torch.float64)
    return torch.einsum("na,aij->nij", coordinates.to(basis), basis)


def special_angles(n: int) -> list[list[float]]:
    """Eigenangles at the identity, where two or three meet, and within 1e-8 of that."""
    if n == 2:
        return [[0, 0], [-1e-8, 1e-8], [-1e-3, 1e-3], [-1.3, 1.3], [-math.pi + 1e-8, math.pi - 1e-8]]
    third = 2 * math.pi / 3
    meeting = [[0, 0, 0], [-0.3, -0.3, 0.6], [-1, 0.5, 0.5], [third, third, -2 * third]]
    near = [[-1e-8, 0, 1e-8], [-0.3, -0.3 + 1e-8, 0.6 - 1e-8], [-0.3 - 1e-5, -0.3, 0.6 + 1e-5]]
    near += [[third - 2e-8 - 2 * math.pi, third - 1e-8, third + 3e-8], [-1, 0.2, 0.8]]
    padding = [0.0] * (n - 3)
    return [[*angles, *padding] for angles in meeting + near]


def conjugated(group: SUN, angles: list[float]) -> tuple[Tensor, Tensor]:
    """A random basis V, and V diag(iθ) V†."""
    v = group.random(1, seeded(4))[0]
    return v, v @ torch.diag(1j * torch.tensor(angles, dtype=torch.float64)) @ v.mH


CASES = [(group, angles) for group in SPECIAL for angles in special_angles(group.n)]
CONNECTED = [(group, angles) for group, angles in CASES if max(angles) - min(angles) < 6]


@pytest.mark.parametrize("group", SPECIAL, ids=str)
def test_closed_forms(group: SUN) -> None:
    v = algebra(group, 500, 3.0)
    u = group.exp(v)
    torch.testing.assert_close(u, torch.linalg.matrix_exp(v), rtol=0, atol=5e-14)
    angles = spectra.eigenangles(u)
    torch.testing.assert_close(angles, spectra.alcove(torch.linalg.eigvals(u).angle()), rtol=0, atol=1e-13)
    assert angles.sum(-1).abs().max() < 1e-13
    assert (angles[:, -1] - angles[:, 0]).max() <= 2 * math.pi
    torch.testing.assert_close(group.exp(group.log(u)), u, rtol=0, atol=1e-13)
    torch.testing.assert_close(group.log(u).norm(dim=(-2, -1)), angles.norm(dim=-1), rtol=0, atol=1e-12)
    small = algebra(group, 100, 0.4)
    torch.testing.assert_close(group.log(group.exp(small)), small, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("group", "angles"), CASES, ids=str)
def test_values_where_eigenvalues_meet(group: SUN, angles: list[float]) -> None:
    _, v = conjugated(group, angles)
    u = group.exp(v)
    torch.testing.assert_close(u, torch.linalg.matrix_exp(v), rtol=0, atol=1e-14)
    phases_of_u = torch.exp(1j * spectra.eigenangles(u))
    expected = torch.exp(1j * spectra.alcove(torch.tensor([angles], dtype=torch.float64)))[0]
    torch.testing.assert_close(phases_of_u, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(group.exp(group.log(u)), u, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("group", "angles"), CASES, ids=str)
def test_exp_gradient(group: SUN, angles: list[float]) -> None:
    v = conjugated(group, angles)[1].requires_grad_()
    cotangent = group.random(1, seeded(5))[0]
    ours, general = (
        spectra.traceless_anti_hermitian(torch.autograd.grad(f(v), v, cotangent)[0])
        for f in (group.exp, torch.linalg.matrix_exp)
    )
    torch.testing.assert_close(ours, general, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("group", "angles"), CONNECTED, ids=str)
def test_log_gradient_inverts_exp(group: SUN, angles: list[float]) -> None:
    v = conjugated(group, angles)[1].requires_grad_()
    cotangent = algebra(group, 1)[0]
    (gradient,) = torch.autograd.grad(group.log(group.exp(v)), v, cotangent)
    torch.testing.assert_close(spectra.traceless_anti_hermitian(gradient), cotangent, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("group", "angles"), CASES, ids=str)
def test_eigenangle_gradient(group: SUN, angles: list[float]) -> None:
    """dθ_j = -i v_j† x v_j along u → exp(x) u where gaps resolve it; symmetric functions: everywhere."""
    basis, v = conjugated(group, angles)
    directions = group.algebra_basis()
    u = group.exp(v)
    steps = torch.zeros(group.dim, dtype=torch.float64, requires_grad=True)
    moved = group.exp(torch.einsum("a,aij->ij", steps.to(directions), directions)) @ u
    theta = spectra.eigenangles(moved)
    rows = torch.stack([torch.autograd.grad(t, steps, retain_graph=True)[0] for t in theta])
    assert rows.isfinite().all()
    assert rows.abs().max() < 1
    assert rows.sum(0).abs().max() < 1e-12
    (ours,) = torch.autograd.grad(theta.cos().sum(), steps, retain_graph=True)
    (exact,) = torch.autograd.grad(moved.diagonal().sum().real, steps)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-12)
    gap = torch.tensor(angles, dtype=torch.float64).remainder(2 * math.pi).sort().values.diff().min().item()
    if gap > 1e-9:
        expected = (basis.mH @ directions @ basis).diagonal(dim1=-2, dim2=-1).imag.mT
        given = torch.exp(1j * torch.tensor(angles, dtype=torch.float64))
        order = (torch.exp(1j * theta.detach())[:, None] - given).abs().argmin(-1)
        torch.testing.assert_close(rows, expected[order], rtol=0, atol=max(1e-12, 1e-14 / gap))


@pytest.mark.parametrize("group", [SU2(), SU3()], ids=str)
def test_second_derivatives(group: SUN) -> None:
    basis = group.algebra_basis()
    for coordinates in (torch.zeros(group.dim), torch.linspace(-1, 2, group.dim), torch.eye(group.dim)[-1]):
        start = coordinates.double().requires_grad_()
        arguments = lambda c: group.exp(torch.einsum("a,aij->ij", c.to(basis), basis))  # noqa: E731
        assert torch.autograd.gradgradcheck(arguments, start)
    u = group.random(1, seeded(6))[0].requires_grad_()
    (first,) = torch.autograd.grad(group.log(u).abs().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.abs().sum().backward()


@pytest.mark.parametrize("group", SPECIAL, ids=str)
def test_vmap_jacobian(group: SUN) -> None:
    u = group.random(3, seeded(7))
    for f in (group.exp, spectra.eigenangles, group.log):
        x = algebra(group, 3) if f == group.exp else u
        split = torch.func.vmap(torch.func.jacrev(lambda y, f=f: f(torch.view_as_complex(y)).abs().square()))
        one = torch.func.jacrev(lambda y, f=f: f(torch.view_as_complex(y)).abs().square())
        real = torch.view_as_real(x.contiguous())
        torch.testing.assert_close(split(real)[1], one(real[1]))


@pytest.mark.parametrize("group", SPECIAL, ids=str)
def test_projection(group: SUN) -> None:
    u = group.random(50, seeded(8))
    noise = torch.randn(u.shape, generator=seeded(9), dtype=u.dtype)
    torch.testing.assert_close(group.project(u), u, rtol=0, atol=1e-14)
    projected = group.project(u + 0.1 * noise)
    assert group.contains(projected, 1e-13).all()
    closeness = lambda w: (w - u - 0.1 * noise).norm(dim=(-2, -1))  # noqa: E731
    assert (closeness(projected) < closeness(u)).all()
    for stranger in (1.001 * u, 0 * u, u * torch.nan, u * 1j ** (1 / group.n)):
        assert not group.contains(stranger).any()
    assert group.contains(u.to(torch.complex64), 1e-5).all()
    v = group.random(1, seeded(8)).requires_grad_()
    assert torch.autograd.grad(group.project(v).real.sum(), v)[0].isfinite().all()


def test_algebra() -> None:
    for group in SPECIAL:
        basis = group.algebra_basis()
        gram = -2 * torch.einsum("aij,bji->ab", basis, basis)
        torch.testing.assert_close(gram, torch.eye(group.dim, dtype=gram.dtype), rtol=0, atol=1e-15)
        torch.testing.assert_close(spectra.traceless_anti_hermitian(basis), basis)
        m = torch.randn(5, *group.element_shape, dtype=torch.complex128, generator=seeded())
        inside = torch.einsum("aij,nij->na", basis.conj(), m).real
        rebuilt = 2 * torch.einsum("na,aij->nij", inside.to(basis), basis)
        torch.testing.assert_close(spectra.traceless_anti_hermitian(m), rebuilt)
        trace = standard.Defining(group).character(group.random(5, seeded()))
        adjoint = standard.Adjoint(group).character(group.random(5, seeded()))
        torch.testing.assert_close(adjoint, trace.abs() ** 2 - 1)


def test_circle() -> None:
    circle, angle = U1(), torch.tensor([-4.0, -1e-9, 0.0, 3.0, 7.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(circle.exp(circle.log(angle)).sin(), angle.sin())
    assert circle.log(angle)[1].item() == -1e-9
    assert torch.autograd.grad(circle.compose(angle, angle).sum(), angle)[0].eq(2).all()
    assert circle.contains(angle).all()
    assert not circle.contains(torch.tensor(math.nan))
