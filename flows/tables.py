"""Tables: columns of estimates side by side, for the terminal and for results.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lattices.statistics import Estimate

CONVENTIONS = {
    "weights": "log w = -S - log q",
    "ess": "<w>^2 / <w^2>, with a 95 % bootstrap interval",
    "log_z": "log <w>_q, in Lebesgue measure of real fields, d theta of angles, area of unit vectors, "
    "normalised Haar measure of links",
    "virial": "<sum of phi dS/dphi> / V, 1 for any action",
    "chi": "V (<M^2> - <|M|>^2)",
    "U4": "1 - <M^4> / 3 <M^2>^2",
    "C(t)": "sum of <phi_x phi_y> over all y at distance t along the last axis; of spins see time_slice_correlator",
    "P": "mean of Re Tr P / N over all plaquettes",
    "|L|": "modulus of the mean Polyakov loop Tr L / N around the shortest axes",
    "Q": "geometric charge of U(1) in d = 2, clover charge in d = 4, area covered by O(3) spins / 4 pi",
    "E": "-sum of s.s' over nearest neighbours, per site",
    "V⟨m²⟩": "V <|m|^2>, m the mean spin: the structure factor at zero momentum",
    "ξ": "second moment: sqrt(S(0)/S(k) - 1) / 2 sin(k/2), k = 2 pi / L along the longest axes",
    "Υ": "helicity modulus, the stiffness against a twist, in units of the coupling: 2 / pi beta at the XY transition",
    "vortices": "vortices and antivortices per plaquette",
    "C": "specific heat beta^2 V (<E^2> - <E>^2)",
    "∇B·∇S - ∇²B": "Schwinger-Dyson of the bonds B = sum of s.s', per site, 0 for any action of spins",
    "|∇S|² - ∇²S": "Schwinger-Dyson, 0 for any action; ∇ along orthonormal frames of the group",
    "tau_int": "1/2 + sum of rho(t), of the quantity in brackets, in steps",
    "error": "one standard error",
}


@dataclass(frozen=True)
class Column:
    """One method's answers: estimates by row, and facts about the method itself (acceptance, ESS, …) as text."""

    name: str
    estimates: dict[str, Estimate]
    facts: dict[str, str] = field(default_factory=dict)


def table(columns: list[Column], exact: Mapping[str, float] | None = None) -> str:
    """Columns of estimates, and how many standard errors each is away from the exact value or else the last column."""
    exact = {row: value for row, value in (exact or {}).items() if any(row in c.estimates for c in columns)}
    reference: Mapping[str, Any] = {**columns[-1].estimates, **exact}
    compared = [c for c in columns if any(reference.get(row) not in (None, c.estimates[row]) for row in c.estimates)]
    heads = ["", *(c.name for c in columns), *(["exact"] if exact else []), *(f"z({_short(c.name)})" for c in compared)]
    rows = list(dict.fromkeys(name for c in columns for name in c.estimates))
    lines = [
        [
            row,
            *(str(c.estimates.get(row, "")) for c in columns),
            *([f"{exact[row]:.6f}" if row in exact else ""] if exact else []),
            *(_z(c.estimates.get(row), reference.get(row)) for c in compared),
        ]
        for row in rows
    ]
    facts = list(dict.fromkeys(name for c in columns for name in c.facts))
    lines += [
        [name, *(c.facts.get(name, "") for c in columns), *[""] * (len(heads) - 1 - len(columns))] for name in facts
    ]
    return _aligned([heads, *lines], len(rows))


def results(columns: list[Column], **further: Any) -> dict[str, Any]:
    """Everything that results.json holds: each number with its error, n and convention."""
    methods = {
        c.name: {"estimates": {row: asdict(e) for row, e in c.estimates.items()}, "facts": c.facts} for c in columns
    }
    return {"conventions": CONVENTIONS, "methods": methods, **further}


def _short(name: str) -> str:
    return name.rsplit(", ")[-1]


def _z(value: Estimate | None, reference: Estimate | float | None) -> str:
    return "" if value is None or reference is None or value is reference else f"{value.z_score(reference):+.1f}"


def _aligned(rows: list[list[str]], n_rows: int) -> str:
    """Right-aligned columns, ruled off below the heads and above the facts."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join(
        [lines[0], rule, *lines[1 : 1 + n_rows], *([rule, *lines[1 + n_rows :]] if lines[1 + n_rows :] else [])]
    )
