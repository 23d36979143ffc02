"""Problems from files, and answers into files: CSV, NPY, NPZ and PNG; nothing is unpickled."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from thalweg.core import check


class FileError(ValueError):
    """What is wrong with a file, in one sentence: file, line and column where there are any."""


@dataclass(frozen=True, eq=False)
class Triples:
    """Entries of a matrix whose rows and columns have names of any kind.

    Parameters
    ----------
    users, items
        Names of the rows and columns, in the order in which the file brings them.
    rows, cols
        Positions of the entries, shape ``(m,)``.
    values
        The entries, float64.
    header
        What the three columns are called.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    rows: Tensor
    cols: Tensor
    values: Tensor
    header: tuple[str, str, str]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of names of either kind."""
        return len(self.users), len(self.items)


def read_triples(path: str | Path, columns: Sequence[str] | None = None) -> Triples:
    """Read a CSV file with one entry of the matrix a line: user, item, value.

    Parameters
    ----------
    path
        The file, UTF-8, separated by commas, semicolons or tabs, with a header.
    columns
        The three columns by name. Default: ``user, item, value`` if the header has them, else its
        first three.

    Raises
    ------
    FileError
        For a cell that is no finite number, a pair that comes twice, a line of another length, or a
        column that is not there: file, line and column are named.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "ratings.csv")
    >>> _ = path.write_text("user,item,value\\nann,tea,5\\nbob,tea,3\\nann,rum,1\\n")
    >>> triples = read_triples(path)
    >>> triples.users, triples.items, triples.values.tolist()
    (('ann', 'bob'), ('tea', 'rum'), [5.0, 3.0, 1.0])
    """
    path = Path(path)
    lines = _table(path)
    _, header = next(lines, (0, []))
    names = _columns(path, header, columns, ("user", "item", "value"))
    at = [header.index(name) for name in names]
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    first: dict[tuple[int, int], int] = {}
    values: list[float] = []
    for number, row in lines:
        user, item, value = (row[i] for i in at)
        for name, cell in zip(names[:2], (user, item), strict=True):
            if not cell:
                raise FileError(f"{path}, line {number}, column {name!r}: must not be empty")
        values.append(_number(path, number, names[2], value))
        pair = users.setdefault(user, len(users)), items.setdefault(item, len(items))
        if pair in first:
            raise FileError(
                f"{path}, line {number}: {names[0]} {user!r} and {names[1]} {item!r} come twice, "
                f"first in line {first[pair]}"
            )
        first[pair] = number
    if not values:
        raise FileError(f"{path} must have lines below its header, got none")
    rows, cols = torch.tensor(list(first)).unbind(1)
    triple = (names[0], names[1], names[2])
    data = torch.tensor(values, dtype=torch.float64)
    return Triples(tuple(users), tuple(items), rows, cols, data, triple)


def read_pairs(path: str | Path, triples: Triples) -> tuple[Tensor, Tensor]:
    """Positions of the pairs to predict, from a CSV file with the two columns of `triples`.

    Parameters
    ----------
    path
        The file; other columns are passed over.
    triples
        What the answer was found from.

    Raises
    ------
    FileError
        For a name that no entry was seen of.
    """
    path = Path(path)
    lines = _table(path)
    _, header = next(lines, (0, []))
    names = _columns(path, header, None, triples.header[:2])
    at = [header.index(name) for name in names]
    known = [{name: i for i, name in enumerate(ids)} for ids in (triples.users, triples.items)]
    found: list[list[int]] = []
    for number, row in lines:
        pair = []
        for name, index, cell in zip(names, known, (row[i] for i in at), strict=True):
            if cell not in index:
                raise FileError(
                    f"{path}, line {number}, column {name!r}: nothing was seen of {cell!r}"
                    f"{check.did_you_mean(cell, list(index)[:5000])}"
                )
            pair.append(index[cell])
        found.append(pair)
    if not found:
        raise FileError(f"{path} must have lines below its header, got none")
    rows, cols = torch.tensor(found).unbind(1)
    return rows, cols


def write_predictions(
    path: str | Path, triples: Triples, rows: Tensor, cols: Tensor, predicted: Tensor
) -> None:
    """Write ``user, item, value`` lines under the names of `triples`.

    Parameters
    ----------
    path
        The CSV file.
    triples, rows, cols
        Names, and positions among them.
    predicted
        The values, shape of `rows`.
    """
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(triples.header)
        for i, j, value in zip(rows.tolist(), cols.tolist(), predicted.tolist(), strict=True):
            writer.writerow([triples.users[i], triples.items[j], f"{value:.6g}"])


def read_array(path: str | Path, key: str | None = None) -> Tensor:
    """Read one array: ``.npy``, ``.npz`` (of one array, or `key`), ``.csv`` or a grey ``.png``.

    A coloured PNG becomes grey, its values in [0, 1]. Integers become float64.

    Raises
    ------
    FileError
        If it cannot be read as numbers; a CSV cell is named by line and column.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "matrix.csv")
    >>> _ = path.write_text("1,2\\n3,4\\n")
    >>> read_array(path)
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    """
    path = Path(path)
    match path.suffix.lower():
        case ".npy":
            return _tensor(path, _numpy(path))
        case ".npz":
            arrays = read_arrays(path)
            if key is None and len(arrays) == 1:
                return next(iter(arrays.values()))
            if key not in arrays:
                raise FileError(
                    f"{path} holds {', '.join(arrays)}: name one with --key, got {key!r}"
                )
            return arrays[key]
        case ".csv" | ".tsv" | ".txt":
            return _matrix(path)
        case ".png":
            return _tensor(path, _grey(path))
    raise FileError(f"{path} must end in .npy, .npz, .csv or .png")


def read_arrays(path: str | Path) -> dict[str, Tensor]:
    """All arrays of an ``.npz`` file, by name."""
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise FileError(f"{path} must end in .npz")
    return {name: _tensor(path, array, name) for name, array in _numpy(path).items()}


def write_array(path: str | Path, arrays: Mapping[str, Tensor]) -> None:
    """Write arrays: all into an ``.npz``; the first as ``.npy``, ``.csv`` or a grey ``.png``.

    Raises
    ------
    FileError
        For another ending, or an array that the format cannot hold.
    """
    path = Path(path)
    first = next(iter(arrays.values())).detach().cpu().resolve_conj().numpy()
    match path.suffix.lower():
        case ".npz":
            plain = {k: v.detach().cpu().resolve_conj().numpy() for k, v in arrays.items()}
            numpy.savez(path, **plain)  # type: ignore[arg-type]
        case ".npy":
            numpy.save(path, first)
        case ".csv" if first.ndim <= 2 and not numpy.iscomplexobj(first):
            numpy.savetxt(path, first, delimiter=",", fmt="%.8g")
        case ".png" if first.ndim == 2:
            import matplotlib.image

            shown = numpy.abs(first) if numpy.iscomplexobj(first) else first
            matplotlib.image.imsave(path, shown, cmap="gray")
        case _:
            raise FileError(
                f"--out must end in .npz or .npy (or .csv and .png, for a real matrix), got {path}"
            )


# --------------------------------------------------------------------------------------- parts


def _open(path: Path) -> Path:
    if not path.is_file():
        raise FileError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    return path


def _table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; every line as long as the first."""
    try:
        with _open(path).open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = max(",;\t", key=first.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            length = None
            for row in reader:
                if not row:
                    continue
                length = len(row) if length is None else length
                if len(row) != length:
                    raise FileError(
                        f"{path}, line {reader.line_num}: must have {length} cells as the first "
                        f"line has, got {len(row)}"
                    )
                yield reader.line_num, [cell.strip() for cell in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path} must be a CSV file in UTF-8, and is not: {error}") from error


def _columns(
    path: Path, header: Sequence[str], asked: Sequence[str] | None, usual: Sequence[str]
) -> list[str]:
    if not header:
        raise FileError(f"{path} must have a header, got an empty file")
    if all(_is_number(cell) for cell in header):
        raise FileError(
            f"{path}, line 1: must be a header such as {','.join(usual)}, got numbers: "
            f"{','.join(header)}"
        )
    if asked is None:
        asked = usual if all(name in header for name in usual) else list(header[: len(usual)])
    for name in asked:
        if name not in header:
            raise FileError(
                f"{path} has no column {name!r}{check.did_you_mean(name, header)}; it has "
                f"{', '.join(header)}"
            )
    if len(asked) != len(usual) or len(set(asked)) != len(usual):
        raise FileError(
            f"{path} must have {len(usual)} different columns ({', '.join(usual)}), "
            f"got {', '.join(asked)}"
        )
    return list(asked)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, column: str, cell: str) -> float:
    value = float(cell) if _is_number(cell) else math.nan
    if not math.isfinite(value):
        raise FileError(
            f"{path}, line {line}, column {column!r}: must be a finite number, got {cell!r}"
        )
    return value


def _matrix(path: Path) -> Tensor:
    rows: list[list[float]] = []
    for number, row in _table(path):
        if not rows and number == 1 and not any(_is_number(cell) for cell in row):
            continue  # a header
        rows.append([_number(path, number, str(i + 1), cell) for i, cell in enumerate(row)])
    if not rows:
        raise FileError(f"{path} must hold numbers, got none")
    return torch.tensor(rows, dtype=torch.float64)


def _numpy(path: Path) -> Any:
    try:
        found = numpy.load(_open(path), allow_pickle=False)
        if not isinstance(found, numpy.lib.npyio.NpzFile):
            return found
        with found:
            return dict(found)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise FileError(f"{path} cannot be read as an array of numbers: {error}") from error
    except Exception as error:  # zipfile's own
        raise FileError(f"{path} is damaged: {error}") from error


def _grey(path: Path) -> Any:
    import matplotlib.image

    try:
        picture = matplotlib.image.imread(_open(path))
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"{path} cannot be read as a PNG picture: {error}") from error
    if picture.ndim == 3:  # ITU-R 601, transparency passed over
        weights = numpy.array([0.299, 0.587, 0.114], dtype=picture.dtype)
        picture = picture[..., :3] @ weights if picture.shape[-1] >= 3 else picture[..., 0]
    return picture


def _tensor(path: Path, array: Any, name: str | None = None) -> Tensor:
    where = f"{path}, array {name!r}" if name else str(path)
    if array.dtype.kind in "biu":
        array = array.astype(numpy.float64)
    if array.dtype.kind not in "fc":
        raise FileError(f"{where} must hold numbers, got the type {array.dtype}")
    bad = numpy.argwhere(~numpy.isfinite(array))
    if len(bad):
        at = ", ".join(str(int(i)) for i in bad[0])
        raise FileError(f"{where} must be finite, got {array[tuple(bad[0])]} at [{at}]")
    return torch.from_numpy(numpy.ascontiguousarray(array))
