"""Gauge benchmarks: how good is the flow, are log Z and the charges right, and what do HMC and heat bath do meanwhile?

    python benchmarks/gauge.py CASE [--pretrained] [--json] [--no-peers] [-n N] [--save] [--runs DIRECTORY]
    python benchmarks/gauge.py cost [--json]

CASE is one of those in benchmarks/gauge_cases.py; `cost` tells how seconds grow with V and N (gauge_cost.py). Training
and sampling are seeded. The last line of the output with --json is one JSON object. ESS is ⟨w⟩²/⟨w²⟩ at n samples with
a 95 % bootstrap interval; errors are one standard error. Exact values are those of characters in d = 2; in d = 4 the
reference of log Z is a thermodynamic integration by heat bath.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import cases
import gauge_cases
import gauge_cost
import gauge_peers
import numpy as np
import torch
from gauge_cases import Gauge
from scalar import shipped, trained

from flows import pretrained
from flows.heap import keep_heap
from flows.sampling.class_functions import order_of
from flows.sampling.independence import metropolise
from flows.sampling.reweighting import WeightedSamples, reweight
from flows.trained import Trained
from lattices.exact import gauge_torus_log_z, gauge_torus_plaquette, u1_charge_distribution, u1_charge_squared
from lattices.gauge import require_links
from lattices.statistics import Estimate, reweighted_mean

FEWEST = 10
"""Effective samples that a charge must have on average to be compared."""


def evaluate(model: Trained, case: cases.Case, n: int, seconds: float = gauge_peers.LONGEST) -> dict[str, Any]:
    """ESS, acceptance, log Z, plaquette and charges at n samples; seconds of sampling, and at most for a reference."""
    generator, action = torch.Generator().manual_seed(1), case.action
    start = time.perf_counter()
    measure, chunk = partial(gauge_peers.measure, action), max(16, 2**17 // gauge_peers.n_numbers(action))
    samples = reweight(model.flow, action, n, generator, measure, chunk)
    used = time.perf_counter() - start
    ess, log_z, reference = samples.effective_sample_size(generator), samples.log_z(), reference_log_z(action, seconds)
    return {
        "ess": ess.value, "ess_low": ess.low, "ess_high": ess.high, "n": n, "max_weight": ess.max_weight,
        "acceptance": metropolise(samples.log_weights, generator).acceptance,
        "log_z": log_z.value, "log_z_error": log_z.error,
        "reference": reference.value, "reference_error": reference.error,
        **observed(samples, action),
        "parameters": sum(p.numel() for p in model.flow.parameters()),
        "sample_seconds": used, "bar": case.bar, "threads": torch.get_num_threads(),
    }  # fmt: skip


def reference_log_z(action: Gauge, seconds: float) -> Estimate:
    """log Z by characters in d = 2, by at most `seconds` of thermodynamic integration elsewhere."""
    if len(action.extents) > 2:
        return gauge_peers.log_z_by_heat_bath(action, seconds)
    return Estimate(gauge_torus_log_z(action.extents, order_of(require_links(action.field)), action.beta), 0.0, 0)


def observed(samples: WeightedSamples, action: Gauge) -> dict[str, Any]:
    """⟨P⟩, ⟨Q²⟩ and P(Q), each with its error and its exact value, None where there is none."""
    means, extents, beta = samples.estimates(), action.extents, action.beta
    mean, torus = means["plaquette"], (extents, order_of(require_links(action.field)), beta)
    found: dict[str, Any] = {
        "plaquette": mean.value, "plaquette_error": mean.error,
        "plaquette_exact": gauge_torus_plaquette(*torus) if len(extents) == 2 else None,
        "q2": None, "q2_error": None, "q2_exact": None, "charges": [], "charges_chi2": None, "charges_dof": None,
    }  # fmt: skip
    if "q2" in means:
        found |= {"q2": means["q2"].value, "q2_error": means["q2"].error, "q2_exact": u1_charge_squared(extents, beta)}
        found |= charges(samples, u1_charge_distribution(extents, beta))
    return found


def charges(samples: WeightedSamples, exact: dict[int, float]) -> dict[str, Any]:
    """[Q, probability, error, exact] of the charges that are likely enough, and χ² of their deviations.

    χ² = dᵀ C⁻¹ d with the covariance C of weighted frequencies about the exact ones, over all these charges but Q = 0:
    probabilities sum to one.
    """
    weights, charge = samples.log_weights.softmax(0), samples.measured["charge"]
    n_effective = 1 / float(weights.square().sum())
    likely = [q for q, p in exact.items() if p * n_effective >= FEWEST]
    means = {q: reweighted_mean((charge == q).double(), samples.log_weights) for q in likely}
    independent = torch.tensor([q for q in likely if q != 0], dtype=charge.dtype)
    probabilities = torch.tensor([exact[int(q)] for q in independent], dtype=torch.float64)
    weighted = (weights[:, None] * ((charge[:, None] == independent).double() - probabilities)).numpy()
    total = weighted.sum(0)
    solution = np.linalg.lstsq(weighted.T @ weighted, total, rcond=1e-12)[0]  # of charges never seen, one equation
    return {
        "charges": [[q, mean.value, mean.error, exact[q]] for q, mean in means.items()],
        "charges_chi2": float(total @ solution), "charges_dof": len(independent),
    }  # fmt: skip


def table(name: str, result: dict[str, Any], rows: list[gauge_peers.Row]) -> str:
    """The result and its peers, for people."""
    bar = "" if result["bar"] is None else f" (to reach {result['bar']})"
    lines = [
        f"{name}: ESS {result['ess']:.4f} [{result['ess_low']:.4f}, {result['ess_high']:.4f}] at n = {result['n']}"
        f"{bar}, largest weight {result['max_weight']:.1e}, acceptance {result['acceptance']:.3f}",
        f"log Z {result['log_z']:.6f} ± {result['log_z_error']:.6f}   "
        + ("thermodynamic integration" if result["reference_error"] else "exact")
        + f" {result['reference']:.6f}"
        + (f" ± {result['reference_error']:.6f}" if result["reference_error"] else ""),
        _line("⟨P⟩", result, "plaquette"),
        *([_line("⟨Q²⟩", result, "q2"), _charges(result)] if result["q2"] is not None else []),
        f"{result['parameters']} parameters, {result['train_seconds']:.0f} s of training,"
        f" {result['sample_seconds']:.0f} s of sampling, {result['threads']} threads",
    ]
    return "\n".join([*lines, "", *map(str, rows)])


def _line(symbol: str, result: dict[str, Any], key: str) -> str:
    exact = result[f"{key}_exact"]
    known = "" if exact is None else f"   exact {exact:.6f}"
    return f"{symbol} {result[key]:.6f} ± {result[f'{key}_error']:.6f}{known}"


def _charges(result: dict[str, Any]) -> str:
    columns = [f"Q = {q}: {value:.4f} ± {error:.4f} ({exact:.4f})" for q, value, error, exact in result["charges"]]
    return f"P(Q) (exact): χ² {result['charges_chi2']:.1f} of {result['charges_dof']}; " + ", ".join(columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=[*gauge_cases.CASES, "cost"])
    parser.add_argument("--pretrained", action="store_true", help="evaluate the shipped model instead of training")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--no-peers", action="store_true", help="leave HMC, heat bath and exact sampling out")
    parser.add_argument("-n", type=int, help="samples of the evaluation")
    parser.add_argument("--save", action="store_true", help="make the trained model the pretrained one")
    parser.add_argument("--runs", type=Path, default=Path("runs/gauge"), help="where runs are written")
    options = parser.parse_args()
    keep_heap()
    result, text = gauge_cost.result() if options.case == "cost" else _case(options)
    print(text)
    if options.json:
        print(json.dumps(result))


def _case(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Train or load, evaluate, compare."""
    case, name = gauge_cases.CASES[options.case], options.case
    directory = options.runs / time.strftime("%Y%m%d-%H%M%S")
    model, seconds = shipped(name) if options.pretrained else trained(case, name, directory)
    result = {"case": name, "train_seconds": seconds, **evaluate(model, case, options.n or case.n)}
    if options.save:
        command = f"python benchmarks/gauge.py {name} --save"
        pretrained.save_pretrained(model.directory, name, command, train_seconds=round(seconds, 1), ess=result["ess"])
    rows = [] if options.no_peers else list(gauge_peers.rows(case.action, result))
    return {**result, "peers": [row._asdict() for row in rows]}, table(name, result, rows)


if __name__ == "__main__":
    main()
