"""All benchmarks, one after the other, into one table.

    python benchmarks/all.py [--quick] [--only CASE ...]

Runs the cases of scalar.py, gauge.py and manifolds.py on the pretrained models, then transforms.py, layers.py,
volume.py, `gauge.py cost`, `manifolds.py peers` and `manifolds.py cost`, each in a process of its own; a case without a
pretrained model runs, and trains, where it is asked for by name. Writes runs/bench/table.md, every figure with its n
and error, and runs/bench/results.json, everything that was printed. A benchmark that fails is reported and the others
go on; the exit status then is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import cases
import figures
import gauge_cases
import manifold_cases
import timing

from flows import pretrained

HERE = Path(__file__).resolve().parent
FIELDS = {"scalar": cases.CASES, "gauge": gauge_cases.CASES, "manifolds": manifold_cases.CASES}
TIMED = {
    "transforms": ["transforms.py"],
    "layers": ["layers.py"],
    "volume": ["volume.py"],
    "cost": ["gauge.py", "cost"],
    "manifold-peers": ["manifolds.py", "peers"],
    "manifold-cost": ["manifolds.py", "cost"],
}
TRAINED = [name for known in FIELDS.values() for name in known]
BENCHMARKS = [*TRAINED, *TIMED]


def command(name: str, quick: bool) -> list[str]:
    """What runs one benchmark."""
    for script, known in FIELDS.items():
        if name in known:
            options = ["--pretrained"] * (name in pretrained.names()) + ["--no-peers"] * quick
            return [sys.executable, str(HERE / f"{script}.py"), name, "--json", *options]
    script, *words = TIMED[name]
    return [sys.executable, str(HERE / script), *words, "--json"]


def shipped() -> list[str]:
    """What runs if nothing is said: all but the cases without a pretrained model."""
    return [name for name in BENCHMARKS if name not in TRAINED or name in pretrained.names() or name in cases.CASES]


def run(name: str, quick: bool) -> figures.Result:
    """The JSON object that one benchmark prints last, or why there is none."""
    start = time.perf_counter()
    process = subprocess.run(command(name, quick), capture_output=True, text=True, cwd=HERE.parent)
    seconds = time.perf_counter() - start
    try:
        if process.returncode == 0:
            return {**json.loads(process.stdout.splitlines()[-1]), "seconds": seconds}
    except (ValueError, IndexError):  # no last line, or not JSON
        pass
    said = (process.stderr or process.stdout).strip().splitlines() or [f"exit status {process.returncode}"]
    return {"case": name, "failed": said[-1], "seconds": seconds}


def table(results: list[figures.Result], hardware: figures.Result) -> str:
    """Markdown: the hardware, one row for every figure, and what failed."""
    machine = ", ".join(f"{key} {value}" for key, value in hardware.items())
    rows = [figure.markdown() for result in results if "failed" not in result for figure in figures.figures(result)]
    failures = [f"- **{r['case']} failed**: {r['failed']}" for r in results if "failed" in r]
    notes = [f"Measured {time.strftime('%Y-%m-%d %H:%M')} on: {machine}. Timings on one thread, ratios as explained"]
    notes += ["in benchmarks/layers.py and benchmarks/transforms.py; errors are one standard error, intervals 95 %."]
    return "\n".join(["# Benchmarks", "", *notes, "", figures.HEADER, *rows, "", *failures, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave HMC and other peers out")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=shipped(), help="run some of them")
    parser.add_argument("--directory", type=Path, default=Path("runs/bench"), help="where table and results go")
    options = parser.parse_args()
    results, hardware = [], timing.hardware()
    options.directory.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(options.only, 1):
        print(f"[{i}/{len(options.only)}] {name} … ", end="", flush=True)
        results.append(run(name, options.quick))
        print(f"{results[-1]['seconds']:.0f} s", results[-1].get("failed", ""), flush=True)
        text = table(results, hardware)  # kept up to date: an interrupted run leaves what it has
        (options.directory / "table.md").write_text(text)
        collected = {"hardware": hardware, "results": results}
        (options.directory / "results.json").write_text(json.dumps(collected, indent=1, ensure_ascii=False))
    print(f"\n{text}\n{options.directory / 'table.md'}")
    return int(any("failed" in result for result in results))


if __name__ == "__main__":
    sys.exit(main())
