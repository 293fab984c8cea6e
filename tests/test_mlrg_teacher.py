"""Teachers: built for every kind of family, trained, handed to larger lattices, written and read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flows.bases import GaussianField
from flows.updates.natural import NaturalGradient
from lattices.action import Family
from lattices.theories.ising_dual import IsingDualFamily
from lattices.theories.potts_dual import PottsDualFamily
from mlrg import pretrained
from mlrg.couplings import CouplingSpace
from mlrg.student import FlowStudent
from mlrg.systems import System, system, systems
from mlrg.teacher import Recipe, Teacher, carry_over, train
from tests.laws.bijections import perturbed

RECIPE = Recipe(frequencies=(1.2, 2.4), modulations=(1.2,), tails=(), n_times=2, n_steps=4, context_degree=1)
ISING, PHI4, POTTS = (system(name) for name in ("ising", "phi4", "potts3"))


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained(which: System, extent: int, noise: float = 0.0, seed: int = 1) -> Teacher:
    family = which.family.on((extent, extent))
    flow = perturbed(RECIPE.build(family, which.space), seeded(seed), noise)
    return Teacher(family, which.space, flow, RECIPE)  # type: ignore[arg-type]


@pytest.mark.parametrize("extent", [2, 4])
@pytest.mark.parametrize("which", [ISING, PHI4, POTTS], ids=lambda which: which.name)
def test_recipes_start_from_the_best_gaussian_of_the_centre(which: System, extent: int) -> None:
    teacher = untrained(which, extent)
    centre = which.space.centre
    drawn = teacher.draw(centre, 20, seeded())
    base = GaussianField.of(teacher.family.at(centre))
    torch.testing.assert_close(drawn.log_base, base.log_prob(drawn.x), rtol=1e-9, atol=1e-9)
    assert len(teacher.flow.details) == {2: 1, 4: 2}[extent]
    assert teacher.extent == extent
    moved = untrained(which, extent, 0.1)
    assert (moved.flow.log_prob(drawn.x, centre[None]) - drawn.log_base).abs().max() > 1e-2


def test_ends_of_the_range_are_different_laws() -> None:
    teacher = untrained(ISING, 2, 0.1)
    x = teacher.draw(ISING.space.centre, 5, seeded()).x
    low, high = (teacher.flow.log_prob(x, torch.tensor([[end]]).double()) for end in (0.38, 0.50))
    assert (low - high).abs().min() > 0


def test_training_raises_the_effective_sample_size_everywhere() -> None:
    family = ISING.family.on((2, 2))
    update = NaturalGradient(n_samples=1000, chunk=500, damping=1e-3, trust=0.3)
    before = untrained(ISING, 2)
    after, _ = train(family, ISING.space, RECIPE, generator=seeded(), n_steps=8, update=update, dtype=torch.float64)
    for J in (0.39, 0.44, 0.49):
        at = torch.tensor([J]).double()
        worse, better = (t.draw(at, 1000, seeded(2)).ess(at) for t in (before, after))
        assert better > 0.9
        assert better > worse
    precise = after.precise()
    at, x = ISING.space.centre, after.draw(ISING.space.centre, 20, seeded()).x
    torch.testing.assert_close(precise.flow.log_prob(x, at[None]), after.flow.log_prob(x, at[None]), rtol=0, atol=0.1)
    assert FlowStudent(precise, 1).marginal.field.lattice.extents == (1, 1)


def test_small_lattices_hand_their_levels_to_large_ones() -> None:
    """The k-th blocking goes to the k-th, the deepest to all below it, the coarsest flow to the coarsest."""
    small, large = untrained(PHI4, 2, 0.1), untrained(PHI4, 8)
    x = large.draw(PHI4.space.centre, 3, seeded()).x
    context = PHI4.space.centre[None]
    before = large.flow.log_prob(x, context)
    carry_over(small.flow, large.flow)
    assert (large.flow.log_prob(x, context) - before).abs().min() > 1e-3
    assert torch.equal(small.flow.coarsest.bijection.theta, large.flow.coarsest.bijection.theta)  # type: ignore[arg-type]
    first, *others = (level.bijection.theta for level in large.flow.levels)
    assert all(torch.equal(first, other) for other in others if other.shape == first.shape)
    wider = Recipe(**{**vars(RECIPE), "frequencies": (1.2,)}).build(PHI4.family.on((4, 4)), PHI4.space)
    with pytest.raises(ValueError, match="one recipe"):
        carry_over(small.flow, wider)


@pytest.mark.parametrize("which", [ISING, POTTS], ids=lambda which: which.name)
def test_teachers_come_back_from_the_disk(which: System, tmp_path: Path) -> None:
    teacher = untrained(which, 2, 0.1)
    pretrained.save(teacher, tmp_path, ess=0.5)
    found = pretrained.read(tmp_path, which)
    at = which.space.centre
    x = teacher.draw(at, 10, seeded()).x
    expected = teacher.precise().flow.log_prob(x, at[None])
    torch.testing.assert_close(found.flow.log_prob(x, at[None]), expected, rtol=1e-6, atol=1e-6)
    assert (found.space, found.recipe, found.extent) == (teacher.space, teacher.recipe, 2)
    assert json.loads((tmp_path / "config.json").read_text())["ess"] == 0.5


def damaged(folder: Path, data: bytes | None) -> None:
    path = folder / "weights.pt"
    path.write_bytes(path.read_bytes()[:200] if data is None else data)


def without_first_weight(folder: Path) -> None:
    state = torch.load(folder / "weights.pt", weights_only=True)
    torch.save(dict(list(state.items())[1:]), folder / "weights.pt")


@pytest.mark.parametrize(
    "spoil",
    [lambda f: damaged(f, None), lambda f: damaged(f, b"no weights"), lambda f: damaged(f, b""), without_first_weight],
    ids=["cut", "junk", "empty", "missing"],
)
def test_damaged_weights_are_refused(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    pretrained.save(untrained(ISING, 2), tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        pretrained.read(tmp_path, ISING)


@pytest.mark.parametrize(("other", "message"), [(PHI4, "expected a teacher of"), (POTTS, "damaged|other parameters")])
def test_teachers_of_other_systems_are_refused(other: System, message: str, tmp_path: Path) -> None:
    pretrained.save(untrained(ISING, 2), tmp_path)
    with pytest.raises(ValueError, match=message):
        pretrained.read(tmp_path, other)


NARROW = CouplingSpace(("nearest",), (0.43,), (0.45,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: untrained(ISING, 2).draw(torch.tensor([0.7]).double(), 10, seeded()), "train a wider teacher"),
        (lambda: RECIPE.build(PHI4.family, NARROW), "name the couplings"),
        (lambda: Teacher(ISING.family, ISING.space, untrained(ISING, 2).flow, RECIPE), "same lattice"),
        (lambda: pretrained.load("ising", 7), "expected a pretrained teacher"),
        (lambda: system("heisenberg"), "expected a system"),
    ],
)
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_systems_say_where_they_live() -> None:
    for which in systems().values():
        assert tuple(which.family.names) == which.space.names == which.lessons.names
        assert which.space.contains(torch.stack(which.segment)).all()
        corners = torch.tensor([which.lessons.lower, which.lessons.upper]).double()
        assert which.space.contains(corners).all()


@pytest.mark.parametrize("name", pretrained.names())
def test_shipped_teachers_are_as_good_as_they_say(name: str) -> None:
    """At the ends and the centre of their couplings; large lattices are read, and drawn from at the centre only."""
    config = json.loads((pretrained.MODELS / name / "config.json").read_text())
    which, extent = name.rsplit("-", 1)
    assert [int(extent)] * len(config["extents"]) == config["extents"]
    assert (pretrained.MODELS / name / "weights.pt").stat().st_size <= 1.1 * pretrained.LARGEST
    teacher = pretrained.load(which, int(extent))
    _, middle, _ = config["ess"]
    found = teacher.draw(teacher.space.centre, 500, seeded()).ess(teacher.space.centre)
    assert 0.6 * middle < found < min(1.0, 1.35 * middle + 0.05)


def test_families_of_duals_cover_their_couplings() -> None:
    families: tuple[Family, ...] = (
        IsingDualFamily.covering((2, 2), {"nearest": 0.5}),
        PottsDualFamily.covering((2, 2), {"nearest": 1.1}, 3),
    )
    for family, which in zip(families, (ISING, POTTS)):
        assert family == which.family.on((2, 2))
