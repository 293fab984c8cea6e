"""Densities from data: what is checked, that maximum likelihood finds the truth, the command, and the maps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flows import maps
from flows.architectures.harmonic import Harmonic
from flows.architectures.sphere import SphereFlow
from flows.architectures.torus import TorusFlow
from flows.cli import main
from flows.configuration import Configuration
from flows.data import EarlyStopping, Points, checked_points, log_likelihood, projected, read_points
from flows.objectives import ForwardKL
from flows.trained import load
from flows.training import fit
from flows.updates.gradient import GradientUpdate
from flows.updates.likelihood import MaximumLikelihood, point_tangents
from flows.updates.update import Problem
from lattices.fields import Circle, FieldSpace, Links, Real, Sphere
from lattices.lattice import Lattice
from lattices.theories.phi4 import Phi4
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.torus_mixture import TorusMixture
from symmetries.lie import SU2, U1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(target: SphereMixture | TorusMixture, n: int) -> Tensor:
    """Exact samples by resampling uniform points, which is exact for many of them."""
    x = target.field.random(100 * n, seeded())
    chosen = torch.multinomial((-target.energy(x)).softmax(0), n, generator=seeded(1))
    return x[chosen].flatten(1)


ONE_ON_S2 = SphereMixture((0.0, 0.6, 0.8), 2, 3.0)
ONE_ON_T2 = TorusMixture((1.0, 2.0), 2, 2.0)
GOOD = {"sphere": drawn(ONE_ON_S2, 400), "torus": drawn(ONE_ON_T2, 400)}


# ----------------------------------------------------------------------------------------------- what is checked


@pytest.mark.parametrize("manifold", ["sphere", "torus"])
def test_good_points_pass_as_they_are(manifold: str) -> None:
    assert checked_points(manifold, GOOD[manifold]) is GOOD[manifold]


def spoiled(points: Tensor, value: float) -> Tensor:
    changed = points.clone()
    changed[3, 0] = value
    return changed


@pytest.mark.parametrize(
    ("manifold", "points", "message"),
    [
        ("sphere", GOOD["sphere"][0], r"shape \(3,\)"),
        ("sphere", GOOD["sphere"][:2], r"at least 4 points"),
        ("sphere", GOOD["sphere"][:, :1], r"2 or more numbers"),
        ("sphere", GOOD["sphere"][:, None], r"one in each row"),
        ("sphere", spoiled(GOOD["sphere"], math.nan), "NaN or Inf in 1 of 400 rows .*row 3"),
        ("torus", spoiled(GOOD["torus"], math.inf), "NaN or Inf in 1 of 400 rows"),
        ("sphere", 1.001 * GOOD["sphere"], "unit vectors to 1e-05.*400 of 400.*--project"),
        ("torus", spoiled(GOOD["torus"], 180.0), r"angles in \[-π, π\].*row 3.*--degrees"),
        ("sphere", GOOD["sphere"][:1].expand(9, 3), "different points"),
        ("torus", torch.zeros(9, 2), "different points"),
    ],
)
def test_bad_points_are_refused(manifold: str, points: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_points(manifold, points)


def test_tolerance_is_as_stated() -> None:
    checked_points("sphere", GOOD["sphere"] * (1 + 9e-6))
    with pytest.raises(ValueError, match="unit vectors"):
        checked_points("sphere", GOOD["sphere"] * (1 + 2e-5))


def test_projection_brings_points_back() -> None:
    torch.testing.assert_close(projected("sphere", 7 * GOOD["sphere"]), GOOD["sphere"])
    torch.testing.assert_close(projected("torus", GOOD["torus"] + 4 * math.pi), GOOD["torus"])
    with pytest.raises(ValueError, match="direction"):
        projected("sphere", torch.zeros(5, 3))
    with pytest.raises(ValueError, match="NaN"):
        projected("torus", spoiled(GOOD["torus"], math.nan))


@pytest.mark.parametrize("target", [Real(), Real(2), Circle(), Sphere(1), Sphere(3)], ids=str)
def test_every_target_projects(target: Real | Circle | Sphere) -> None:
    x = 5 * torch.randn(20, *target.shape, generator=seeded())
    assert target.distance_from(target.project(x)).max() < 1e-6
    torch.testing.assert_close(target.project(target.project(x)), target.project(x))


@pytest.mark.parametrize("group", [U1(), SU2()], ids=str)
def test_groups_project(group: U1 | SU2) -> None:
    x = FieldSpace(Lattice((2, 2)), Links(group), "links").random(3, seeded())
    target = Links(group)
    assert target.distance_from(target.project(x * 1.01)).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plane", 2), "sphere or torus"),
        (("sphere", 0), "dimension >= 1"),
        (("sphere", 2, "reflection"), "axis, antipodal"),
        (("torus", 2, "axis"), "none, reflection"),
    ],
)
def test_mistakes_about_the_space(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Points(*arguments)


def test_points_have_no_energy_and_are_split_without_overlap() -> None:
    points = Points.split("torus", GOOD["torus"], 0.25, seeded())
    training, held_out = points.observed()
    assert (len(training), len(held_out)) == (300, 100)
    everything = torch.cat([training, held_out]).sort(0).values
    torch.testing.assert_close(everything, GOOD["torus"].sort(0).values)
    with pytest.raises(TypeError, match="energy"):
        points.energy(training)
    with pytest.raises(ValueError, match=r"Points\.split"):
        Points("torus", 2).observed()
    with pytest.raises(ValueError, match="held_out < 1"):
        Points.split("torus", GOOD["torus"], 1.5)


def test_files(tmp_path: Path) -> None:
    x = GOOD["torus"].numpy()
    np.savez(tmp_path / "a.npz", x=x, y=x)
    np.save(tmp_path / "a.npy", x)
    np.savetxt(tmp_path / "a.csv", np.degrees(x), delimiter=",", header="phi,psi")
    np.savez(tmp_path / "bad.npz", a=x, b=x)
    (tmp_path / "bad.txt").write_text("1 2\n3 four\n")
    for name, degrees in (("a.npz", False), ("a.npy", False), ("a.csv", True)):
        torch.testing.assert_close(read_points(tmp_path / name, "torus", degrees), GOOD["torus"])
    for name, message in (("bad.npz", "got a, b"), ("bad.txt", "rows of numbers")):
        with pytest.raises(ValueError, match=message):
            read_points(tmp_path / name, "torus")


# ---------------------------------------------------------------------------------------------- maximum likelihood


@pytest.mark.parametrize("architecture", [Harmonic(3, 2), TorusFlow(1, n_bins=2)], ids=lambda a: type(a).__name__)
def test_tangents_at_points_are_derivatives(architecture: Harmonic | TorusFlow) -> None:
    points = Points.split("torus", GOOD["torus"])
    flow = architecture.build(points)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded(2), dtype=parameter.dtype))
    x = points.held_out[:3]  # type: ignore[index]
    log_q, tangents = point_tangents(flow, x)
    rows = [torch.autograd.grad(flow.log_prob(x)[i], list(flow.parameters())) for i in range(3)]
    exact = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
    torch.testing.assert_close(log_q, flow.log_prob(x))
    assert (tangents - exact).abs().max() < 0.03 * exact.abs().max()  # the trapezoidal rule of harmonic flows


@pytest.mark.parametrize(
    ("manifold", "target", "architecture"),
    [("sphere", ONE_ON_S2, Harmonic(2, 1)), ("torus", ONE_ON_T2, Harmonic(2, 1))],
    ids=str,
)
def test_fisher_scoring_finds_the_truth(manifold, target, architecture) -> None:  # type: ignore[no-untyped-def]
    points = Points.split(manifold, GOOD[manifold], 0.25, seeded())
    flow = architecture.build(points)
    stopping = EarlyStopping(flow, points.held_out)  # type: ignore[arg-type]
    before = log_likelihood(flow, points.held_out)  # type: ignore[arg-type]
    history = fit(
        Problem(flow, points), MaximumLikelihood(n_samples=256, prior=0.1), 5, generator=seeded(3), callback=stopping
    ).history
    stopping.restore()
    x = points.held_out
    below = (-target.energy(x) - target.log_z() - flow.log_prob(x)).detach()
    assert below.mean() < 0.1 + 3 * below.std() / len(x) ** 0.5  # type: ignore[arg-type]
    assert log_likelihood(flow, x).value > before.value + 0.3  # type: ignore[arg-type]
    losses = [record["loss"] for record in history]
    assert losses == sorted(losses, reverse=True)
    assert all(record["ess"] is None for record in history)


def test_early_stopping_keeps_the_best_flow() -> None:
    flow = Harmonic(1, 1).build(Points("torus", 2))
    stopping = EarlyStopping(flow, GOOD["torus"], patience=2)
    stops = []
    for held_out, value in ((-3.0, 0.1), (-2.0, 0.2), (-2.5, 0.3), (-2.4, 0.4)):
        with torch.no_grad():
            flow.bijection.theta.fill_(value)  # type: ignore[union-attr,operator]
        stops.append(stopping({"held_out": held_out}))
    stopping.restore()
    assert stops == [False, False, False, True]
    assert float(flow.bijection.theta.detach().max()) == pytest.approx(0.2)  # type: ignore[union-attr,operator]


def test_a_symmetry_is_kept_exactly_and_its_absence_is_noticed() -> None:
    held_out = GOOD["sphere"].reshape(-1, 1, 3)[:50]
    for symmetry, kept in (("antipodal", True), ("none", False)):
        points = Points.split("sphere", GOOD["sphere"], symmetry=symmetry)
        flow = Harmonic(2, 1).build(points)
        fit(Problem(flow, points), MaximumLikelihood(n_samples=256), 2, generator=seeded())
        asymmetry = (flow.log_prob(held_out) - flow.log_prob(-held_out)).abs().max()
        assert (asymmetry < 1e-10) == kept


def test_gradients_of_the_forward_divergence_learn_from_points_too() -> None:
    points = Points.split("sphere", GOOD["sphere"])
    flow = SphereFlow(n_layers=1, n_bins=3, hidden=(4,)).build(points)
    before = log_likelihood(flow, points.held_out).value  # type: ignore[arg-type]
    update = GradientUpdate(ForwardKL(points.training), 3e-2, 64)  # type: ignore[arg-type]
    problem = Problem(flow, SphereMixture((0.0, 0.6, 0.8), 2, 3.0))
    fit(problem, update, 25, generator=seeded(), callback=EarlyStopping(flow, points.held_out))  # type: ignore[arg-type]
    assert log_likelihood(flow, points.held_out).value > before + 0.1  # type: ignore[arg-type]


def test_likelihood_needs_points() -> None:
    theory = Phi4((2, 2), 1.0, 1.0)
    with pytest.raises(ValueError, match="points to learn from, got Phi4"):
        MaximumLikelihood().init(Problem(Configuration(theory).build().flow, theory))
    with pytest.raises(ValueError, match="damping, trust > 0"):
        MaximumLikelihood(damping=0.0)


# ----------------------------------------------------------------------------------------------------- the command

TINY = ["--architecture.degree", "2", "--architecture.n-times", "1", "--update.n-samples", "128", "--n-steps", "3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fits")
    np.savetxt(folder / "angles.csv", np.degrees(GOOD["torus"].numpy()), delimiter=",")
    assert main(["fit", "torus", str(folder / "angles.csv"), "--degrees", *TINY, "--runs", str(folder)]) == 0
    return folder / "angles"


def test_fit_leaves_a_run(run: Path) -> None:
    for name in ("config.json", "environment.json", "metrics.jsonl", "weights.pt", "points.npz", "checkpoints"):
        assert (run / name).exists()
    for name in ("training", "density"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 1000
    found = json.loads((run / "results.json").read_text())
    held_out, gain = found["log_likelihood"]["held out"], found["above_uniform"]["value"]
    assert held_out["n"] == 80
    assert gain > 5 * held_out["error"] > 0
    model = load(run)
    with np.load(run / "points.npz") as points:
        again = log_likelihood(model.flow, torch.as_tensor(points["held_out"]))
    assert again.value == pytest.approx(held_out["value"])


def test_a_fitted_density_is_sampled_and_checked(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["sample", str(run), "-n", "300", "--out", str(tmp_path / "x.npz")]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("model", "data", "⟨cos t₁⟩", "entropy"))
    with np.load(tmp_path / "x.npz") as found:
        x, log_prob = torch.as_tensor(found["x"]), torch.as_tensor(found["log_prob"])
    assert x.shape == (300, 2)
    torch.testing.assert_close(load(run).flow.log_prob(x).detach(), log_prob, rtol=0, atol=1e-3)
    assert main(["check", str(run)]) == 0
    assert main(["free-energy", str(run)]) == 2
    assert "known by its points" in capsys.readouterr().err


def test_fits_resume_and_notice_other_data(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "d.npz", x=2 * GOOD["sphere"].numpy())
    words = ["fit", "sphere", str(tmp_path / "d.npz"), *TINY, "--runs", str(tmp_path)]
    assert main(words) == 2
    assert "--project" in capsys.readouterr().err
    assert main([*words, "--project", "--symmetry", "axis"]) == 0
    assert main([*words, "--project", "--symmetry", "axis", "--n-steps", "4", "--resume"]) == 0
    assert main([*words, "--project", "--symmetry", "axis"]) == 2
    assert "pass --resume" in capsys.readouterr().err
    np.savez(tmp_path / "d.npz", x=GOOD["sphere"].numpy()[::-1])
    assert main([*words, "--symmetry", "axis", "--resume"]) == 2
    assert "digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plane", "x.npz"], "sphere or torus, got 'plane'"),
        (["sphere", "nowhere.npz"], "No such file"),
        (["sphere", "nowhere.npz", "--architecture", "wings"], "harmonic"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", *words]) == 2
    assert message in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture) -> None:
    for words in ([], ["--help"], ["sphere", "--help"]):
        with pytest.raises(SystemExit) as stopped:
            main(["fit", *words])
        assert stopped.value.code == 0
        assert "latflow fit" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------- the maps


@pytest.mark.parametrize("target", [SphereMixture(), TorusMixture()], ids=["S²", "T²"])
def test_maps_know_the_normalisation(target: SphereMixture | TorusMixture) -> None:
    x = target.field.random(5, seeded())
    exact = -target.energy(x) - target.log_z()
    torch.testing.assert_close(maps.normalised(target.field, lambda y: -target.energy(y))(x), exact, rtol=0, atol=1e-4)


def test_maps_and_marginals_are_drawn(tmp_path: Path) -> None:
    s2, s3 = SphereMixture(), SphereMixture.four_on_su2()
    panels = [maps.Panel("density", lambda x: -s2.energy(x)), maps.Panel("points", points=s2.field.random(9, seeded()))]
    x = s3.field.random(50, seeded())
    figures = [
        maps.side_by_side(s2.field, panels, tmp_path / "map.png", "Two"),
        maps.pairwise(s3.field, [("a", x, None), ("b", x, torch.ones(50))], tmp_path / "pairs.png", "Pairs"),
    ]
    assert all(path.stat().st_size > 5000 for path in figures)
    with pytest.raises(ValueError, match="draw marginals"):
        maps.side_by_side(s3.field, [maps.Panel("points", points=x)], tmp_path / "no.png")
