"""CSV files as columns of numbers or strings, refused where a cell is missing."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy

from thalweg.core import check
from thalweg.data import datasets

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


def read_csv(path: Path) -> tuple[list[str], list[numpy.ndarray]]:
    """Names and columns of a CSV file: float64 where every cell is a number, else strings."""
    if not path.is_file():
        near = check.did_you_mean(path, datasets.names())
        raise FileNotFoundError(
            f"source must be a data set ({', '.join(datasets.names())}), 'sklearn:NAME' "
            f"or a CSV file, got {str(path)!r}{near}, which does not exist"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            first = lines.readline()
            delimiter = max(",;\t", key=first.count)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"source must be a CSV file in UTF-8, got {str(path)!r}, which is not: {error}"
        ) from error
    if not rows:
        raise ValueError(f"source must have at least one row, got the empty file {str(path)!r}")
    header = rows[0][1]
    if all(_is_number(cell) for cell in header):
        header = [f"column {number}" for number in range(len(header))]
    else:
        rows = rows[1:]
    repeated = sorted({title for title in header if header.count(title) > 1})
    if repeated:
        raise ValueError(f"column names must differ, got {', '.join(map(repr, repeated))} twice")
    if not rows:
        raise ValueError(f"source must have rows below its header, got none in {str(path)!r}")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"line {line} of {path.name} must have {len(header)} cells, got {len(row)}"
            )
    return header, [
        _column(title, [(line, row[number]) for line, row in rows])
        for number, title in enumerate(header)
    ]


def _column(title: str, cells: Sequence[tuple[int, str]]) -> numpy.ndarray:
    missing = [line for line, cell in cells if cell.lower() in _MISSING]
    if missing:
        raise ValueError(
            f"column {title!r} must have no missing values, got {len(missing)} "
            f"(the first in line {missing[0]}); fill in or drop such rows before the race"
        )
    if all(_is_number(cell) for _, cell in cells):
        return numpy.array([float(cell) for _, cell in cells])
    return numpy.array([cell for _, cell in cells], dtype=str)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
