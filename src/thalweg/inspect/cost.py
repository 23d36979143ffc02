"""What an inspection spends: products with the Hessian, passes over the data, seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spent:
    """The price of one measurement.

    Attributes
    ----------
    name
        Of the measurement.
    products
        Hessian-vector products; each costs about two gradients.
    passes
        Passes over the data for values and gradients.
    seconds
        Of wall-clock time.
    """

    name: str
    products: int = 0
    passes: int = 0
    seconds: float = 0.0


@dataclass
class Ledger:
    """Everything that was spent, and what could not be measured.

    Examples
    --------
    >>> ledger = Ledger()
    >>> with ledger.on("trace") as spent:
    ...     spent.products += 30
    >>> ledger.products, [row.name for row in ledger.rows]
    (30, ['trace'])
    """

    rows: list[Spent] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def products(self) -> int:
        """Hessian-vector products in all."""
        return sum(row.products for row in self.rows)

    @property
    def passes(self) -> int:
        """Passes over the data for values and gradients in all."""
        return sum(row.passes for row in self.rows)

    @property
    def seconds(self) -> float:
        """Seconds in all."""
        return sum(row.seconds for row in self.rows)

    @contextmanager
    def on(self, name: str) -> Iterator[Spent]:
        """Time what is measured in the block; the caller adds products and passes."""
        spent, start = Spent(name), time.perf_counter()
        self.rows.append(spent)
        try:
            yield spent
        finally:
            spent.seconds += time.perf_counter() - start

    def measured(self, name: str, measure: Any) -> Any:
        """``measure(spent)``; None if it cannot be measured here, the reason kept.

        A loss that is infinite a step away ends one measurement, not the inspection.
        """
        try:
            with self.on(name) as spent:
                return measure(spent)
        except ValueError as error:
            self.skipped[name] = str(error)
            return None
