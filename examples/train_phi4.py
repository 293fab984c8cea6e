"""How do I train a flow for φ⁴ theory, and how do I get exact answers from it?

Answer: build a flow from an action, improve it, and weigh its samples. On 4×4 sites with m² = -4, λ = 8 a few updates
give ESS above 0.99, and then log Z = 2.405138961615 and ⟨φ²⟩ = 0.147746214126 within the quoted errors.
Reference: transfer matrix with Gauss quadrature (`lattices.exact.phi4_moments`).
"""

from __future__ import annotations

import torch

from flows.architectures.continuous import Continuous
from flows.sampling.reweighting import reweight
from flows.trained import refined
from flows.training import fit
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.exact import phi4_moments
from lattices.observables import scalar_observables
from lattices.theories.phi4 import Phi4


def main(n_steps: int = 10, n_samples: int = 20_000, batch: int = 2048) -> dict[str, float]:
    """Train, reweight, compare; the numbers worth checking."""
    generator = torch.Generator().manual_seed(0)
    action = Phi4(extents=(4, 4), mass_squared=-4.0, quartic=8.0)
    flow = Continuous(n_times=3).build(action)

    fit(Problem(flow, action), NaturalGradient(n_samples=batch), n_steps, generator=generator)

    samples = reweight(refined(flow), action, n_samples, generator, scalar_observables)
    ess, log_z, squared = samples.effective_sample_size(), samples.log_z(), samples.estimates()["phi_squared"]
    exact = phi4_moments(action.extents, action.mass_squared, action.quartic)
    print(f"ESS    {ess}")
    print(f"log Z  {log_z}, exact {exact.log_z:.6f}")
    print(f"⟨φ²⟩   {squared}, exact {exact.phi_squared:.6f}")
    return {
        "ess": ess.value,
        "log_z_z": log_z.z_score(exact.log_z),
        "phi_squared_z": squared.z_score(exact.phi_squared),
        "log_z_error": log_z.error,
    }


if __name__ == "__main__":
    main()
