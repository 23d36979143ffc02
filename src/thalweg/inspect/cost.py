"""What an inspection spends: products with the Hessian, passes over the data, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from thalweg.curvature.operators import products_watched

Tell = Callable[[dict[str, Any]], object]
"""Is told how an inspection gets on; see `thalweg.inspect`'s `on_event`."""


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
    tell: Tell | None = None
    budget: int | None = None

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
        spent, start, made = Spent(name), time.perf_counter(), 0
        self.rows.append(spent)

        def count(vectors: int) -> None:
            nonlocal made
            made += vectors
            self._event("products", name, made, spent.passes, time.perf_counter() - start)

        self._event("begun", name, 0, 0, 0.0)
        try:
            with products_watched(count):
                yield spent
        finally:
            spent.seconds += time.perf_counter() - start
        self._event("ended", name, spent.products, spent.passes, spent.seconds)

    def measured(self, name: str, measure: Any) -> Any:
        """``measure(spent)``; None if it cannot be measured here, the reason kept.

        A loss that is infinite a step away ends one measurement, not the inspection.
        """
        try:
            with self.on(name) as spent:
                return measure(spent)
        except ValueError as error:
            self.skipped[name] = str(error)
            row = self.rows[-1]
            self._event("skipped", name, row.products, row.passes, row.seconds)
            return None

    def _event(self, kind: str, name: str, products: int, passes: int, seconds: float) -> None:
        if self.tell is not None:
            earlier = sum(row.products for row in self.rows[:-1])
            self.tell(
                {
                    "kind": kind,
                    "measurement": name,
                    "products": products,
                    "passes": passes,
                    "seconds": seconds,
                    "spent": earlier + products,
                    "budget": self.budget,
                }
            )
