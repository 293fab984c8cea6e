"""Train the teachers that come with the package: what regenerates mlrg/models.

    python benchmarks/renormalization/teachers.py SYSTEM EXTENT [--output FOLDER]

Seeded, float32, one thread; minutes each. Prints a line per step and the effective sample fraction at three couplings,
which is recorded beside the weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from flows.heap import keep_heap
from flows.updates.natural import NaturalGradient
from mlrg import pretrained
from mlrg.systems import system, systems
from mlrg.teacher import Teacher, train

SETTINGS = {  # (steps, samples per step, trust)
    "ising": (16, 9000, 0.15),
    "phi4": (16, 6000, 0.15),
    "phi4-form-a": (12, 6000, 0.3),
    "potts3": (12, 5000, 0.3),
    "ising-diagonal": (14, 12_000, 0.3),
    "phi4-plane": (14, 8000, 0.3),
}


def fractions(teacher: Teacher, n: int = 4000) -> list[float]:
    """Effective sample fractions near the lower end, at the centre and near the upper end of the range."""
    generator = torch.Generator().manual_seed(1)
    points = [teacher.space.centre + share * teacher.space.scale for share in (-0.8, 0.0, 0.8)]
    return [teacher.draw(point, n, generator).ess(point) for point in points]


def main() -> None:
    """Train one teacher and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=sorted(systems()))
    parser.add_argument("extent", type=int)
    parser.add_argument("--output", type=Path, default=pretrained.MODELS)
    arguments = parser.parse_args()
    keep_heap()
    torch.set_num_threads(1)
    which, start = system(arguments.system), time.perf_counter()
    steps, n_samples, trust = SETTINGS[which.name]
    family = which.family.on((arguments.extent,) * len(which.family.field.lattice.extents))
    update = NaturalGradient(n_samples=n_samples, chunk=512, damping=3e-3, trust=trust)
    generator = torch.Generator().manual_seed(0)
    teacher, history = train(family, which.space, which.recipe, generator=generator, n_steps=steps, update=update)
    for record in history.history:
        print(f"step {record['step']:3}  loss {record['loss']:10.4f}  seconds {record['seconds']:.0f}")
    seconds, ess = time.perf_counter() - start, fractions(teacher)
    command = f"python benchmarks/renormalization/teachers.py {which.name} {arguments.extent}"
    folder = arguments.output / f"{which.name}-{arguments.extent}"
    print(pretrained.save(teacher, folder, command=command, train_seconds=seconds, ess=ess), "ESS", ess)


if __name__ == "__main__":
    main()
