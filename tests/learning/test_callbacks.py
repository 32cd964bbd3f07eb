"""The guard against numbers that are not finite; evaluations that fail; values set by hand.

Other callbacks: the command line end to end.
"""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

from a3c.acting.batches import empty_batch
from a3c.cluster.cluster import ClusterLostError
from a3c.config import Config
from a3c.errors import RunError
from a3c.learning import callbacks
from a3c.learning.callbacks import Evaluator, FiniteGuard, HandFile, HandSetter, ModelExporter
from a3c.system.stopping import StoppedError, StopRequest

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


# Evaluations.


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(callbacks.logger, "warn", lines.append)
    return lines


@pytest.fixture
def evaluate_failing(monkeypatch):
    """Calls an Evaluator whose evaluation raises an error."""

    def call(error: BaseException) -> Evaluator:
        evaluator = Evaluator(Config(eval_every=1), 1, -1, StopRequest())
        evaluator.trainer = SimpleNamespace(epoch_num=1)
        evaluator._policy, evaluator.newest = None, "of the evaluation before"
        monkeypatch.setattr(callbacks, "evaluate", Mock(side_effect=error))
        evaluator._trigger_epoch()
        return evaluator

    return call


def test_an_evaluation_that_fails_does_not_end_the_training(evaluate_failing, warnings):
    assert evaluate_failing(RuntimeError("fake: no simulator made a step")).newest is None
    assert warnings == ["this evaluation failed, training goes on: fake: no simulator made a step"]
    assert evaluate_failing(StoppedError()).newest is None
    assert len(warnings) == 1


@pytest.mark.parametrize("error", [ClusterLostError("fake: the head is gone"), KeyboardInterrupt()])
def test_what_training_cannot_survive_ends_it_also_amid_an_evaluation(evaluate_failing, error):
    with pytest.raises(type(error)):
        evaluate_failing(error)


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_model_is_written_ahead_of_its_evaluation_and_again_with_its_score(evaluated, tmp_path):
    evaluator, written = SimpleNamespace(newest=None), []
    actor = SimpleNamespace(failed=False)
    directory = SimpleNamespace(model=tmp_path / "Pong-v0.npz", best_model=tmp_path / "Pong-v0-best.npz")
    exporter = ModelExporter(directory, Config(), None, None, 2, actor, evaluator, None, StopRequest())
    exporter._export = lambda: written.append(evaluator.newest)
    for last in (False, True):
        exporter._trigger_epoch()
        assert written.pop() is None
        evaluator.newest = "scores" if evaluated else None
        (exporter._after_train if last else exporter._before_epoch)()
        assert written == (["scores"] if evaluated else [])
        written.clear()
        evaluator.newest = None


# Values set by hand.

RATE, BETA = {"learning_rate": 0.001}, {"entropy_beta": 0.01}
HAND_WRITTEN = {  # the file: its values, and what the warning names
    "nothing": (b"", {}, ""),
    "both": (b"learning_rate: 0.001\nentropy_beta: 0.01\n", RATE | BETA, ""),
    "one": (b"learning_rate:1e-3", RATE, ""),
    "the other one": (b"entropy_beta:0.01\n", BETA, ""),
    "zero": (b"entropy_beta: 0\n", {"entropy_beta": 0.0}, ""),
    "a comment": (b"# slower from here\nlearning_rate: 0.001  # was: 0.003\n", RATE, ""),
    "blank lines and spaces": (b"\n  \t\n  learning_rate \t :   0.001  \n\n", RATE, ""),
    "a byte order mark": (b"\xef\xbb\xbflearning_rate: 0.001\n", RATE, ""),
    "lines of Windows": (b"learning_rate: 0.001\r\n\r\nentropy_beta: 0.01\r\n", RATE | BETA, ""),
    "lines of an old Mac": (b"learning_rate: 0.001\rentropy_beta: 0.01", RATE | BETA, ""),
    "as the flag is spelled": (b"Learning-Rate: 0.001", RATE, ""),
    "twice": (b"learning_rate: 1\nlearning_rate: 0.001\n", RATE, ""),
    "another name": (b"gamma: 0.9\nlearning_rate: 0.001\n", RATE, "'gamma: 0.9'"),
    "no number": (b"learning_rate: fast\nentropy_beta: 0.01\n", BETA, "'learning_rate: fast'"),
    "nothing after it": (b"learning_rate:\nentropy_beta: 0.01\n", BETA, "'learning_rate:'"),
    "a decimal comma": (b"learning_rate: 0,001", {}, "'learning_rate: 0,001'"),
    "a schedule": (b"learning_rate: 0.001,5:0.1", {}, "'learning_rate: 0.001,5:0.1'"),
    "no colon": (b"learning_rate 0.001", {}, "'learning_rate 0.001'"),
    "nan": (b"learning_rate: nan\nentropy_beta: 0.01", BETA, "'learning_rate: nan'"),
    "infinite": (b"learning_rate: inf\nentropy_beta: 0.01", BETA, "'learning_rate: inf'"),
    "infinite in 32 bits": (b"learning_rate: 1e300\nentropy_beta: 0.01", BETA, "'learning_rate: 1e300'"),
    "negative": (b"learning_rate: -1e-3\nentropy_beta: 0.01", BETA, "'learning_rate: -1e-3'"),
    "another encoding": ("learning_rate: 0.001\n".encode("utf-16"), {}, "no value of"),
    "no text": (bytes(range(256)), {}, "no value of"),
    "a long line": (b"x" * 10_000 + b"\nlearning_rate: 0.001", RATE, "'[...]'"),
}


@pytest.fixture
def hand_file(tmp_path) -> HandFile:
    return HandFile(tmp_path / "hyper.txt", ("learning_rate", "entropy_beta"))


@pytest.mark.parametrize("case", HAND_WRITTEN)
def test_a_hand_written_file_is_read_leniently(case, hand_file, warnings, tmp_path):
    text, values, told = HAND_WRITTEN[case]
    (tmp_path / "hyper.txt").write_bytes(text)
    for _ in range(3):
        assert hand_file.read() == values
    assert len(warnings) == bool(told)  # once, not once for each name and epoch
    for line in warnings:
        assert told in line
        assert "hyper.txt" in line
        assert "\n" not in line
        assert len(line) < 1000


def test_each_new_state_of_a_hand_written_file_is_told_once(hand_file, warnings, tmp_path):
    file = tmp_path / "hyper.txt"
    assert hand_file.read() == {}
    for number, text in enumerate(["learning_rate: x", "learning_rate: y", "entropy_beta: z"], start=1):
        file.write_text(text)
        hand_file.read()
        hand_file.read()
        assert len(warnings) == number
    file.write_text("learning_rate: 0.001")
    assert hand_file.read() == RATE
    file.unlink()
    assert hand_file.read() == {}
    assert len(warnings) == 3


def test_a_hand_written_file_that_cannot_be_opened(hand_file, warnings, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "hyper.txt").write_text("learning_rate: 0.001")
    monkeypatch.setattr(type(tmp_path), "read_text", refuse)
    assert hand_file.read() == hand_file.read() == {}
    assert len(warnings) == 1
    assert "Permission denied" in warnings[0]


def test_a_directory_of_its_name_is_none(hand_file, warnings, tmp_path):
    (tmp_path / "hyper.txt").mkdir()
    assert hand_file.read() == {}
    assert warnings == []


def test_a_setter_sets_what_is_in_the_file_and_leaves_the_rest(hand_file, tmp_path):
    rate, beta = (HandSetter(name, hand_file) for name in hand_file.names)
    assert rate._get_value_to_set() is None
    (tmp_path / "hyper.txt").write_text("entropy_beta: 0\n")
    assert (rate._get_value_to_set(), beta._get_value_to_set()) == (None, 0.0)
