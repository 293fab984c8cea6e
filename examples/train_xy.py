"""How do I train a flow for planar spins, and how do I know that its answers are right?

Answer: `SpinContinuous` starts from spins on random spanning trees, which are drawn exactly, and moves them with all
symmetries of the lattice and the global O(2) built in. On 4×4 sites at β = 1 eight updates of 1024 samples give
ESS 0.97, and weights make it exact: log Z = 40.053514403 in the measure dθ, energy per site -1.4117291202, within the
quoted errors.
Reference: transfer matrix in the angular momenta of a row (`lattices.exact.xy_torus`).
"""

from __future__ import annotations

import torch

from flows.architectures.spin_continuous import SpinContinuous
from flows.sampling.reweighting import reweight
from flows.trained import refined
from flows.training import fit
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.exact import xy_torus
from lattices.spin_observables import spin_observables
from lattices.theories.xy import XY


def main(
    extents: tuple[int, ...] = (4, 4), beta: float = 1.0, n_steps: int = 8, n_samples: int = 10_000, batch: int = 1024
) -> dict[str, float]:
    """Train, reweight, compare; the numbers worth checking."""
    generator = torch.Generator().manual_seed(0)
    action = XY(extents, beta)
    flow = SpinContinuous().build(action)

    fit(Problem(flow, action), NaturalGradient(n_samples=batch), n_steps, generator=generator)

    samples = reweight(refined(flow), action, n_samples, generator, lambda x: spin_observables(action.field, x))
    ess, log_z, energy = samples.effective_sample_size(), samples.log_z(), samples.estimates()["energy"]
    exact = xy_torus(extents, beta)
    print(f"ESS    {ess}")
    print(f"log Z  {log_z}, exact {exact.log_z:.10f}")
    print(f"E      {energy}, exact {exact.energy:.10f}")
    return {
        "ess": ess.value,
        "log_z_z": log_z.z_score(exact.log_z),
        "energy_z": energy.z_score(exact.energy),
        "log_z_error": log_z.error,
    }


if __name__ == "__main__":
    main()
