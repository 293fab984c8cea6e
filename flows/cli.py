"""`latflow train | fit | sample | hmc | free-energy | check`: the command line; a file of flows/commands for each."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "train": "train a flow for a theory:  latflow train phi4 --extents 8 8 --mass-squared -4 --quartic 8",
    "sample": "exactly corrected samples of a trained flow:  latflow sample runs/phi4-8x8 -n 100000",
    "fit": "a density for observed points of a sphere or a torus:  latflow fit sphere directions.npz",
    "hmc": "Hamiltonian Monte Carlo for a theory:  latflow hmc phi4 --extents 8 8 --mass-squared -4 --quartic 8",
    "free-energy": "log Z of a trained flow's target from both sides:  latflow free-energy runs/phi4-8x8",
    "check": "verify a trained flow, pass or fail with numbers:  latflow check runs/phi4-8x8",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a check that failed, 2 for a mistake of the user."""
    parser = _parser()
    chosen = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    if chosen.command is None:
        parser.print_help()
        return 0
    warnings.formatwarning = lambda message, *_, **__: f"latflow: warning: {message}\n"
    command = import_module(f"flows.commands.{chosen.command.replace('-', '_')}")
    from flows import parallel
    from flows.heap import keep_heap

    keep_heap()

    try:
        with parallel.session():
            return int(command.main(chosen.arguments) or 0)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if chosen.traceback:
            raise
        print(f"latflow {chosen.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"latflow {chosen.command}: interrupted; `latflow train … --resume` continues a training", file=sys.stderr
        )
        return 130


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<12} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="latflow",
        usage="latflow [--traceback] COMMAND …",
        description="Equivariant normalizing flows for lattice field theory.",
        epilog=f"commands:\n{listed}\n\n`latflow COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
