"""Configurations go to JSON and back, build the same flow again, and carry parameters to larger lattices."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch

from flows import pretrained, runs, trained
from flows.architectures.architecture import Architecture
from flows.architectures.continuous import Continuous
from flows.architectures.coupling import CouplingFlow
from flows.architectures.gauge_continuous import GaugeContinuous
from flows.architectures.harmonic import Harmonic
from flows.architectures.spin_continuous import SpinContinuous
from flows.commands.command_line import command_line, default_name, default_recipe
from flows.configuration import Configuration, recipes
from flows.objectives import ReverseKL
from flows.report import exact_values
from flows.training import Settings, fit
from flows.updates.gradient import GradientUpdate
from flows.updates.natural import NaturalGradient
from flows.updates.update import Update
from lattices.action import Action
from lattices.exact import phi4_moments
from lattices.theories import theories
from lattices.theories.clock import Clock
from lattices.theories.on import ON
from lattices.theories.phi4 import Phi4
from lattices.theories.sphere_mixture import SphereMixture
from lattices.theories.torus_correlated import TorusCorrelated
from lattices.theories.torus_mixture import TorusMixture
from lattices.theories.u1_gauge import U1Gauge
from lattices.theories.xy import XY

SMALL = Configuration(
    Phi4((2, 2), -1.0, 1.0), Continuous((0.5, 1.0), n_times=2), NaturalGradient(n_samples=256), n_steps=4
)
COUPLING = Configuration(
    Phi4((2, 4), -4.0, 8.0), CouplingFlow(2, hidden=(2,)), GradientUpdate(ReverseKL(path_gradient=False)), seed=3
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small finished run."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    runs.write_config(directory, SMALL.to_dict())
    generator = torch.Generator().manual_seed(0)
    fit(SMALL.build(), SMALL.update, SMALL.n_steps, generator=generator, settings=Settings(directory))
    return directory


@pytest.mark.parametrize("configuration", [SMALL, COUPLING])
def test_json_round_trip(configuration: Configuration) -> None:
    assert Configuration.from_dict(json.loads(json.dumps(configuration.to_dict()))) == configuration


@pytest.mark.parametrize(
    "theory", [a for cls in theories().values() if cls is not Clock for a in cls.examples()], ids=str
)
def test_every_theory_goes_to_json_and_back(theory) -> None:  # type: ignore[no-untyped-def]
    assert Configuration.from_dict(json.loads(json.dumps(Configuration(theory).to_dict()))).theory == theory


@pytest.mark.parametrize("noun", [Architecture, Update])
def test_recipes_are_found_by_their_module(noun: type) -> None:
    assert all(issubclass(cls, noun) for cls in recipes(noun).values())
    assert {"continuous", "coupling", "natural", "gradient"} & set(recipes(noun))


def test_building_twice_gives_the_same_flow_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = (COUPLING.build().flow.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_seed_gives_another_flow() -> None:
    other = Configuration.from_dict({**COUPLING.to_dict(), "seed": 4})
    pairs = zip(COUPLING.build().flow.parameters(), other.build().flow.parameters())
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theory": {"type": "Phi5"}}, "Phi4.*got 'Phi5'"),
        ({"architecture": {"type": "Transformer"}}, "Continuous.*got 'Transformer'"),
        ({"update": {"type": "Newton"}}, "NaturalGradient.*got 'Newton'"),
        ({"architecture": {"type": "Continuous", "colour": 1}}, "arguments of Continuous"),
        ({"n_steps": 0}, "n_steps >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"dtype": "float16"}, "float32 or float64"),
    ],
)
def test_mistakes_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Configuration.from_dict({**SMALL.to_dict(), **changes})


@pytest.mark.parametrize(
    ("theory", "architecture", "name"),
    [
        (Phi4((2, 3), 1.0, 1.0), Continuous, "phi4-2x3"),
        (U1Gauge((2, 2), 1.0), GaugeContinuous, "u1-gauge-2x2"),
        (XY((2, 3), 1.0), SpinContinuous, "xy-2x3"),
        (ON((4,), 4, 1.0), SpinContinuous, "on-4"),
        (SphereMixture(), Harmonic, "sphere-mixture-s2"),
        (TorusMixture((1.0, 2.0, 3.0), 3), Harmonic, "torus-mixture-t3"),
        (TorusCorrelated(), Harmonic, "torus-correlated-t2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_architecture_follows_the_field(theory: Action, architecture: type, name: str) -> None:
    assert type(Configuration(theory).architecture) is architecture
    assert recipes(Architecture)[default_recipe("architecture", type(theory))] is architecture
    assert default_name(theory) == name
    assert "--architecture" not in shlex.split(command_line(Configuration(theory), name))


def test_discrete_spins_have_no_flow() -> None:
    with pytest.raises(ValueError, match="--crystal"):
        Configuration(Clock((2, 2), 6, 1.0))


def test_wrong_types_and_foreign_files_are_named() -> None:
    with pytest.raises(TypeError, match="theory to be an Action"):
        Configuration("phi4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keys of a configuration"):
        Configuration.from_dict({"a": 1})


def test_loaded_flow_is_double_and_accurate(run: Path) -> None:
    model = trained.load(run)
    z = model.flow.base.sample(50, generator=torch.Generator().manual_seed(5))
    assert model.configuration == SMALL
    assert z.dtype == torch.float64
    assert model.flow.bijection.integration_error(z).max() < 1e-3  # type: ignore[operator]
    assert any(p.abs().max() > 0 for p in model.flow.parameters())


def test_a_looser_tolerance_takes_fewer_steps(run: Path) -> None:
    loose, tight = (trained.load(run, tolerance=t).flow.bijection.n_steps for t in (1e-1, 1e-9))
    assert loose < tight


def test_starting_from_a_run_carries_its_kernels_to_a_larger_lattice(run: Path) -> None:
    larger = Configuration(Phi4((3, 3), -1.0, 1.0), start_from=str(run), dtype="float64")
    flow, source = larger.build().flow, trained.load(run).flow
    spec, original = flow.bijection.spec, source.bijection.spec
    torch.testing.assert_close(torch.tensor(spec.frequencies), torch.tensor(original.frequencies))
    moved = source.bijection.transferred(flow.field.lattice)  # type: ignore[operator]
    torch.testing.assert_close(flow.bijection.theta, moved.theta)
    again = Configuration.from_dict(larger.resolved().to_dict()).architecture.build(larger.theory)
    assert again.bijection.theta.shape == flow.bijection.theta.shape


def test_starting_from_another_kind_of_flow_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="Continuous to start from, got a CouplingFlow"):
        Configuration(SMALL.theory, CouplingFlow(), start_from=str(run)).build()


def test_missing_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run directory"):
        trained.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        trained.load(tmp_path)
    runs.write_config(tmp_path, SMALL.to_dict())
    with pytest.raises(ValueError, match="expected a checkpoint"):
        trained.load(tmp_path)


def test_pretrained_models_are_saved_with_their_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pretrained, trained):
        monkeypatch.setattr(module, "MODELS", tmp_path)
    folder = pretrained.save_pretrained(run, "tiny")
    model, original = pretrained.load("tiny"), trained.load(run)
    assert pretrained.names() == ("tiny",)
    assert pretrained.command("tiny") == command_line(SMALL, "tiny")
    assert (folder / "weights.pt").stat().st_size <= pretrained.LARGEST
    x = original.flow.sample(5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.flow.log_prob(x), original.flow.log_prob(x))
    with pytest.raises(ValueError, match="one of tiny, got 'huge'"):
        pretrained.load("huge")


def test_models_that_come_with_the_package_are_small_and_load() -> None:
    for name in pretrained.names():
        assert (pretrained.MODELS / name / "weights.pt").stat().st_size <= pretrained.LARGEST
        assert pretrained.command(name)
        configuration = Configuration.from_dict(trained.read_config(pretrained.MODELS / name))
        assert Configuration.from_dict(configuration.to_dict()) == configuration


def test_only_converged_oracles_are_called_exact() -> None:
    stiff, soft = Phi4((4, 1), -4.0, 8.0), Phi4((2, 2), -0.5, 0.01)
    assert phi4_moments(soft.extents, soft.mass_squared, soft.quartic).quadrature_error > 1e-5
    assert "log Z" in exact_values(stiff)
    assert exact_values(soft) == {"virial": 1.0}
