"""The accept step: in float64, per chain, and never towards a state that is not a number."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt
from typing import TypeVar

import torch
from torch import Tensor

from flows.sampling.kernel import Info, Kernel, State, require_warm_up

K = TypeVar("K", bound=Kernel)


def accept(log_ratio: Tensor, generator: torch.Generator) -> Tensor:  # any shape -> bool, the same shape
    """True with probability min(1, e^{log_ratio}), decided in float64; NaN is refused."""
    uniform = torch.rand(log_ratio.shape, generator=generator, dtype=torch.float64, device=log_ratio.device)
    return uniform.log() < log_ratio.double()


def select(accepted: Tensor, new: Tensor, old: Tensor) -> Tensor:  # (chains,), (chains, ...) -> (chains, ...)
    """Row by row, `new` where accepted and `old` elsewhere."""
    return torch.where(accepted.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def idle(x: Tensor) -> Info:  # (chains, *event)
    """The Info of a step that has nothing to refuse: acceptance 1, ΔH = 0."""
    return Info(x.new_ones(len(x), dtype=torch.float64), x.new_zeros(len(x), dtype=torch.float64))


def tune(
    make: Callable[[float], K], scale: float, target: float, state: State, n_steps: int, generator: torch.Generator
) -> tuple[K, State]:
    """Run n_steps of `make(scale)` while dual averaging moves log(scale) to a mean acceptance of `target`.

        log s_{t+1}/s_0 = log 10 - (√t / γ) h_t,    h_t = running mean of (target - acceptance),    γ = 0.05

    Returns `make` at the average of log s_t with weights t^-0.75, to be used unchanged: an adapting chain has no
    stationary law.

    Args:
        make: the kernel with a given scale (step size or width); larger scales must accept less.

    References:
        M. D. Hoffman, A. Gelman, 1111.4246, eq. (6).
    """
    require_warm_up(n_steps)
    averaged, surplus, kernel = 0.0, 0.0, make(scale)
    for t in range(1, n_steps + 1):
        state, info = kernel.step(state, generator)
        surplus += (target - float(info.accepted.mean()) - surplus) / (t + 10)
        proposed = log(10) - sqrt(t) / 0.05 * surplus
        averaged += t**-0.75 * (proposed - averaged)
        kernel = make(scale * exp(proposed))
    return make(scale * exp(averaged)), state
