"""Scalar benchmarks: how good is the flow, is log Z right, and what do HMC, annealing and couplings do meanwhile?

    python benchmarks/scalar.py CASE [--pretrained] [--json] [--no-peers] [-n N] [--save]

CASE is one of those in benchmarks/cases.py. Training and sampling are seeded. The last line of the output with --json
is one JSON object. ESS is ⟨w⟩²/⟨w²⟩ at n samples with a 95 % bootstrap interval; errors are one standard error.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
import peers
import torch

from flows import pretrained
from flows.commands.train import Training, train
from flows.heap import keep_heap
from flows.report import exact_values
from flows.sampling.independence import metropolise
from flows.sampling.reweighting import reweight
from flows.trained import Trained, load
from lattices.observables import scalar_observables
from lattices.theories.ising_dual import IsingDual


def trained(case: cases.Case, name: str, directory: Path) -> tuple[Trained, float]:
    """Train stage by stage; the flow in float64 and the seconds it took."""
    start, source = time.perf_counter(), None
    for i, stage in enumerate(case.stages):
        run = Training(name=f"{name}-{i + 1}", runs=directory, checkpoint_every=10)
        source = train(replace(stage, start_from=str(source) if source else stage.start_from), run)
    return load(source), time.perf_counter() - start  # type: ignore[arg-type]


def shipped(name: str) -> tuple[Trained, float]:
    """The pretrained model, and the training seconds on its record."""
    recorded = json.loads((pretrained.MODELS / name / "config.json").read_text())
    return pretrained.load(name), recorded["train_seconds"]


def evaluate(model: Trained, case: cases.Case, n: int) -> dict[str, Any]:
    """ESS, acceptance, log Z and ⟨φ²⟩ at n samples, with seconds of sampling."""
    generator = torch.Generator().manual_seed(1)
    start = time.perf_counter()
    samples = reweight(model.flow, case.action, n, generator, scalar_observables)
    seconds = time.perf_counter() - start
    ess, log_z = samples.effective_sample_size(generator), samples.log_z()
    squared = samples.estimates()["phi_squared"]
    exact = exact_values(case.action)
    dual = isinstance(case.action, IsingDual)
    return {
        "ess": ess.value, "ess_low": ess.low, "ess_high": ess.high, "n": n, "max_weight": ess.max_weight,
        "acceptance": metropolise(samples.log_weights, generator).acceptance,
        "log_z": float(case.action.log_z_ising(log_z.value)) if dual else log_z.value,  # type: ignore[attr-defined]
        "log_z_error": log_z.error,
        "reference": exact.get("log Z (Ising)" if dual else "log Z", case.reference),
        "phi_squared": squared.value, "phi_squared_error": squared.error, "phi_squared_reference": exact.get("⟨φ²⟩"),
        "parameters": sum(p.numel() for p in model.flow.parameters()),
        "sample_seconds": seconds, "bar": case.bar, "threads": torch.get_num_threads(),
    }  # fmt: skip


def table(name: str, result: dict[str, Any], rows: list[peers.Row]) -> str:
    """The result and its peers, for people."""
    reference = result["reference"]
    z = "" if reference is None else f"   reference {reference:.6f}"
    lines = [
        f"{name}: ESS {result['ess']:.4f} [{result['ess_low']:.4f}, {result['ess_high']:.4f}] at n = {result['n']}"
        f" (to reach {result['bar']}), largest weight {result['max_weight']:.1e},"
        f" acceptance {result['acceptance']:.3f}",
        f"log Z {result['log_z']:.6f} ± {result['log_z_error']:.6f}{z}",
        f"⟨φ²⟩ {result['phi_squared']:.6f} ± {result['phi_squared_error']:.6f}"
        + (f"   exact {result['phi_squared_reference']:.6f}" if result["phi_squared_reference"] else ""),
        f"{result['parameters']} parameters, {result['train_seconds']:.0f} s of training, {result['threads']} threads",
    ]
    return "\n".join([*lines, "", *map(str, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=cases.CASES)
    parser.add_argument("--pretrained", action="store_true", help="evaluate the shipped model instead of training")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--no-peers", action="store_true", help="leave HMC, annealing and couplings out")
    parser.add_argument("-n", type=int, help="samples of the evaluation")
    parser.add_argument("--save", action="store_true", help="make the trained model the pretrained one")
    parser.add_argument("--runs", type=Path, default=Path("runs/scalar"), help="where runs are written")
    options = parser.parse_args()
    keep_heap()
    case, name = cases.CASES[options.case], options.case
    directory = options.runs / time.strftime("%Y%m%d-%H%M%S")
    model, seconds = shipped(name) if options.pretrained else trained(case, name, directory)
    result = {"case": name, "train_seconds": seconds, **evaluate(model, case, options.n or case.n)}
    if options.save:
        command = f"python benchmarks/scalar.py {name} --save"
        pretrained.save_pretrained(model.directory, name, command, train_seconds=round(seconds, 1), ess=result["ess"])
    rows = [] if options.no_peers else list(peers.rows(case.action, result, train_couplings=not options.pretrained))
    print(table(name, result, rows))
    if options.json:
        print(json.dumps({**result, "peers": [row._asdict() for row in rows]}))


if __name__ == "__main__":
    main()
