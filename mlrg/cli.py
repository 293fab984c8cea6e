"""`mlrg run | analyse | plot`: the command line; each command is a file of mlrg/commands."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "run": "learn the renormalization group of a system:  mlrg run ising   |   mlrg run cluster --representation A1+E",
    "analyse": "read everything off the lessons of a run again:  mlrg analyse runs/ising",
    "plot": "draw all figures of a run:  mlrg plot runs/ising",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for a mistake of the user."""
    parser = _parser()
    chosen = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    if chosen.command is None:
        parser.print_help()
        return 0
    warnings.formatwarning = lambda message, *_, **__: f"mlrg: warning: {message}\n"
    command = import_module(f"mlrg.commands.{chosen.command}")
    from flows.heap import keep_heap

    keep_heap()
    try:
        command.main(chosen.arguments)
        return 0
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        if chosen.traceback:
            raise
        print(f"mlrg {chosen.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"mlrg {chosen.command}: interrupted; the same command continues where it was", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<8} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mlrg",
        usage="mlrg [--traceback] COMMAND …",
        description="The renormalization group, learned from generative models with exact likelihoods.",
        epilog=f"commands:\n{listed}\n\n`mlrg COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
