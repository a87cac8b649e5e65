"""Ranges of values: one that holds nothing is a contradiction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """Values between two ends of one type; None for an end that is open to all."""

    low: Any = None
    high: Any = None
    excludes_low: bool = False
    excludes_high: bool = False

    def above(self, low: Any, *, excluded: bool = False) -> Range:
        """Return what of it lies above a value."""
        if self.low is not None and (self.low, self.excludes_low) >= (low, excluded):
            return self
        return replace(self, low=low, excludes_low=excluded)

    def below(self, high: Any, *, excluded: bool = False) -> Range:
        """Return what of it lies below a value."""
        if self.high is not None and (self.high, not self.excludes_high) <= (high, not excluded):
            return self
        return replace(self, high=high, excludes_high=excluded)

    def holds(self, value: Any) -> bool:
        """Say whether a value lies in it."""
        if self.low is not None and (value < self.low or (self.excludes_low and value == self.low)):
            return False
        high = self.high
        return high is None or value < high or (value == high and not self.excludes_high)

    def is_empty(self, step: float | None = None) -> bool:
        """Say whether nothing lies in it; with ``step``, no multiple of that."""
        if self.low is None or self.high is None:
            return False
        if step is None:
            is_point = self.low == self.high
            return self.low > self.high or (is_point and (self.excludes_low or self.excludes_high))
        size = Fraction(str(step))
        first = Fraction(str(self.low)) / size
        last = Fraction(str(self.high)) / size
        least = math.floor(first) + 1 if self.excludes_low else math.ceil(first)
        most = math.ceil(last) - 1 if self.excludes_high else math.floor(last)
        return least > most
