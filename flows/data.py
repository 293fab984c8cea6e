"""Densities from data: points of a sphere or a torus, checked and split, as what a flow is fitted to."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flows.distribution import Distribution
from lattices.action import Action
from lattices.fields import Circle, FieldSpace, Sphere, Transformation
from lattices.invariance import SignFlip, SiteSign, Symmetry
from lattices.lattice import Lattice
from lattices.spins import AxisRotations, SpinPointGroup
from lattices.statistics import Estimate

MANIFOLDS = ("sphere", "torus")
SYMMETRIES = {"sphere": ("none", "axis", "antipodal"), "torus": ("none", "reflection")}
TOLERANCE = 1e-5
"""How far from 1 the length of a unit vector may be, how far outside [-π, π] an angle."""
FEWEST = 4


@dataclass(frozen=True)
class Points(Action):
    """The density that points were drawn from, of which nothing is known but the points: no energy, no log Z.

    It tells an architecture the space and the symmetries to build in, and an update the points to learn from.

    Args:
        manifold: "sphere" Sᴰ, of unit vectors (n, 1, D + 1), or "torus" Tᴰ, of angles (n, D).
        dimension: D.
        symmetry: of the density, "none"; on a sphere "axis", rotations and reflections that fix the last axis, or
            "antipodal", x and -x alike (D + 1 numbers for a line without direction); on a torus "reflection" t ↦ -t.
        file: where the points are from, if from a file.
        digest: SHA-256 of the numbers, so that a run is not resumed with others.
        training: the points to learn from.
        held_out: those that judge, and are never learned from.
    """

    manifold: str
    dimension: int
    symmetry: str = "none"
    file: str | None = None
    digest: str | None = None
    training: Tensor | None = field(default=None, repr=False, compare=False)
    held_out: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.manifold not in MANIFOLDS or self.dimension < 1:
            raise ValueError(
                f"expected a manifold {' or '.join(MANIFOLDS)} of dimension >= 1, got {self.manifold!r} of "
                f"{self.dimension}: points on a sphere have one number more than its dimension"
            )
        if self.symmetry not in SYMMETRIES[self.manifold]:
            known = ", ".join(SYMMETRIES[self.manifold])
            raise ValueError(f"expected a symmetry of a {self.manifold}, one of {known}, got {self.symmetry!r}")

    @classmethod
    def split(
        cls, manifold: str, points: Tensor, held_out: float = 0.2, generator: torch.Generator | None = None,
        symmetry: str = "none",
    ) -> Points:  # fmt: skip
        """The density of given points, a share of which, drawn at random, is held out.

        Args:
            manifold: "sphere" for unit vectors, "torus" for angles in radians.
            points: one in each row, (n, D + 1) or (n, D); see `checked_points`.
            held_out: the share of the points that judge; at least two points on either side.
            generator: of the random split; None for the last ones in the order given.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"expected a share 0 < held_out < 1, got {held_out}: 0.2 is a good start")
        dimension = checked_points(manifold, points).shape[1] - (manifold == "sphere")
        n, n_held_out = len(points), max(2, round(held_out * len(points)))
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        digest = hashlib.sha256(points.double().contiguous().cpu().numpy().tobytes()).hexdigest()
        known = cls(manifold, dimension, symmetry, digest=digest)
        x = points[order].reshape(-1, *known.field.event_shape)
        return replace(known, training=x[: n - n_held_out], held_out=x[n - n_held_out :])

    @property
    def field(self) -> FieldSpace:
        if self.manifold == "sphere":
            return FieldSpace(Lattice((1,)), Sphere(self.dimension))
        return FieldSpace(Lattice((self.dimension,)), Circle())

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        rows = -torch.eye(self.dimension + 1, dtype=torch.float64)
        known: dict[str, tuple[Symmetry, ...]] = {
            "none": (),
            "axis": (AxisRotations(),),
            "antipodal": (SpinPointGroup((tuple(map(tuple, rows.tolist())),)),),
            "reflection": (SignFlip(),),
        }
        return known[self.symmetry]

    @property
    def broken(self) -> Transformation:
        return SiteSign()

    def energy(self, x: Tensor) -> Tensor:  # (batch, *event) -> (batch,)
        raise TypeError(
            "expected a density with an energy, got one that is known by its points alone: fit it by maximum "
            "likelihood, and ask the flow for log_prob"
        )

    def observed(self) -> tuple[Tensor, Tensor]:  # -> (n, *event), (m, *event)
        """The points to learn from, and those held out; ValueError where they were not kept."""
        if self.training is None or self.held_out is None:
            raise ValueError("expected points to learn from, got none: make them by Points.split(manifold, points)")
        return self.training, self.held_out

    @classmethod
    def examples(cls) -> Iterator[Points]:
        """Directions without a sense, and pairs of angles."""
        yield cls("sphere", 2, "antipodal")
        yield cls("torus", 2)


def checked_points(manifold: str, points: Tensor) -> Tensor:  # (n, numbers) -> the same
    """Return the points, or raise a ValueError: shape, NaN, off the manifold by more than `TOLERANCE`, all the same."""
    least = 2 if manifold == "sphere" else 1
    if points.ndim != 2 or len(points) < FEWEST or points.shape[1] < least:
        raise ValueError(
            f"expected at least {FEWEST} points, one in each row of {least} or more numbers, got shape "
            f"{tuple(points.shape)}: a sphere takes unit vectors (n, D + 1), a torus angles (n, D)"
        )
    _refuse(points, ~points.isfinite().all(1), "finite numbers", "NaN or Inf", "leave these rows out")
    if manifold == "sphere":
        off = (points.norm(dim=1) - 1).abs() > TOLERANCE
        _refuse(
            points, off, f"unit vectors to {TOLERANCE}", "other lengths", "project them (--project) if that is meant"
        )
    else:
        off = (points.abs() > math.pi + TOLERANCE).any(1)
        hint = "wrap them (--project), or say --degrees"
        _refuse(points, off, f"angles in [-π, π] to {TOLERANCE}", "others", hint)
    if bool((points == points[0]).all()):
        raise ValueError(f"expected different points, got {len(points)} times the same: its density is infinite")
    return points


def projected(manifold: str, points: Tensor) -> Tensor:  # (n, numbers) -> the same
    """The nearest points of the manifold: angles wrapped into [-π, π), vectors normalised."""
    finite = points.isfinite().all(1)
    _refuse(points, ~finite, "finite numbers", "NaN or Inf", "leave these rows out")
    return (Sphere(points.shape[1] - 1) if manifold == "sphere" else Circle()).project(points)


def read_points(path: Path, manifold: str, degrees: bool = False, project: bool = False) -> Tensor:  # -> (n, numbers)
    """The points in a file: the array x (or the only one) of an .npz, an .npy, or rows of numbers as text.

    Args:
        degrees: the file holds angles in degrees.
        project: bring the points to the manifold, however far away.
    """
    points = torch.as_tensor(np.ascontiguousarray(_array(Path(path)), dtype=np.float64))
    points = points.reshape(len(points), -1) if points.ndim > 2 else points
    if degrees:
        points = points * (math.pi / 180)
    return checked_points(manifold, projected(manifold, points) if project and points.ndim == 2 else points)


def log_likelihood(flow: Distribution, x: Tensor, chunk: int = 4096) -> Estimate:
    """The mean of log q over points (n, *event), in nats, with its standard error."""
    with torch.no_grad():
        values = torch.cat([flow.log_prob(part) for part in x.split(chunk)]).double()
    return Estimate(float(values.mean()), float(values.std() / len(values) ** 0.5), len(values))


@dataclass
class EarlyStopping:
    """A callback of `fit` that ends it when held-out points no longer become more likely; `restore` the best flow then.

    Args:
        flow: what is fitted.
        held_out: points that judge, (n, *event).
        patience: steps to wait for a better flow.
        gain: in the mean log-likelihood, above which a flow counts as better.
        keep: called with the state of every flow that is the best so far.
    """

    flow: Distribution
    held_out: Tensor
    patience: int = 5
    gain: float = 1e-4
    keep: Callable[[dict[str, Tensor]], None] | None = None
    best: float = -math.inf
    waited: int = 0
    state: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, record: dict[str, Any]) -> bool:
        value = record.get("held_out")
        value = log_likelihood(self.flow, self.held_out).value if value is None else value
        if value > self.best + self.gain:
            self.best, self.waited = value, 0
            self.state = {name: tensor.clone() for name, tensor in self.flow.state_dict().items()}
            if self.keep is not None:
                self.keep(self.state)
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self) -> None:
        """Give the flow its best parameters back."""
        if self.state:
            self.flow.load_state_dict(self.state)


def _array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return np.load(path)
    if not start.startswith(b"PK"):
        return _text(path)
    with np.load(path) as found:
        names = [name for name in found.files if name == "x"] or found.files
        if len(names) != 1:
            raise ValueError(f"expected an array x, or a single one, got {', '.join(names)} in {path}: name one x")
        return found[names[0]]


def _text(path: Path) -> np.ndarray:
    """Rows of numbers, separated by commas or blanks; lines that begin with # are comments."""
    try:
        lines = path.read_text().replace(",", " ").splitlines()
        return np.loadtxt(lines, ndmin=2)
    except ValueError as error:
        raise ValueError(f"expected rows of numbers (text), .npy or .npz, got {path}: {error}") from error


def _refuse(points: Tensor, bad: Tensor, expected: str, got: str, hint: str) -> None:
    if bad.any():
        first = int(bad.nonzero()[0])
        raise ValueError(
            f"expected {expected}, got {got} in {int(bad.sum())} of {len(points)} rows (first: row {first}, "
            f"{[round(v, 6) for v in points[first].tolist()]}): {hint}"
        )
