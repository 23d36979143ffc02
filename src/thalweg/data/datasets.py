"""`load`: real data read from the files of installed packages, with the content checked."""

from __future__ import annotations

from collections.abc import Callable

from thalweg.core import check
from thalweg.data.dataset import Dataset
from thalweg.data.mnist import mnist5k
from thalweg.data.movielens import movielens
from thalweg.data.pydoc_text import pydoc_text
from thalweg.data.scikit_learn import breast_cancer, diabetes, digits, wine


def load(name: str) -> Dataset:
    """A real data set from an installed package; nothing is downloaded.

    Parameters
    ----------
    name
        ``"digits"`` (1797 images of 8x8, 10 classes), ``"breast_cancer"`` (569x30, 2 classes),
        ``"wine"`` (178x13, 3 classes), ``"diabetes"`` (442x10, regression, the raw units),
        ``"pydoc-text"`` (400 000 characters), ``"mnist5k"`` (5000 images of 28x28, 10 classes,
        in a fixed shuffled order) or ``"movielens"`` (100 004 ratings of 9066 films by 671 people,
        0.5 to 5; for research use).

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown; the message suggests the nearest one.
    ModuleNotFoundError
        If the package that ships the data is not installed; the message is the install line.
    ChangedDataError
        If the installed package ships other content; the message names its version.

    Warns
    -----
    UserWarning
        For ``"pydoc-text"`` under a Python version whose text was never checked. The help text of
        Python changes even between patch releases (3.11.2 and 3.11.7 differ), so results on it can
        be compared only between machines with equal ``sha256``. The text is pinned as the first
        400 000 characters of all topics joined in alphabetical order of their names.

    Examples
    --------
    >>> wine = load("wine")
    >>> wine.inputs.shape, wine.class_names
    (torch.Size([178, 13]), ('class_0', 'class_1', 'class_2'))
    """
    check.choice("name", name, tuple(_LOADERS))
    return _LOADERS[name]()


def names() -> tuple[str, ...]:
    """The names `load` knows.

    Examples
    --------
    >>> names()
    ('digits', 'breast_cancer', 'wine', 'diabetes', 'pydoc-text', 'mnist5k', 'movielens')
    """
    return tuple(_LOADERS)


_LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "wine": wine,
    "diabetes": diabetes,
    "pydoc-text": pydoc_text,
    "mnist5k": mnist5k,
    "movielens": movielens,
}
