"""Benchmarks on circles, tori and spheres: how far is the flow from the target, are log Z and energies right?

    python benchmarks/manifolds.py CASE [--pretrained] [--json] [--no-peers] [-n N] [--save] [--runs DIRECTORY]
    python benchmarks/manifolds.py peers [--json]       circular splines beside normflows': speed and accuracy
    python benchmarks/manifolds.py cost [--json]        how seconds grow with the dimension D of Sᴰ and Tᴰ
    python benchmarks/manifolds.py energies [--json]    energies of spins on 8 × 8 by long cluster runs

CASE is one of those in benchmarks/manifold_cases.py. Training and sampling are seeded. The last line of the output with
--json is one JSON object. KL is the divergence itself, ⟨log q + S⟩ + log Z with the exact log Z, where there is one.
ESS is ⟨w⟩²/⟨w²⟩ at n samples with a 95 % bootstrap interval; errors are one standard error.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cases
import manifold_cases
import manifold_cost
import manifold_peers
import torch
from scalar import shipped, trained

from flows import pretrained
from flows.heap import keep_heap
from flows.report import exact_values
from flows.sampling.independence import metropolise
from flows.sampling.reweighting import reweight
from flows.trained import Trained
from lattices.statistics import Estimate

POINTS = 1 << 16
"""Numbers that are sampled at once."""
COMMANDS = {"peers": manifold_peers.result, "cost": manifold_cost.result, "energies": manifold_peers.energies}


def evaluate(model: Trained, name: str, n: int) -> dict[str, Any]:
    """KL, ESS, acceptance, log Z and one mean beside what is known, with seconds of sampling."""
    case, generator = manifold_cases.CASES[name], torch.Generator().manual_seed(1)
    action, exact = case.action, exact_values(case.action)
    symbol, measure = manifold_peers.observable(action)
    start = time.perf_counter()
    chunk = max(16, POINTS // model.flow.sample(1, generator=generator).numel())
    samples = reweight(model.flow, action, n, generator, measure, chunk)
    seconds = time.perf_counter() - start
    ess, log_z, mean = samples.effective_sample_size(generator), samples.log_z(), samples.estimates()["mean"]
    kl = manifold_peers.kl(samples.log_weights, exact["log Z"]) if "log Z" in exact else None
    known = manifold_cases.ENERGIES.get(name, Estimate(exact[symbol], 0.0, 0) if symbol in exact else None)
    return {
        "kl": kl and kl.value, "kl_error": kl and kl.error, "kl_bar": manifold_cases.LARGEST_KL.get(name),
        "ess": ess.value, "ess_low": ess.low, "ess_high": ess.high, "n": n, "max_weight": ess.max_weight,
        "acceptance": metropolise(samples.log_weights, generator).acceptance,
        "log_z": log_z.value, "log_z_error": log_z.error, "reference": exact.get("log Z"),
        "symbol": symbol, "mean": mean.value, "mean_error": mean.error,
        "mean_reference": known and known.value, "mean_reference_error": known.error if known else 0.0,
        "parameters": sum(p.numel() for p in model.flow.parameters()),
        "most_parameters": manifold_cases.MOST_PARAMETERS.get(name),
        "iterations": sum(stage.n_steps for stage in case.stages),
        "sample_seconds": seconds, "seconds_per_1e5": 1e5 * seconds / n,
        "bar": case.bar, "threads": torch.get_num_threads(),
    }  # fmt: skip


def table(name: str, result: dict[str, Any], rows: list[manifold_peers.Row]) -> str:
    """The result and its peers, for people."""
    reference = "" if result["reference"] is None else f"   exact {result['reference']:.6f}"
    kl, bar = result["kl"], result["kl_bar"]
    lines = [
        f"{name}: ESS {result['ess']:.5f} [{result['ess_low']:.5f}, {result['ess_high']:.5f}] at n = {result['n']}"
        f"{_to_reach(result['bar'])}, largest weight {result['max_weight']:.1e}, acceptance {result['acceptance']:.3f}",
        *([] if kl is None else [f"KL {kl:.6f} ± {result['kl_error']:.6f}{_to_reach(bar)}"]),
        f"log Z {result['log_z']:.6f} ± {result['log_z_error']:.6f}{reference}",
        f"{result['symbol']} {result['mean']:.6f} ± {result['mean_error']:.6f}{_known(result)}",
        f"{result['parameters']} parameters, {result['iterations']} iterations, {result['seconds']:.0f} s of training,"
        f" {result['seconds_per_1e5']:.1f} s for 1e5 samples, {result['threads']} threads",
    ]
    return "\n".join([*lines, "", *map(str, rows)])


def _to_reach(bar: float | None) -> str:
    return "" if bar is None else f" (to reach {bar})"


def _known(result: dict[str, Any]) -> str:
    """The mean to compare with: exact, or of a long run of clusters."""
    value, error = result["mean_reference"], result["mean_reference_error"]
    if value is None:
        return ""
    return f"   clusters {value:.6f} ± {error:.6f}" if error else f"   exact {value:.6f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*manifold_cases.CASES, *COMMANDS])
    parser.add_argument("--pretrained", action="store_true", help="evaluate the shipped model instead of training")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--no-peers", action="store_true", help="leave clusters and HMC out")
    parser.add_argument("-n", type=int, help="samples of the evaluation")
    parser.add_argument("--save", action="store_true", help="make the trained model the pretrained one")
    parser.add_argument("--runs", type=Path, default=Path("runs/manifolds"), help="where runs are written")
    options = parser.parse_args()
    keep_heap()
    result, text = COMMANDS[options.case]() if options.case in COMMANDS else _case(options)
    print(text)
    if options.json:
        print(json.dumps(result))


def _case(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Train or load, evaluate, compare."""
    name, directory = options.case, options.runs / time.strftime("%Y%m%d-%H%M%S")
    case: cases.Case = manifold_cases.CASES[name]
    model, seconds = shipped(name) if options.pretrained else trained(case, name, directory)
    result = {"case": name, "seconds": seconds, "train_seconds": seconds, **evaluate(model, name, options.n or case.n)}
    if options.save:
        command = f"python benchmarks/manifolds.py {name} --save"
        pretrained.save_pretrained(model.directory, name, command, train_seconds=round(seconds, 1), ess=result["ess"])
    rows = [] if options.no_peers else list(manifold_peers.rows(case, result))
    return {**result, "peers": [row._asdict() for row in rows]}, table(name, result, rows)


if __name__ == "__main__":
    main()
