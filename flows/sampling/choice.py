"""Which kernel for which action, and many independent chains of it: samples that were checked for equilibrium."""

from __future__ import annotations

from itertools import count

import torch
from scipy.stats import rankdata
from torch import Tensor

from flows.sampling.cluster import SwendsenWang
from flows.sampling.composite import Composite
from flows.sampling.dual import DualCluster
from flows.sampling.embedded import EmbeddedSwendsenWang
from flows.sampling.heatbath import HeatBath
from flows.sampling.hmc import HMC
from flows.sampling.kernel import History, Kernel, run
from flows.sampling.spin_heatbath import ClockHeatBath, VectorHeatBath
from flows.sampling.spin_kernel import is_spins
from lattices.action import Action
from lattices.fields import FieldSpace, Real
from lattices.spins import unit_vectors
from lattices.theories.clock import ClockSpins
from lattices.theories.ising import Spins
from lattices.theories.ising_dual import IsingDual
from lattices.theories.potts_dual import PottsDual
from lattices.theories.su_n_gauge import SUNGauge
from lattices.theories.u1_gauge import U1Gauge

_FEWEST_CHAINS = 16
_LEAST_ACCEPTANCE = 0.2
_LIMIT = 5.0  # standard errors: once in 6000 for Student's distribution of 16 chains, in two million for many
_STRAY = 30  # interquartile ranges


def sampler_for(action: Action) -> Kernel:
    """The kernel we recommend for an action, ready for `adapt`.

        IsingDual, PottsDual                              DualCluster, two sweeps of the spins
        spins ±1                                          SwendsenWang
        scalars: nearest neighbours, even site potential  SwendsenWang, then a short HMC trajectory
        XY, O(n), clocks: nearest neighbours alone        EmbeddedSwendsenWang, then a heat bath
        links of U(1) or SU(N), Wilson's action           HeatBath, two sweeps of overrelaxation
        anything else on R, Rⁿ, S¹, Sⁿ or a group         HMC, ten steps per trajectory

    Clusters overcome critical slowing down; HMC alone needs trajectories of the order of the correlation length, so
    lengthen them near a transition. ValueError for other targets.
    """
    if isinstance(action, (IsingDual, PottsDual)):
        return DualCluster(action, n_sweeps=2)
    if isinstance(action, U1Gauge | SUNGauge) and action.rectangle == 0:
        return HeatBath(action)
    if action.field.target == Spins():
        return SwendsenWang(action)
    if is_spins(action.field) and (kernel := _spin_sampler(action)):
        return kernel
    if _has_sign_clusters(action):
        return Composite((SwendsenWang(action), HMC(action, _cautious_step(action), 10, jitter=0.1)))
    return HMC(action, _cautious_step(action), 10, jitter=0.1)


def equilibrated(
    action: Action,
    start: Tensor | int,
    n_samples: int,
    generator: torch.Generator,
    n_warm_up: int = 100,
    spacing: int = 5,
) -> Tensor:  # -> (n_chains, n_samples, *event)
    """Samples of exp(-S)/Z from independent chains of `sampler_for(action)`, checked for equilibrium.

    The first half of the warm-up tunes the kernel. Early and late fields (the end of the warm-up counts) must then
    agree in the ranks of S and |mean field|², within five standard errors over chains; so must hot and cold starts.
    Else, or if the kernel hardly moves, a RuntimeError says by how much. More chains see a smaller drift; agreement
    cannot exclude one much slower than the run, but hot and cold starts approach from both sides.

    Args:
        start: fields (n_chains, *event), those of a flow for instance; or a number of chains, of which one half
            starts hot (independent cells) and the other cold (all cells equal).
        n_samples: fields kept of every chain, correlated if `spacing` is short.
        n_warm_up: steps before the first sample; a good start needs few.
        spacing: steps from sample to sample, and to the first one.
    """
    x = mixed_start(action, start, generator) if isinstance(start, int) else start
    _check_numbers(len(x), n_samples, n_warm_up, spacing)
    kernel = sampler_for(action)
    kernel, state = kernel.adapt(kernel.init(x), n_warm_up // 2, generator)
    state = run(kernel, kernel.init(state.x), n_warm_up - n_warm_up // 2, generator, desc="warm-up").state
    steps = count(1)

    def keep(x: Tensor) -> dict[str, Tensor]:
        return {} if next(steps) % spacing else {"x": x}

    history = run(kernel, state, n_samples * spacing, generator, keep, desc="sampling")
    samples = _require_motion(history).measured["x"]
    trace = torch.stack([_observe(action, x) for x in (state.x, *samples.unbind(1))], 1)
    _require_no_stray(trace)
    _require_agreement(trace, start - start // 2 if isinstance(start, int) else None)
    return samples


def mixed_start(action: Action, n_chains: int, generator: torch.Generator) -> Tensor:  # -> (n_chains, *event)
    """Hot fields, whose cells are independent, and then as many cold ones, whose cells are equal (one less if odd).

    On R and Rⁿ the cells have the width of the best Gaussian of the action, where it knows one. Cold ones have it
    exactly: a whole lattice far out would have a force that no trajectory of a tuned kernel survives.
    """
    field, spectrum = action.field, action.gaussian_spectrum()
    cells, n_hot = _cells(field.random(n_chains, generator), field), n_chains - n_chains // 2
    cold = cells[n_hot:, :1]
    if isinstance(field.target, Real):
        cold = cold / cold.flatten(1).square().mean(1).sqrt().reshape(-1, *[1] * (cold.ndim - 1))
    x = torch.cat([cells[:n_hot], cold.expand_as(cells[n_hot:])])
    if isinstance(field.target, Real) and spectrum is not None:
        x = x * spectrum.mean().sqrt().to(x)
    return x.reshape(n_chains, *field.event_shape)


def _cells(x: Tensor, field: FieldSpace) -> Tensor:  # (batch, *event) -> (batch, cells, *target)
    return x.reshape(len(x), -1, *field.target.shape)


def _has_sign_clusters(action: Action) -> bool:
    """Whether flipping one sign changes S by couplings of nearest neighbours alone."""
    if action.field.target != Real():
        return False
    x = torch.linspace(-1, 2, action.field.lattice.volume, dtype=torch.float64).reshape(1, *action.field.event_shape)
    try:
        SwendsenWang(action).init(x)
    except ValueError:
        return False
    return True


def _spin_sampler(action: Action) -> Kernel | None:
    """Clusters for what is long, a heat bath for what is short; None if S is more than pairs of neighbours."""
    local = ClockHeatBath if isinstance(action.field.target, ClockSpins) else VectorHeatBath
    try:
        return Composite((EmbeddedSwendsenWang(action), local(action)))
    except (TypeError, ValueError):
        return None


def _cautious_step(action: Action) -> float:
    """A fifth of the width of the stiffest mode, a tenth of where leapfrog breaks down; for `adapt` to improve on."""
    spectrum = action.gaussian_spectrum()
    return 0.1 if spectrum is None else 0.2 * float(spectrum.min().sqrt())


def _observe(action: Action, x: Tensor) -> Tensor:  # (chains, *event) -> (chains, 2)
    """S and |mean field|², in float64; the mean of angles on sites is that of their unit vectors."""
    cells = unit_vectors(action.field, x).flatten(1, -2) if is_spins(action.field) else _cells(x, action.field)
    mean = cells.mean(1).reshape(len(x), -1)
    return torch.stack([action.energy(x).double(), mean.abs().square().sum(1).double()], 1)


def _require_motion(history: History) -> History:
    acceptance = float(history.accepted.mean())
    if acceptance < _LEAST_ACCEPTANCE:
        raise RuntimeError(
            f"expected an acceptance of {_LEAST_ACCEPTANCE} at least, got {acceptance:.2f}: the start is far off or "
            "the kernel badly tuned, raise n_warm_up"
        )
    return history


def _require_no_stray(trace: Tensor) -> None:  # (chains, times, 2)
    """Raise if the mean of one chain is absurdly far from the others': it never came in from a wild start."""
    means = trace.mean(1)
    low, middle, high = torch.quantile(means, means.new_tensor([0.25, 0.5, 0.75]), dim=0)
    stray = ((means - middle).abs() > _STRAY * (high - low)).any(1)
    if bool(stray.any()):
        raise RuntimeError(
            f"expected all chains in equilibrium, got {int(stray.sum())} of {len(means)} more than {_STRAY} "
            "interquartile ranges away: start closer, or take another kernel if they are stuck"
        )


def _require_agreement(trace: Tensor, n_hot: int | None) -> None:  # (chains, times, 2)
    """Raise unless early and late times agree, chain by chain, and the first n_hot chains with the others.

    In ranks among all values instead of the values: a few wild chains cannot hide the drift of the others.
    """
    trace = torch.from_numpy(rankdata(trace.flatten(0, 1).cpu(), axis=0)).reshape(trace.shape)
    half, chains = trace.shape[1] // 2, trace.mean(1)
    drift = trace[:, -half:].mean(1) - trace[:, :half].mean(1)
    _require_zero("early and late", drift.mean(0), _variance(drift))
    if n_hot is not None:
        hot, cold = chains[:n_hot], chains[n_hot:]
        _require_zero("hot and cold", hot.mean(0) - cold.mean(0), _variance(hot) + _variance(cold))


def _variance(values: Tensor) -> Tensor:  # (n, 2) -> (2,)
    """Of the mean over chains."""
    return values.var(0) / len(values)


def _require_zero(which: str, difference: Tensor, variance: Tensor) -> None:  # (2,), (2,)
    for name, z in zip(("S", "|mean field|²"), (difference / variance.sqrt()).abs().tolist()):
        if not z < _LIMIT:  # frozen chains give NaN
            raise RuntimeError(
                f"expected {which} fields in equilibrium, got {name} apart by {z:.1f} standard errors: raise "
                "n_warm_up, start closer, or take another kernel if this one is stuck"
            )


def _check_numbers(n_chains: int, n_samples: int, n_warm_up: int, spacing: int) -> None:
    if n_chains < _FEWEST_CHAINS:
        raise ValueError(f"expected at least {_FEWEST_CHAINS} chains, got {n_chains}: their spread is the error bar")
    if n_samples < 1 or n_warm_up < 1 or spacing < 1:
        raise ValueError(
            f"expected n_samples, n_warm_up and spacing >= 1, got {n_samples}, {n_warm_up} and {spacing}: change them"
        )
