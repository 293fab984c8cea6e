"""Does a flow free the topological charge of lattice gauge theory, which freezes for local updates?

Yes. U(1) in the plane has sectors of charge Q. At 16² sites, β = 7, HMC leaves its sector in 0.01 % of trajectories,
the heat bath in 0.08 % of sweeps, the flow's Metropolis chain in 69 % of steps: it starts from Villain's theory, where
Q is drawn exactly, and moves independent samples to Wilson's action. Answer after six updates: ESS 0.988(6),
⟨Q²⟩ = 0.996(10), exact 1.006414; χ² of the whole P(Q), reweighted and Metropolis, has p = 0.49 and 0.63.
Reference: P(Q) ∝ ∫dν c(ν)^V cos 2πνQ, c(ν) = ∫dθ e^{β cos θ} cos νθ (`lattices.exact.u1_charge_distribution`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from scipy.stats import chi2
from torch import Tensor

from flows import plots
from flows.architectures.gauge_continuous import GaugeContinuous
from flows.heap import keep_heap
from flows.quantities.gauge import charge_probabilities
from flows.sampling.heatbath import HeatBath
from flows.sampling.hmc import HMC
from flows.sampling.independence import metropolise
from flows.sampling.kernel import Kernel, run
from flows.sampling.reweighting import WeightedSamples, reweight
from flows.trained import refined
from flows.training import fit
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.exact import u1_charge_distribution, u1_charge_squared
from lattices.gauge_observables import gauge_observables
from lattices.statistics import chain_function, chain_mean, jackknife
from lattices.theories.u1_gauge import U1Gauge


def main(
    extents: tuple[int, int] = (16, 16), beta: float = 7.0, n_updates: int = 6, n_samples: int = 20_000,
    n_sweeps: int = 2000, figure: Path | None = Path("runs/topology.png"),
) -> dict[str, float]:  # fmt: skip
    """Train, sample, simulate, compare; the numbers worth checking."""
    action, generator = U1Gauge(extents, beta), torch.Generator().manual_seed(0)
    samples = flow_samples(action, n_updates, n_samples, generator)
    chain = metropolise(samples.log_weights, generator)
    histories = {
        "HMC": local_history(HMC(action, 0.1, 10), n_sweeps, generator),
        "heat bath": local_history(HeatBath(action, 3), n_sweeps, generator),
        "flow, Metropolis": samples.measured["charge"][chain.indices][None],
    }
    moves = {name: float(charge.diff().ne(0).double().mean()) for name, charge in histories.items()}
    for name, frequency in moves.items():
        print(f"{name:<18} changes Q in {frequency:.2%} of its steps")

    exact, squared = u1_charge_distribution(extents, beta), u1_charge_squared(extents, beta)
    charge, weights = samples.measured["charge"], samples.log_weights.softmax(0)
    ess, reweighted = samples.effective_sample_size(generator), samples.estimates()["charge_squared"]
    metropolis = chain_mean(histories["flow, Metropolis"] ** 2)
    p_weights = probability(charge, weights, exact)
    p_chain = probability(charge[chain.indices], torch.full_like(weights, 1 / len(weights)), exact)
    print(f"ESS {ess}, acceptance {chain.acceptance:.3f}")
    print(f"⟨Q²⟩ reweighted {reweighted}, Metropolis {metropolis}, exact {squared:.6f}")
    print(f"P(Q) against the exact one, p-value of χ²: reweighted {p_weights:.3f}, Metropolis {p_chain:.3f}")
    if figure is not None:
        weighted = partial(jackknife, log_weights=samples.log_weights)
        found = (
            charge_probabilities(charge, weighted),
            charge_probabilities(histories["flow, Metropolis"], chain_function),
        )
        draw(histories, dict(zip(("reweighted", "Metropolis"), found)), exact, figure)
    return {
        "ess": ess.value, "acceptance": chain.acceptance, "hmc_moves": moves["HMC"],
        "heat_bath_moves": moves["heat bath"], "flow_moves": moves["flow, Metropolis"],
        "charge_squared": reweighted.value, "charge_squared_error": reweighted.error,
        "charge_squared_z": reweighted.z_score(squared), "metropolis_z": metropolis.z_score(squared),
        "p_reweighted": p_weights, "p_metropolis": p_chain,
    }  # fmt: skip


def flow_samples(action: U1Gauge, n_updates: int, n: int, generator: torch.Generator) -> WeightedSamples:
    """Samples of a flow trained on the spot, with weights and charges."""
    flow = GaugeContinuous(radius=1.0, n_times=2, n_steps=4).build(action)
    fit(Problem(flow, action), NaturalGradient(n_samples=1024), n_updates, generator=generator)
    return reweight(refined(flow, 1e-3), action, n, generator, partial(gauge_observables, action.field))


def local_history(kernel: Kernel, n_steps: int, generator: torch.Generator) -> Tensor:  # -> (4 chains, n_steps)
    """The charge of chains that start cold, at Q = 0."""
    field = kernel.action.field  # type: ignore[attr-defined]
    kernel, state = kernel.adapt(kernel.init(torch.zeros(4, *field.event_shape, dtype=torch.float64)), 100, generator)
    return run(kernel, state, n_steps, generator, partial(gauge_observables, field)).measured["charge"]


def probability(charge: Tensor, weights: Tensor, exact: dict[int, float], block: int = 50) -> float:
    """The p-value of P(Q) by χ² with the full covariance of all charges expected often enough, from blocks."""
    charges = torch.tensor([q for q, p in exact.items() if p * len(charge) > 50])[1:]  # all of them add up to one
    seen = (charge[:, None] == charges).double()
    found, target = weights @ seen, torch.tensor([exact[q] for q in charges.tolist()]).double()
    deviations = len(weights) * weights[:, None] * (seen - found)
    blocks = deviations[: len(charge) // block * block].unflatten(0, (-1, block)).mean(1)
    difference, covariance = found - target, blocks.T.cov() / len(blocks)
    return float(chi2.sf(float(difference @ torch.linalg.solve(covariance, difference)), len(charges)))


def draw(histories: dict[str, Tensor], found: dict, exact: dict[int, float], path: Path, n_shown: int = 1000) -> None:
    """Histories of Q side by side, and the histogram."""
    with plots.Canvas(path, "Topological charge of U(1)", len(histories) + 1) as axes:
        for trace, (name, charge), colour in zip(axes, histories.items(), plots.COLOURS):
            trace.plot(charge[0, :n_shown], color=colour, lw=0.7)
            trace.set(xlabel=f"step of {name}", ylabel="Q", ylim=(-4.5, 4.5))
        plots.draw_charges(axes[-1], found, exact)


if __name__ == "__main__":
    keep_heap()
    main()
