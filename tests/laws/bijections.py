"""Laws of bijections: each raises AssertionError, naming the bijection that breaks it.

All take one bijection and a seeded generator. Jacobians are taken in tangent space, with orthonormal frames of the
reference measure, so that the same laws hold on circles, spheres and groups.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from flows.bases import White
from flows.bijection import Bijection, Inverse
from flows.context import context_width
from flows.distribution import Transformed
from lattices.fields import Circle, FieldSpace, Links, Sphere

TOLERANCE = 1e-10
Module = TypeVar("Module", bound=nn.Module)
Law = Callable[[Bijection, Generator], None]


def perturbed(module: Module, generator: Generator, scale: float = 0.1) -> Module:
    """A copy with noise added to every parameter: layers that start as the identity say nothing there."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return other


def couplings(module: nn.Module, n: int, generator: Generator, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """Random context as wide as any layer inside asks for, one row per sample; None if none asks."""
    width = context_width(module)
    return torch.randn(n, width, generator=generator, dtype=dtype) if width else None


def random_fields(field: FieldSpace, n: int, generator: Generator) -> Tensor:  # -> (n, *event)
    """Uniform on compact targets (complex where the group is), standard normal on real ones."""
    return White(field).sample(n, generator=generator)


def situation(bijection: Bijection, generator: Generator, n: int = 4) -> tuple[Bijection, Tensor, Tensor | None]:
    """A perturbed copy in float64, latent fields, and context."""
    moved = perturbed(bijection, generator).double()
    return moved, random_fields(bijection.domain, n, generator), couplings(bijection, n, generator)


def allowed(bijection: Bijection, z: Tensor, context: Tensor | None) -> float:
    """How far off an exact law may be: rounding, and how an integrated flow changes with twice its steps."""
    integrated = [m for m in bijection.modules() if hasattr(m, "refined")]
    finer = [(m, m.refined(2 * m.n_steps)) for m in integrated]
    return TOLERANCE + sum((f(z, context)[1] - g(z, context)[1]).abs().max().item() for f, g in finer)


def gap(field: FieldSpace, x: Tensor, y: Tensor) -> float:
    """Largest distance of two batches of fields, relative to the larger of 1 and the values; angles modulo 2π."""
    difference = x - y
    if isinstance(field.target, Circle) or (isinstance(field.target, Links) and not field.target.shape):
        difference = 2 * torch.sin(difference / 2)
    return (difference.abs().max() / y.abs().max().clamp(min=1)).item()


def as_tangent(field: FieldSpace, x: Tensor, coordinates: Tensor) -> Tensor:  # (batch, *cells, dim) -> (batch, *event)
    """The tangent vector with these coordinates in the orthonormal frame at x."""
    if isinstance(field.target, Sphere):
        return torch.einsum("...a,...ia->...i", coordinates, sphere_frame(x))
    if isinstance(field.target, Links):
        return torch.tensordot(coordinates.to(x.dtype), field.target.group.algebra_basis(x.dtype), 1)
    return coordinates.view_as(x)


def as_coordinates(field: FieldSpace, x: Tensor, dx: Tensor) -> Tensor:  # (batch, *event) -> (batch, n)
    """Coordinates of a displacement dx at x, in the orthonormal frame there."""
    if isinstance(field.target, Sphere):
        return torch.einsum("...i,...ia->...a", dx, sphere_frame(x)).flatten(1)
    if isinstance(field.target, Links) and field.target.shape:
        basis = field.target.group.algebra_basis(x.dtype)
        overlap = torch.einsum("aij,...ij->...a", basis.conj(), dx @ x.mH).real
        return (overlap / basis.abs().square().sum((-1, -2))).flatten(1)
    return dx.flatten(1)


def sphere_frame(x: Tensor) -> Tensor:  # (..., n + 1) -> (..., n + 1, n)
    """n orthonormal tangent vectors at every point."""
    return torch.linalg.qr(x.detach().unsqueeze(-1), mode="complete").Q[..., 1:]


def n_coordinates(field: FieldSpace) -> tuple[int, ...]:
    """The shape of the coordinates of one tangent vector."""
    target = field.target
    cells = field.event_shape[: len(field.event_shape) - len(target.shape)]
    if isinstance(target, Links):
        return (*cells, target.group.dim)
    return (*cells, target.n) if isinstance(target, Sphere) else field.event_shape


def jacobian(bijection: Bijection, z: Tensor, context: Tensor | None) -> Tensor:  # -> (batch, n, n)
    """∂(coordinates at f(z)) / ∂(coordinates at z), all rows of the whole batch in one vectorised backward pass."""
    start, end = bijection.domain, bijection.codomain
    xi = z.real.new_zeros(len(z), *n_coordinates(start)).requires_grad_()
    x, _ = bijection.forward(start.exp(z, as_tangent(start, z, xi)), context)
    rows = as_coordinates(end, x.detach(), x).sum(0)
    (gradients,) = torch.autograd.grad(rows, xi, torch.eye(len(rows), dtype=rows.dtype), is_grads_batched=True)
    return gradients.flatten(2).transpose(0, 1)


# --------------------------------------------------------------------------------------------------------- the laws


def well_formed(bijection: Bijection, generator: Generator) -> None:
    """Fields of the codomain, one real log-det each, finite; the input is left alone."""
    f, z, context = situation(bijection, generator)
    before = z.clone()
    x, log_det = f(z, context)
    assert f.codomain.contains(x).all(), f"{bijection} leaves {f.codomain}"
    assert log_det.shape == (len(z),), f"{bijection}: log-det of shape {tuple(log_det.shape)}"
    assert log_det.isfinite().all(), f"{bijection}: log-det is not finite"
    assert torch.equal(z, before), f"{bijection} changes its argument"


def round_trip(bijection: Bijection, generator: Generator) -> None:
    """f⁻¹(f(z)) = z and f(f⁻¹(x)) = x, with log-dets that cancel."""
    f, z, context = situation(bijection, generator)
    tolerance = 10 * allowed(f, z, context)
    for there, back, field in ((f.forward, f.inverse, f.domain), (f.inverse, f.forward, f.codomain)):
        start = random_fields(field, len(z), generator)
        middle, log_det = there(start, context)
        end, reverse_log_det = back(middle, context)
        assert gap(field, end, start) < tolerance, f"{bijection}: a round trip ends {gap(field, end, start):.1e} away"
        assert (log_det + reverse_log_det).abs().max() < tolerance, f"{bijection}: log-dets do not cancel"


def log_det_is_jacobian(bijection: Bijection, generator: Generator) -> None:
    """log_det = log|det ∂f/∂z| of the autograd Jacobian, forward and inverse."""
    f, z, context = situation(bijection, generator)
    x = random_fields(f.codomain, len(z), generator)
    for name, direction, start in (("forward", f, z), ("inverse", Inverse(f), x)):
        end, claimed = direction.forward(start, context)
        error = (jacobian(direction, start, context).slogdet().logabsdet - claimed).abs().max().item()
        latent = start if direction is f else end
        assert error < 10 * allowed(f, latent, context), f"{bijection}: {name} log-det is {error:.1e} off"


def equivariant_as_claimed(bijection: Bijection, generator: Generator) -> None:
    """f(g·z) = g·f(z) and the log-det is unchanged, both ways, for every generator of every claimed symmetry."""
    f, z, context = situation(bijection, generator, n=2)
    for map_, start, end in ((f.forward, f.domain, f.codomain), (f.inverse, f.codomain, f.domain)):
        group = [g for symmetry in bijection.symmetries for g in symmetry.generators(start)]
        everyone = torch.cat([z, *(start.act(g, z) for g in group)])
        told = None if context is None else context.repeat(1 + len(group), 1)
        (y, *moved), (log_det, *same) = (t.split(2) for t in map_(everyone, told))
        for g, y_moved, log_det_moved in zip(group, moved, same):
            error = max(gap(end, y_moved, end.act(g, y)), (log_det_moved - log_det).abs().max().item())
            assert error < TOLERANCE, f"{bijection} does not commute with {g}: {error:.1e}"


def batch_independent(bijection: Bijection, generator: Generator) -> None:
    """What happens to a sample does not depend on its companions."""
    f, z, context = situation(bijection, generator)
    x, log_det = f(z, context)
    for i in range(len(z)):
        one, one_log_det = f(z[i : i + 1], None if context is None else context[i : i + 1])
        error = max(gap(f.codomain, one, x[i : i + 1]), (one_log_det - log_det[i]).abs().item())
        assert error < TOLERANCE, f"{bijection}: sample {i} alone differs by {error:.1e}"


def keeps_dtype(bijection: Bijection, generator: Generator) -> None:
    """A layer converted to a dtype returns fields and log-dets of that dtype, close to those in float64."""
    f, z, context = situation(bijection, generator)
    exact = f(z, context)
    single = copy.deepcopy(f).float()
    half = torch.complex64 if z.is_complex() else torch.float32
    narrow = (z.to(half), None if context is None else context.float())
    for direction in (single.forward, single.inverse):
        y, log_det = direction(*narrow)
        assert y.dtype == narrow[0].dtype, f"{bijection} turns {narrow[0].dtype} into {y.dtype}"
        assert log_det.dtype == torch.float32, f"{bijection}: log-det in {log_det.dtype} for float32"
    x, log_det = single.forward(*narrow)
    error = max(gap(f.codomain, x.to(z.dtype), exact[0]), (log_det.double() - exact[1]).abs().max().item())
    assert error < 1e-3, f"{bijection}: float32 is {error:.1e} off"


def follows_device(bijection: Bijection, generator: Generator) -> None:
    """Nothing stays behind on another device: shapes run through on `meta`."""
    _, z, context = situation(bijection, generator, n=1)
    remote = copy.deepcopy(bijection).double().to("meta")
    y, log_det = remote(z.to("meta"), None if context is None else context.to("meta"))
    assert y.device.type == log_det.device.type == "meta", f"{bijection} leaves the device of its input"
    assert y.shape == z.shape, f"{bijection}: shape {tuple(y.shape)} on meta"


def trains_every_parameter(bijection: Bijection, generator: Generator) -> None:
    """A finite gradient that is not zero reaches every parameter, in both directions."""
    f, z, context = situation(bijection, generator)
    for direction in (f.forward, f.inverse):
        f.zero_grad()
        y, log_det = direction(z, context)
        weight = torch.randn(y.shape, generator=generator, dtype=z.real.dtype)
        ((y * weight).real.sum() + log_det.sum()).backward()
        for name, p in f.named_parameters():
            assert p.grad is not None, f"{bijection}: no gradient reaches {name}"
            assert p.grad.isfinite().all(), f"{bijection}: the gradient of {name} is not finite"
            assert p.grad.abs().max() > 0, f"{bijection}: the gradient of {name} vanishes"


def restores_from_state(bijection: Bijection, generator: Generator) -> None:
    """state_dict carries everything that training changes: loading it reproduces the map bit for bit."""
    f, z, context = situation(bijection, generator)
    other = copy.deepcopy(bijection).double()
    other.load_state_dict(f.state_dict())
    for a, b in zip(f(z, context), other(z, context)):
        assert torch.equal(a, b), f"{bijection}: state_dict does not restore the map"


def pushes_score(bijection: Bijection, generator: Generator) -> None:
    """push_score = autograd score of the pushed density, without a graph; x and log-det as in forward."""
    f, z, context = situation(bijection, generator)
    base = White(f.domain)
    pushed = f.push_score(z, base.score(z), context)
    x, log_det = f(z, context)
    exact = super(Transformed, Transformed(base, f)).score(x, context)
    scale = 1 + exact.abs().max().item()
    error = ((pushed.score - exact).abs().max() / scale).item()
    assert error < 100 * allowed(f, z, context), f"{bijection}: the pushed score is {error:.1e} off"
    assert gap(f.codomain, pushed.x, x) < TOLERANCE, f"{bijection}: push_score moves the field elsewhere"
    assert (pushed.log_det - log_det).abs().max() < TOLERANCE, f"{bijection}: push_score has another log-det"
    assert not any(t.requires_grad for t in pushed), f"{bijection}: push_score keeps a graph"


def starts_as_identity(bijection: Bijection, generator: Generator) -> None:
    """An untrained layer that promises so is the identity, with log-det 0."""
    z = random_fields(bijection.domain, 4, generator)
    x, log_det = copy.deepcopy(bijection).double()(z, couplings(bijection, 4, generator))
    error = max(gap(bijection.codomain, x, z), log_det.abs().max().item())
    assert error < 1e-13, f"{bijection} starts {error:.1e} away from the identity"


BIJECTION_LAWS: tuple[Law, ...] = (
    well_formed,
    round_trip,
    log_det_is_jacobian,
    equivariant_as_claimed,
    batch_independent,
    keeps_dtype,
    follows_device,
    trains_every_parameter,
    restores_from_state,
    pushes_score,
)
