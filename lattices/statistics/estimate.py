"""A number with its error."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and the number of samples behind it; prints as 0.147746(12)."""

    value: float
    error: float
    n: int

    def z_score(self, reference: float | Estimate) -> float:
        """(value - reference) / error; the errors of two independent estimates add in quadrature."""
        other = reference if isinstance(reference, Estimate) else Estimate(float(reference), 0.0, 0)
        difference, error = self.value - other.value, math.hypot(self.error, other.error)
        if error == 0:
            return 0.0 if difference == 0 else math.copysign(math.inf, difference)
        return difference / error

    def __str__(self) -> str:
        if self.error == 0 or not math.isfinite(self.error):
            return f"{self.value:.6g}({self.error:g})"
        error = float(f"{self.error:.1e}")  # two digits
        decimals = max(0, 1 - math.floor(math.log10(error)))
        digits = f"{error:.{decimals}f}" if error >= 1 else f"{error * 10**decimals:.0f}"
        return f"{self.value:.{decimals}f}({digits})"
