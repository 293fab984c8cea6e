"""Teachers of a run: those that come with the package, or trained here with checkpoints in the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from mlrg import pretrained
from mlrg.course import Course
from mlrg.systems import System
from mlrg.teacher import Teacher, train


class Choice(Protocol):
    """Which teachers to take."""

    @property
    def pretrained(self) -> bool: ...
    @property
    def train(self) -> bool: ...
    @property
    def train_steps(self) -> int: ...


class Teachers:
    """The flow of an extent in float64, made once: what `run_course` asks for.

    Args:
        which: the system.
        course: students are trained if there are none; larger teachers only where flows are the source.
        directory: of the run; checkpoints go to teachers/<extent>.
        choice: pretrained, trained here, or (neither) trained where none is shipped.
    """

    def __init__(self, which: System, course: Course, directory: Path, choice: Choice) -> None:
        self.which, self.course, self.directory, self.choice = which, course, directory, choice
        self._known: dict[int, Teacher] = {}

    def __call__(self, extent: int) -> Teacher:
        if extent not in self._known:
            self._known[extent] = self._trained(extent) if self._must_train(extent) else self._shipped(extent)
        return self._known[extent]

    def _must_train(self, extent: int) -> bool:
        needed = extent in self.course.extents or self.course.source == "flow"
        shipped = f"{self.which.name}-{extent}" in pretrained.names()
        return needed and not self.choice.pretrained and (self.choice.train or not shipped)

    def _shipped(self, extent: int) -> Teacher:
        if self.choice.train:
            raise ValueError(f"expected no teacher on {extent} sites, got a request for one: chains take its place")
        return pretrained.load(self.which.name, extent)

    def _trained(self, extent: int) -> Teacher:
        """Started from the teacher of half the extent where that is at hand."""
        family = self.which.family.on((extent,) * len(self.which.family.field.lattice.extents))
        generator = torch.Generator().manual_seed(self.course.seed * 1009 + extent)
        teacher, _ = train(
            family, self.which.space, self.which.recipe, generator=generator, n_steps=self.choice.train_steps,
            start=self._known.get(extent // 2), directory=self.directory / "teachers" / str(extent),
        )  # fmt: skip
        return teacher.precise()
