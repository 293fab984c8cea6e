"""Ensemble: configurations with all that is needed to understand them later; its description as JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lattices.action import Action, Combination
from lattices.fields import Circle, FieldSpace, Links, Real, Sphere
from lattices.lattice import Lattice
from lattices.theories import theories
from symmetries.lie import SUN, U1

LIBRARY, FORMAT, VERSION = "latflow", "latflow ensemble", 1
SPACES = (FieldSpace, Lattice, Real, Circle, Sphere, Links, U1, SUN)
MEASURES = {Real: "Lebesgue", Circle: "dθ", Sphere: "area", Links: "normalised Haar"}


@dataclass(frozen=True, eq=False)
class Ensemble:
    """n configurations of one field space, and what is known of them.

    Args:
        field: the space they live in; it fixes lattice, target and reference measure.
        x: the fields, (n, *event).
        measured: numbers for each configuration, (n, …) each: "log_weights" = -S - log q for reweighting, or any other.
        theory: the action they were drawn with; of a class this library does not know, what the file holds.
        information: text that travels along, e.g. {"ENSEMBLE_ID": "b6.0"}.
    """

    field: FieldSpace
    x: Tensor
    measured: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    theory: Action | dict[str, Any] | str | None = None
    information: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.field.validate(self.x, values=False)
        names = [name for name in self.measured if name in ("x", "metadata") or "/" in name]
        if names:
            raise ValueError(f"expected names of measured numbers without / that are not x or metadata, got {names}")
        wrong = [name for name, values in self.measured.items() if values.ndim < 1 or len(values) != len(self.x)]
        if wrong:
            raise ValueError(f"expected {len(self.x)} values for each of {', '.join(wrong)}, one per configuration")
        if isinstance(self.theory, Action) and self.theory.field != self.field:
            raise ValueError(f"expected a theory on {self.field}, got one on {self.theory.field}: pass theory.field")

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def examples(cls) -> Iterator[Ensemble]:
        """Three random fields of every space, with weights."""
        for number, space in enumerate(FieldSpace.examples()):
            generator = torch.Generator().manual_seed(number)
            yield cls(space, space.random(3, generator), {"log_weights": torch.randn(3, generator=generator)})


def described(ensemble: Ensemble) -> str:
    """The conventions of an ensemble, as JSON: format, field, order of axes, measure, dtype, theory, information."""
    space = ensemble.field
    measure = f"{MEASURES.get(type(space.target), type(space.target).__name__)} on each of the {space.cells}"
    parts = {
        "library": LIBRARY, "format": FORMAT, "version": VERSION, "field": plain(space), "axes": axes(space),
        "reference_measure": measure, "dtype": str(ensemble.x.dtype).removeprefix("torch."),
        "theory": plain(ensemble.theory), "information": dict(ensemble.information),
    }  # fmt: skip
    return json.dumps(parts, ensure_ascii=False)


def understood(text: str, path: Path) -> tuple[FieldSpace, Any, dict[str, str]]:
    """Field, theory and information from what `described` wrote; ValueError for any other text."""
    try:
        parts = json.loads(text)
    except ValueError:
        parts = None
    got = (parts.get("format"), parts.get("version")) if isinstance(parts, dict) else (None, None)
    if got != (FORMAT, VERSION):
        raise ValueError(
            f"expected {FORMAT!r}, version {VERSION}, got {got[0]!r}, {got[1]!r} in {path}: read it with what wrote it"
        )
    space = decoded(parts.get("field"), SPACES)
    if not isinstance(space, FieldSpace):
        raise ValueError(f"expected a FieldSpace made of this library's parts, got {parts.get('field')} in {path}")
    known = (*SPACES, Combination, *theories().values())
    return space, decoded(parts.get("theory"), known), parts.get("information", {})


def axes(space: FieldSpace) -> str:
    """The names of the axes of a batch, in order: "configuration, direction, x_1, x_2, row, column"."""
    lattice = [f"x_{mu + 1}" for mu in range(space.lattice.dimension)]
    target = {0: [], 1: ["component"], 2: ["row", "column"]}[len(space.target.shape)]
    return ", ".join(["configuration", *["direction"] * (space.cells == "links"), *lattice, *target])


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses become {"type": name, **fields}."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {
            f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def decoded(value: Any, known: Iterable[type]) -> Any:
    """The inverse of `plain` for instances of known classes; others, and what no longer fits them, stay dicts."""
    if isinstance(value, list):
        return tuple(decoded(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    parts = {key: decoded(item, known) for key, item in value.items()}
    cls: Callable[..., Any] = {c.__name__: c for c in known}.get(str(value.get("type")), dict)
    try:
        return cls(**{key: item for key, item in parts.items() if key != "type" or cls is dict})
    except (TypeError, ValueError):
        return parts


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path` and move it there: a file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
