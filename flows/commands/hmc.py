"""`latflow hmc THEORY`: the classical answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flows import parallel
from flows.commands.output import ensemble_path, save_chains
from flows.commands.parsing import FLAT, parse_theory, say
from flows.report import HMCRun, exact_values, hmc_column
from flows.tables import table


@dataclass(frozen=True)
class Output:
    """Randomness and output.

    Args:
        seed: of the starting fields and all momenta.
        device: cpu, cuda, …
        out: an .npz or .h5 to write: x (n_chains, n_steps, *extents) of scalar fields in .npz, elsewhere an ensemble
            x (n_chains n_steps, …) with the number of the `chain` of each.
    """

    seed: int = 1
    device: str = "cpu"
    out: Path | None = None


def main(arguments: Sequence[str]) -> None:
    """Run HMC and print what it found, with errors from the Γ-method."""
    parts = {"hmc": (Annotated[HMCRun, FLAT], HMCRun()), "output": (Annotated[Output, FLAT], Output())}
    options = parse_theory(arguments, "hmc", parts, "Hamiltonian Monte Carlo with many chains, tuned in warm-up only.")
    if parallel.world_size() > 1:
        raise ValueError(f"expected one process, got {parallel.world_size()}: raise --n-chains instead")
    theory, output = options.theory, options.output
    generator = parallel.rank_generator(output.seed, "hmc", output.device)
    out = output.out and ensemble_path(output.out)
    kernel, history = options.hmc.run(theory, generator, keep=out is not None)
    say(f"{theory}\nstep size {kernel.step_size:.4f}, {kernel.n_steps} steps of {kernel.integrator}\n")
    say(table([hmc_column(history, theory)], exact_values(theory)))
    if out is not None:
        say(f"wrote {save_chains(out, history.measured['x'], theory)}")
