"""Tables of a run for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lattices.statistics import Estimate
from mlrg.analysis import QUANTITIES
from mlrg.course import blockings
from mlrg.systems import System

SYMBOLS = {"critical_coupling": "K_c", "y_t": "y_t", "nu": "ν", "delta_sigma": "Δσ", "y_h": "y_h"}


def pair_table(results: Mapping[str, Any], which: System) -> str:
    """One row for each student and common lattice; ESS and residual KL are those of the worst lesson."""
    heads = ["lattices", "common", "blockings", "lessons", *(SYMBOLS[name] for name in QUANTITIES), "irrelevant"]
    rows = [[*_pair(pair), *_worst(pair)] for pair in results["pairs"]]
    notes = [
        f"{p['teacher']} → {p['student']} on {p['common']}: {p['problem']}" for p in results["pairs"] if "problem" in p
    ]
    table = aligned([[*heads, "residual KL", "ESS"], *rows])
    return "\n".join([f"{which.name}: each pair of lattices (statistical errors)", "", table, *notes])


def answer_table(results: Mapping[str, Any]) -> str:
    """The answers for the infinite lattice with their errors, references and pulls."""
    rows = [_answer(name, results[name]) for name in QUANTITIES if name in results]
    table = aligned([["", "value", "statistical", "systematic", "reference", "pull"], *rows])
    return f"answers\n\n{table}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns with a rule below the heads."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join([lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _pair(pair: Mapping[str, Any]) -> list[str]:
    n_blockings = blockings(pair["teacher"], pair["common"])
    head = [f"{pair['teacher']} → {pair['student']}", str(pair["common"]), str(n_blockings), str(pair["n_lessons"])]
    irrelevant = " ".join(str(e) for e in pair.get("irrelevant", [])) or "–"
    return [*head, *(str(pair.get(name, "–")) for name in QUANTITIES), irrelevant]


def _worst(pair: Mapping[str, Any]) -> tuple[str, str]:
    value, error = max(
        pair["residual_kl"], key=lambda row: row[0] if math.isfinite(row[0]) else math.inf, default=(0, 0)
    )
    return f"{value:.1e} ± {error:.0e}", "/".join(f"{ess:.2f}" for ess in pair["ess"])


def _answer(name: str, answer: Mapping[str, Any]) -> list[str]:
    value, reference = answer["value"], answer.get("reference")
    known = f"{reference:.6f}" if reference is not None else "–"
    if value is None:
        return [SYMBOLS[name], answer["reason"], "", "", known, ""]
    systematic = answer["systematic"]
    pull = f"{(value - reference) / answer['error']:+.1f}" if reference is not None and answer["error"] > 0 else ""
    text = f"{systematic:.2g}" if systematic is not None else "unknown"
    return [SYMBOLS[name], str(Estimate(value, answer["error"], 1)), f"{answer['statistical']:.2g}", text, known, pull]
