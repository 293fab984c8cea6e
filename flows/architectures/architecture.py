"""Architecture: a small recipe that turns an action into a ready flow. A recipe is data, so runs can be rebuilt."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from flows.distribution import Transformed
from lattices.action import Action


class Architecture(ABC):
    """A frozen dataclass of plain numbers whose `build` returns an untrained flow for an action.

    The recipe is written to the configuration of a run and appears on the command line by its fields.
    """

    @abstractmethod
    def build(self, action: Action, dtype: torch.dtype = torch.float64) -> Transformed:
        """A flow on the field space of `action`, close to its best Gaussian approximation."""
