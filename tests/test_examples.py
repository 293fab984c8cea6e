"""Every example runs at tiny size and stands by its numbers; the custom action and layer obey the laws."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from flows.report import HMCRun
from flows.updates.natural import NaturalGradient
from mlrg.course import Course
from mlrg.teacher import Recipe
from tests.laws import actions, bijections

FOLDER = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    """An example as a module: `examples` is no package."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ACTION, LAYER = example("custom_action").SineGordon, example("custom_layer").MagnetisationStretch
ACTION_LAWS = (
    actions.one_value_per_field,
    actions.precise_in_single,
    actions.follows_device,
    actions.invariant_as_claimed,
    actions.broken_as_claimed,
    actions.force_is_minus_gradient,
    actions.batch_independent,
    actions.tiles,
    actions.spectrum_is_covariance,
    actions.validates,
    actions.algebra,
)
LAYER_LAWS = (
    bijections.well_formed,
    bijections.round_trip,
    bijections.log_det_is_jacobian,
    bijections.equivariant_as_claimed,
    bijections.batch_independent,
    bijections.keeps_dtype,
    bijections.follows_device,
    bijections.trains_every_parameter,
    bijections.restores_from_state,
    bijections.pushes_score,
    bijections.starts_as_identity,
)


@pytest.mark.parametrize("law", ACTION_LAWS, ids=lambda law: law.__name__)
def test_custom_action_obeys_the_laws(law: Callable) -> None:
    for action in ACTION.examples():
        law(action)


@pytest.mark.parametrize("law", LAYER_LAWS, ids=lambda law: law.__name__)
def test_custom_layer_obeys_the_laws(law: Callable) -> None:
    for layer in LAYER.examples():
        law(layer, torch.Generator().manual_seed(1))


def test_every_example_is_short_and_explains_itself() -> None:
    files = sorted(FOLDER.glob("*.py"))
    assert len(files) >= 5
    for path in files:
        text = path.read_text()
        assert text.count("\n") <= 120, path
        assert text.startswith('"""'), path
        assert "?" in text.split('"""')[1], path
        assert "-> dict[str, float]" in text, path


def test_train_phi4() -> None:
    found = example("train_phi4").main(n_steps=7, n_samples=4000, batch=512)
    assert found["ess"] > 0.8
    assert abs(found["log_z_z"]) < 4
    assert abs(found["phi_squared_z"]) < 4


def test_ising_free_energy() -> None:
    found = example("ising_free_energy").main(extents=(2, 2), n_steps=10, n_samples=4000, batch=512)
    assert found["ess"] > 0.8
    assert abs(found["log_z_z"]) < 4
    assert abs(found["energy_z"]) < 4


def test_custom_action() -> None:
    found = example("custom_action").main(n_steps=7, n_samples=4000, batch=512)
    assert found["ess"] > 0.8
    assert abs(found["log_z_z"]) < 4


def test_custom_layer() -> None:
    found = example("custom_layer").main(n_steps=60, n_samples=20_000, extents=(2, 2))
    assert found["ess"] > found["ess_without"]
    assert found["ess"] > 0.1
    assert abs(found["log_z_z"]) < 4


def test_one_plaquette() -> None:
    found = example("one_plaquette").main(seeds=(0,))
    assert abs(found["plain_coupling"] - 0.81392) < 1e-5
    assert abs(found["learned_coupling_difference"]) < 1e-3
    assert abs(found["learned_y_t_difference"]) < 1e-2
    assert abs(found["invariant_coupling_ratio"] - 1) < 1e-3
    assert abs(found["invariant_y_t_difference"]) < 0.05
    assert abs(found["invariant_delta_sigma_difference"]) < 2e-3


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = HMCRun(n_chains=16, n_steps=100, warm_up=50)
    found = example("demo").main((3, 3), n_steps=7, n_samples=4000, hmc=few, directory=tmp_path / "demo")
    assert found["ess"] > 0.8
    assert abs(found["phi_squared_z"]) < 4
    assert abs(found["log_z"] - 1.476528667281) < 4 * found["log_z_error"]
    figures = {path.stem for path in (tmp_path / "demo" / "figures").glob("*.png")}
    assert figures == {"training", "log_weights", "correlator", "metropolis"}
    assert "flow, Metropolis" in capsys.readouterr().out


def test_topology(tmp_path: Path) -> None:
    found = example("topology").main(
        (4, 4), 3.0, n_updates=2, n_samples=2000, n_sweeps=50, figure=tmp_path / "charge.png"
    )
    assert found["ess"] > 0.4
    assert found["flow_moves"] > found["heat_bath_moves"]
    assert abs(found["charge_squared_z"]) < 4
    assert abs(found["metropolis_z"]) < 4
    assert min(found["p_reweighted"], found["p_metropolis"]) > 1e-4
    assert (tmp_path / "charge.png").is_file()


def test_train_su2() -> None:
    found = example("train_su2").main((3, 3), n_steps=4, n_samples=1000, batch=128)
    assert found["ess"] > 0.3
    assert max(abs(found[name]) for name in ("log_z_z", "plaquette_z", "loop_z")) < 4


def test_train_xy() -> None:
    found = example("train_xy").main((2, 3), n_steps=5, n_samples=4000, batch=256)
    assert found["ess"] > 0.3
    assert max(abs(found["log_z_z"]), abs(found["energy_z"])) < 4


def test_torsion_angles(tmp_path: Path) -> None:
    found = example("torsion_angles").main(600, n_steps=6, degree=3, batch=256, figure=tmp_path / "angles.png")
    assert found["held_out"] > found["uniform"] + 1
    assert found["below_truth"] < 0.4 + 3 * found["error"]
    assert (tmp_path / "angles.png").stat().st_size > 10_000


def test_directions() -> None:
    found = example("directions").main(800, degree=4, n_steps=5, batch=256)
    assert found["antipodal"] < found["none"]
    assert found["antipodal_asymmetry"] < 1e-10
    assert found["none_asymmetry"] > 1e-3


def test_density_gallery(tmp_path: Path) -> None:
    found = example("density_gallery").main(("T², a wave",), 3, 1000, 256, tmp_path / "gallery.png", degree=2)
    assert found["kl T², a wave"] < 0.05
    assert found["ess T², a wave"] > 0.9
    assert (tmp_path / "gallery.png").stat().st_size > 10_000


def test_mlrg_ising(tmp_path: Path) -> None:
    """Four sites squared: the critical coupling within the corrections of so small a lattice."""
    recipe = Recipe(frequencies=(1.2, 2.4), modulations=(1.2,), tails=(), n_times=2, n_steps=4, context_degree=1)
    course = Course("ising", extents=(4,), common=(1,), n_lessons=2, n_samples=2000, source="chains")
    update = NaturalGradient(n_samples=1000, chunk=500, damping=1e-3, trust=0.3)
    found = example("mlrg_ising").main(course, 6, recipe, update, tmp_path)
    error = found["critical_coupling_error"]
    assert 0 < error < 0.02
    assert abs(found["critical_coupling"] - found["critical_coupling_reference"]) < 0.015 + 4 * error
    assert abs(found["y_t"] - 1) < 0.1 + 4 * found["y_t_error"]
    assert (tmp_path / "figures" / "map-4-1.png").is_file()


def test_mlrg_custom_family() -> None:
    found = example("mlrg_custom_family").main(n_steps=3, n_lessons=2, n_samples=400, n_training=400)
    assert 0.5 < found["critical_coupling"] < 0.9
    assert 0 < found["error"] < 0.1
