"""Courses: run, killed, resumed bit for bit; promoted students; proposals; refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mlrg.course
from flows.updates.natural import NaturalGradient
from mlrg.couplings import CouplingSpace
from mlrg.course import Course, around, blockings, learned_from, region, run_course
from mlrg.learning import Learned
from mlrg.lessons import Lesson
from mlrg.moderator import SmoothMap
from mlrg.promotion import PromotedStudent
from mlrg.systems import system
from mlrg.teacher import Recipe, Teacher, train
from tests.free_chain import SPACE, ExactStudent, draws, family

RECIPE = Recipe(frequencies=(0.8, 1.6), modulations=(0.8,), tails=(), n_times=2, n_steps=4, context_degree=1)
WIDE = CouplingSpace(("beta",), (0.3,), (1.1,))
PHI4 = replace(system("phi4"), space=WIDE, lessons=CouplingSpace(("beta",), (0.59,), (0.67,)), recipe=RECIPE)
COURSE = Course(
    "phi4", extents=(2, 4), common=(1,), n_lessons=2, n_samples=1000, source="chains", n_replicates=20, seed=1
)

Teachers = Callable[[int], Teacher]


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", autouse=True)
def short_chains() -> Iterator[None]:
    """Ten fields of every chain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlrg.course, "_chain_draw", partial(mlrg.course._chain_draw, n_per_chain=10))
        yield


def quick(course: Course, **changes: object) -> Course:
    return replace(course, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teachers() -> Teachers:
    """Two sites squared and then four squared, trained for a moment."""
    update = NaturalGradient(n_samples=1000, chunk=500, damping=1e-3, trust=0.3)
    small, _ = train(PHI4.family.on((2, 2)), WIDE, RECIPE, generator=seeded(), n_steps=8, update=update)
    large, _ = train(PHI4.family.on((4, 4)), WIDE, RECIPE, generator=seeded(), n_steps=10, update=update, start=small)
    known = {2: small.precise(), 4: large.precise()}

    def teacher(extent: int) -> Teacher:
        if extent not in known:
            raise ValueError(f"expected 2 or 4 sites, got {extent}")
        return known[extent]

    return teacher


@pytest.fixture(scope="module")
def run(
    teachers: Teachers, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[tuple[int, int], list[Lesson]]]:
    folder = tmp_path_factory.mktemp("course")
    return folder, run_course(COURSE, teachers, folder, PHI4)


def same(first: Lesson, second: Lesson) -> bool:
    pairs = zip(first, second)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)  # type: ignore[arg-type]


def test_a_course_teaches_every_pair(run: tuple[Path, dict[tuple[int, int], list[Lesson]]]) -> None:
    folder, lessons = run
    assert sorted(lessons) == [(2, 1), (4, 1)]
    written = {path.stem for path in (folder / "lessons").glob("*.pt")}
    assert {"2-1-0", "2-1-1", "4-1-pilot"} <= written
    assert len(written) == 1 + sum(map(len, lessons.values()))  # of the promoted student's, noise may refuse one
    assert len(lessons[4, 1]) >= 1
    for (extent, _), own in lessons.items():
        assert {lesson.extent for lesson in own} == {2 * extent}
    low, high = lessons[2, 1]
    rise, error = high.image[0] - low.image[0], (high.covariance + low.covariance)[0, 0].sqrt()
    assert rise > 4 * error
    spread, wide = region(PHI4, lessons[4, 1]).scale[0], region(PHI4, lessons[2, 1]).scale[0]
    assert len(lessons[4, 1]) == 1 or spread == pytest.approx(0.6 * float(wide))


def test_killed_courses_resume_bit_for_bit(
    run: tuple[Path, dict[tuple[int, int], list[Lesson]]], teachers: Teachers
) -> None:
    """One lesson lost, one damaged: both are taught again, the others are read, and every number is the same."""
    folder, lessons = run
    (folder / "lessons" / "2-1-1.pt").unlink()
    (folder / "lessons" / "4-1-0.pt").write_bytes(b"cut short")
    said: list[str] = []
    again = run_course(COURSE, teachers, folder, PHI4, said.append)
    assert len(said) == 2
    assert all(same(a, b) for key in lessons for a, b in zip(lessons[key], again[key]))
    with pytest.raises(ValueError, match=r"other \['seed'\]: use a new folder"):
        run_course(quick(COURSE, seed=5), teachers, folder, PHI4)


def test_flows_are_a_source_and_moderators_propose_lessons(teachers: Teachers) -> None:
    course = quick(COURSE, extents=(2,), n_proposed=1, source="flow", n_samples=2000)
    ((_, lessons),) = run_course(course, teachers, which=PHI4).items()
    assert len(lessons) == 3
    assert PHI4.lessons.contains(lessons[2].couplings)
    with pytest.raises(ValueError, match="expected 2 or 4 sites"):
        run_course(quick(course, extents=(4,)), teachers, which=PHI4)


def test_refused_lessons_are_reported_and_skipped(teachers: Teachers) -> None:
    """Images beyond the region of the student's flow: nothing is taught, everything is said."""
    course, said = quick(COURSE, extents=(2,), source="flow"), list[str]()
    narrow = Teacher(PHI4.family.on((2, 2)), around(WIDE, WIDE.centre, 0.05), teachers(2).flow, RECIPE)
    lessons = run_course(course, {2: narrow, 4: teachers(4)}.__getitem__, which=PHI4, report=said.append)
    assert lessons == {(2, 1): []}
    assert [text.split(":")[0] for text in said] == [f"lesson {k} of 2 on 1 was refused" for k in (0, 1)]
    with pytest.raises(ValueError, match="all were refused"):
        learned_from(course, PHI4, [])


def test_promoted_scores_are_derivatives_of_promoted_likelihoods() -> None:
    """With the exact law of a ring of eight below: central differences in J and log ζ."""
    below = ExactStudent(family(8), 1)
    moderator = SmoothMap(1, SPACE.centre, SPACE.scale, (4,), seeded())
    torch.nn.init.normal_(moderator.network[-1].weight, 0.0, 0.2, generator=seeded())  # type: ignore[arg-type]
    polynomial = torch.tensor([[0.3, 0.2, -0.1]]).double()
    student = PromotedStudent(below, Learned(moderator, [], polynomial, polynomial, 0.0, 1.0), SPACE)
    assert student.family.field.lattice.extents == (16,)
    assert student.n_blockings == 2
    J, h = torch.tensor([3.0]).double(), 1e-4
    c = student.block(draws(family(16), 6)(J, seeded()).x)

    def likelihood(step: float, log_zeta: float) -> Tensor:
        return student.log_prob(c * (torch.tensor(-log_zeta).double().exp()), J + step) - 4 * log_zeta

    slopes = [
        (likelihood(h, 0.0) - likelihood(-h, 0.0)) / (2 * h),
        (likelihood(0.0, h) - likelihood(0.0, -h)) / (2 * h),
    ]
    torch.testing.assert_close(student.scores(c, J), torch.stack(slopes, 1), rtol=1e-6, atol=1e-6)


def test_boxes_move_and_shrink() -> None:
    moved = around(WIDE, torch.tensor([0.9]).double(), 0.5)
    assert moved.lower == pytest.approx((0.7,))
    assert moved.upper == pytest.approx((1.1,))
    assert [blockings(16, common) for common in (8, 4, 1)] == [1, 2, 4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: blockings(12, 2), "halves to 2"),
        (lambda: blockings(4, 0), "halves to 0"),
        (lambda: Course("phi4", extents=(4, 16)), "extents that double"),
        (lambda: Course("phi4", extents=(6,), common=(2,)), "halves to 2"),
        (lambda: run_course(Course("phi5"), {}.__getitem__), "expected a system"),
        (lambda: Course(source="guess"), "expected source"),
        (lambda: Course(moderator="spline"), "expected moderator"),
        (lambda: Course(n_samples=10), "n_samples >= 100"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
