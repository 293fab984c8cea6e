"""A configuration spelled as the command that trains it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from flows.architectures.architecture import Architecture
from flows.configuration import ARCHITECTURES, Configuration, kind, recipes
from flows.updates.natural import NaturalGradient
from flows.updates.update import Update
from lattices.action import Action
from lattices.theories import theories


def command_line(configuration: Configuration, name: str) -> str:
    """The `latflow train` command with these arguments, defaults left out, e.g. for the record of a model."""
    theory = _name(theories(), configuration.theory)
    words = ["latflow", "train", theory, *_flags(configuration.theory), "--name", name]
    words += [word for f in fields(configuration) if f.name in _PLAIN for word in _flag(configuration, f)]
    for part, noun in (("architecture", Architecture), ("update", Update)):
        value = getattr(configuration, part)
        choice = _name(recipes(noun), value)
        if choice != default_recipe(part, type(configuration.theory)):
            words += [f"--{part}", choice]
        words += _flags(value, f"{part}.")
    return shlex.join(words)


def default_recipe(part: str, theory: type[Action] | None = None) -> str:
    """The architecture or update, by name, that a run is made of unless something else is asked for.

    Args:
        theory: whose first example tells where its fields live; by default numbers on sites.
    """
    return recipe_of_kind("sites" if theory is None else kind(next(theory.examples())), part)


def recipe_of_kind(used: str, part: str = "architecture") -> str:
    """The same, by the kind of theory."""
    noun, chosen = (Architecture, ARCHITECTURES[used]) if part == "architecture" else (Update, NaturalGradient)
    return next(name for name, cls in recipes(noun).items() if cls is chosen)


_PLAIN = ("n_steps", "seed", "dtype", "start_from")


def default_name(theory: Any) -> str:
    """The name of a run that was given none: theory and extents, "phi4-8x8", or manifold, "sphere-mixture-s2"."""
    field, used = theory.field, kind(theory)
    size = {"sphere": lambda: f"s{field.target.n}", "torus": lambda: f"t{field.lattice.volume}"}.get(used)
    return f"{_name(theories(), theory)}-{size() if size else 'x'.join(map(str, field.lattice.extents))}"


def _name(known: dict[str, type], value: Any) -> str:
    return next(name for name, cls in known.items() if cls is type(value))


def _flags(value: Any, prefix: str = "") -> list[str]:
    return [word for f in fields(value) for word in _flag(value, f, prefix)]


def _flag(owner: Any, field: Field, prefix: str = "") -> Iterator[str]:
    value, flag = getattr(owner, field.name), f"--{prefix}{field.name.replace('_', '-')}"
    if field.default is not MISSING and value == field.default:
        return
    if is_dataclass(value):
        yield from _flags(value, f"{flag[2:]}.")
    elif isinstance(value, bool):
        yield flag if value else f"--{prefix}no-{field.name.replace('_', '-')}"
    else:
        yield flag
        yield from map(str, value if isinstance(value, tuple) else (value,))
