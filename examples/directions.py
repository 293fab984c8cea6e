"""What is gained when a density of directions is known to have a symmetry?

Lines in space, such as fibres or axes of crystals, are directions without a sense: x and -x mean the same. Answer: a
flow that knows it keeps the harmonics of even degree alone, less than half of them, and learns more from the same data.
From 400 lines around two axes, held out 1600, it is closer to the truth than one that has to find the symmetry out, and
exactly symmetric: log q(x) = log q(-x) to rounding.
Reference: the log-density of the mixture itself, Σ_k [f(x·μ_k) + f(-x·μ_k)]/4, f of von Mises and Fisher.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from flows.architectures.harmonic import Harmonic
from flows.data import EarlyStopping, Points
from flows.distribution import Transformed
from flows.maps import Panel, side_by_side
from flows.trained import refined
from flows.training import fit
from flows.updates.likelihood import MaximumLikelihood
from flows.updates.update import Problem

AXES = ((0.0, 0.6, 0.8), (0.8, -0.6, 0.0))
CONCENTRATION = 12.0


def truth(x: Tensor) -> Tensor:  # (n, 1, 3) -> (n,)
    """log of the mixture, κ / 4π sinh κ being the normalisation of e^{κ x·μ}."""
    heights = CONCENTRATION * x[:, 0] @ x.new_tensor(AXES).mT
    log_norm = math.log(CONCENTRATION / (2 * math.pi)) - CONCENTRATION - math.log1p(-math.exp(-2 * CONCENTRATION))
    return torch.cat([heights, -heights], 1).logsumexp(1) - math.log(2 * len(AXES)) + log_norm


def draw(n: int, generator: torch.Generator) -> Tensor:  # -> (n, 3)
    """Lines around the axes: heights by inversion, azimuths uniform, senses by a coin."""
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    height = 1 + (u + (1 - u) * math.exp(-2 * CONCENTRATION)).log() / CONCENTRATION
    axes = torch.tensor(AXES, dtype=torch.float64)[torch.arange(n) % len(AXES)]
    across = torch.linalg.cross(axes, torch.randn(n, 3, generator=generator, dtype=torch.float64))
    across = across / across.norm(dim=1, keepdim=True)
    sense = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
    x = height[:, None] * axes + (1 - height**2).clamp(min=0).sqrt()[:, None] * across
    return sense * x / x.norm(dim=1, keepdim=True)


def learned(points: Points, degree: int, n_steps: int, batch: int) -> Transformed:
    """The most likely flow, stopped early."""
    generator = torch.Generator().manual_seed(1)
    flow = Harmonic(degree).build(points)
    stopping = EarlyStopping(flow, points.held_out)
    update = MaximumLikelihood(n_samples=batch)
    fit(Problem(flow, points), update, n_steps, generator=generator, callback=stopping)
    stopping.restore()
    return refined(flow)


@torch.no_grad()
def main(
    n: int = 2000, degree: int = 6, n_steps: int = 8, batch: int = 384, figure: Path | None = None
) -> dict[str, float]:
    """Draw, fit with the symmetry and without, judge; the numbers worth checking."""
    x, found, panels = draw(n, torch.Generator().manual_seed(0)), {}, [Panel("truth", truth)]
    for symmetry in ("antipodal", "none"):
        points = Points.split("sphere", x, held_out=0.8, symmetry=symmetry)
        flow, held_out = learned(points, degree, n_steps, batch), points.held_out
        below = truth(held_out) - flow.log_prob(held_out)
        asymmetry = float((flow.log_prob(held_out) - flow.log_prob(-held_out)).abs().max())
        error = float(below.std() / len(below) ** 0.5)
        print(f"{symmetry:<10} {float(below.mean()):.4f} ± {error:.4f} nats below the truth, asymmetry {asymmetry:.1e}")
        found |= {symmetry: float(below.mean()), f"{symmetry}_error": error, f"{symmetry}_asymmetry": asymmetry}
        panels.append(Panel("symmetric model" if symmetry == "antipodal" else "model without symmetry", flow.log_prob))
    if figure is not None:
        print(f"wrote {side_by_side(points.field, panels, figure)}")
    return found


if __name__ == "__main__":
    main(figure=Path("runs/directions.png"))
