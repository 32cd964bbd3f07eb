"""The guard against numbers that are not finite. The other callbacks: the command line end to end."""

from __future__ import annotations

from types import SimpleNamespace

from callbacks import FiniteGuard
from config import RunError
from unroll import empty_batch

import numpy as np
import pytest

COLUMNS = ["state", "action", "return", "advantage", "mu", "version"]


def guard(directory, *batches) -> FiniteGuard:
    return FiniteGuard(directory, SimpleNamespace(recent_batches=batches, updates=7), COLUMNS)


def batch(**columns):
    filled = empty_batch(3)
    for column in filled:
        column[...] = 1
    return filled._replace(**{name: np.array(values, np.float32) for name, values in columns.items()})


def look(guard: FiniteGuard, *losses: float) -> None:
    guard._after_run(None, SimpleNamespace(results=losses))


def test_what_is_finite_passes(tmp_path):
    look(guard(tmp_path, batch()), 0.5, -3.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "loss", "told"),
    [
        ({}, np.nan, "the loss is nan; its batch is finite"),
        ({}, -np.inf, "the loss is -inf; its batch is finite"),
        ({"returns": [0, np.inf, 0]}, np.nan, "not finite in its batch: return"),
        ({"mus": [0.5, 0.5, np.nan]}, 0.25, "the loss is 0.25; not finite in its batch: mu"),
    ],
)
def test_what_is_not_ends_the_run_and_is_written(tmp_path, columns, loss, told):
    taken = batch(**columns)
    with pytest.raises(RunError, match=f"update 7: .*{told}"):
        look(guard(tmp_path, taken), loss)
    with np.load(tmp_path / "batch-of-update-7.npz", allow_pickle=False) as written:
        for name, column in zip(COLUMNS, taken, strict=True):
            np.testing.assert_array_equal(written[name], column)


def test_of_several_batches_all_are_looked_at(tmp_path):
    with pytest.raises(RunError, match="not finite in its batch: mu-1"):
        look(guard(tmp_path, batch(mus=[0.5, np.nan, 0.5]), batch()), 0.25, 0.25)
