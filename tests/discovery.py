"""Find every concrete class of a noun in the four packages, and the examples it gives: test data for the laws."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

PACKAGES = ("symmetries", "lattices", "flows", "mlrg")


@cache
def modules() -> tuple[str, ...]:
    """The dotted names of all modules of the packages, imported."""
    names = []
    for package in PACKAGES:
        root = importlib.import_module(package)
        found = pkgutil.walk_packages(root.__path__, f"{package}.")
        names += [package, *(module.name for module in found if not module.name.endswith("__main__"))]
    for name in names:
        importlib.import_module(name)
    return tuple(names)


def concrete(noun: type) -> Iterator[type]:
    """Every class below `noun` that lives in the packages and is not abstract."""
    modules()
    for child in noun.__subclasses__():
        yield from concrete(child)
        if child.__module__.split(".")[0] in PACKAGES and not inspect.isabstract(child):
            yield child


def examples(noun: type) -> list[Any]:
    """The examples of every concrete class of `noun`, as pytest parameters named by class and number.

    A class without examples is a failure that names it.
    """
    found = []
    for cls in dict.fromkeys(concrete(noun)):
        instances = list(cls.examples()) if _gives_examples(cls, noun) else []
        if not instances:
            raise LookupError(f"{cls.__module__}.{cls.__name__} gives no examples(): yield a few small instances")
        found += [pytest.param(instance, id=f"{cls.__name__}-{i}") for i, instance in enumerate(instances)]
    return found


def _gives_examples(cls: type, noun: type) -> bool:
    return any("examples" in vars(base) for base in cls.__mro__ if base is not noun and not inspect.isabstract(base))
