"""Learning curves: which runs are one setting's, what is drawn, and the process that draws while training runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import Mock

from a3c.config import Config
from a3c.errors import UsageError
from a3c.learning import callbacks
from a3c.learning.callbacks import CurveDrawer
from a3c.reports.curves import STYLES, Run, draw_band, group, plot_runs
from a3c.system.stopping import StopRequest

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

SCRIPT = Path(__file__).resolve().parents[2] / "train-atari.py"


def record(epoch: int, slope: float) -> dict:
    evaluated = {"mean_score": 2.0, "stderr_score": 0.5} if epoch == 2 else {}
    return evaluated | {
        "steps": 1_000_000 * epoch, "train_minutes": 30.0 * epoch, "online_score": slope * epoch, "entropy": 1.5,
        "value_loss": 0.02, "policy_lag_mean": 5.0, "states_per_s": 3000.0, "epoch_num": epoch,
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    def make(name: str, slope: float = 1.0, **settings) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "config.json").write_text(Config(**({"env": "Pong-v0"} | settings)).as_json())
        (directory / "stats.json").write_text(
            json.dumps([{"epoch_num": 0}, *(record(epoch, slope) for epoch in (1, 2, 3))])
        )
        return directory

    return make


def labels(*directories: Path) -> dict[str, list[str]]:
    return {label: [run.directory.name for run in runs] for label, runs in group([Run.read(d) for d in directories])}


def test_seeds_of_one_setting_are_one_group(make_run):
    runs = [
        make_run("a", seed=0),
        make_run("b", seed=1, max_epoch=7, output=("there",)),
        make_run("c", correction="vtrace"),
    ]
    assert labels(*runs) == {"Pong-v0, --correction None, 2 seeds": ["a", "b"], "Pong-v0, --correction vtrace": ["c"]}


def test_runs_of_one_seed_are_no_seeds(make_run):
    runs = [make_run("a", seed=1), make_run("b", seed=1)]
    assert labels(*runs) == {"Pong-v0, 2 runs": ["a", "b"]}


def test_of_many_differences_the_directory_tells(make_run):
    runs = [make_run("a"), make_run("b", correction="vtrace", gamma=0.5, batch_size=64)]
    assert labels(*runs) == {"a": ["a"], "b": ["b"]}


def test_a_run_that_began_with_trained_weights_is_no_seed_of_one_that_did_not(make_run):
    runs = [make_run("a"), make_run("b", seed=1, load=("models/Pong-v0.npz",))]
    assert labels(*runs) == {"Pong-v0": ["a"], "Pong-v0, --load models/Pong-v0.npz": ["b"]}


def test_a_run_from_before_a_flag_was_there_had_its_default(make_run):
    old, new = make_run("old"), make_run("new")
    saved = json.loads((old / "config.json").read_text())
    del saved["deterministic"]
    (old / "config.json").write_text(json.dumps(saved))
    assert labels(old, new) == {"Pong-v0, 2 runs": ["old", "new"]}


def test_a_column_is_in_the_pictures_units(make_run):
    run = Run.read(make_run("a"))
    steps, scores = run.column("online_score", "steps")
    assert (list(steps), list(scores)) == ([1, 2, 3], [1, 2, 3])
    hours, means = run.column("mean_score", "train_minutes")
    assert (list(hours), list(means)) == ([1], [2])
    assert [len(part) for part in run.column("nothing", "steps")] == [0, 0]


def test_several_runs_are_their_mean_and_a_band_where_all_are_known():
    axis = Figure().subplots()
    draw_band(axis, [(np.array([0.0, 10.0]), np.array([0.0, 10.0])), (np.array([2.0, 6.0]), np.array([4.0, 8.0])),
                     (np.array([]), np.array([]))], "both", STYLES[0])  # fmt: skip
    *thin, line = axis.lines
    assert [len(line.get_xdata()) for line in thin] == [2, 2]
    xs, ys = line.get_data()
    assert (xs[0], xs[-1]) == (2, 6)
    assert (ys[0], ys[-1]) == (pytest.approx(3), pytest.approx(7))
    (band,) = axis.collections
    corners = band.get_paths()[0].vertices
    assert corners[corners[:, 0] == 2][:, 1].max() == pytest.approx(4)
    assert corners[corners[:, 0] == 2][:, 1].min() == pytest.approx(2)


@pytest.mark.parametrize("begin", [4.0, 9.0])
def test_runs_that_share_no_stretch_are_drawn_each(begin):
    axis = Figure().subplots()
    curves = [(np.array([0.0, 4.0]), np.array([1.0, 2.0])), (np.array([begin]), np.array([3.0]))]
    draw_band(axis, curves, "both", STYLES[0])
    assert [list(line.get_xdata()) for line in axis.lines] == [[0, 4], [begin], []]
    assert axis.get_legend_handles_labels()[1] == ["both"]
    assert axis.lines[1].get_marker() == "."


def test_two_settings_differ_in_colour_and_in_print():
    assert len({style["color"] for style in STYLES}) == len(STYLES)
    assert STYLES[0]["linestyle"] != STYLES[1]["linestyle"]


def test_the_picture_goes_into_the_first_runs_directory(make_run):
    first, second = make_run("a"), make_run("b", slope=-1.0, correction="vtrace")
    assert plot_runs([first, second]) == first / "learning_curve.png"
    both = cv2.imread(str(first / "learning_curve.png"))
    assert both.shape[1] >= 1200
    plot_runs([first])
    alone = cv2.imread(str(first / "learning_curve.png"))
    blue, orange = [np.array([int(STYLES[n]["color"][i : i + 2], 16) for i in (5, 3, 1)]) for n in (0, 1)]
    drawn = [
        [(np.abs(picture - colour).max(axis=2) < 8).sum() for colour in (blue, orange)] for picture in (both, alone)
    ]
    assert min(drawn[0]) > 500
    assert drawn[1][0] > 500
    assert drawn[1][1] == 0
    assert not list(first.glob("*.tmp"))


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run") as caught:
        plot_runs([tmp_path])
    assert str(tmp_path) in str(caught.value)


ODD_STATS = {
    "": "cannot be read",
    "[": "cannot be read",
    "[" * 100_000: "cannot be read",
    "null": "it holds no list of epochs",
    '{"steps": 1}': "it holds no list of epochs",
    "[]": "has ended no epoch yet",
    '[{"epoch_num": 1}]': "has ended no epoch yet",
    '[{"steps": null}, {"steps": NaN}]': "has ended no epoch yet",
    '[{"steps": 1}, 2]': "record 2 .* it holds no scalars",
    "[null]": "record 1 .* it holds no scalars",
    '[{"steps": "1"}]': 'record 1 .* "steps" is no number',
    '[{"steps": 1, "stderr_score": [1]}]': 'record 1 .* "stderr_score" is no number',
}


@pytest.mark.parametrize("text", ODD_STATS, ids=lambda text: text[:40])
def test_odd_statistics_are_refused_in_one_line(make_run, text):
    directory = make_run("a")
    (directory / "stats.json").write_text(text)
    with pytest.raises(UsageError, match=ODD_STATS[text]) as caught:
        plot_runs([directory])
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_an_odd_configuration_is_refused_in_one_line(make_run, text):
    directory = make_run("a")
    (directory / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config.json (cannot be read|is not what a training writes)") as caught:
        plot_runs([directory])
    assert "\n" not in str(caught.value)


def test_statistics_that_may_not_be_read_are_told_as_they_are(make_run, monkeypatch):
    def not_permitted(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    directory = make_run("a")
    monkeypatch.setattr(Path, "read_text", not_permitted)
    with pytest.raises(UsageError, match=r"config.json cannot be read \(Permission denied\)"):
        plot_runs([directory])


def test_what_is_not_known_is_left_out(make_run):
    odd = [{"entropy": None}, {"entropy": float("nan")}, {"entropy": float("inf")}, {"entropy": 10**400}]
    odd += [{"steps": float("nan")}]
    odd += [{"mean_score": 3.0, "stderr_score": error} for error in (float("nan"), -1.0)]
    directories = [make_run("a", seed=1), make_run("b", seed=2)]
    for directory in directories:
        records = [record(epoch, 1.0) | change for epoch, change in enumerate(odd, start=1)]
        (directory / "stats.json").write_text(json.dumps(records))
    run = Run.read(directories[0])
    assert list(run.column("entropy", "steps")[0]) == [6, 7]
    assert list(run.column("mean_score", "steps")[0]) == [2, 6, 7]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_runs(directories[:1])
        plot_runs(directories)


def test_a_run_without_a_finished_episode_is_drawn(make_run):
    directory = make_run("a")
    (directory / "stats.json").write_text('[{"steps": 1000, "entropy": 1.5}]')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_runs([directory])


@pytest.mark.parametrize("settings", [{"env": "$\\frac$"}, {"env": ["x"], "gamma": {"a": 1}}])
def test_odd_settings_are_names_like_others(make_run, settings):
    directory = make_run("a")
    (directory / "config.json").write_text(json.dumps(settings))
    plot_runs([directory])


@pytest.mark.long
def test_a_notebooks_backend_is_nothing_to_us(make_run):
    directory = make_run("a")
    backend = {**os.environ, "MPLBACKEND": "module://nowhere.backend_inline"}
    for command in (
        ["-m", "a3c.reports.curves", str(directory)],
        [SCRIPT, "--task", "plot", "--output", directory],
    ):
        done = subprocess.run([sys.executable, *command], env=backend, cwd=SCRIPT.parent,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


LONG_S = 1e6  # since the last picture


def drawer(directory: Path, stopped: bool = False) -> CurveDrawer:
    stop = StopRequest()
    stop.signal = 15 if stopped else None
    drawing = CurveDrawer(directory, stop)
    drawing._started_s -= LONG_S
    return drawing


def test_a_finished_training_has_its_picture(make_run):
    directory = make_run("a")
    drawer(directory)._after_train()
    assert (directory / "learning_curve.png").stat().st_size > 10_000


@pytest.mark.long
def test_an_epoch_draws_without_waiting_and_not_twice_at_once(make_run):
    directory = make_run("a")
    drawing = drawer(directory)
    drawing._before_epoch()
    first = drawing._process
    assert first is not None
    drawing._started_s -= LONG_S
    drawing._before_epoch()
    assert drawing._process is first or first.poll() is not None
    assert drawing._ended(20)
    assert (directory / "learning_curve.png").exists()
    drawing._started_s = time.monotonic()
    drawing._before_epoch()
    assert drawing._process is None  # the picture is new
    drawing._started_s -= LONG_S
    drawing._before_epoch()
    assert drawing._process is not None
    drawing._after_train()
    assert drawing._process is None


def test_a_training_that_has_just_begun_is_not_drawn_yet(make_run):
    drawing = CurveDrawer(make_run("a"), StopRequest())
    drawing._before_epoch()
    assert drawing._process is None


def test_a_training_goes_on_without_a_picture_if_no_process_can_be_started(make_run, monkeypatch):
    told = []
    monkeypatch.setattr(callbacks.logger, "warn", told.append)
    monkeypatch.setattr(callbacks, "start_program", Mock(side_effect=BlockingIOError(11, "fake: no process")))
    drawing = drawer(make_run("a"))
    drawing._before_epoch()
    drawing._after_train()
    assert told == 2 * ["learning_curve.png was not drawn: fake: no process"]


def test_before_the_first_epoch_there_is_nothing_to_draw(tmp_path):
    drawing = drawer(tmp_path)
    drawing._before_epoch()
    assert drawing._process is None


def test_a_stopped_training_does_not_wait_for_its_picture(make_run):
    drawing = drawer(make_run("a"), stopped=True)
    drawing._before_epoch()
    process = drawing._process
    drawing._after_train()
    assert process.returncode is not None


def test_a_picture_that_cannot_be_drawn_is_told(make_run, monkeypatch):
    directory, told = make_run("a"), []
    monkeypatch.setattr(callbacks.logger, "warn", told.append)
    (directory / "stats.json").write_text("[")
    drawer(directory)._after_train()
    assert len(told) == 1
    assert "learning_curve.png was not drawn" in told[0]
