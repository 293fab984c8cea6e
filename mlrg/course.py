"""Course: lessons at many couplings on one or more lattices, the moderators learned from them, and what they say.

A course lives in a directory: config.json, lessons/*.pt, results.json. Every lesson is written when it is done and has
a seed of its own, so that a killed course resumes where it was and ends with the same numbers.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flows import runs
from flows.sampling.choice import equilibrated
from lattices.action import Family
from mlrg.ensembles import Ensemble
from mlrg.fixed_points import critical_point
from mlrg.learning import Learned, Moderator, learn
from mlrg.lessons import Draw, Lesson, Matching, teach
from mlrg.moderator import GradientFlow, SmoothMap
from mlrg.proposals import propose, spread
from mlrg.student import Student
from mlrg.systems import System, system
from mlrg.teacher import Teacher

MODERATORS = {"gradient": GradientFlow, "map": SmoothMap}


@dataclass(frozen=True)
class Course:
    """What is taught: plain numbers that go to config.json and back.

    Args:
        system: a name of `mlrg.systems`.
        extents: of the students; teachers have twice as many sites along each axis.
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
    common: tuple[int, ...] = (1, 2)
    n_lessons: int = 5
    n_proposed: int = 0
    n_samples: int = 20_000
    source: str = "auto"
    moderator: str = "gradient"
    hidden: tuple[int, ...] = (16,)
    n_replicates: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        system(self.system)
        if self.source not in ("auto", "flow", "chains"):
            raise ValueError(f'expected source "auto", "flow" or "chains", got {self.source!r}: choose one')
        if self.moderator not in MODERATORS:
            raise ValueError(f"expected a moderator, one of {', '.join(MODERATORS)}, got {self.moderator!r}: choose one")
        if min(self.n_lessons, self.n_samples // 100) < 1 or self.n_proposed < 0 or self.seed < 0:
            raise ValueError(f"expected n_lessons >= 1, n_samples >= 100, n_proposed >= 0, seed >= 0, got {self}")
        for extent in self.extents:
            for common in self.common:
                blockings(extent, common)


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
        for extent in course.extents:
            classroom = _Classroom.of(course, chosen, teachers, extent)
            for common in course.common:
                lessons[extent, common] = []
                for lesson in classroom.lessons(common, folder, report):
                    lessons[extent, common].append(lesson)
                    bar.update()
    return lessons


def new_moderator(course: Course, which: System) -> Moderator:
    """The identity map of the course's kind on the couplings of the system."""
    generator = torch.Generator().manual_seed(course.seed)
    n = len(which.space.names)
    return MODERATORS[course.moderator](n, which.lessons.centre, which.lessons.scale, course.hidden, generator)


def learned_from(course: Course, which: System, lessons: list[Lesson]) -> Learned:
    """The moderator of these lessons, and its replicas. Deterministic."""
    return learn(new_moderator(course, which), lessons)


@dataclass(frozen=True)
class _Classroom:
    """Teacher and student of one size."""

    course: Course
    system: System
    teacher: Teacher
    draw_large: Draw
    draw_small: Draw

    @classmethod
    def of(cls, course: Course, which: System, teachers: Callable[[int], Teacher], extent: int) -> _Classroom:
        small = teachers(extent)
        large_family = small.family.on(tuple(2 * n for n in small.family.field.lattice.extents))
        draws = []
        for family, side in ((large_family, 2 * extent), (small.family, extent)):
            teacher = _flow_source(course, teachers, side)
            draws.append(_flow_draw(teacher, course) if teacher else _chain_draw(family, course))
        return cls(course, which, small, draws[0], draws[1])

    def lessons(self, common: int, folder: Path | None, report: Callable[[str], None]) -> Iterator[Lesson]:
        """One by one: read back, or taught and written."""
        extent = self.teacher.extent
        n_blockings, done = blockings(extent, common), []
        student = Student(self.teacher, n_blockings)
        for k in range(self.course.n_lessons + self.course.n_proposed):
            path = folder / "lessons" / f"{extent}-{common}-{k}.pt" if folder else None
            lesson = _read(path) if path and path.is_file() else None
            if lesson is None:
                started = time.perf_counter()
                try:
                    lesson = self._teach(student, self._couplings(k, done), extent, common, k)
                except ValueError as refusal:
                    report(f"lesson {k} of {extent} → {common} was refused: {refusal}")
                    continue
                if path:
                    _write(path, lesson)
                report(_line(self.system, lesson, common, time.perf_counter() - started))
            done.append(lesson)
            yield lesson

    def _couplings(self, k: int, done: list[Lesson]) -> Tensor:
        if k < self.course.n_lessons:
            return spread(self.system.lessons, self.course.n_lessons)[k]
        learned = learned_from(self.course, self.system, done)
        generator = torch.Generator().manual_seed(self.course.seed + 1000 + k)
        return propose(learned.moderator, self.system.lessons, 8, generator)[0]

    def _teach(self, student: Student, couplings: Tensor, extent: int, common: int, k: int) -> Lesson:
        seed = ((self.course.seed * 1009 + extent) * 1009 + common) * 1009 + k
        generator = torch.Generator().manual_seed(seed)
        matching = Matching(n_replicates=self.course.n_replicates)
        return teach(
            couplings, self.draw_large, student, self.draw_small, generator,
            n_teacher_blockings=student.n_blockings + 1, start=self._guess(couplings), matching=matching,
        )  # fmt: skip

    def _guess(self, couplings: Tensor) -> Tensor:
        """Twice as far from the middle of the lessons."""
        centre = self.system.lessons.centre
        return centre + 2 * (couplings - centre)


def _flow_source(course: Course, teachers: Callable[[int], Teacher], extent: int) -> Teacher | None:
    """The flow to draw from, or None for chains."""
    if course.source == "chains":
        return None
    try:
        teacher = teachers(extent)
    except ValueError:
        if course.source == "flow":
            raise
        return None
    centre = system(course.system).lessons.centre if course.system else teacher.space.centre
    good = teacher.draw(centre, 1000, torch.Generator().manual_seed(course.seed)).ess(centre) >= 0.2
    return teacher if good or course.source == "flow" else None


def _flow_draw(teacher: Teacher, course: Course) -> Draw:
    return lambda couplings, generator: teacher.draw(couplings, course.n_samples, generator)


def _chain_draw(family: Family, course: Course, n_per_chain: int = 50) -> Draw:
    def draw(couplings: Tensor, generator: torch.Generator) -> Ensemble:
        n_chains = max(50, course.n_samples // n_per_chain)
        x = equilibrated(family.at(couplings), n_chains, n_per_chain, generator, n_warm_up=40, spacing=2)
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
        import json

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
    except (RuntimeError, TypeError, EOFError, OSError, ValueError):
        return None
