"""Möbius maps and monotone maps of heights: closed forms, inverses, Jacobians, poles, precision, bad input."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Generator, Tensor

from flows.transforms.heights import HeightMixture, HeightSpline, HeightTransform
from flows.transforms.mobius import LIMIT, into_ball, mobius, zonal
from tests.laws.bijections import sphere_frame

Map = Callable[[Tensor], Tensor]
HEIGHTS = [*HeightMixture.examples(), *HeightSpline.examples()]
every_height = pytest.mark.parametrize("transform", HEIGHTS, ids=str)
every_sphere = pytest.mark.parametrize("n", [2, 3, 4, 5], ids=lambda n: f"S{n - 1}")


def seeded(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def points(count: int, n: int, generator: Generator) -> Tensor:
    x = torch.randn(count, n, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def parameters(transform: HeightTransform, count: int, scale: float = 1.0) -> Tensor:
    shape = (count, transform.n_parameters)
    return scale * torch.randn(shape, generator=seeded(2), dtype=torch.float64)


def jacobian(move: Map, x: Tensor) -> Tensor:  # (batch, n) -> (batch, n, n)
    """∂y_i/∂x_j, a row at a time."""
    x = x.clone().requires_grad_()
    rows = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in move(x).unbind(-1)]
    return torch.stack(rows, -2)


def log_volume(x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """log|det| of a Jacobian of Rⁿ between the tangent spaces at x and at y."""
    return (sphere_frame(y).mT @ rows @ sphere_frame(x)).slogdet().logabsdet


# ----------------------------------------------------------------------------------------------------- Möbius maps


@every_sphere
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, 1e8], ids=lambda scale: f"scale{scale:g}")
def test_mobius_maps_have_their_closed_inverse_and_log_det(n: int, scale: float) -> None:
    x, w = points(50, n, seeded()), into_ball(scale * torch.randn(50, n, generator=seeded(3), dtype=torch.float64))
    y, log_det = mobius(x, w)
    back, reverse = mobius(y, -w)
    assert (y.norm(dim=-1) - 1).abs().max() < 1e-15 * 4
    assert (back - x).abs().max() < 1e-12
    assert (log_det + reverse).abs().max() < 1e-11
    assert (log_volume(x, y, jacobian(lambda x: mobius(x, w)[0], x)) - log_det).abs().max() < 1e-10


@every_sphere
def test_mobius_maps_are_conformal(n: int) -> None:
    x, w = points(20, n, seeded()), into_ball(points(20, n, seeded(3)))
    y, log_det = mobius(x, w)
    frame = sphere_frame(y).mT @ jacobian(lambda x: mobius(x, w)[0], x) @ sphere_frame(x)
    scale = torch.exp(2 * log_det / (n - 1))[:, None, None]
    assert torch.allclose(frame.mT @ frame, scale * torch.eye(n - 1, dtype=x.dtype), atol=1e-10)


def test_mobius_keeps_only_the_axis_and_spreads_what_is_near_it() -> None:
    axis = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    for sign in (1, -1):
        y, log_det = mobius(sign * axis, 0.5 * axis)
        assert torch.allclose(y, sign * axis, atol=1e-15)
        assert log_det.item() == pytest.approx(2 * sign * torch.log(torch.tensor(3.0)).item())
    x = points(20, 3, seeded())
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=seeded(5), dtype=torch.float64)).Q
    turned, log_det = mobius(x @ rotation.mT, 0.5 * axis @ rotation.mT)
    assert torch.allclose(turned, mobius(x, 0.5 * axis)[0] @ rotation.mT, atol=1e-14)
    assert torch.allclose(log_det, mobius(x, 0.5 * axis)[1], atol=1e-14)


def test_the_ball_is_never_left_and_its_chart_is_smooth() -> None:
    v = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [1e30, 1e30], [3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    w = into_ball(v)
    assert (w.norm(dim=-1) <= LIMIT * (1 + 1e-15)).all()
    (gradient,) = torch.autograd.grad(w.sum(), v)
    assert gradient.isfinite().all()
    assert torch.allclose(gradient[0], v.new_full((2,), LIMIT))


@every_sphere
def test_mobius_in_single_precision_is_finite_at_the_worst_point(n: int) -> None:
    axis = torch.eye(n)[:1].requires_grad_()
    for x in (axis.detach(), -axis.detach(), points(1, n, seeded()).float()):
        y, log_det = mobius(x, into_ball(1e6 * axis))
        (gradient,) = torch.autograd.grad(y.sum() + log_det.sum(), axis)
        assert torch.cat([y.flatten(), log_det, gradient.flatten()]).isfinite().all()
        exact = mobius(x.double(), into_ball(1e6 * axis.detach().double()))
        assert (y - exact[0]).abs().max() < 1e-3
        assert (log_det - exact[1]).abs().max() < 1e-3 * n


def test_averages_over_axes_are_not_injective() -> None:
    """Why there is no such transform: the orientation of ρ h_1 + (1 - ρ) h_2 on S² changes sign."""
    x, e = points(4000, 3, seeded()), torch.eye(3, dtype=torch.float64)

    def average(x: Tensor) -> Tensor:
        y = 0.4 * mobius(x, 0.9 * e[0])[0] + 0.6 * mobius(x, 0.9 * e[1])[0]
        return y / y.norm(dim=-1, keepdim=True)

    def orientation(move: Map) -> Tensor:
        oriented = torch.cat([jacobian(move, x) @ sphere_frame(x), move(x)[..., None]], -1).det()
        return (oriented * torch.cat([sphere_frame(x), x[..., None]], -1).det()).sign()

    assert orientation(average).unique().tolist() == [-1, 1]
    assert orientation(lambda x: mobius(x, 0.9 * e[0])[0]).unique().tolist() == [1]


@pytest.mark.parametrize("shape", [(4, 1), (4, 4)], ids=str)
def test_mobius_refuses_other_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="components"):
        mobius(torch.ones(shape), torch.zeros(4, 3 if shape[1] == 4 else 1))


# ---------------------------------------------------------------------------------------------------------- heights


@every_height
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0], ids=lambda scale: f"scale{scale:g}")
def test_heights_go_and_come_back(transform: HeightTransform, scale: float) -> None:
    t = torch.cat([torch.linspace(-1, 1, 101, dtype=torch.float64), torch.tensor([-1 + 1e-12, 1e-300, 1 - 1e-12])])
    p = parameters(transform, 1, scale).expand(len(t), -1)
    there = transform.forward(t, p)
    back = transform.inverse(there.height, p)
    assert (back.height - t).abs().max() < 1e-11
    conditioned = torch.exp(-there.log_slope).clamp(min=1)
    assert ((there.log_slope + back.log_slope) / conditioned).abs().max() < 1e-9
    assert ((there.log_ratio + back.log_ratio) / conditioned).abs().max() < 1e-9
    assert (there.height[:101].diff() > 0).all()
    assert there.height[[0, 100]].tolist() == [-1, 1]
    if not scale:
        assert torch.cat([there.height - t, there.log_slope, there.log_ratio]).abs().max() < 1e-14


@every_height
def test_slopes_are_derivatives_and_quotients_are_quotients(transform: HeightTransform) -> None:
    t = (2 * torch.rand(200, generator=seeded(), dtype=torch.float64) - 1).requires_grad_()
    for move in (transform.forward, transform.inverse):
        image = move(t, parameters(transform, 200))
        (slope,) = torch.autograd.grad(image.height.sum(), t)
        assert torch.allclose(slope.log(), image.log_slope, atol=1e-9)
        assert torch.allclose(torch.log((1 - image.height**2) / (1 - t**2)), image.log_ratio, atol=1e-9)


@every_height
@pytest.mark.parametrize("pole", [-1.0, 1.0])
def test_at_the_poles_the_quotient_becomes_the_slope(transform: HeightTransform, pole: float) -> None:
    p = parameters(transform, 1)
    near = torch.tensor([pole, *(pole * (1 - 2.0**-k) for k in range(53, 30, -1))], dtype=torch.float64)
    for move in (transform.forward, transform.inverse):
        image = move(near, p.expand(len(near), -1))
        assert abs(image.height[0].item() - pole) < 1e-15
        assert torch.allclose(image.log_ratio, image.log_slope[0].expand(len(near)), atol=1e-6)
        naive = torch.log((1 - image.height**2) / (1 - near**2))
        assert not torch.allclose(naive, image.log_ratio, atol=1e-6)  # the control: what cancellation does


def test_mixtures_of_heights_agree_with_exact_fractions() -> None:
    weights, radii, t = (Fraction(1, 4), Fraction(3, 4)), (Fraction(1, 2), Fraction(-1, 3)), Fraction(2, 7)
    norms = [1 - 2 * r * t + r * r for r in radii]
    exact = sum(w * (t * (1 + r * r) - 2 * r) / m for w, r, m in zip(weights, radii, norms))
    slope = sum(w * ((1 - r * r) / m) ** 2 for w, r, m in zip(weights, radii, norms))
    numbers = [0.0, torch.log(torch.tensor(3.0, dtype=torch.float64)).item()]
    numbers += [float(r) / (1 - abs(float(r)) / 0.99) for r in radii]
    p = torch.tensor([numbers], dtype=torch.float64)
    image = HeightMixture(2).forward(torch.tensor([float(t)], dtype=torch.float64), p)
    assert image.height.item() == pytest.approx(float(exact), abs=1e-14)
    assert image.log_slope.exp().item() == pytest.approx(float(slope), abs=1e-13)


@every_height
def test_heights_in_single_precision_are_finite_with_finite_gradients(transform: HeightTransform) -> None:
    t = torch.tensor([-1.0, -1 + 2**-24, -1e-30, 0.0, 0.7, 1 - 2**-24, 1.0])
    for scale, tolerance in ((1.0, 1e-4), (1e6, None)):
        p = parameters(transform, 1, scale).float().requires_grad_()
        s = t.clone().requires_grad_()
        for move in (transform.forward, transform.inverse):
            image = move(s, p.expand(len(t), -1))
            gradients = torch.autograd.grad(sum(part.sum() for part in image), (s, p))
            assert torch.cat([*image, *(g.flatten() for g in gradients)]).isfinite().all()
            exact = move(t.double(), p.detach().double().expand(len(t), -1))
            if tolerance:
                assert max((a - b).abs().max() for a, b in zip(image, exact)) < tolerance


@every_height
def test_nan_heights_stay_alone(transform: HeightTransform) -> None:
    t = torch.tensor([0.3, float("nan"), -0.2], dtype=torch.float64)
    p = parameters(transform, 1).expand(3, -1)
    for move in (transform.forward, transform.inverse):
        for part, clean in zip(move(t, p), move(t[[0, 2]], p[:2])):
            assert torch.allclose(part[[0, 2]], clean, atol=1e-12)
        assert move(t, p).height[1].isnan()


@every_height
def test_heights_refuse_other_parameters(transform: HeightTransform) -> None:
    t = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected parameters of shape"):
        transform.forward(t, torch.zeros(3, transform.n_parameters + 1, dtype=torch.float64))
    with pytest.raises(TypeError, match="dtype"):
        transform.inverse(t, torch.zeros(3, transform.n_parameters))


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True], ids=str)
def test_mixtures_need_components(wrong: object) -> None:
    with pytest.raises(ValueError, match="n_components"):
        HeightMixture(wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ zonal maps


@every_sphere
def test_one_component_along_an_axis_is_the_mobius_map(n: int) -> None:
    x, axis, r = points(30, n, seeded()), points(1, n, seeded(4)), 0.7
    p = torch.tensor([[0.0, r / (1 - r / LIMIT)]], dtype=torch.float64).expand(30, -1)
    y, log_det = zonal(x, axis, HeightMixture(1), p)
    exact, exact_log_det = mobius(x, r * axis)
    assert torch.allclose(y, exact, atol=1e-13)
    assert torch.allclose(log_det, exact_log_det, atol=1e-12)


@every_sphere
@every_height
def test_zonal_maps_are_exact_everywhere(n: int, transform: HeightTransform) -> None:
    axis = points(1, n, seeded(4))
    beside = 1e-8 * sphere_frame(axis)[..., 0] + axis
    x = torch.cat([points(8, n, seeded()), axis, -axis, beside / beside.norm()])
    p = parameters(transform, 1).expand(len(x), -1)
    y, log_det = zonal(x, axis, transform, p)
    back, reverse = zonal(y, axis, transform, p, inverse=True)
    assert (back - x).abs().max() < 1e-12
    assert (log_det + reverse).abs().max() < 1e-8
    rows = jacobian(lambda x: zonal(x, axis, transform, p)[0], x)
    assert (log_volume(x, y, rows) - log_det).abs().max() < 1e-6
