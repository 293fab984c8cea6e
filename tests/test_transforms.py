"""Elementwise transforms: exact against closed forms, normflows and autograd, sane at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from normflows.utils.splines import unconstrained_rational_quadratic_spline
from torch import Tensor
from torch.func import jacrev, vmap

from flows.transforms.affine import Affine, affine
from flows.transforms.circular import CircularSpline, circular_spline, wrap
from flows.transforms.circular_mixture import CircularMixture
from flows.transforms.circular_mobius import Mobius, mobius, projection
from flows.transforms.elementwise import ElementwiseTransform
from flows.transforms.interval import IntervalSpline
from flows.transforms.monotone import OddMonotone, odd_monotone
from flows.transforms.odd_spline import OddSpline, odd_spline
from flows.transforms.roots import increasing_root
from flows.transforms.spline import MIN_SLOPE, RationalQuadraticSpline, interpolate, spline

CIRCULAR = (CircularMixture, CircularSpline, Mobius)
CLASSES = (Affine, *CIRCULAR, IntervalSpline, OddMonotone, OddSpline, RationalQuadraticSpline)
TRANSFORMS = [transform for cls in CLASSES for transform in cls.examples()]
CIRCLES = [t for t in TRANSFORMS if isinstance(t, CIRCULAR)]
CLOSED = [t for t in TRANSFORMS if not isinstance(t, CircularMixture)]  # its inverse looks at values
SPLINES = [t for t in TRANSFORMS if isinstance(t, RationalQuadraticSpline | OddSpline)]
ODD = [t for t in TRANSFORMS if isinstance(t, OddMonotone | OddSpline)]
DOUBLE = torch.float64
Map = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

every = pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)


def at_home(transform: ElementwiseTransform, x: Tensor) -> Tensor:
    """Bring numbers to where the transform acts: the circle, the interval, or all of the line."""
    if isinstance(transform, IntervalSpline):
        return torch.tanh(x)
    return wrap(x) if isinstance(transform, CIRCULAR) else x


def directions(transform: ElementwiseTransform) -> list[Map]:
    """The forward map, and the inverse where it is a closed formula."""
    return [transform.forward] + [transform.inverse] * (transform in CLOSED)


def draw(
    transform: ElementwiseTransform, n: int = 2000, scale: float = 1.0, dtype: torch.dtype = DOUBLE
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(n, generator=generator, dtype=dtype)
    parameters = scale * torch.randn(n, transform.n_parameters, generator=generator, dtype=dtype)
    return at_home(transform, x), parameters


def distance(transform: ElementwiseTransform, x: Tensor, y: Tensor) -> Tensor:
    difference = wrap(x - y) if isinstance(transform, CIRCULAR) else x - y
    return difference.abs().max()


def log_det_error(transform: Map, x: Tensor, parameters: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    y, log_det = transform(x, parameters)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return (slope.log() - log_det).abs().max()


def parity_error(transform: ElementwiseTransform, x: Tensor, parameters: Tensor, parity: tuple[str, ...]) -> Tensor:
    sign = x.new_tensor([1.0 if p == "even" else -1.0 for p in parity])
    y, log_det = transform.forward(x, parameters)
    mirrored, same_log_det = transform.forward(-x, sign * parameters)
    return torch.maximum(distance(transform, -y, mirrored), (log_det - same_log_det).abs().max())


def edges(transform: ElementwiseTransform) -> Tensor:
    """Return zero, huge values, ends and knots of the splines at zero parameters, and their neighbours."""
    ends = [t for t in (0.0, 1.5, 2.0, 3.0, 5.0, 1e8) for t in (t, -t)]
    knots = [5 * (2 * k / 5 - 1) for k in range(1, 5)] + [5 * k / 3 for k in (1, 2)]
    x = torch.tensor(ends + knots, dtype=DOUBLE)
    x = torch.cat((x, torch.nextafter(x, x + 1), torch.nextafter(x, x - 1)))
    return torch.tanh(x) if isinstance(transform, IntervalSpline) else x


@every
def test_inverse_undoes_forward(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform)
    y, log_det = transform.forward(x, parameters)
    back, inverse_log_det = transform.inverse(y, parameters)
    assert distance(transform, x, back) < 1e-12
    assert (log_det + inverse_log_det).abs().max() < 2e-12
    again, _ = transform.forward(transform.inverse(x, parameters)[0], parameters)
    assert distance(transform, x, again) < 1e-12


@every
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_log_det_is_the_autograd_derivative_both_ways(transform: ElementwiseTransform, scale: float) -> None:
    x, parameters = draw(transform, scale=scale)
    y, _ = transform.forward(x, parameters)
    assert log_det_error(transform.forward, x, parameters) < 2e-11
    assert log_det_error(transform.inverse, y, parameters) < 2e-11


@every
def test_a_wrong_log_det_is_rejected(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform)
    wrong: list[Map] = [
        lambda x, p: (transform.forward(x, p)[0], transform.inverse(x, p)[1]),
        lambda x, p: (transform.forward(x, p)[0], transform.forward(x, p.roll(1, -1))[1]),
    ]
    assert all(log_det_error(forward, x, parameters) > 1e-3 for forward in wrong)


@every
def test_zero_parameters_are_the_identity(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform, scale=0.0)
    for direction in (transform.forward, transform.inverse):
        y, log_det = direction(x, parameters)
        assert distance(transform, x, y) < 4e-15
        assert log_det.abs().max() < 4e-15


@every
def test_parities(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform)
    flipped = tuple("odd" if p == "even" else "even" for p in transform.parity)
    assert len(transform.parity) == transform.n_parameters
    assert parity_error(transform, x, parameters, transform.parity) < 2e-12
    assert parity_error(transform, x, parameters, flipped) > 1e-2


@pytest.mark.parametrize("transform", ODD, ids=repr)
def test_odd_maps_are_odd_bit_for_bit(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform)
    x = torch.cat((x, x.new_zeros(5), 1e-300 * x[:5]))
    parameters = torch.cat((parameters, parameters[:10]))
    for direction in (transform.forward, transform.inverse):
        (y, log_det), (mirrored, same) = direction(x, parameters), direction(-x, parameters)
        assert torch.equal(mirrored, -y)
        assert torch.equal(log_det, same)
    assert torch.equal(transform.forward(x[-10:-5], parameters[-10:-5])[0], x.new_zeros(5))


@every
def test_strictly_increasing(transform: ElementwiseTransform) -> None:
    _, parameters = draw(transform, n=50, scale=3.0)
    end = 1.0 if isinstance(transform, IntervalSpline) else 3.14
    x = torch.linspace(-end, end, 1000, dtype=DOUBLE).expand(50, -1)
    y, _ = transform.forward(x, parameters.unsqueeze(1).expand(-1, 1000, -1))
    steps = y.diff(dim=1)
    if isinstance(transform, CIRCULAR):
        steps = steps.remainder(2 * math.pi)
        assert (steps.sum(1) < 2 * math.pi).all()  # once around, not more
    assert (steps > 0).all()


@every
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_everything_is_finite_at_the_edges(transform: ElementwiseTransform, scale: float) -> None:
    x = edges(transform).requires_grad_()
    generator = torch.Generator().manual_seed(2)
    parameters = scale * torch.randn(len(x), transform.n_parameters, generator=generator, dtype=DOUBLE)
    parameters.requires_grad_()
    for direction in (transform.forward, transform.inverse):
        y, log_det = direction(x, parameters)
        gradients = torch.autograd.grad((y.sum(), log_det.sum()), (x, parameters))
        assert all(t.isfinite().all() for t in (y, log_det, *gradients))
        if scale < 2:
            assert log_det_error(direction, x, parameters.detach()) < 1e-9


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_spline_is_differentiable_at_its_own_knots(dtype: torch.dtype, inverse: bool) -> None:
    _, parameters = draw(RationalQuadraticSpline(), n=100, scale=30.0, dtype=dtype)
    sums = (1 / (1 + 10**0.75 * (-parameters[:, :16]).exp()) + 1 / (10**1.5 - 1)).unflatten(1, (2, 8)).cumsum(2)
    knots = (10 * sums / sums[..., -1:] - 5)[:, int(inverse)]
    x = torch.cat((knots, knots.nextafter(knots + 1), knots.nextafter(knots - 1)), 1).requires_grad_()
    parameters = parameters.unsqueeze(1).expand(-1, 24, -1).clone().requires_grad_()
    y, log_det = spline(x, parameters, 5.0, inverse)
    gradients = torch.autograd.grad((y.sum(), log_det.sum()), (x, parameters))
    assert all(t.isfinite().all() for t in (y, log_det, *gradients))
    jump = (y.detach()[:, :8] - y.detach()[:, 8:16]).abs().max()
    assert jump < 1e7 * torch.finfo(dtype).eps  # slopes reach 1e6 at such parameters


@every
def test_nan_stays_nan(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform, n=3)
    x[1] = math.nan
    for direction in (transform.forward, transform.inverse):
        y, log_det = direction(x, parameters)
        assert y.isnan().tolist() == [False, True, False]
        assert isinstance(transform, Affine) or log_det.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("transform", SPLINES, ids=repr)
def test_splines_end_in_the_identity_with_slope_one(transform: RationalQuadraticSpline | OddSpline) -> None:
    _, parameters = draw(transform, n=6)
    bound = transform.bound
    outside = torch.tensor([bound, -bound, 1.5 * bound, -1e300, math.inf, -math.inf], dtype=DOUBLE)
    y, log_det = transform.forward(outside, parameters)
    assert torch.equal(y, outside)
    assert log_det.abs().max() < 1e-15
    just_inside = torch.full((6,), bound * (1 - 1e-9), dtype=DOUBLE)
    assert transform.forward(just_inside, parameters)[1].abs().max() < 1e-5


def test_odd_spline_is_smooth_at_the_origin() -> None:
    x, parameters = torch.tensor(1e-7, dtype=DOUBLE), draw(OddSpline(), n=1)[1][0]

    def bend(map_: Callable[[Tensor], Tensor]) -> float:
        return float(jacrev(map_)(x).abs())

    assert bend(lambda x: odd_spline(x, parameters)[1]) < 1e-4
    bins, slopes = parameters[:16], torch.nn.functional.pad(parameters[16:], (1, 1))
    assert bend(lambda x: interpolate(x, bins, slopes, (0.0, 5.0))[1]) > 1e-1  # a free slope makes a cusp


def as_normflows(x: Tensor, parameters: Tensor, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """Evaluate normflows' spline with the knots that our parameters stand for."""
    n_bins, ratio, limit = (parameters.shape[-1] + 1) // 3, MIN_SLOPE**-0.25, -math.log(MIN_SLOPE)
    bins, slopes = parameters.split((2 * n_bins, n_bins - 1), -1)
    logits = torch.log((1 + ratio * bins.exp()) / (ratio + bins.exp()))
    knot_slopes = torch.exp(slopes / (1 + slopes.abs() / limit))
    return unconstrained_rational_quadratic_spline(
        x,
        *logits.split(n_bins, -1),
        knot_slopes.expm1().log(),
        inverse=inverse,
        tail_bound=bound,
        min_bin_width=0.0,
        min_bin_height=0.0,
        min_derivative=0.0,
    )


@pytest.mark.parametrize("inverse", [False, True])
def test_agrees_with_normflows(inverse: bool) -> None:
    x, parameters = draw(RationalQuadraticSpline(), scale=0.5)
    ours, theirs = spline(x, parameters, 3.0, inverse), as_normflows(x, parameters, 3.0, inverse)
    assert (ours[0] - theirs[0]).abs().max() < 3e-14
    assert (ours[1] - theirs[1]).abs().max() < 3e-13
    other = spline(x, parameters.roll(1, -1), 3.0, inverse)
    assert (other[0] - theirs[0]).abs().max() > 1e-2


def test_slopes_stay_within_their_limits() -> None:
    x, parameters = torch.linspace(-5, 5, 8001, dtype=DOUBLE), torch.zeros(8001, 23, dtype=DOUBLE)
    parameters[:, 3], parameters[:, :8:2], parameters[:, 11] = -1e9, 1e9, 1e9
    y, log_det = spline(x, parameters)
    knot_slopes = spline(x, torch.nn.functional.pad(torch.full_like(parameters[:, 16:], 1e9), (16, 0)))[1]
    assert (y.diff() > 0).all()
    assert log_det.isfinite().all()
    assert knot_slopes.max() == pytest.approx(-math.log(MIN_SLOPE), rel=1e-6)


def test_monotone_against_closed_forms() -> None:
    x = torch.linspace(-3, 3, 61, dtype=DOUBLE)
    power = math.log(2) / (1 - math.log(2) / math.log(3))  # soft limits bring it back to k = 2
    scale = 0.5 / (1 - 0.5 / 3)
    parameters = x.new_tensor([scale, 0.0, power]).expand(61, 3)
    y, log_det = odd_monotone(x, parameters)
    exact = math.exp(0.5) * 2 * x * torch.sqrt(1 + x**2)  # sinh 2t = 2 sinh t cosh t
    slope = math.exp(0.5) * 2 * (1 + 2 * x**2) / torch.sqrt(1 + x**2)
    torch.testing.assert_close(y, exact, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_det, slope.log(), rtol=1e-14, atol=1e-14)


def test_affine_against_its_formula() -> None:
    x = torch.tensor([2.0, -1.0], dtype=DOUBLE)
    y, log_det = affine(x, torch.tensor([[3.0, 0.5], [1e9, 0.0]], dtype=DOUBLE))
    assert y.tolist() == pytest.approx([2 * math.exp(1.5) + 0.5, -math.exp(3)], rel=1e-7)
    assert log_det.tolist() == pytest.approx([1.5, 3.0], rel=1e-7)


@every
def test_single_precision(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform, dtype=torch.float32)
    y, log_det = transform.forward(x, parameters)
    back, inverse_log_det = transform.inverse(y, parameters)
    assert {t.dtype for t in (y, log_det, back, inverse_log_det)} == {torch.float32}
    assert distance(transform, x, back) < 2e-4
    exact, exact_log_det = transform.forward(x.double(), parameters.double())
    unit = 1 + exact.abs()  # the tails of the odd monotone map reach thousands
    assert distance(transform, exact / unit, y / unit) < 2e-5
    assert (exact_log_det - log_det).square().mean().sqrt() < 1e-5


@every
def test_second_derivatives(transform: ElementwiseTransform) -> None:
    x, parameters = (t.requires_grad_() for t in draw(transform, n=2))
    for direction in (transform.forward, transform.inverse):
        assert torch.autograd.gradcheck(direction, (x, parameters))
        assert torch.autograd.gradgradcheck(direction, (x, parameters))


@every
def test_vmap_and_batch_independence(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform, n=12)
    for direction in directions(transform):
        together = direction(x.view(3, 4), parameters.view(3, 4, -1))
        for one_by_one in (vmap(direction)(x, parameters), zip(*map(direction, x, parameters))):
            for batched, single in zip(together, one_by_one):
                single = single if isinstance(single, Tensor) else torch.stack(single)
                torch.testing.assert_close(batched.flatten(), single, rtol=1e-13, atol=1e-13)
    slope = vmap(jacrev(lambda x, p: transform.forward(x, p)[0]))(x, parameters)
    torch.testing.assert_close(slope.log(), transform.forward(x, parameters)[1], rtol=1e-10, atol=1e-12)


@every
def test_traces_into_one_graph(transform: ElementwiseTransform) -> None:
    torch.compiler.reset()
    x, parameters = draw(transform, n=6)
    for direction in directions(transform):
        compiled = torch.compile(direction, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, parameters), direction(x, parameters))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "inverse"), [(torch.float32, False), (DOUBLE, True)])
def test_compiled_spline_with_gradients(dtype: torch.dtype, inverse: bool) -> None:
    torch.compiler.reset()
    x, parameters = (t.requires_grad_() for t in draw(RationalQuadraticSpline(), n=500, dtype=dtype))
    compiled = torch.compile(spline, fullgraph=True)
    results = []
    for function in (spline, compiled):
        y, log_det = function(x, parameters, 5.0, inverse)
        results.append((y, log_det, *torch.autograd.grad(y.sum() + log_det.sum(), (x, parameters))))
    torch.testing.assert_close(*results, rtol=1e-3 if dtype == torch.float32 else 1e-10, atol=1e-4)


# --------------------------------------------------------------------------------------------------------- circles


@pytest.mark.parametrize("transform", CIRCLES, ids=repr)
def test_angles_of_other_branches_are_the_same_points(transform: ElementwiseTransform) -> None:
    x, parameters = draw(transform, n=100)
    for direction in (transform.forward, transform.inverse):
        (y, log_det), (other, same) = direction(x, parameters), direction(x + 6 * math.pi, parameters)
        assert distance(transform, y, other) < 1e-12
        assert (log_det - same).abs().max() < 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("transform", CIRCLES, ids=repr)
def test_the_ends_of_the_chart_are_one_ordinary_point(transform: ElementwiseTransform, dtype: torch.dtype) -> None:
    ends = torch.tensor([math.pi, -math.pi, 0.0], dtype=dtype)
    x = torch.cat((ends, ends.nextafter(ends + 1), ends.nextafter(ends - 1))).requires_grad_()
    _, parameters = draw(transform, n=1, scale=2.0, dtype=dtype)
    for direction in (transform.forward, transform.inverse):
        y, log_det = direction(x, parameters.expand(9, -1))
        gradient = torch.autograd.grad(y.sum() + log_det.sum(), x)[0]
        assert all(t.isfinite().all() for t in (y, log_det, gradient))
        assert (y.abs() <= 3.1415929).all()
        at_pi = y[[0, 1, 3, 4, 6, 7]]
        assert wrap(at_pi - at_pi[0]).abs().max() < 1e3 * torch.finfo(dtype).eps


@pytest.mark.parametrize("scale", [-1e9, 1e9])
@pytest.mark.parametrize("transform", [*CIRCLES, *IntervalSpline.examples()], ids=repr)
def test_extreme_concentration_keeps_two_derivatives_finite(transform: ElementwiseTransform, scale: float) -> None:
    x = at_home(transform, torch.linspace(-3.2, 3.2, 41, dtype=DOUBLE)).requires_grad_()
    parameters = torch.full((41, transform.n_parameters), scale, dtype=DOUBLE).requires_grad_()
    for direction in (transform.forward, transform.inverse):
        y, log_det = direction(x, parameters)
        first = torch.autograd.grad(y.sum() + log_det.sum(), (x, parameters), create_graph=True)
        second = torch.autograd.grad(sum(t.sum() for t in first), (x, parameters))
        assert all(t.isfinite().all() for t in (y, log_det, *first, *second))


def test_mobius_keeps_cross_ratios() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(50, 4, generator=generator, dtype=DOUBLE) * 2 * math.pi
    parameters = torch.randn(50, 1, 3, generator=generator, dtype=DOUBLE).expand(50, 4, 3)

    def cross_ratio(angles: Tensor) -> Tensor:
        a, b, c, d = (torch.sin(angles[:, i] / 2 - angles[:, j] / 2) for i, j in ((0, 2), (1, 3), (0, 3), (1, 2)))
        return (a * b).abs() / ((a * b).abs() + (c * d).abs())

    before, after = cross_ratio(x), cross_ratio(mobius(x, parameters)[0])
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
    bent = circular_spline(x, 0.5 * torch.ones(50, 4, 13, dtype=DOUBLE).cumsum(-1).sin())[0]
    assert (cross_ratio(bent) - before).abs().max() > 1e-2


def test_mobius_is_the_projection_in_both_charts() -> None:
    x = torch.linspace(-3, 3, 31, dtype=DOUBLE)
    a, b = x.new_tensor(1.7), x.new_tensor(-0.4)
    y, slope = projection(x, a, b)
    torch.testing.assert_close(y, 2 * torch.atan(a * torch.tan(x / 2) + b))
    t = x + math.pi  # the chart (0, 2π) with its pole at 0
    written = 1 / ((1 + b**2) / a * torch.sin(t / 2) ** 2 + a * torch.cos(t / 2) ** 2 - b * torch.sin(t))
    torch.testing.assert_close(slope, written)


def test_mobius_is_a_mixture_of_one() -> None:
    x, parameters = draw(Mobius(), n=50)
    alone = CircularMixture(1).forward(x, torch.nn.functional.pad(parameters, (1, 0)))
    for one, other in zip(Mobius().forward(x, parameters), alone):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_interval_keeps_its_ends_and_has_free_slopes() -> None:
    transform = IntervalSpline(4)
    ends = torch.tensor([-1.0, 1.0, -1 - 1e-12, 1 + 1e-12], dtype=DOUBLE)
    y, log_det = transform.forward(ends, draw(transform, n=1)[1].expand(4, -1))
    assert torch.equal(y, ends.clamp(-1, 1))
    assert log_det[:2].abs().min() > 0.1


def test_roots_that_are_not_there_are_reported() -> None:
    y = torch.tensor([0.0, 3.0, math.nan], dtype=DOUBLE)
    low, high = torch.full_like(y, -1), torch.ones_like(y)
    assert increasing_root(lambda x: (x, torch.ones_like(x)), y[[0, 2]], low[:2], high[:2]).isnan().tolist() == [
        False,
        True,
    ]
    with pytest.raises(ArithmeticError, match=r"1 of 3 values of y that are not reached, by up to 2\.0e\+00"):
        increasing_root(lambda x: (x, torch.ones_like(x)), y, low, high)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Affine(limit=0.0), ValueError, "positive finite limit"),
        (lambda: OddMonotone(limit=math.nan), ValueError, "positive finite limit"),
        (lambda: OddSpline(n_bins=1), ValueError, "n_bins >= 2"),
        (lambda: RationalQuadraticSpline(n_bins=2.5), TypeError, "integer n_bins"),  # type: ignore[arg-type]
        (lambda: RationalQuadraticSpline(bound=-1.0), ValueError, "positive finite bound"),
        (lambda: CircularSpline(n_bins=0), ValueError, "n_bins >= 2"),
        (lambda: CircularMixture(n_components=0), ValueError, "n_components >= 1"),
        (lambda: IntervalSpline(n_bins=1), ValueError, "n_bins >= 2"),
        (lambda: Mobius(limit=0.0), ValueError, "positive finite limit"),
        (lambda: mobius(torch.zeros(3), torch.zeros(3, 4)), ValueError, r"\(3, 3\)"),
        (lambda: spline(torch.zeros(3), torch.zeros(3, 22)), ValueError, r"\(3, 20\)"),
        (lambda: odd_spline(torch.zeros(2, 3), torch.zeros(3, 23)), ValueError, r"\(2, 3, 23\)"),
        (lambda: OddSpline().forward(torch.zeros(3), torch.zeros(3, 20)), ValueError, r"\(3, 23\)"),
        (lambda: affine(torch.zeros(3), torch.zeros(3, 2, dtype=DOUBLE)), TypeError, "dtype"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
