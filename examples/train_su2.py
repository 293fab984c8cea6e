"""How do I train a flow for a non-abelian gauge theory, and measure Wilson loops with it?

Answer: as for any other action; links get a trivialising flow, whose velocities are gradients of Wilson loops. Its
samples are gauge covariant, stay in the group, and their weights make log Z and all loops exact within errors.
Reference: characters of SU(2) on a torus (`lattices.exact.gauge_torus_log_z`, `gauge_torus_wilson_loop`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flows.architectures.gauge_continuous import GaugeContinuous
from flows.heap import keep_heap
from flows.sampling.reweighting import reweight
from flows.trained import refined
from flows.training import fit
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem
from lattices.exact import gauge_torus_log_z, gauge_torus_wilson_loop
from lattices.theories.su_n_gauge import SUNGauge
from lattices.wilson_loops import wilson_loops


def main(
    extents: tuple[int, int] = (4, 4), beta: float = 2.2, n_steps: int = 8, n_samples: int = 10_000, batch: int = 1024
) -> dict[str, float]:
    """Train, reweight, compare; the numbers worth checking."""
    generator = torch.Generator().manual_seed(0)
    action = SUNGauge(extents, n=2, beta=beta)
    flow = GaugeContinuous(radius=1.0, n_times=2, n_steps=4).build(action)

    fit(Problem(flow, action), NaturalGradient(n_samples=batch), n_steps, generator=generator)

    def measure(x: Tensor) -> dict[str, Tensor]:
        return {"loop": wilson_loops(action.field, x, (2, 2))}

    samples = reweight(refined(flow, 1e-3), action, n_samples, generator, measure)
    ess, log_z, found = samples.effective_sample_size(generator), samples.log_z(), samples.estimates()
    exact = {area: gauge_torus_wilson_loop(extents, 2, beta, area) for area in (1, 4)}
    print(f"ESS      {ess}")
    print(f"log Z    {log_z}, exact {gauge_torus_log_z(extents, 2, beta):.6f}")
    print(f"W(1, 1)  {found['loop[0, 0]']}, exact {exact[1]:.6f}")
    print(f"W(2, 2)  {found['loop[1, 1]']}, exact {exact[4]:.6f}")
    return {
        "ess": ess.value,
        "log_z_z": log_z.z_score(gauge_torus_log_z(extents, 2, beta)),
        "plaquette_z": found["loop[0, 0]"].z_score(exact[1]),
        "loop_z": found["loop[1, 1]"].z_score(exact[4]),
    }


if __name__ == "__main__":
    keep_heap()
    main()
