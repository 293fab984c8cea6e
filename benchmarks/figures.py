"""Figures of the benchmarks: every number with its error, its n and what it has to reach, from the JSON they print."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

Result = dict[str, Any]


class Figure(NamedTuple):
    """One number: where it comes from, what it is, how sure it is, and what was to be reached."""

    benchmark: str
    figure: str
    value: str
    error: str
    n: int | str
    reach: str = ""
    reached: bool | None = None

    def markdown(self) -> str:
        verdict = {None: "", True: " ✓", False: " ✗ missed"}[self.reached]
        return f"| {' | '.join(str(column) for column in self[:5])} | {self.reach}{verdict} |"


HEADER = "| benchmark | figure | value | error | n | to reach |\n|---|---|---|---|---|---|"


def figures(result: Result) -> Iterator[Figure]:
    """All figures of one benchmark, by its `case`."""
    timed = {"transforms": spline, "layers": layers, "volume": volume, "cost": cost}
    timed |= {"manifold-peers": circular_splines, "manifold-cost": dimensions}
    trained = gauge if "plaquette" in result else manifold if "kl" in result else scalar
    yield from timed.get(result["case"], trained)(result)


def scalar(result: Result) -> Iterator[Figure]:
    """ESS with interval, acceptance, log Z and ⟨φ²⟩ of the flow; effective samples per second of it and its peers."""
    case = result["case"]
    yield from _quality(result)
    yield _estimate(case, "⟨φ²⟩", result, "phi_squared", "phi_squared_reference")
    for peer in result["peers"]:
        rate = f"{peer['effective_per_second']:.4g} effective/s"
        yield Figure(case, peer["method"], rate, "", f"{peer['seconds']:.1f} s", peer["note"])


def gauge(result: Result) -> Iterator[Figure]:
    """The same of gauge fields, with the plaquette and, where there is a charge, Q² and P(Q)."""
    case = result["case"]
    yield from _quality(result)
    yield _estimate(case, "⟨P⟩", result, "plaquette", "plaquette_exact")
    if result["q2"] is not None:
        yield _estimate(case, "⟨Q²⟩", result, "q2", "q2_exact")
        freedom = f"{result['charges_dof']} degrees of freedom"
        yield Figure(case, "P(Q), χ²", f"{result['charges_chi2']:.1f}", "", result["n"], freedom)
    for peer in result["peers"]:
        rates = [f"{peer['plaquette_per_second']:.4g} effective/s of P"]
        rates += [] if peer["q2_per_second"] is None else [f"{peer['q2_per_second']:.4g} of Q²"]
        yield Figure(case, peer["method"], ", ".join(rates), "", f"{peer['seconds']:.1f} s", peer["note"])


def manifold(result: Result) -> Iterator[Figure]:
    """The same of circles and spheres, with the KL divergence, one mean, and seconds for 10⁵ samples."""
    case, n = result["case"], result["n"]
    yield from _quality(result)
    if result["kl"] is not None:
        yield _divergence(case, result, result["kl_bar"])
    yield _estimate(case, result["symbol"], result, "mean", "mean_reference")
    if result["most_parameters"] is not None:
        most, own = result["most_parameters"], result["parameters"]
        yield Figure(case, "parameters", str(own), "", "", f"≤ {most}", own <= most)
    iterations = f"{result['iterations']} iterations"
    yield Figure(case, "1e5 samples", f"{result['seconds_per_1e5']:.3g} s", "", n, f"{iterations} of training")
    for peer in result["peers"]:
        rate = f"{peer['effective_per_second']:.4g} effective/s"
        yield Figure(case, peer["method"], rate, "", f"{peer['seconds']:.1f} s", peer["note"])


def spline(result: Result) -> Iterator[Figure]:
    """Ratios of our splines to normflows'."""
    for row in result["rows"]:
        if row["map"] != "normflows":
            yield from _ratios("spline", row)


def layers(result: Result) -> Iterator[Figure]:
    """Ratios of our coupling layers to normflows', and of packed ones to masked ones."""
    for row in result["rows"]:
        if row["map"] not in ("normflows", "masked"):
            yield from _ratios(f"{row['kind']} layer", row)


def volume(result: Result) -> Iterator[Figure]:
    """Time and memory by lattice size, and the exponents of V."""
    for row in result["rows"]:
        where = f"{row['architecture']}, {row['quantity']}, L = {row['size']}"
        milliseconds = f"{1e3 * row['seconds']:.4g} ms"
        yield Figure("volume", where, milliseconds, f"{1e3 * row['error']:.2g} ms", row["n"])
        yield Figure("volume", f"{where}, memory", f"{row['peak_bytes'] / 1e6:.4g} MB", "", 1)
    for column, fits in result["exponents"].items():
        for what, slope in fits.items():
            yield Figure("volume", f"{what}, exponent of V in {column}", f"{slope:.2f}", "", 4)


def cost(result: Result) -> Iterator[Figure]:
    """Time per field by group and lattice size, and the exponents of V and N."""
    for row in result["rows"]:
        where = f"{row['architecture']}, {row['quantity']}, L = {row['size']}"
        milliseconds = f"{1e3 * row['seconds']:.4g} ms"
        yield Figure("cost", where, milliseconds, f"{1e3 * row['error']:.2g} ms", row["n"])
    for letter, fits in result["exponents"].items():
        for what, slope in fits.items():
            yield Figure("cost", f"{what}, exponent of {letter}", f"{slope:.2f}", "", "")


def circular_splines(result: Result) -> Iterator[Figure]:
    """Ratios of our circular splines to normflows', rounding errors, and what both learn."""
    for row in result["rows"]:
        if row["map"] != "normflows":
            yield from _ratios(f"circular {row['kind']}", row)
    for dtype, errors in result["rounding"].items():
        for what, error in errors.items():
            yield Figure("circular flow", f"rounding, {dtype}, {what}", f"{error:.1e}", "", "")
    for row in result["learning"]:
        name = f"{row['map']}, {row['parameters']} parameters, {row['iterations']} iterations"
        yield _divergence(f"circular flow, {name}", row)
        interval = f"[{row['ess_low']:.4f}, {row['ess_high']:.4f}]"
        training = f"{row['seconds']:.0f} s of training"
        yield Figure(f"circular flow, {name}", "ESS", f"{row['ess']:.4f}", interval, row["n"], training)


def dimensions(result: Result) -> Iterator[Figure]:
    """Time for 10⁴ samples by family and dimension, and the exponents of D."""
    for row in result["rows"]:
        where = f"{row['architecture']}, D = {row['dimension']}, 1e4 samples"
        yield Figure("manifold-cost", where, f"{row['seconds']:.3g} s", f"{row['error']:.1g} s", row["n"])
    for what, slope in result["exponents"].items():
        yield Figure("manifold-cost", f"{what}, exponent of D", f"{slope:.2f}", "", "")


def _divergence(case: str, result: Result, bar: float | None = None) -> Figure:
    """KL(q|p), and what it has to be below."""
    reach = ("", None) if bar is None else (f"≤ {bar}", result["kl"] <= bar)
    return Figure(case, "KL", f"{result['kl']:.6f}", f"{result['kl_error']:.6f}", result["n"], *reach)


def _quality(result: Result) -> Iterator[Figure]:
    """ESS with interval and what it has to reach, acceptance, log Z, and what the training took."""
    case, n, bar = result["case"], result["n"], result["bar"]
    interval = f"[{result['ess_low']:.4f}, {result['ess_high']:.4f}]"
    reach = ("", None) if bar is None else (f"≥ {bar}", result["ess"] >= bar)
    yield Figure(case, "ESS", f"{result['ess']:.4f}", interval, n, *reach)
    yield Figure(case, "acceptance", f"{result['acceptance']:.4f}", "", n)
    yield _estimate(case, "log Z", result, "log_z", "reference")
    yield Figure(case, "training", f"{result['train_seconds']:.0f} s", "", "", f"{result['parameters']} parameters")


def _estimate(case: str, name: str, result: Result, key: str, reference: str) -> Figure:
    """An estimate beside its reference, and their difference in errors, those of the reference included."""
    value, error, exact = result[key], result[f"{key}_error"], result[reference]
    both = math.hypot(error, result.get(f"{reference}_error", 0.0))
    reach = "" if exact is None else f"{exact:.6f} ({(value - exact) / both:+.1f} s.e.)"
    return Figure(case, name, f"{value:.6f}", f"{error:.6f}", result["n"], reach)


def _ratios(name: str, row: Result) -> Iterator[Figure]:
    """The ratios of one row of timings; the bar, where there is one, is on the figure it was set for."""
    setting = f"{row['map']}, {row['direction']}, {row['mode']} {row['dtype']}"
    for part in ("evaluate", "backward", "both"):
        bar = row.get("bar") if row.get("bar_on") == part else None
        ratio, error = row[f"{part}_ratio"], row[f"{part}_ratio_error"]
        reach = ("", None) if bar is None else (f"≤ {bar}", ratio <= bar)
        yield Figure(name, f"{setting}, {part}", f"{ratio:.2f}", f"{error:.2f}", row["n"], *reach)
    yield Figure(name, f"{setting}, saved memory", f"{row['saved_ratio']:.2f}", "", 1)
