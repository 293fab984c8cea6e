"""The house keeps its own rules: import order, lengths, examples, four top-level names, fast imports."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from flows.architectures.architecture import Architecture
from flows.bijection import Bijection
from flows.distribution import Distribution
from flows.sampling.kernel import Kernel
from flows.updates.update import Update
from lattices.action import Action, Family
from lattices.fields import FieldSpace
from lattices.lattice import Lattice
from mlrg.coarsening import Coarsening
from symmetries.group import Group
from symmetries.representation import Representation
from tests.discovery import PACKAGES, concrete, examples

ROOT = Path(__file__).parent.parent
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
NOUNS = (Group, Representation, Action, Family, Coarsening, Bijection, Distribution, Kernel, Update, Architecture)


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path: Path) -> None:
    level = PACKAGES.index(path.relative_to(ROOT).parts[0])
    above = {*PACKAGES[level + 1 :], "tests", "examples", "benchmarks"}
    assert not imported(ast.parse(path.read_text())) & above


def test_only_rotations_imports_e3nn() -> None:
    users = [path.name for path in FILES if "e3nn" in imported(ast.parse(path.read_text()))]
    assert users == ["rotations.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    too_long = [f.name for f in functions if f.end_lineno - f.lineno >= 50]  # type: ignore[operator]
    assert text.count("\n") <= 400
    assert not too_long


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: noun.__name__)
def test_every_concrete_class_gives_examples(noun: type) -> None:
    assert examples(noun)
    assert list(Lattice.examples())
    assert list(FieldSpace.examples())


def test_a_class_without_examples_fails_by_name() -> None:
    class Orphan(Action):  # deliberately without examples
        __module__ = "lattices.theories.orphan"
        field = symmetries = broken = energy = None  # type: ignore[assignment]

        @classmethod
        def examples(cls):  # type: ignore[no-untyped-def]
            return iter(())

    try:
        assert Orphan in concrete(Action)
        with pytest.raises(LookupError, match="Orphan"):
            examples(Action)
    finally:
        Orphan.__module__ = __name__


def test_distribution_has_four_top_level_names() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.packages.find"]["include"].split()
    assert {name.split(".")[0] for name in setuptools.find_packages(str(ROOT), include=patterns)} == set(PACKAGES)


def test_importing_us_is_fast_and_leaves_e3nn_alone() -> None:
    code = (
        "import time, sys, torch, numpy; t = time.perf_counter();"
        "import flows.bijection, flows.distribution, lattices.action;"
        "print(time.perf_counter() - t, 'e3nn' in sys.modules, 'matplotlib' in sys.modules)"
    )
    seconds, *heavy = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split()
    assert heavy == ["False", "False"]
    assert float(seconds) < 1.0  # 0.1 s on an idle machine
