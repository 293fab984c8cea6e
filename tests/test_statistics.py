"""Error bars that cover, effective sample sizes with known answers, and input that must be refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from lattices.statistics import (
    EffectiveSampleSize,
    Estimate,
    bootstrap,
    chain_function,
    chain_mean,
    effective_sample_size,
    forward_effective_sample_size,
    integrated_autocorrelation_time,
    jackknife,
    log_mean_exp,
    reweighted_mean,
)


def autoregression(a: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """x_{t+1} = a x_t + √(1-a²) η: variance one, ρ(t) = a^t, τ_int = ½ (1+a)/(1-a)."""
    noise = np.random.default_rng(seed).normal(size=shape) * math.sqrt(1 - a**2)
    noise[..., 0] /= math.sqrt(1 - a**2)  # starts in equilibrium
    return np.asarray(lfilter([1], [1, -a], noise, axis=-1))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / denominator


def binder(second: np.ndarray, fourth: np.ndarray) -> np.ndarray:
    return 1 - fourth / (3 * second**2)


def coverage(estimate: Callable[[int], Estimate], exact: float, n: int = 400) -> tuple[float, float]:
    """Fractions of seeds within one and within two standard errors: 0.683 and 0.954 for honest errors."""
    scores = np.abs([estimate(seed).z_score(exact) for seed in range(n)])
    return float((scores < 1).mean()), float((scores < 2).mean())


def is_honest(fractions: tuple[float, float], n: int = 400) -> bool:
    """Both fractions within four binomial standard errors of the normal distribution, less 0.02 for finite n."""
    return all(
        abs(fraction - normal) < 4 * math.sqrt(normal * (1 - normal) / n) + 0.02
        for fraction, normal in zip(fractions, (0.683, 0.954))
    )


# -------------------------------------------------------------------------------- Estimate


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.14774621, 0.0000123, "0.147746(12)"),
        (9.28949, 0.0027, "9.2895(27)"),
        (5.321, 1.24, "5.3(1.2)"),
        (-12345.6, 42.0, "-12346(42)"),
        (0.5, 0.0999, "0.50(10)"),
        (1.0, 0.996, "1.0(1.0)"),
        (2.5, 0.0, "2.5(0)"),
    ],
)
def test_estimates_print_their_error_in_parentheses(value: float, error: float, text: str) -> None:
    assert str(Estimate(value, error, 10)) == text


def test_z_score() -> None:
    estimate = Estimate(1.0, 0.3, 100)
    assert estimate.z_score(0.4) == pytest.approx(2)
    assert estimate.z_score(Estimate(0.0, 0.4, 50)) == pytest.approx(2)
    assert Estimate(1.0, 0.0, 2).z_score(1.0) == 0
    assert Estimate(1.0, 0.0, 2).z_score(2.0) == -math.inf


# -------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("sigma", [0.2, 0.7, 1.0])
def test_log_normal_weights(sigma: float) -> None:
    """ESS = exp(-σ²) both ways: weights of N(0, σ²) at q become N(σ², σ²) at p."""
    rng = np.random.default_rng(1)
    normal = sigma * rng.normal(size=100_000)
    reverse = effective_sample_size(normal + 700, rng)
    forward = forward_effective_sample_size(normal + sigma**2 - 700, rng)
    for result in (reverse, forward):
        spread = (result.high - result.low) / 4
        assert spread < 0.03
        assert abs(result.value - math.exp(-(sigma**2))) < 4 * spread
        assert 1 / result.n <= result.low < result.value < result.high <= 1
    assert reverse.max_weight == pytest.approx(np.exp(normal.max()) / np.exp(normal).sum())


def test_interval_of_the_effective_sample_size_covers() -> None:
    exact, inside = math.exp(-0.25), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        result = effective_sample_size(0.5 * rng.normal(size=2000), rng)
        inside += result.low < exact < result.high
    assert 0.88 < inside / 200 <= 0.99


def test_effective_sample_size_at_its_limits() -> None:
    equal = effective_sample_size(np.full(100, 3.0))
    assert (equal.value, equal.low, equal.high, equal.max_weight, equal.pareto_k) == (1, 1, 1, 0.01, None)
    single = effective_sample_size(np.array([0.0] + [-math.inf] * 99))
    assert single.value == pytest.approx(0.01)
    assert single.max_weight == 1
    assert single.pareto_k == math.inf
    dwarfed = effective_sample_size(np.array([1e5] + [-1e5] * 99))
    assert dwarfed.value == pytest.approx(0.01)
    assert dwarfed.low <= dwarfed.value <= dwarfed.high <= 1


def test_effective_sample_size_ignores_a_constant_and_prints() -> None:
    logs = np.random.default_rng(2).normal(size=1000)
    results = [effective_sample_size(logs + shift, np.random.default_rng(0)) for shift in (0, 1e4)]
    assert results[0].value == pytest.approx(results[1].value, rel=1e-10)
    assert "n = 1000" in str(results[0])
    assert "tail index none" in str(EffectiveSampleSize(1, 1, 1, 100, 0.01, None))


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_pareto_k_finds_the_index_of_a_heavy_upper_tail(shape: float) -> None:
    """Weights u^-k have tail index k; their inverses are bounded and have k < 0."""
    logs = -shape * np.log(np.random.default_rng(3).uniform(size=100_000))
    result, mirrored = effective_sample_size(logs), effective_sample_size(-logs)
    assert result.pareto_k == pytest.approx(shape, abs=0.12)
    assert mirrored.pareto_k is not None
    assert mirrored.pareto_k < 0


def test_forward_sees_the_mode_that_reverse_misses() -> None:
    """The target has two equal modes; q covers one of them, and reaches the other with probability 1e-6."""
    rng = np.random.default_rng(4)
    reverse = effective_sample_size(np.log(0.5) + 0.01 * rng.normal(size=10_000), rng)
    in_missing_mode = rng.random(10_000) < 0.5
    forward = forward_effective_sample_size(np.where(in_missing_mode, np.log(0.5e6), np.log(0.5)), rng)
    assert reverse.value > 0.99
    assert forward.value < 1e-5


def test_log_mean_exp_covers_and_does_not_overflow() -> None:
    def estimate(seed: int) -> Estimate:
        return log_mean_exp(1000 + 0.6 * np.random.default_rng(seed).normal(size=4000))

    assert is_honest(coverage(estimate, exact=1000 + 0.18))


def test_reweighted_mean_covers_where_the_unweighted_error_does_not() -> None:
    """From N(0, 1) to N(½, 1): log w = x/2."""

    def estimate(seed: int, weighted: bool = True) -> Estimate:
        x = np.random.default_rng(seed).normal(size=2000)
        return reweighted_mean(x, x / 2 if weighted else 0 * x)

    assert is_honest(coverage(estimate, exact=0.5))
    assert not is_honest(coverage(lambda seed: estimate(seed, weighted=False), exact=0.5))


def test_weights_of_zero_are_absent_samples() -> None:
    rng = np.random.default_rng(5)
    x, logs = rng.normal(size=(2, 1000))
    absent = np.arange(1000) % 3 == 0
    thinned = reweighted_mean(x, np.where(absent, -math.inf, logs))
    kept = reweighted_mean(x[~absent], logs[~absent])
    assert thinned.value == pytest.approx(kept.value, rel=1e-12)
    assert thinned.error == pytest.approx(kept.error, rel=1e-3)


# -------------------------------------------------------------------------------- functions of means


def test_jackknife_of_the_identity_is_the_standard_error() -> None:
    x = np.random.default_rng(6).normal(size=500)
    result = jackknife(lambda mean: mean, x)
    assert result.value == pytest.approx(x.mean(), rel=1e-12)
    assert result.error == pytest.approx(x.std(ddof=1) / math.sqrt(500), rel=1e-10)


def test_jackknife_bootstrap_and_delta_method_agree_for_weighted_samples() -> None:
    rng = np.random.default_rng(7)
    x, logs = rng.normal(size=(2, 5000))
    by_delta = reweighted_mean(x, 0.5 * logs)
    by_jackknife = jackknife(lambda mean: mean, x, log_weights=0.5 * logs)
    by_bootstrap = bootstrap(lambda mean: mean, x, log_weights=0.5 * logs, generator=rng, n_resamples=1000)
    assert by_delta.value == pytest.approx(by_jackknife.value, rel=1e-10)
    assert by_delta.value == pytest.approx(by_bootstrap.value, rel=1e-10)
    assert by_delta.error == pytest.approx(by_jackknife.error, rel=0.01)
    assert by_delta.error == pytest.approx(by_bootstrap.error, rel=0.1)


def test_binder_cumulant_of_weighted_samples_covers() -> None:
    """The weight e^{x²/8} takes N(0, ½) to another normal distribution, with U₄ = 0."""

    def estimate(seed: int) -> Estimate:
        x = np.random.default_rng(seed).normal(size=4000) * math.sqrt(0.5)
        return jackknife(binder, x**2, x**4, log_weights=x**2 / 8)

    assert is_honest(coverage(estimate, exact=0.0))


def test_binder_cumulant_of_chains_covers_where_independent_samples_do_not() -> None:
    def measurements(seed: int) -> tuple[np.ndarray, np.ndarray]:
        x = autoregression(0.8, (4, 2500), seed)
        return x**2, x**4

    assert is_honest(coverage(lambda seed: chain_function(binder, *measurements(seed)), exact=0.0))
    blocked = coverage(lambda seed: jackknife(binder, *measurements(seed), block_length=50), exact=0.0)
    assert is_honest(blocked)
    assert not is_honest(coverage(lambda seed: jackknife(binder, *measurements(seed)), exact=0.0))


def test_chain_function_of_the_identity_is_the_chain_mean() -> None:
    chains = autoregression(0.7, (3, 2000), 8)
    by_function, by_mean = chain_function(lambda mean: mean, chains), chain_mean(chains)
    assert by_function.value == pytest.approx(by_mean.value, rel=1e-10)
    assert by_function.error == pytest.approx(by_mean.error, rel=1e-8)


def test_weighted_chains_reach_the_new_target() -> None:
    """From N(0, 1) to N(½, 1) with correlated samples."""

    def estimate(seed: int) -> Estimate:
        x = autoregression(0.6, (2, 3000), seed)
        return chain_function(lambda mean: mean, x, log_weights=x / 2)

    assert is_honest(coverage(estimate, exact=0.5))


def test_blocks_cover_the_whole_chain() -> None:
    chains = autoregression(0.5, (2, 103), 9)
    result = jackknife(ratio, chains**2, 1 + chains**2, block_length=10)
    assert result.value == pytest.approx((chains**2).mean() / (1 + chains**2).mean(), rel=1e-12)
    assert result.n == 206


# -------------------------------------------------------------------------------- chains


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.97, -0.5, -0.9])
def test_autocorrelation_time_of_an_autoregression(a: float) -> None:
    result = integrated_autocorrelation_time(autoregression(a, (8, 20_000), 10))
    exact = 0.5 * (1 + a) / (1 - a)
    assert result.value == pytest.approx(exact, rel=0.15 if a >= 0 else 0.4)
    if a >= 0:
        assert abs(result.z_score(exact)) < 4
        assert result.error < 0.12 * exact


@pytest.mark.parametrize("a", [0.0, 0.9])
def test_error_of_the_autocorrelation_time_is_the_right_size(a: float) -> None:
    results = [integrated_autocorrelation_time(autoregression(a, (1, 5000), seed)) for seed in range(200)]
    spread, quoted = np.std([r.value for r in results]), np.mean([r.error for r in results])
    assert quoted == pytest.approx(spread, rel=0.35)
    assert np.mean([r.value for r in results]) == pytest.approx(0.5 * (1 + a) / (1 - a), rel=0.05)


@pytest.mark.parametrize(("a", "shape"), [(0.0, (1, 2000)), (0.8, (1, 5000)), (0.9, (16, 400)), (-0.6, (2, 2000))])
def test_chain_mean_covers(a: float, shape: tuple[int, int]) -> None:
    assert is_honest(coverage(lambda seed: chain_mean(autoregression(a, shape, seed)), exact=0.0))


def test_naive_errors_of_a_chain_do_not_cover() -> None:
    """Negative control: errors of independent samples are three times too small at τ = 4.5."""
    naive = coverage(lambda seed: jackknife(lambda mean: mean, autoregression(0.8, (5000,), seed)), exact=0.0)
    assert naive[0] < 0.35
    assert not is_honest(naive)


def test_chains_that_disagree_have_the_error_of_their_number() -> None:
    """Frozen in different sectors: the error is that of n_chains measurements, and there is a warning."""
    sectors = np.random.default_rng(11).normal(size=(64, 1))
    with pytest.warns(UserWarning, match="too short"):
        result = chain_mean(sectors + 1e-3 * np.random.default_rng(12).normal(size=(64, 400)))
    assert result.error == pytest.approx(float(sectors.std()) / 8, rel=0.05)


# -------------------------------------------------------------------------------- other libraries


def test_against_pyerrors() -> None:
    pyerrors = pytest.importorskip("pyerrors")
    chain = autoregression(0.9, (1, 20_000), 13)
    observable = pyerrors.Obs([chain[0]], ["ensemble"])
    observable.gamma_method(S=1.5)
    mean, tau = chain_mean(chain), integrated_autocorrelation_time(chain)
    assert mean.value == pytest.approx(observable.value, abs=1e-12)
    assert mean.error == pytest.approx(observable.dvalue, rel=0.02)
    assert tau.value == pytest.approx(observable.e_tauint["ensemble"], rel=0.02)
    assert tau.error == pytest.approx(observable.e_dtauint["ensemble"], rel=0.1)


def test_against_pymbar() -> None:
    pytest.importorskip("pymbar")
    from pymbar import other_estimators, timeseries

    work = np.random.default_rng(14).normal(size=5000)
    one_sided = other_estimators.exp(work)
    ours = log_mean_exp(-work)
    assert ours.value == pytest.approx(-one_sided["Delta_f"], abs=1e-12)
    assert ours.error == pytest.approx(one_sided["dDelta_f"], rel=1e-3)
    chain = autoregression(0.8, (1, 50_000), 15)
    inefficiency = timeseries.statistical_inefficiency(chain[0])
    assert 2 * integrated_autocorrelation_time(chain).value == pytest.approx(inefficiency, rel=0.1)


# -------------------------------------------------------------------------------- input


def test_torch_and_numpy_give_the_same_plain_floats() -> None:
    logs = torch.randn(1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    results = [effective_sample_size(x, torch.Generator().manual_seed(2)) for x in (logs, logs.detach().numpy())]
    assert results[0] == results[1]
    assert type(results[0].value) is type(log_mean_exp(logs).error) is float
    single = chain_mean(logs.float().reshape(2, 500))
    assert single.error == pytest.approx(chain_mean(logs.reshape(2, 500)).error, rel=1e-5)
    assert jackknife(lambda mean: mean, [0, 1, 1, 0]).value == 0.5


def test_generators_decide_the_resamples() -> None:
    x = np.random.default_rng(16).normal(size=100)
    first, same, other = (
        bootstrap(lambda mean: mean, x, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first == same != other


CHAINS = np.random.default_rng(0).normal(size=(2, 50))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effective_sample_size([1.0]), r"shape \(n,\) with n >= 2"),
        (lambda: effective_sample_size(CHAINS), "shape"),
        (lambda: effective_sample_size([0.0, math.inf]), "finite log_weights"),
        (lambda: effective_sample_size([0.0, math.nan]), "finite log_weights"),
        (lambda: effective_sample_size([-math.inf] * 3), "-inf for all"),
        (lambda: effective_sample_size([0.0, 1.0], confidence=1.0), "confidence"),
        (lambda: forward_effective_sample_size([0.0, -math.inf]), "finite log_weights"),
        (lambda: log_mean_exp([]), "n >= 2"),
        (lambda: log_mean_exp([-math.inf, -math.inf]), "-inf for all"),
        (lambda: reweighted_mean([1.0, 2.0, 3.0], [0.0, 0.0]), "one shape"),
        (lambda: reweighted_mean([1.0, math.nan], [0.0, 0.0]), "finite observable"),
        (lambda: reweighted_mean([1.0, 2.0], [0.0, -math.inf]), "several positive weights"),
        (lambda: jackknife(ratio), "expected an observable|at least one observable"),
        (lambda: jackknife(ratio, CHAINS, 0 * CHAINS), "finite values"),
        (lambda: jackknife(ratio, CHAINS, CHAINS, block_length=51), "block_length"),
        (lambda: jackknife(lambda mean: 1.0, CHAINS), "elementwise"),
        (
            lambda: jackknife(lambda mean: mean, CHAINS[0], log_weights=[0.0] + 49 * [-math.inf]),
            "carries all",
        ),
        (
            lambda: bootstrap(np.sqrt, CHAINS[0] ** 2, generator=np.random.default_rng(1), n_resamples=1),
            "n_resamples",
        ),
        (lambda: chain_mean(CHAINS[0]), r"\(n_chains, n_steps\)"),
        (lambda: chain_mean(CHAINS[:, :1]), "n >= 2"),
        (lambda: chain_mean(np.ones((2, 50))), "chains that move"),
        (lambda: integrated_autocorrelation_time(np.ones((2, 50))), "chains that move"),
        (lambda: chain_function(np.sqrt, np.ones((2, 50))), "chains that move"),
    ],
)
def test_mistakes_are_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_explained() -> None:
    with pytest.raises(TypeError, match="real log_weights"):
        effective_sample_size(np.ones(3, dtype=complex))
    with pytest.raises(TypeError, match="generator"):
        effective_sample_size(CHAINS[0], 17)  # type: ignore[arg-type]
