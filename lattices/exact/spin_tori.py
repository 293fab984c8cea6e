"""Transfer matrices of spins on narrow tori: the XY and clock models at any width, the Heisenberg model at width two.

A row of spins is expanded in harmonics, in which the bonds to the next row are diagonal (`lattices.exact.spins`), and
the global symmetry leaves blocks, of total charge or of total M. States whose bonds to the next row have the weight
Π_i |λ_i/λ_0| < `smallest` are left out; what is left out is of second order, and `truncation` says how much it is.
All measures are those of `FieldSpace`: dθ, the area of S², or a count of states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from itertools import accumulate, repeat
from typing import NamedTuple

import numpy as np
from scipy import sparse

from lattices.exact.geometry import checked_count, checked_extents, checked_number
from lattices.exact.spins import SpinLink, SpinSolution, clock_link, on_link

_MOST_STATES = 2500
"""Of one block: a few seconds for each power of its matrix."""


@dataclass(frozen=True)
class _Block:
    """A transfer matrix T of one sector, with ∂T/∂β, on a torus of L rows."""

    length: int
    transfer: np.ndarray
    slope: np.ndarray

    @cached_property
    def powers(self) -> list[np.ndarray]:
        """1, T, …, T^L."""
        return list(accumulate(repeat(self.transfer, self.length), np.matmul, initial=np.eye(len(self.transfer))))

    def traces(self, spins: _RowSpin, target: _Block | None) -> np.ndarray:
        """Tr T^L, ∂_β Tr T^L, and L Σ_t Tr O† T^t O T^{L-t} = ⟨|Σ_x s_x|²⟩ Z with the spin of a row, O, to `target`."""
        slope = self.length * _trace(self.powers[-2], self.slope)
        equal = _trace(spins.square.toarray(), self.powers[-1])
        later = zip(target.powers[1:-1], self.powers[-2:0:-1]) if target else ()
        unequal = sum(_trace(spins.spin.T @ (after @ spins.spin), before) for after, before in later)
        return np.array([np.trace(self.powers[-1]), slope, self.length * (equal + unequal)])


class _RowSpin(NamedTuple):
    """The spin of a row between the states that are kept, O, and O†O, also by way of states that are not."""

    spin: sparse.csr_matrix
    square: sparse.csr_matrix


def _trace(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b.T).sum())


def clock_torus(extents: Sequence[int], q: int, beta: float, smallest: float = 1e-7) -> SpinSolution:
    """The q-state clock model on a ring (L,) or a narrow torus (W, L): any W × L whose rows have few states.

        Z = Σ_Q Tr T_Q^L,    T = V K,    K = Π_i λ_{n_i},    V_{n'n} = Σ_m Π_i λ_{m_i} / q

    in the charges n of a row, m the fluxes along the row with n'_i = n_i + m_i - m_{i-1} modulo q. Seconds for W = 4.

    Args:
        extents: one or two lattice lengths, the smaller one is W. Length 2 counts both bonds.
        q: the number of states, at least 2.
        beta: β of either sign.
        smallest: weight of the states that are left out; 0 for none.
    """
    shape = checked_extents(extents, max_dimension=2)
    link = clock_link(q, checked_number("beta", beta))
    return _with_truncation(partial(_clock_torus, shape, link), smallest)


def xy_torus(extents: Sequence[int], beta: float, smallest: float = 1e-7) -> SpinSolution:
    """The XY model on a ring (L,) or a narrow torus (W, L), as the clock model with all the states that count.

    The trapezoid rule converges faster than exponentially: Z(XY) = (2π/q)^V Z(q) up to I_q(2dβ)/I_0(2dβ).

    Args:
        extents: one or two lattice lengths, the smaller one is W. Length 2 counts both bonds.
        beta: β of either sign.
        smallest: weight of the states that are left out.
    """
    charges = int((np.abs(on_link(2, beta).ratios) > 1e-20).sum())
    q = 2 * charges + 2
    clock = clock_torus(extents, q, beta, smallest)
    return replace(clock, log_z=clock.log_z + math.prod(extents) * math.log(2 * math.pi / q))


def heisenberg_strip(length: int, beta: float, smallest: float = 1e-12) -> SpinSolution:
    """The O(3) model on the 2 × L torus.

        Z = Σ_M Tr T_M^L,    T = e^{2β s_1·s_2} λ_{l_1} λ_{l_2}

    in the harmonics |l_1 m_1⟩|l_2 m_2⟩ of the two spins of a row with m_1 + m_2 = M. Seconds for β ≤ 2.

    Args:
        length: L ≥ 1.
        beta: β of either sign.
        smallest: weight of the states that are left out, > 0.
    """
    length, link = checked_count("length", length, 1), on_link(3, checked_number("beta", beta))
    if not smallest > 0:
        raise ValueError(f"expected smallest > 0, got {smallest}: a sphere has infinitely many states")
    return _with_truncation(partial(_heisenberg_strip, length, link), smallest)


def _with_truncation(solve: Callable[[float], SpinSolution], smallest: float) -> SpinSolution:
    """The solution, with the largest relative change of its numbers when ten times more is left out."""
    best = solve(checked_number("smallest", smallest, 0.0))
    coarse = solve(10 * smallest) if smallest else best
    pairs = [(getattr(best, name), getattr(coarse, name)) for name in ("log_z", "energy", "magnetisation_squared")]
    return replace(best, truncation=max(abs(a - b) / max(abs(a), 1e-3) for a, b in pairs))


def _solution(traces: Iterable[np.ndarray], volume: int, log_scale: float) -> SpinSolution:
    z, slope, square = (float(part) for part in sum(traces, np.zeros(3)))
    return SpinSolution(math.log(z) + log_scale, -slope / z / volume, square / z / volume**2)


# ---------------------------------------------------------------------------------------------- charges


def _clock_torus(shape: tuple[int, ...], link: SpinLink, smallest: float) -> SpinSolution:
    width, length = (1, *shape) if len(shape) == 1 else (min(shape), max(shape))
    rows, volume, q = len(shape) == 2, width * length, len(link.ratios)
    states = _charges(link.ratios, width, smallest)
    totals = states.sum(1) % q
    sectors = {int(total): states[totals == total] for total in np.unique(totals)}
    blocks = {total: _charge_block(link, sector, rows, length) for total, sector in sectors.items()}
    none = states[:0]
    traces = (
        block.traces(_row_spin(sectors[total], sectors.get(up, none), q), blocks.get(up))
        for total, block in blocks.items()
        for up in [(total + 1) % q]
    )
    return _solution(traces, volume, volume * (link.log_trivial + rows * (link.log_trivial - link.log_measure)))


def _charges(ratios: np.ndarray, width: int, smallest: float) -> np.ndarray:  # -> (n_states, width)
    """All rows of charges 0 … q - 1 with Π_i |λ_{n_i}/λ_0| > smallest, or all of them."""
    q = len(ratios)
    states, weights = np.zeros((1, 0), int), np.ones(1)
    for _ in range(width):
        grown = np.outer(weights, np.abs(ratios))
        kept = np.argwhere((grown > smallest) | (smallest == 0))
        states, weights = np.column_stack([states[kept[:, 0]], kept[:, 1]]), grown[tuple(kept.T)]
        if len(states) > _MOST_STATES * q:
            raise ValueError(f"expected few states of a row, got more than {len(states)}: weaken beta, or the width")
    return states


def _charge_block(link: SpinLink, states: np.ndarray, rows: bool, length: int) -> _Block:
    """T = V K and its slope, of one sector."""
    if len(states) > _MOST_STATES:
        raise ValueError(f"expected at most {_MOST_STATES} states of one charge, got {len(states)}: raise `smallest`")
    weights = link.ratios[states]
    others = [np.prod(np.delete(weights, i, 1), 1) * link.slopes[states[:, i]] for i in range(states.shape[1])]
    bonds, bond_slopes = _ring_bonds(link, states) if rows else (np.eye(len(states)), np.zeros(1))
    diagonal = weights.prod(1)
    return _Block(length, bonds * diagonal, bond_slopes * diagonal + bonds * np.sum(others, 0))


def _ring_bonds(link: SpinLink, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V and ∂V/∂β; all links of the ring count like its last one, whose flux is the circulation c."""
    q, width = len(link.ratios), states.shape[1]
    sums = np.cumsum(states, 1)[:, :-1]
    fluxes = [np.subtract.outer(column, column) % q for column in sums.T]
    values, slopes = np.zeros((2, len(states), len(states)))
    for c in np.flatnonzero(np.abs(link.ratios) + np.abs(link.slopes) > 1e-17):
        others = reduce(np.multiply, [np.roll(link.ratios, -c)[flux] for flux in fluxes], np.ones_like(values))
        values += link.ratios[c] * others
        slopes += width * link.slopes[c] * others
    return values, slopes


def _row_spin(states: np.ndarray, raised: np.ndarray, q: int) -> _RowSpin:
    """Σ_i e^{iθ_i}, which raises the charge of one site by one."""
    steps = np.eye(states.shape[1], dtype=int)
    everything = np.unique(np.concatenate([(states + step) % q for step in steps]), axis=0)
    through = _raising(states, everything, q)
    return _RowSpin(_raising(states, raised, q), through.T @ through)


def _raising(states: np.ndarray, raised: np.ndarray, q: int) -> sparse.csr_matrix:  # -> (n_raised, n_states)
    place = {tuple(state): row for row, state in enumerate(raised.tolist())}
    steps = np.eye(states.shape[1], dtype=int)
    moved = ((place.get(tuple(n)), column) for step in steps for column, n in enumerate(((states + step) % q).tolist()))
    pairs = [(row, column) for row, column in moved if row is not None]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(raised), len(states)))


# ---------------------------------------------------------------------------------------------- angular momenta


def _heisenberg_strip(length: int, link: SpinLink, smallest: float) -> SpinSolution:
    l_max = int((np.abs(link.ratios) > smallest).sum()) + 1
    l, m = np.array([(l, m) for l in range(l_max) for m in range(-l, l + 1)]).T
    height, raising = _unit_vector(l, m)
    flips, one = sparse.kron(raising, raising.T), sparse.identity(len(l))
    cosine = (sparse.kron(height, height) + (flips + flips.T) / 2).tocsr()
    heights = math.sqrt(3) * (sparse.kron(height, one) + sparse.kron(one, height)).tocsr()  # |M|² is three times that
    values, slopes = (np.multiply.outer(part[l], link.ratios[l]) for part in (link.ratios, link.slopes))
    totals, diagonal = np.add.outer(m, m).ravel(), np.stack([values, slopes + slopes.T]).reshape(2, -1)
    traces = []
    for total in range(2 * l_max - 3):
        kept = np.flatnonzero((totals == total) & (np.abs(diagonal[0]) > smallest))
        block = _spin_block(link.beta, cosine[kept][:, kept].toarray(), diagonal[:, kept], length)
        spins = _RowSpin(heights[kept][:, kept], heights[kept] @ heights[:, kept])
        traces.append((2 if total else 1) * block.traces(spins, block))
    return _solution(traces, 2 * length, 2 * length * link.log_trivial)


def _spin_block(beta: float, cosine: np.ndarray, diagonal: np.ndarray, length: int) -> _Block:
    """T = e^{2β s·s'} K and its slope, of one total M."""
    if len(cosine) > _MOST_STATES:
        raise ValueError(f"expected at most {_MOST_STATES} states of one M, got {len(cosine)}: raise `smallest`")
    x, u = np.linalg.eigh(cosine)
    bonds, bond_slopes = ((u * weight) @ u.T for weight in (np.exp(2 * beta * x), 2 * x * np.exp(2 * beta * x)))
    return _Block(length, bonds * diagonal[0], bond_slopes * diagonal[0] + bonds * diagonal[1])


def _unit_vector(l: np.ndarray, m: np.ndarray) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """z and x + iy as matrices on the harmonics |l m⟩."""
    height = np.sqrt(((l + 1) ** 2 - m**2) / ((2 * l + 1) * (2 * l + 3)))  # ⟨l+1, m|z|l, m⟩
    outward = -np.sqrt((l + m + 1) * (l + m + 2) / ((2 * l + 1) * (2 * l + 3)))  # ⟨l+1, m+1|x + iy|l, m⟩
    inward = np.sqrt((l - m + 1) * (l - m + 2) / ((2 * l + 1) * (2 * l + 3)))  # ⟨l+1, m-1|x - iy|l, m⟩
    up, right, left = (
        _raising_degree(l, m, step, values) for step, values in ((0, height), (1, outward), (-1, inward))
    )
    return up + up.T, right + left.T


def _raising_degree(l: np.ndarray, m: np.ndarray, step: int, values: np.ndarray) -> sparse.csr_matrix:
    """The matrix with ⟨l+1, m+step| |l, m⟩ = values."""
    rows, columns = np.nonzero(np.equal.outer(l, l + 1) & np.equal.outer(m, m + step))
    return sparse.csr_matrix((values[columns], (rows, columns)), (len(l), len(l)))
