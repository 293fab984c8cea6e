"""From words to objects: tyro parses the fields of typed constructors, theories are found by their names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from flows import parallel
from lattices.theories import theories

T = TypeVar("T")
FLAT = tyro.conf.arg(name="")
"""Marks a dataclass whose fields are options of their own: --extents, not --theory.extents."""


def parse(options: type[T], arguments: Sequence[str], command: str, description: str | None = None) -> T:
    """An instance of a dataclass from the words after `latflow <command>`."""
    return tyro.cli(options, args=list(arguments), prog=f"latflow {command}", description=description)


def parse_theory(arguments: Sequence[str], command: str, parts: dict[str, tuple[Any, Any]], description: str) -> Any:
    """`THEORY --its-fields … --others …`: an object with `.theory` and the given parts, {name: (type, default)}."""
    known = theories()
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        say(_theory_help(command, description))
        raise SystemExit(0)
    if name not in known:
        raise ValueError(f"expected a theory, one of {', '.join(known)}, got {name!r}: see latflow {command} --help")
    theory = known[name]
    fields: list[Any] = [("theory", Annotated[theory, FLAT])]
    fields += [(part, kind, default) for part, (kind, default) in parts.items()]
    summary = f"{description}\n\n{inspect.getdoc(theory) or ''}".split("\n\nArgs:")[0]
    return parse(make_dataclass("Options", fields), rest, f"{command} {name}", summary)


def say(text: str) -> None:
    """Print, on the first rank only."""
    if parallel.rank() == 0:
        print(text, flush=True)


def _theory_help(command: str, description: str) -> str:
    lines = [f"  {name:<12} {(inspect.getdoc(cls) or '').splitlines()[0]}" for name, cls in theories().items()]
    heading = f"usage: latflow {command} THEORY [options]\n\n{description}\n\ntheories:"
    return "\n".join([heading, *lines, "", f"`latflow {command} THEORY --help` lists the options."])
