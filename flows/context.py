"""Context: the numbers (couplings, coarse fields) that a conditional flow is told beside its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def checked_context(context: Tensor | None, n_context: int) -> Tensor:  # -> (batch, n_context)
    """Return the context of a layer that needs `n_context` numbers; a clear ValueError where they are missing."""
    got = "none" if context is None else f"shape {tuple(context.shape)}"
    if context is None or context.ndim != 2 or context.shape[1] != n_context:
        raise ValueError(f"expected context of shape (batch, {n_context}), got {got}: pass context=couplings")
    return context


def context_width(module: nn.Module) -> int:
    """How many numbers the parts of a flow read: the largest `n_context` of a module or of its spec; 0 for none.

    Parts that read no context ignore it, so that conditional and plain layers chain.
    """
    parts = [part for m in module.modules() for part in (m, getattr(m, "spec", None))]
    return max(getattr(part, "n_context", 0) for part in parts)


def matched_context(
    context: Tensor | None, n: int, dtype: torch.dtype, n_context: int
) -> Tensor | None:  # -> (n, n_context) or None
    """Return finite numbers for each of n configurations, a single row repeated; ValueError or TypeError otherwise."""
    if context is None:
        return None
    if not n_context:
        raise ValueError("expected 0 couplings as context, got some: build the flow with n_context, or pass none")
    if not isinstance(context, Tensor) or context.dtype != dtype:
        got = context.dtype if isinstance(context, Tensor) else type(context).__name__
        raise TypeError(f"expected context as a tensor of {dtype}, like the flow, got {got}: convert with .to({dtype})")
    if context.ndim != 2 or len(context) not in (1, n) or not context.isfinite().all():
        shape = tuple(context.shape)
        raise ValueError(f"expected finite context of shape ({n}, n_context), got {shape}: pass one row per field")
    return context.expand(n, -1)
