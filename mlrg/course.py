"""Course: lessons at many couplings on one or more lattices, the moderators learned from them, and what they say.

A course lives in a directory: config.json, lessons/*.pt, results.json. Every lesson is written when it is done and has
a seed of its own, so that a killed course resumes where it was and ends with the same numbers.
"""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flows import runs
from flows.sampling.choice import equilibrated
from lattices.action import Family
from mlrg.couplings import CouplingSpace
from mlrg.ensembles import Ensemble
from mlrg.fixed_points import critical_point
from mlrg.learning import Learned, learn
from mlrg.lessons import Draw, Lesson, Matching, teach
from mlrg.moderator import GradientFlow, SmoothMap
from mlrg.promotion import PromotedStudent
from mlrg.proposals import propose, spread
from mlrg.student import FlowStudent, Student
from mlrg.systems import System, system
from mlrg.teacher import Teacher

MODERATORS = {"gradient": GradientFlow, "map": SmoothMap}


@dataclass(frozen=True)
class Course:
    """What is taught: plain numbers that go to config.json and back.

    Args:
        system: a name of `mlrg.systems`, or what a system of your own is called.
        extents: of the students, each twice the one before: the first has a flow, the others' likelihoods are what
            the lessons before them predict. Teachers have twice as many sites along each axis.
        common: extents of the common lattices that they are blocked to.
        n_lessons: couplings spread evenly over the system's lessons.
        n_proposed: couplings after that, proposed by the moderator near its fixed points.
        n_samples: fields in each ensemble.
        source: "flow" reweights the flows' own samples, "chains" runs Markov chains, "auto" takes flows that are
            good enough (an effective fraction of 0.2).
        moderator: "gradient" (J - ∇C, with a monotone) or "map" (unconstrained).
        hidden: widths of its network.
        n_replicates: of the bootstrap.
        seed: of everything.
    """

    system: str = "ising"
    extents: tuple[int, ...] = (8,)
    common: tuple[int, ...] = (1,)
    n_lessons: int = 5
    n_proposed: int = 0
    n_samples: int = 10_000
    source: str = "auto"
    moderator: str = "gradient"
    hidden: tuple[int, ...] = (16,)
    n_replicates: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.source not in ("auto", "flow", "chains"):
            raise ValueError(f'expected source "auto", "flow" or "chains", got {self.source!r}: choose one')
        if self.moderator not in MODERATORS:
            raise ValueError(f"expected moderator {' or '.join(MODERATORS)}, got {self.moderator!r}: choose one")
        if min(self.n_lessons, self.n_samples // 100) < 1 or self.n_proposed < 0 or self.seed < 0:
            raise ValueError(f"expected n_lessons >= 1, n_samples >= 100, n_proposed >= 0, seed >= 0, got {self}")
        for extent, common in product(self.extents, self.common):
            blockings(extent, common)
        if any(b != 2 * a for a, b in pairwise(sorted(self.extents))):
            raise ValueError(f"expected extents that double, such as 8 16 32, got {self.extents}: leave none out")


def blockings(extent: int, common: int) -> int:
    """How often `extent` is halved to reach `common`; ValueError if it is not."""
    n = 0
    while common > 0 and extent > common and extent % 2 == 0:
        extent, n = extent // 2, n + 1
    if extent != common:
        raise ValueError(f"expected an extent that halves to {common}, got {extent}·2^{n}: use powers of two times it")
    return n


def run_course(
    course: Course,
    teachers: Callable[[int], Teacher],
    directory: Path | str | None = None,
    which: System | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> dict[tuple[int, int], list[Lesson]]:
    """All lessons of a course, by (extent of the student, extent of the common lattice).

    Args:
        teachers: the flow of an extent, in float64; also asked for 2·extent when flows are the source.
        directory: keeps every finished lesson; those found there are not repeated.
        which: a system of your own; by default the one that the course names.
        report: is told what happens.
    """
    chosen = which or system(course.system)
    folder = _opened(Path(directory), course) if directory is not None else None
    lessons: dict[tuple[int, int], list[Lesson]] = {}
    total = len(course.extents) * len(course.common) * (course.n_lessons + course.n_proposed)
    with tqdm(total=total, desc="lessons", disable=None) as bar:
        for common in course.common:
            classroom: Any = None
            for extent in sorted(course.extents):
                if classroom is None:
                    classroom = _Classroom.first(course, chosen, teachers, extent, common)
                else:
                    classroom = classroom.next(folder, report)
                lessons[extent, common] = list(classroom.lessons(folder, report, bar.update))
    return dict(sorted(lessons.items()))


def region(which: System, lessons: list[Lesson]) -> CouplingSpace:
    """The box that lessons were taken in; the system's own around a single one."""
    taken = torch.stack([lesson.couplings for lesson in lessons])
    low, high = taken.min(0).values, taken.max(0).values
    if bool((high > low).all()):
        return CouplingSpace(which.space.names, tuple(low.tolist()), tuple(high.tolist()), which.space.odd)
    return around(which.lessons, taken.mean(0), 1.0)


def learned_from(course: Course, which: System, lessons: list[Lesson]) -> Learned:
    """The moderator of these lessons, of the course's kind, and its replicas. Deterministic."""
    if not lessons:
        raise ValueError("expected lessons, got none: all were refused; see what the course reported")
    where, generator = region(which, lessons), torch.Generator().manual_seed(course.seed)
    kind = MODERATORS[course.moderator]
    moderator = kind(len(where.names), where.centre, where.scale, course.hidden, generator)
    return learn(moderator, lessons)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Classroom:
    """A student, its teacher of twice the size, and where lessons are taken."""

    course: Course
    system: System
    teachers: Callable[[int], Teacher]
    student: Student
    where: CouplingSpace
    common: int
    done: list[Lesson]

    @classmethod
    def first(
        cls, course: Course, which: System, teachers: Callable[[int], Teacher], extent: int, common: int
    ) -> _Classroom:
        """The smallest student: the marginal of a flow."""
        student = FlowStudent(teachers(extent), blockings(extent, common))
        return cls(course, which, teachers, student, which.lessons, common, [])

    def next(self, folder: Path | None, report: Callable[[str], None]) -> _Classroom:
        """The student of twice the size, as this one's lessons predict it; its lessons are about half as far from J*.

        Fixed points drift with the size: a pilot lesson at the old one tells where the new one is.
        """
        learned = learned_from(self.course, self.system, self.done)
        generator = torch.Generator().manual_seed(self.course.seed + 2)
        point = critical_point(learned.moderator, around(self.where, self.where.centre, 1.5), generator).couplings
        student = PromotedStudent(self.student, learned, around(self.where, point, 1.8))
        room = replace(self, student=student, where=around(self.where, point, 0.6), done=[])
        pilot = room._lesson(folder, "pilot", lambda: point, report)
        slope = pilot.jacobian[:-1] - torch.eye(len(point), dtype=point.dtype)
        drift = torch.linalg.solve(slope, point - pilot.image[:-1])
        drift = self.where.scale * (drift / self.where.scale).clamp(-0.5, 0.5)
        return replace(room, where=around(self.where, point + drift, 0.6))

    @property
    def extent(self) -> int:
        """Of the student."""
        return self.student.family.field.lattice.extents[0]

    def lessons(
        self, folder: Path | None, report: Callable[[str], None], tick: Callable[[], object]
    ) -> Iterator[Lesson]:
        """One by one: read back, or taught and written."""
        if self.course.source == "flow":
            _ = self._draws  # a ValueError, if a flow is missing
        for k in range(self.course.n_lessons + self.course.n_proposed):
            try:
                lesson = self._lesson(folder, k, lambda k=k: self._couplings(k), report)  # type: ignore[misc]
            except (ValueError, RuntimeError) as refusal:
                report(f"lesson {k} of {self.extent} on {self.common} was refused: {refusal}")
                continue
            self.done.append(lesson)
            tick()
            yield lesson

    def _lesson(
        self, folder: Path | None, k: int | str, couplings: Callable[[], Tensor], report: Callable[[str], None]
    ) -> Lesson:
        """A lesson read back if it was finished before, else taught and written."""
        path = folder / "lessons" / f"{self.extent}-{self.common}-{k}.pt" if folder else None
        lesson = _read(path) if path and path.is_file() else None
        if lesson is None:
            started = time.perf_counter()
            lesson = self._teach(couplings(), 997 if k == "pilot" else int(k))
            report(_line(self.system, lesson, self.common, time.perf_counter() - started))
            if path:
                _write(path, lesson)
        return lesson

    def _couplings(self, k: int) -> Tensor:
        if k < self.course.n_lessons:
            return spread(self.where, self.course.n_lessons)[k]
        learned = learned_from(self.course, self.system, self.done)
        generator = torch.Generator().manual_seed(self.course.seed + 1000 + k)
        return propose(learned.moderator, self.where, 8, generator)[0]

    def _teach(self, couplings: Tensor, k: int) -> Lesson:
        seed = ((self.course.seed * 1009 + self.extent) * 1009 + self.common) * 1009 + k
        matching = Matching(n_replicates=self.course.n_replicates)
        start = self.where.centre + 2 * (couplings - self.where.centre)
        generator = torch.Generator().manual_seed(seed)
        large, small = self._draws
        return teach(couplings, large, self.student, small, generator, start=start, matching=matching)

    @cached_property
    def _draws(self) -> tuple[Draw, Draw]:
        """Of teacher and student: flows are read, and tried, once for all lessons."""
        return self._draw(2 * self.extent), self._draw(self.extent)

    def _draw(self, extent: int) -> Draw:
        """From the flow of that extent if there is one and it is good enough, else from chains."""
        teacher = self._flow(extent) if self.course.source != "chains" else None
        if teacher is not None:
            return lambda couplings, generator: teacher.draw(couplings, self.course.n_samples, generator)
        family = self.system.family.on((extent,) * len(self.system.family.field.lattice.extents))
        return _chain_draw(family, self.course.n_samples)

    def _flow(self, extent: int) -> Teacher | None:
        try:
            teacher = self.teachers(extent)
        except ValueError:
            if self.course.source == "flow":
                raise
            return None
        if self.course.source == "flow":
            return teacher
        centre = self.where.centre
        ess = teacher.draw(centre, 1000, torch.Generator().manual_seed(self.course.seed)).ess(centre)
        return teacher if ess >= 0.2 else None


def around(space: CouplingSpace, point: Tensor, factor: float) -> CouplingSpace:
    """The same box, scaled and moved to a point."""
    half = space.scale * factor
    return CouplingSpace(space.names, tuple((point - half).tolist()), tuple((point + half).tolist()), space.odd)


def _chain_draw(family: Family, n_samples: int, n_per_chain: int = 100) -> Draw:
    def draw(couplings: Tensor, generator: torch.Generator) -> Ensemble:
        n_chains = max(50, n_samples // n_per_chain)
        x = equilibrated(family.at(couplings), n_chains, n_per_chain, generator, n_warm_up=150, spacing=2)
        x, chain = x.flatten(0, 1), torch.arange(n_chains).repeat_interleave(x.shape[1])
        return Ensemble(family, x, -family.energy(x, couplings), chain)

    return draw


def _line(which: System, lesson: Lesson, common: int, seconds: float) -> str:
    pairs = zip((*which.space.names, "log ζ"), lesson.image.tolist(), lesson.covariance.diagonal().sqrt().tolist())
    image = ", ".join(f"{name} {value:.5f}({error:.5f})" for name, value, error in pairs)
    at = ", ".join(f"{value:.5f}" for value in lesson.couplings.tolist())
    ess = "/".join(f"{value:.2f}" for value in lesson.ess.tolist())
    return f"{lesson.extent} → {lesson.extent // 2} on {common}: J {at} ↦ {image}   ESS {ess}   {seconds:.0f} s"


def _opened(folder: Path, course: Course) -> Path:
    """The directory of a course; a ValueError if it belongs to another one."""
    config, mine = folder / "config.json", runs.plain(course)
    if config.is_file():
        theirs = json.loads(config.read_text())
        if theirs != mine:
            different = sorted(key for key in mine if theirs.get(key) != mine[key])
            raise ValueError(f"expected the course in {folder} to be this one, got other {different}: use a new folder")
    (folder / "lessons").mkdir(parents=True, exist_ok=True)
    runs.atomic_write_json(config, course)
    return folder


def _write(path: Path, lesson: Lesson) -> None:
    buffer = io.BytesIO()
    torch.save(lesson._asdict(), buffer)
    runs.atomic_write(path, buffer.getvalue())


def _read(path: Path) -> Lesson | None:
    """A finished lesson, or None if the file is damaged: it is then taught again."""
    try:
        return Lesson(**torch.load(path, weights_only=True))
    except (RuntimeError, TypeError, EOFError, OSError, ValueError, pickle.UnpicklingError):
        return None
