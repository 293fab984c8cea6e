"""Laws of field spaces and their transformations: each raises AssertionError, naming the space that breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from lattices.fields import FieldSpace, Links, Real, Sphere, Transformation
from lattices.invariance import PointTransformation, Translation
from symmetries.finite import Hyperoctahedral

TOLERANCE = 1e-12


def generator(seed: int = 0) -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(seed)


def real(x: Tensor) -> Tensor:
    """The real coordinates of a batch: (batch, n)."""
    return (torch.view_as_real(x) if x.is_complex() else x).flatten(1)


def refusal(error: type[Exception], function: Callable[[Any], object], argument: object) -> str:
    """The message of the error that function(argument) raises."""
    try:
        function(argument)
    except error as caught:
        return str(caught)
    raise AssertionError(f"{function} accepts {argument}")


def tangent(field: FieldSpace, x: Tensor, seed: int = 1) -> Tensor:
    """A random tangent vector at every value of x."""
    noise = torch.randn(x.shape, generator=generator(seed), dtype=x.real.dtype)
    if isinstance(field.target, Sphere):
        return noise - (noise * x).sum(-1, keepdim=True) * x
    if isinstance(field.target, Links):
        basis = field.target.group.algebra_basis(x.dtype)
        cells = x.shape[: x.ndim - len(field.target.shape)]
        components = torch.randn(*cells, len(basis), generator=generator(seed), dtype=x.real.dtype).to(x.dtype)
        return torch.tensordot(components, basis, dims=1)
    return noise


def random_is_contained(field: FieldSpace) -> None:
    """random(n) has the event shape, the dtype asked for, is on the manifold and repeats with its seed."""
    for dtype in (torch.float32, torch.float64):
        x = field.random(5, generator(), dtype)
        assert x.shape == (5, *field.event_shape), f"{field}: random has shape {tuple(x.shape)}"
        assert x.real.dtype == dtype, f"{field}: random has dtype {x.dtype}, not {dtype}"
        assert field.contains(x).all(), f"{field}: random leaves the manifold"
        assert torch.equal(x, field.random(5, generator(), dtype)), f"{field}: random ignores its generator"


def random_is_centred(field: FieldSpace, n: int = 4000) -> None:
    """Every target here has mean zero in its own coordinates: within 4.5 standard errors, for all of them."""
    x = real(field.random(n, generator(2)))
    z = x.mean(0) / x.std(0) * math.sqrt(n)
    assert z.abs().max() < 4.5, f"{field}: random is not centred, z = {z.abs().max():.1f}"


def exp_starts_at_its_point(field: FieldSpace) -> None:
    """exp(x, 0) = x."""
    x = field.random(5, generator())
    error = (field.exp(x, torch.zeros_like(x)) - x).abs().max().item()
    assert error < TOLERANCE, f"{field}: exp(x, 0) is {error:.1e} away from x"


def exp_has_its_velocity(field: FieldSpace, step: float = 1e-4) -> None:
    """exp(x, v) stays on the manifold, and exp(x, εv) leaves x with velocity v (v·x on a group)."""
    x = field.random(5, generator())
    v = tangent(field, x)
    assert field.contains(field.exp(x, v)).all(), f"{field}: exp leaves the manifold"
    chord = real(field.exp(x, step * v) - field.exp(x, -step * v)) / (2 * step)
    matrix = isinstance(field.target, Links) and len(field.target.shape) == 2
    error = (chord - real(v @ x if matrix else v)).abs().max().item()
    assert error < 1e-6, f"{field}: exp starts with another velocity, {error:.1e} off"


def preserves_measure(field: FieldSpace, g: Transformation) -> None:
    """x ↦ g·x keeps the manifold, the shape and the dtype, and |det ∂(g·x)/∂x| = 1."""
    x = field.random(3, generator())
    y = field.act(g, x)
    assert y.shape == x.shape, f"{g} changes the shape to {tuple(y.shape)}"
    assert y.dtype == x.dtype, f"{g} changes the dtype to {y.dtype}"
    assert field.contains(y).all(), f"{g} leaves {field}"

    def moved(r: Tensor) -> Tensor:
        one = torch.view_as_complex(r.reshape(*x[0].shape, 2)) if x.is_complex() else r.reshape(x[0].shape)
        return real(field.act(g, one[None]))[0]

    log_det = torch.linalg.slogdet(vmap(jacrev(moved))(real(x))).logabsdet
    assert log_det.abs().max() < TOLERANCE, f"{g} changes volumes on {field}: log|det| = {log_det.abs().max():.1e}"


def translations_act(field: FieldSpace) -> None:
    """T_a T_b = T_{a+b}, T_0 = 1, and a whole turn is the identity."""
    x, extents = field.random(2, generator()), field.lattice.extents
    a, b = tuple(range(1, len(extents) + 1)), tuple(2 - mu for mu in range(len(extents)))
    both = Translation(tuple(m + n for m, n in zip(a, b)))
    composed = field.act(Translation(a), field.act(Translation(b), x))
    assert torch.equal(composed, field.act(both, x)), f"{field}: translations do not compose"
    assert torch.equal(field.act(Translation(extents), x), x), f"{field}: a whole turn is not the identity"


def point_group_acts(field: FieldSpace, act: type[PointTransformation] = PointTransformation) -> None:
    """P_R P_S = P_{RS} for all R, S of the hyperoctahedral group, and P_1 = 1, on fields over a cube."""
    group, x = Hyperoctahedral(field.lattice.dimension), field.random(2, generator())

    def apply(g: Tensor, y: Tensor) -> Tensor:
        return field.act(act(tuple(map(tuple, g.tolist()))), y)

    assert torch.equal(apply(group.identity(), x), x), f"{field}: the identity acts"
    for g in group.elements:
        for h in group.elements[:12]:
            product = apply(group.compose(g, h), x)
            assert torch.equal(apply(g, apply(h, x)), product), f"{field}: {g.tolist()} and {h.tolist()} do not compose"


def rejects_foreign_fields(field: FieldSpace) -> None:
    """validate returns good fields, and refuses wrong shapes, types, and values off the manifold."""
    x = field.random(3, generator())
    assert field.validate(x) is x
    broken = x.clone()
    broken.view(-1)[-1] = math.nan
    bad: list[tuple[type[Exception], object]] = [
        (ValueError, x[0]),
        (ValueError, torch.cat([x, x], 1)),
        (ValueError, broken),
        (ValueError, x * math.inf),
        (TypeError, real(x).round().long().reshape(-1)),
        (TypeError, x.tolist()),
    ]
    if not isinstance(field.target, Real):
        bad.append((ValueError, 7 * torch.ones_like(x)))
    for error, value in bad:
        message = refusal(error, field.validate, value)
        assert "expected" in message, f"{field}: {message!r} does not say what was expected"
        assert ": " in message, f"{field}: {message!r} does not say what to do"


FIELD_LAWS = (
    random_is_contained,
    random_is_centred,
    exp_starts_at_its_point,
    translations_act,
    rejects_foreign_fields,
)
