"""The benchmarks compare equal maps, count memory exactly, fit the right exponents and survive failing cases."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def layers(load) -> ModuleType:  # type: ignore[no-untyped-def]
    return load("layers")


def test_memory_is_what_autograd_keeps(load) -> None:  # type: ignore[no-untyped-def]
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    exponential = load("timing").Contestant(lambda: (x.exp().sin(),), (x,))
    assert exponential.saved_bytes() == 8000  # exp(x), as result and as argument; x itself is a leaf
    assert all(seconds >= 0 for seconds in exponential.seconds())


def test_ratios_are_to_the_first(load) -> None:  # type: ignore[no-untyped-def]
    timing, x = load("timing"), torch.randn(200_000, requires_grad=True)
    once = timing.Contestant(lambda: (x.exp().sin(),), (x,))
    often = timing.Contestant(lambda: (sum(x.exp().sin() for _ in range(20)),), (x,))
    unit, slow = timing.compare({"once": once, "often": often}, n=3)
    assert unit["both_ratio"] == 1.0
    assert slow["both_ratio"] > 3
    assert slow["saved_ratio"] == 20
    assert timing.line(slow).count("ms") == 3


def test_median_is_robust_and_has_its_error(load) -> None:  # type: ignore[no-untyped-def]
    normal = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normal[:20] = 1e6
    value, error = load("timing").median(normal)
    assert abs(value) < 4 * error
    assert error == pytest.approx(1.2533 / 4000**0.5, rel=0.1)


def test_unit_and_shipped_layers_are_bijections_of_the_same_fields(layers: ModuleType) -> None:
    for kind, build in layers.LAYERS.items():
        for name, layer in build().items():
            layer = layers.perturbed(layer).double()
            z = layers.FIELD.random(3, torch.Generator().manual_seed(0))
            x, log_det = layer.forward(z)
            back, back_log_det = layer.inverse(x)
            assert (back - z).abs().max() < 1e-5, (kind, name)  # normflows' knot search is good to 1e-6
            assert (log_det + back_log_det).abs().max() < 1e-4, (kind, name)


def test_masked_and_packed_are_one_map(layers: ModuleType) -> None:
    for kind in ("packing spline", "packing affine"):
        masked, packed = (layers.perturbed(layer).double() for layer in layers.LAYERS[kind]().values())
        x = layers.FIELD.random(3, torch.Generator().manual_seed(0))
        for one, other in zip((*masked(x), *masked.inverse(x)), (*packed(x), *packed.inverse(x))):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["spline", "affine", "packing affine"])
def test_layers_are_compared(layers: ModuleType, load, kind: str) -> None:  # type: ignore[no-untyped-def]
    rows = layers.compare(kind, "eager", torch.float32, "density", n_fields=4, n=2)
    assert rows[0]["both_ratio"] == 1.0
    assert all(row["saved_bytes"] > 0 and row["evaluate"] > 0 for row in rows)
    assert all(kind in layers.line(row) for row in rows)
    lines = [figure.markdown() for figure in load("figures").figures({"case": "layers", "rows": rows})]
    assert len(lines) == 4 * (len(rows) - 1)


def test_volume_is_measured(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    volume = load("volume")
    small = {"continuous": volume.Continuous(n_times=1), "coupling": volume.CouplingFlow(n_layers=2, hidden=(2,))}
    monkeypatch.setattr(volume, "ARCHITECTURES", small)
    rows = volume.measure(sizes=(2, 4), n=1, n_sites=64, n_step=3, report=lambda _: None)
    assert len(rows) == 2 * 2 * 3
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 0 for row in rows)
    assert volume.table(rows).count("\n") == 12
    result = {"case": "volume", "rows": rows, "exponents": {"seconds": {"a": 1.0}}}
    assert len(list(load("figures").figures(result))) == 25


def test_peak_memory_counts_temporaries(load) -> None:  # type: ignore[no-untyped-def]
    peak = load("volume").peak_bytes(lambda: torch.zeros(1 << 20).exp().sin().sum())
    assert peak == pytest.approx(2 * 4 * (1 << 20), rel=0.01)  # argument and result; the one before is gone


def test_exponents_are_slopes(load) -> None:  # type: ignore[no-untyped-def]
    rows = [{"architecture": "a", "quantity": "b", "size": L, "seconds": 3.0 * L**2.6} for L in (8, 16, 32)]
    assert load("volume").exponents(rows, "seconds")["a", "b"] == pytest.approx(1.3)


SCALAR = {
    "case": "phi4-8", "ess": 0.9, "ess_low": 0.8, "ess_high": 1.0, "n": 10, "bar": 0.98, "acceptance": 0.9,
    "log_z": 1.0, "log_z_error": 0.1, "reference": None, "phi_squared": 1.0,
    "phi_squared_error": 0.1, "phi_squared_reference": 1.2, "train_seconds": 3.0, "parameters": 7,
    "peers": [{"method": "HMC", "effective_per_second": 5.0, "seconds": 1.0, "note": ""}],
}  # fmt: skip


def test_a_missed_bar_and_a_failure_are_told(load, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    everything = load("all")
    for code, said in (("import sys; sys.exit('out of luck')", "out of luck"), ("pass", "exit status 0")):
        monkeypatch.setattr(everything, "command", lambda name, quick, code=code: [sys.executable, "-c", code])
        failed = everything.run("phi4-8", quick=True)
        assert failed["failed"] == said
    text = everything.table([SCALAR, failed], {"cpu": "abacus"})
    assert "≥ 0.98 ✗ missed" in text
    assert "1.200000 (-2.0 s.e.)" in text
    assert "phi4-8 failed" in text
    assert "HMC | 5 effective/s" in text


def test_every_command_is_a_script_that_exists(load) -> None:  # type: ignore[no-untyped-def]
    everything = load("all")
    for name in everything.BENCHMARKS:
        assert Path(everything.command(name, quick=True)[1]).is_file()
    assert "--no-peers" in everything.command("phi4-8", quick=True)
    assert "--no-peers" not in everything.command("phi4-8", quick=False)
