"""Context: the numbers (couplings, coarse fields) that a conditional flow is told beside its input."""

from __future__ import annotations

from torch import Tensor


def checked_context(context: Tensor | None, n_context: int) -> Tensor:  # -> (batch, n_context)
    """Return the context of a layer that needs `n_context` numbers; a clear ValueError where they are missing."""
    got = "none" if context is None else f"shape {tuple(context.shape)}"
    if context is None or context.ndim != 2 or context.shape[1] != n_context:
        raise ValueError(f"expected context of shape (batch, {n_context}), got {got}: pass context=couplings")
    return context
