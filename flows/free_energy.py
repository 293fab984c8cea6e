"""Free energies F = -log Z (units of kT), with errors: from one side, from both, and along a path.

A weight is w = e^{-S}/q at samples of a normalised q, or e^{-Φ} with the work Φ between two actions; then Z = ⟨w⟩_q.
Samples of independent draws have shape (n,), those of Markov chains (n_chains, n_steps): errors follow suit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from flows.bijection import Bijection
from flows.sampling.kernel import Kernel, run
from lattices.action import Action
from lattices.statistics import Estimate, chain_mean, log_mean_exp


def log_z(log_weights: Tensor) -> Estimate:  # (n,) or (n_chains, n_steps) -> scalar
    """log Z from one side: log Z = log ⟨w⟩ at samples of q.

    The error holds when n ESS ≫ 1 and q misses no mode: check `bounds` where samples of the target exist.
    """
    if log_weights.ndim == 1:
        return log_mean_exp(log_weights)
    largest = float(log_weights.max())
    weights = chain_mean((log_weights.double() - largest).exp())
    return Estimate(largest + math.log(weights.value), weights.error / weights.value, weights.n)


class Bounds(NamedTuple):
    """ELBO = ⟨log w⟩_q ≤ log Z ≤ EUBO = ⟨log w⟩_p: lower and upper."""

    lower: Estimate
    upper: Estimate


def bounds(log_weights_q: Tensor, log_weights_p: Tensor) -> Bounds:  # (n,) or (n_chains, n_steps) each
    """Both bounds of log Z by Jensen's inequality; their gap is the sum of the two Kullback–Leibler divergences.

    Args:
        log_weights_q: log w at samples of q.
        log_weights_p: log w at samples of the target p, where modes that q misses cost most.
    """
    return Bounds(_mean(log_weights_q), _mean(log_weights_p))


def bar(log_weights_q: Tensor, log_weights_p: Tensor) -> Estimate:  # (n,) or (n_chains, n_steps) each -> scalar
    """log Z from both sides: the estimator of least variance (Bennett's acceptance ratio).

        Σ_q σ(log w - log Z + c) = Σ_p σ(-log w + log Z - c),    c = log n_p/n_q,    σ(x) = 1 / (1 + e^{-x})

    It is the maximum-likelihood value when told apart which sample came from where. The error is that of the two
    means of σ, with autocorrelation for chains.

    Args:
        log_weights_q: log w at samples of q.
        log_weights_p: log w at samples of the target p.

    References:
        C. H. Bennett, J. Comput. Phys. 22 (1976) 245; M. R. Shirts et al., Phys. Rev. Lett. 91 (2003) 140601.
    """
    q, p = (_checked(each) for each in (log_weights_q, log_weights_p))
    offset = math.log(p.size / q.size)

    def excess(value: float) -> float:
        return float(expit(q - value + offset).sum() - expit(value - p - offset).sum())

    ends = (min(q.min(), p.min()) - abs(offset) - 1, max(q.max(), p.max()) + abs(offset) + 1)
    value = float(brentq(excess, *ends, xtol=1e-13, rtol=1e-14))
    sides = (_mean(expit(q - value + offset)), _mean(expit(value - p - offset)))
    return Estimate(value, math.hypot(*(side.error / side.value for side in sides)), q.size + p.size)


@torch.no_grad()
def work(
    x: Tensor, start: Action, end: Action, bijection: Bijection | None = None, context: Tensor | None = None
) -> Tensor:  # (batch, *event) -> (batch,)
    """The work of going from one action to another, straight or through a map M.

        Φ(x) = S_end(M x) - S_start(x) - log|det ∂M/∂x|,    ⟨e^{-Φ}⟩_start = Z_end / Z_start

    A good map makes Φ nearly constant. For the way back pass `Inverse(M)` and exchange the actions.

    Args:
        x: samples of `start`.
        bijection: M, from the field of `start` to that of `end`; None for the identity.
        context: couplings of a conditional map, (batch, n_couplings).
    """
    ends = (start.field, start.field) if bijection is None else (bijection.domain, bijection.codomain)
    if ends != (start.field, end.field):
        raise ValueError(f"expected a map from {start.field} to {end.field}, got {ends}: same lattices, right order")
    energy = start(x).double()
    y, log_det = (x, torch.zeros_like(energy)) if bijection is None else bijection(x, context)
    return end.energy(y).double() - energy - log_det.double()


def difference(forward: Tensor, reverse: Tensor | None = None) -> Estimate:  # (n,) or (n_chains, n_steps)
    """ΔF = F_end - F_start from work: Zwanzig's formula from one side, BAR from both.

        e^{-ΔF} = ⟨e^{-Φ}⟩_start;    ⟨Φ⟩_start ≥ ΔF ≥ -⟨Φ_reverse⟩_end

    Args:
        forward: `work` at samples of the start.
        reverse: `work` of the way back at samples of the end.
    """
    found = log_z(-forward) if reverse is None else bar(-forward, reverse)
    return Estimate(-found.value, found.error, found.n)


@dataclass(frozen=True)
class ThermodynamicIntegration:
    """ΔF along S_t = (1 - t) S_start + t S_end by simulation at Gauss–Legendre nodes: the classical baseline.

        F_end - F_start = ∫₀¹ dt ⟨S_end - S_start⟩_t

    The quoted error is statistical; the quadrature converges exponentially unless the path crosses a transition.

    Args:
        start: an action of known free energy.
        end: an action on the same space.
        moves: the kernel for a given action, e.g. `lambda action: HMC(action, 0.1, 10)`.
        n_nodes: quadrature nodes, one simulation each.
        n_steps: measured steps per node.
        n_warmup: steps before, in which the kernel may adapt.
    """

    start: Action
    end: Action
    moves: Callable[[Action], Kernel]
    n_nodes: int = 8
    n_steps: int = 1000
    n_warmup: int = 200

    def __post_init__(self) -> None:
        if self.start.field != self.end.field:
            raise ValueError(f"expected actions on one space, got {self.start.field} and {self.end.field}: match them")
        if min(self.n_nodes, self.n_steps - 1, self.n_warmup + 1) < 1:
            raise ValueError(
                f"expected n_nodes >= 1, n_steps >= 2, n_warmup >= 0, got {self.n_nodes}, {self.n_steps}, "
                f"{self.n_warmup}: make them larger"
            )

    def estimate(self, x: Tensor, generator: torch.Generator) -> Estimate:  # (chains, *event) -> scalar
        """ΔF from chains that begin at x and move from node to node."""
        total, variance, n = 0.0, 0.0, 0
        nodes, weights = np.polynomial.legendre.leggauss(self.n_nodes)
        for t, weight in zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist()):
            slope, x = self._slope(t, x, generator)
            total, variance, n = total + weight * slope.value, variance + (weight * slope.error) ** 2, n + slope.n
        return Estimate(total, math.sqrt(variance), n)

    def _slope(self, t: float, x: Tensor, generator: torch.Generator) -> tuple[Estimate, Tensor]:
        """⟨S_end - S_start⟩_t, and where the chains ended."""
        kernel = self.moves((1 - t) * self.start + t * self.end)
        kernel, state = kernel.adapt(kernel.init(x), self.n_warmup, generator)

        def slope(x: Tensor) -> dict[str, Tensor]:
            return {"slope": self.end.energy(x) - self.start.energy(x)}

        history = run(kernel, state, self.n_steps, generator, slope, desc=f"t = {t:.3f}")
        return chain_mean(history.measured["slope"]), history.state.x


def _checked(log_weights: Tensor) -> np.ndarray:
    """float64 log-weights of at least two samples, all finite."""
    values = log_weights.detach().double().cpu().numpy()
    if values.ndim not in (1, 2) or values.size < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"expected finite log-weights (n,) or (n_chains, n_steps), n >= 2, got shape {values.shape}: "
            "drop nothing, find where the action or the density overflows"
        )
    return values


def _mean(values: Tensor | np.ndarray) -> Estimate:  # (n,) or (n_chains, n_steps) -> scalar
    """The mean with its error: of independent samples, or of chains."""
    array = _checked(torch.as_tensor(values))
    if array.ndim == 2:
        return chain_mean(array)
    return Estimate(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(array.size), array.size)
