"""Theories: one file each. A file added to this folder is a theory of the command line, without any registry."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

from lattices.action import Action


def theories() -> dict[str, type[Action]]:
    """The concrete action of every module in this folder that defines one, by its name on the command line.

    `ising_dual.py` is known as "ising-dual". A module without an action (a helper) is passed over.
    """
    modules = {info.name: import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)}
    found = {name.replace("_", "-"): _actions(module.__name__, vars(module)) for name, module in modules.items()}
    return {name: actions[0] for name, actions in sorted(found.items()) if actions}


def theory(name: str) -> type[Action]:
    """The action class of one name, e.g. theory("phi4")(extents=(8, 8), mass_squared=-4.0, quartic=8.0)."""
    known = theories()
    if name not in known:
        raise ValueError(f"expected a theory, one of {', '.join(known)}, got {name!r}: choose one of these")
    return known[name]


def _actions(module: str, names: dict[str, object]) -> list[type[Action]]:
    classes = [c for c in names.values() if isinstance(c, type) and issubclass(c, Action)]
    return [c for c in classes if c.__module__ == module and not inspect.isabstract(c)]
