"""Configuration: everything that defines a training run, as data that goes to JSON and back."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from flows import architectures, objectives, runs, updates
from flows.architectures.architecture import Architecture
from flows.architectures.continuous import Continuous
from flows.architectures.gauge_continuous import GaugeContinuous
from flows.architectures.harmonic import Harmonic
from flows.architectures.spin_continuous import SpinContinuous
from flows.bases import GaussianField
from flows.data import Points
from flows.distribution import Transformed
from flows.quantities.densities import is_density
from flows.updates.natural import NaturalGradient
from flows.updates.update import Problem, Update
from lattices.action import Action
from lattices.fields import Circle, Sphere
from lattices.theories import theories
from lattices.theories.clock import ClockSpins

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ARCHITECTURES: dict[str, type[Architecture]] = {
    "sites": Continuous,
    "links": GaugeContinuous,
    "spins": SpinContinuous,
    "sphere": Harmonic,
    "torus": Harmonic,
}
"""What a flow is made of unless something else is asked for, by the `kind` of its target."""


def kind(theory: Action) -> str:
    """Numbers on "sites", a group on "links", "spins" on a lattice, one point of a "sphere" or a "torus"."""
    field = theory.field
    if isinstance(field.target, ClockSpins):
        raise ValueError(
            f"expected fields with a density, got {theory} of discrete angles: "
            "train xy with a crystal field, e.g. --crystal 5 --directions 6, or sample by local updates and clusters"
        )
    if is_density(theory):
        return "sphere" if isinstance(field.target, Sphere) else "torus"
    return "spins" if isinstance(field.target, Circle | Sphere) and field.cells == "sites" else field.cells


@dataclass(frozen=True)
class Configuration:
    """A training run: what to learn, with which flow, and how. `build` makes it real, `to_dict` writes it down.

    Args:
        theory: the action of the target.
        architecture: the recipe of the flow; None for the one of `ARCHITECTURES`, by the kind of theory.
        update: the rule that improves it.
        n_steps: number of updates.
        seed: of the initial parameters and of all samples.
        dtype: "float32" or "float64", of the training; results are computed in float64 in any case.
        start_from: a run directory or pretrained model whose parameters are carried over, kernels to a larger
            lattice included; the features of a continuous flow are then those of that model.
    """

    theory: Action
    architecture: Architecture = None  # type: ignore[assignment]
    update: Update = field(default_factory=NaturalGradient)
    n_steps: int = 20
    seed: int = 0
    dtype: str = "float32"
    start_from: str | None = None

    def __post_init__(self) -> None:
        if self.architecture is None and isinstance(self.theory, Action):
            object.__setattr__(self, "architecture", ARCHITECTURES[kind(self.theory)]())
        for name, noun in (("theory", Action), ("architecture", Architecture), ("update", Update)):
            if not isinstance(getattr(self, name), noun):
                got = type(getattr(self, name)).__name__
                raise TypeError(f"expected {name} to be an {noun.__name__}, got {got}: pass an instance")
        if self.n_steps < 1 or self.seed < 0:
            raise ValueError(f"expected n_steps >= 1 and seed >= 0, got {self.n_steps} and {self.seed}: raise them")
        if self.dtype not in DTYPES:
            raise ValueError(f"expected dtype {' or '.join(DTYPES)}, got {self.dtype!r}: choose one of the two")

    def build(self) -> Problem:
        """The untrained flow, or the one started from, and its target. Deterministic: `seed` draws the parameters."""
        resolved = self.resolved()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            flow = resolved.architecture.build(self.theory, DTYPES[self.dtype])
        if self.start_from is not None:
            _carry_over(_load(self.start_from).flow, flow)
        return Problem(flow, self.theory)

    def resolved(self) -> Configuration:
        """The same run with the architecture that `start_from` implies: it can be rebuilt without that model."""
        if self.start_from is None:
            return self
        return replace(self, architecture=_inherited(self.architecture, self.theory, _load(self.start_from)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, with {"type": class name, …} for each dataclass."""
        return {f.name: runs.plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """What `to_dict` wrote; further keys are ignored, unknown types are a ValueError that lists the known."""
        if "theory" not in data:
            raise ValueError(
                f"expected the keys of a configuration, got {', '.join(data) or 'none'}: is it config.json?"
            )
        known: dict[str, list[type]] = {
            "theory": [*theories().values(), Points],
            "architecture": [*recipes(Architecture).values()],
            "update": [*recipes(Update).values(), *_dataclasses(objectives)],
        }
        names = [f.name for f in fields(cls) if f.name in data]
        return cls(**{name: _decoded(data[name], known.get(name, ())) for name in names})


def recipes(noun: type) -> dict[str, type]:
    """The architecture or update of each module of this package, by the module's name: "continuous", …"""
    package = architectures if noun is Architecture else updates
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(package.__path__):
        classes = _dataclasses(import_module(f"{package.__name__}.{info.name}"))
        found |= {info.name.replace("_", "-"): cls for cls in classes if issubclass(cls, noun)}
    return found


def _dataclasses(module: ModuleType) -> list[type]:
    classes = [value for value in vars(module).values() if isinstance(value, type) and is_dataclass(value)]
    return [cls for cls in classes if cls.__module__ == module.__name__ and not inspect.isabstract(cls)]


def _decoded(value: Any, known: Iterable[type]) -> Any:
    """Lists become tuples, {"type": …} an instance of one of the known classes."""
    if isinstance(value, list):
        return tuple(_decoded(item, known) for item in value)
    if not isinstance(value, Mapping):
        return value
    classes = {cls.__name__: cls for cls in known}
    name = value.get("type")
    if name not in classes:
        raise ValueError(f"expected a type, one of {', '.join(classes)}, got {name!r}: check the configuration")
    arguments = {key: _decoded(item, classes.values()) for key, item in value.items() if key != "type"}
    try:
        return classes[name](**arguments)
    except TypeError as error:
        raise ValueError(f"expected the arguments of {name}, got {', '.join(arguments)}: {error}") from error


def _load(where: str):  # type: ignore[no-untyped-def]
    from flows.trained import load

    return load(where)


def _inherited(architecture: Architecture, theory: Action, source: Any) -> Architecture:
    """The architecture of the source, of a continuous flow with the range and integrator asked for.

    Frequencies of scalar fields are kept in units of 1/field, whatever the variances of the two bases.
    """
    old = source.configuration.architecture
    if type(old) is not type(architecture):
        raise ValueError(f"expected a {type(old).__name__} to start from, got a {type(architecture).__name__}: use one")
    integrated = Continuous | GaugeContinuous | SpinContinuous
    if not isinstance(architecture, integrated) or not isinstance(old, integrated):
        return old
    asked: dict[str, Any] = {name: getattr(architecture, name) for name in ("radius", "n_steps", "method")}
    if isinstance(architecture, Continuous):
        deviation = float(GaussianField.of(theory).spectrum.mean().sqrt())
        asked["frequencies"] = tuple(omega * deviation for omega in source.flow.bijection.spec.frequencies)
    return replace(old, **asked)


def _carry_over(source: Transformed, flow: Transformed) -> None:
    """Copy the parameters of `source` into `flow`, kernels and trained bases from lattice to lattice."""
    moved, own, base = source.bijection, flow.bijection, source.base
    if hasattr(moved, "transferred"):
        moved = moved.transferred(own.domain.lattice, own.spec.radius)
    if hasattr(base, "transferred"):
        base = base.transferred(flow.base.field.lattice)
    _copy(moved, own)
    _copy(base, flow.base)


def _copy(source: nn.Module, module: nn.Module) -> None:
    parameters = dict(source.named_parameters())
    for name, parameter in module.named_parameters():
        if name not in parameters or parameters[name].shape != parameter.shape:
            got = tuple(parameters[name].shape) if name in parameters else "none"
            raise ValueError(f"expected {name} of shape {tuple(parameter.shape)}, got {got}: start from another model")
        parameter.data.copy_(parameters[name].data)
