"""Laws of coarsenings: each raises AssertionError, naming the coarsening that breaks it.

All take one coarsening and a seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mlrg.coarsening import Coarsening
from tests.laws.bijections import allowed, couplings, perturbed, random_fields

Law = Callable[[Coarsening, Generator], None]


def situation(coarsening: Coarsening, generator: Generator, n: int = 4) -> tuple[Coarsening, Tensor, Tensor | None]:
    """A perturbed copy in float64, fields, and context."""
    moved = perturbed(coarsening, generator).double()
    return moved, random_fields(coarsening.field, n, generator), couplings(coarsening, n, generator)


def joined(block: Tensor, details: Tensor) -> Tensor:  # -> (batch, V)
    """All coordinates of the two parts side by side."""
    return torch.cat([block.flatten(1), details.flatten(1)], 1)


def parted(coarsening: Coarsening, y: Tensor) -> tuple[Tensor, Tensor]:  # (batch, V) -> block field, details
    """The two parts of coordinates that lie side by side."""
    n_block = math.prod(coarsening.coarse.event_shape)
    shapes = coarsening.coarse.event_shape, coarsening.detail_shape
    block, details = (part.reshape(len(y), *s) for part, s in zip((y[:, :n_block], y[:, n_block:]), shapes))
    return block, details


def tolerance(coarsening: Coarsening, x: Tensor, context: Tensor | None) -> float:
    """Rounding, and the stated error of integrated flows inside."""
    inside = getattr(coarsening, "bijection", None)
    return 10 * allowed(inside, x, context) if inside is not None else 1e-12


def jacobian(map_: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:  # (batch, n) -> (batch, n, n)
    """∂map/∂y of maps of flat batches, all rows in one vectorised backward pass."""
    start = y.detach().requires_grad_()
    rows = map_(start).sum(0)
    (gradients,) = torch.autograd.grad(rows, start, torch.eye(len(rows), dtype=y.dtype), is_grads_batched=True)
    return gradients.transpose(0, 1)


# --------------------------------------------------------------------------------------------------------- the laws


def well_formed(coarsening: Coarsening, generator: Generator) -> None:
    """Parts of the promised shapes and dtype, one log-det each; normflows' names do the same."""
    f, x, context = situation(coarsening, generator)
    (block, details), log_det = f.split(x, context)
    assert f.coarse.contains(block).all(), f"{f}: block field of shape {tuple(block.shape)}"
    assert tuple(details.shape[1:]) == f.detail_shape, f"{f}: details of shape {tuple(details.shape)}"
    assert log_det.shape == (len(x),), f"{f}: log-det of shape {tuple(log_det.shape)}"
    assert block[0].numel() + details[0].numel() == x[0].numel(), f"{f} loses or invents numbers"
    single, _ = f.float().split(x.float(), None if context is None else context.float())
    assert {part.dtype for part in single} == {torch.float32}, f"{f}: does not keep float32"


def merge_inverts_split(coarsening: Coarsening, generator: Generator) -> None:
    """merge(split(x)) = x and split(merge(c, d)) = (c, d), with log-dets that cancel."""
    f, x, context = situation(coarsening, generator)
    limit = tolerance(f, x, context)
    (block, details), log_det = f.split(x, context)
    back, back_log_det = f.merge(block, details, context)
    assert (back - x).abs().max() < limit, f"{f}: merge(split(x)) is {(back - x).abs().max():.1e} away"
    assert (log_det + back_log_det).abs().max() < limit, f"{f}: log-dets do not cancel"
    y = torch.randn(len(x), x[0].numel(), generator=generator, dtype=x.dtype)
    merged, log_det = f.merge(*parted(f, y), context)
    parts, back_log_det = f.split(merged, context)
    assert (joined(*parts) - y).abs().max() < limit, f"{f}: split(merge(c, d)) is not (c, d)"
    assert (log_det + back_log_det).abs().max() < limit, f"{f}: log-dets do not cancel"


def log_det_is_jacobian(coarsening: Coarsening, generator: Generator) -> None:
    """log_det = log|det| of the autograd Jacobian, of split and of merge."""
    f, x, context = situation(coarsening, generator)
    limit = tolerance(f, x, context)
    y = torch.randn(len(x), x[0].numel(), generator=generator, dtype=x.dtype)
    maps = {
        "split": (lambda v: joined(*f.split(v.reshape(x.shape), context)[0]), f.split(x, context)[1], x.flatten(1)),
        "merge": (lambda v: f.merge(*parted(f, v), context)[0].flatten(1), f.merge(*parted(f, y), context)[1], y),
    }
    for name, (map_, claimed, start) in maps.items():
        error = (jacobian(map_, start).slogdet().logabsdet - claimed).abs().max().item()
        assert error < limit, f"{f}: the log-det of {name} is {error:.1e} off"


def commutes_with_coarse_symmetries(coarsening: Coarsening, generator: Generator) -> None:
    """block(g·x) = g'·block(x) for every symmetry that is claimed, the log-det unchanged, and the claims are not empty.

    The norm of the details is kept by orthogonal maps of them; translations and signs act on them as on the field.
    """
    f, x, context = situation(coarsening, generator)
    (block, details), log_det = f.split(x, context)
    pairs = list(f.induced())
    assert pairs, f"{f} claims no symmetry"
    for g, induced in pairs:
        (moved, other), same = f.split(f.field.act(g, x), context)
        error = (moved - f.coarse.act(induced, block)).abs().max().item()
        assert error < 1e-10, f"{f}: the block field does not commute with {g}: {error:.1e}"
        assert (same - log_det).abs().max() < 1e-10, f"{f}: the log-det changes under {g}"
        stretch = (other.square().flatten(1).sum(1) - details.square().flatten(1).sum(1)).abs().max().item()
        assert stretch < 1e-9, f"{f}: the details change their norm under {g}"


COARSENING_LAWS: tuple[Law, ...] = (
    well_formed,
    merge_inverts_split,
    log_det_is_jacobian,
    commutes_with_coarse_symmetries,
)
