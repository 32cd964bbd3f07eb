"""The command line, end to end: real Pong, real processes, sockets and trainers; and nobody is left behind."""

import json
import re
import shutil
from pathlib import Path

from a3c.policy.networks import NETWORKS
from a3c.system.machine import usable_cores
from a3c.weights.model_file import read_model
from bench.command_line import SHORT, run, start, stats
from bench.screenshot import free_port

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from processes import wait_until

pytestmark = pytest.mark.long
PRINTED = "printed.txt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Two short epochs on Pong, the second with an evaluation; with a page, and with values set by hand."""
    output = tmp_path_factory.mktemp("trained") / "run"
    output.mkdir()
    by_hand = output / "hyper.txt"
    by_hand.write_bytes(b"\xef\xbb\xbf# by hand\r\n\r\nlearning_rate: 0.002\r\nentropy_beta: low\r\n")
    out = run(
        *SHORT, "--steps-per-epoch", "8", "--max-epoch", "2", "--eval-every", "2", "--eval-episode", "2",
        "--learning-rate", "0.001,12:0.0005", "--entropy-beta", "0.01,12:0.005", "--gpu", "-1",
        "--watch", str(free_port()), "--output", str(output),
        CUDA_VISIBLE_DEVICES="3", NO_COLOR="1", FORCE_COLOR="",
    )  # fmt: skip
    by_hand.unlink()
    (output.parent / PRINTED).write_text(out)
    return output


def test_training_says_how_it_goes_in_a_plain_line_for_each_epoch(trained):
    out = (trained.parent / PRINTED).read_text()
    assert "Pong-v0: frameskip 2 to 4 at random, sticky actions 0.25, 6 actions" in out
    lines = re.findall(r"epoch \d/2 \| done \| .*would help$", out, re.MULTILINE)
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "\x1b" not in out
    assert "\r" not in out
    assert "it/s" not in out
    for record in stats(trained)[:2]:
        waits = ("wait/master_for_simulators", "wait/master_for_queue", "wait/predictors", "wait/learner", "cores_busy")
        assert all(0 <= record[name] <= 1 for name in waits)
        assert f"{record['states_per_s']:,.0f} states/s" in out


def test_training_writes_what_it_measured(trained):
    first, second = stats(trained)
    for name in (
        "states_per_s", "frames_per_s", "policy_lag_mean", "policy_lag_max", "policy_loss", "value_loss", "entropy",
    ):  # fmt: skip
        assert np.isfinite(second[name]), name
    assert first["steps"] >= 64 * 8 / 2
    assert second["steps"] > first["steps"]
    assert 2 <= second["frames_per_s"] / second["states_per_s"] <= 4
    assert 0 < second["entropy"] <= np.log(6) + 1e-3
    assert second["value_loss"] >= 0
    assert -21 <= second["mean_score"] <= second["max_score"] <= 21
    assert "mean_score" not in first
    assert 0 < first["train_minutes"] < second["train_minutes"] < 5
    assert max(first["policy_lag_mean"], second["policy_lag_mean"]) <= 2 + 1 + 4 / 2  # as of a slow learner, below


def test_an_epoch_is_saved_before_it_is_evaluated(trained):
    out = (trained.parent / PRINTED).read_text()
    assert 0 < out.index("Checkpoint of step 16 saved") < out.index("2 episodes, greedy")


def test_values_set_by_hand_take_the_place_of_a_schedules(trained):
    assert [record["learning_rate"] for record in stats(trained)[:2]] == pytest.approx([0.002, 0.0005])
    assert (trained.parent / PRINTED).read_text().count("entropy_beta: low") == 1


def test_no_gpu_that_was_not_asked_for_is_missed(trained):
    assert "GPU(s)" not in (trained.parent / PRINTED).read_text()
    assert json.loads((trained / "config.json").read_text())["gpu"] == "-1"


def test_a_training_that_ends_ends_its_page(trained):
    out = (trained.parent / PRINTED).read_text()
    assert out.count("watch it at http://127.0.0.1:") == 1
    assert "the watcher ended" not in out


def test_training_draws_its_learning_curve(trained):
    picture = cv2.imread(str(trained / "learning_curve.png"))
    assert picture.shape[:2] == (650, 1300)
    assert picture.std() > 10


def test_training_writes_tensorboard_events(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained)).Reload()
    assert {"policy_lag_mean", "states_per_s", "mean_score", "entropy"} <= set(events.Tags()["scalars"])


def test_training_saves_its_configuration_and_a_model_that_says_what_it_is(trained):
    config = json.loads((trained / "config.json").read_text())
    assert (config["network"], config["num_envs"], config["learning_rate"]) == ("small", 4, "0.001,12:0.0005")
    with np.load(trained / "Pong-v0.npz", allow_pickle=False) as model:
        metadata = json.loads(str(model["metadata"]))
    assert metadata["network"] == "small"
    assert metadata["env"] == "Pong-v0"
    assert metadata["updates"] == 16
    assert metadata["protocol"]["actions"][1] == "FIRE"
    assert metadata["evaluation"]["episodes"] == 2
    assert metadata["train_minutes"] == pytest.approx(stats(trained)[1]["train_minutes"], abs=0.01)
    assert metadata["cores"] == usable_cores()
    assert metadata["seed"] == 0


def test_the_best_model_is_kept_apart_with_its_score(trained):
    with np.load(trained / "Pong-v0-best.npz", allow_pickle=False) as best, np.load(trained / "Pong-v0.npz") as newest:
        metadata = json.loads(str(best["metadata"]))
        assert metadata["evaluation"]["mean"] == stats(trained)[1]["mean_score"]
        np.testing.assert_array_equal(best["fc-v/W"], newest["fc-v/W"])  # there was one evaluation, of the last epoch


def test_resume_continues_the_run(trained):
    before = stats(trained)
    run("--resume", "--output", str(trained), "--max-epoch", "3", "--eval-every", "0")
    after = stats(trained)
    assert [record["epoch_num"] for record in after] == [1, 2, 3]
    assert [record["global_step"] for record in after] == [8, 16, 24]
    assert after[:2] == before
    assert after[2]["steps"] > before[1]["steps"]
    assert before[1]["train_minutes"] < after[2]["train_minutes"] < before[1]["train_minutes"] + 2
    assert after[2]["learning_rate"] == pytest.approx(0.0005)


def test_resume_of_a_finished_run_says_how_to_go_on(trained):
    before = stats(trained)
    done = len(before)
    for flags in ([], ["--max-epoch", "1"]):
        out = run("--resume", "--output", str(trained), "--max-epoch", str(done), *flags, status=2)
        (line,) = [line for line in out.splitlines() if line.startswith("train-atari.py: ")]
        assert f"{done} epochs are done" in line
        assert f"--resume --max-epoch {done + int(flags[1] if flags else done)}" in line
        assert "Traceback" not in out
    assert stats(trained) == before


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory) -> Path:
    """A copy of the run, evaluated with a seed; where, below ``eval``."""
    output = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(trained, output / "run")
    out = run("--task", "eval", "--load", str(output / "run"), "--episode", "2", "--seed", "3",
              "--output", str(output / "eval"))  # fmt: skip
    (output / PRINTED).write_text(out)
    return output


def test_eval_plays_the_number_of_episodes_and_reports(evaluated):
    out = (evaluated / PRINTED).read_text()
    records = json.loads((evaluated / "eval" / "eval.json").read_text())
    assert [Path(record["model"]).name for record in records] == ["Pong-v0-best.npz", "Pong-v0.npz"]
    for record in records:
        assert len(record["scores"]) == record["episodes"] == 2
        assert record["published"] == 21
        assert record["mean"] == pytest.approx(np.mean(record["scores"]))
        assert f" {record['mean']:.2f} " in out
    assert (evaluated / "eval" / "eval.md").read_text().rstrip() in out
    assert (evaluated / "eval" / "eval.csv").exists()


def test_an_evaluation_repeats_with_its_seed(evaluated):
    *_, before = json.loads((evaluated / "eval" / "eval.json").read_text())
    run("--task", "eval", "--load", before["model"], "--episode", "2", "--seed", "3",
        "--output", str(evaluated / "eval"))  # fmt: skip
    (again,) = json.loads((evaluated / "eval" / "eval.json").read_text())  # the earlier one has another name now
    assert again["scores"] == before["scores"]
    assert sorted(path.name for path in (evaluated / "eval").glob("*.json")) == ["eval-1.json", "eval.json"]


def test_info_tells_what_a_model_is(trained):
    out = run("--task", "info", "--load", str(trained / "Pong-v0.npz"))
    assert re.search(r"game: +Pong-v0\n", out)
    assert re.search(r"trained for: +[\d,]+ steps \(", out)


def test_dump_video_records_the_game(trained, tmp_path):
    run(
        "--task", "dump_video", "--load", str(trained), "--output", str(tmp_path), "--episode", "1",
    )  # fmt: skip
    (video,) = tmp_path.iterdir()
    assert re.fullmatch(r"Pong-v0-episode-001-score--?\d+\.mp4", video.name)
    frames = imageio_ffmpeg.read_frames(str(video))
    assert next(frames)["size"] == (160, 210)
    assert np.frombuffer(next(frames), np.uint8).max() > 0


def test_nature_trains_and_plays(tmp_path):
    run(*SHORT, "--network", "nature", "--steps-per-epoch", "4", "--max-epoch", "1", "--output", str(tmp_path / "run"))
    assert stats(tmp_path / "run")[0]["value_loss"] >= 0
    with np.load(tmp_path / "run" / "Pong-v0.npz") as model:
        assert json.loads(str(model["metadata"]))["network"] == "nature"
        assert model["input/mean"].max() > 50
        assert model["conv0/W"].shape == (8, 8, 12, 32)
    out = run(
        "--task", "eval", "--load", str(tmp_path / "run" / "Pong-v0.npz"), "--episode", "1",
        "--output", str(tmp_path / "eval"),
    )  # fmt: skip
    assert "Pong-v0" in out


@pytest.mark.parametrize("gpus", ["0,1", "0,1,2,3"])
def test_several_gpus_build_several_towers_on_any_machine(gpus, tmp_path):
    training = len(gpus.split(",")) // 2
    out = run(
        *SHORT, "--steps-per-epoch", "2", "--max-epoch", "1", "--gpu", gpus, "--output", str(tmp_path / "run"),
    )  # fmt: skip
    (record,) = stats(tmp_path / "run")
    assert record["updates"] == 2 * training
    assert f"--gpu {gpus}: TensorFlow sees" in out  # fewer GPUs than that


def test_vtrace_and_the_lag_limit_run(tmp_path):
    out = run(
        *SHORT, "--steps-per-epoch", "8", "--max-epoch", "2",
        "--correction", "vtrace", "--sample-reuse", "3", "--max-policy-lag", "3", "--output", str(tmp_path / "run"),
    )  # fmt: skip
    assert "vtrace" in out
    first, second = stats(tmp_path / "run")
    assert (first["updates"], second["updates"]) == (8, 16)
    assert second["policy_lag_max"] <= 3
    assert second["dropped_transitions"] > 0  # pools of 4 batches that are used three times
    assert second["dropped_transitions"] % 16 == 0  # whole unrolls
    assert np.isfinite(second["cost"])


def test_the_weights_of_the_last_epoch_are_there_while_they_are_evaluated(tmp_path):
    output = tmp_path / "run"
    training = start(*SHORT, "--steps-per-epoch", "4", "--max-epoch", "1", "--eval-every", "1", "--eval-episode",
                     "1000", "--output", str(output))  # fmt: skip
    training.read_until("Checkpoint of step 4 saved")
    wait_until(lambda: read_model(str(output / "Pong-v0.npz")).metadata["updates"] == 4, 10)
    training.process.kill()
    assert training.wait_all_gone(5)
    assert "Training has finished" not in training.finish()


POOLED = [*SHORT, "--batch-size", "32", "--pool-states", "128"]
FIRST_IN_FIRST_OUT = ["--num-envs", "8", "--simulator-proc", "2", "--local-time-max", "5", "--correction", "clipped-is",
                      "--batch-size", "32", "--pool-states", "32", "--queue-size", "1"]  # fmt: skip


def lags_of_a_slow_learner(output: Path, epochs: int, *flags: str) -> list[float]:
    """Mean policy lag of each epoch."""
    run("--steps-per-epoch", "6", "--max-epoch", str(epochs), "--eval-every", "0", "--output", str(output), *flags,
        script="tests/fakes/slow_learner.py")  # fmt: skip
    return [record["policy_lag_mean"] for record in stats(output)]


# The updates that a state waits for, whatever the learner's speed: the queue's, the one under way, half of its pool's,
# and, where they count, those of the states behind it in its unroll: 2 on average, of 8 simulators, 32 to an update.
@pytest.mark.parametrize(
    ("flags", "limit"),
    [(POOLED, 2 + 1 + 4 / 2), (FIRST_IN_FIRST_OUT, 1 + 1 + 1 / 2 + 2 * 8 / 32)],
    ids=["pool", "in order"],
)
def test_a_learner_ten_times_slower_learns_from_data_as_fresh(flags, limit, tmp_path):
    assert max(lags_of_a_slow_learner(tmp_path / "run", 2, *flags)) <= limit


def test_a_deep_queue_would_make_data_old(tmp_path):
    *_, last = lags_of_a_slow_learner(tmp_path / "run", 3, *FIRST_IN_FIRST_OUT, "--queue-size", "66")
    assert last > 8


def test_the_original_command_and_network_run_from_published_weights(tmp_path):
    rng = np.random.default_rng(0)
    shapes = NETWORKS["batch-a3c"].variable_shapes(4)
    published = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "published.npz", **{f"{name}:0": value for name, value in published.items()})
    run(
        "--env", "Breakout-v0", "--gpu", "0", "--load", str(tmp_path / "published.npz"), "--learning-rate", "0",
        "--num-envs", "8", "--batch-size", "40", "--steps-per-epoch", "1", "--max-epoch", "2", "--eval-every", "0",
        "--output", str(tmp_path / "run"),
    )  # fmt: skip
    run("--resume", "--output", str(tmp_path / "run"), "--max-epoch", "3")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["network"], config["correction"], config["local_time_max"]) == ("batch-a3c", "clipped-is", 5)
    assert stats(tmp_path / "run")[0]["policy_lag_mean"] <= 8 * 5 / 80 + 2
    with np.load(tmp_path / "run" / "Breakout-v0.npz") as model:
        for name, value in published.items():
            np.testing.assert_array_equal(model[name], value)
        metadata = json.loads(str(model["metadata"]))
    assert (metadata["begun_from"], metadata["updates"]) == ({"file": "published.npz"}, 3)


ERRORS = {
    "unknown environment": (["--env", "Breakot-v0"], "Breakout-v0"),
    "no Atari game": (["--env", "CartPole-v1"], "no Atari game"),
    "no list of GPUs": (["--gpu", "zero"], "--gpu 0"),
    "out of range": (["--batch-size", "0"], "--batch-size"),
    "no number": (["--gamma", "high"], "--gamma"),
    "no model named": (["--task", "eval"], "--load"),
    "missing model": (["--task", "eval", "--load", "none.npz"], "none.npz"),
    "nothing to resume": (["--resume", "--output", "nothing-here"], "no run to resume"),
    "no display": (["--task", "play", "--load", "{model}"], "dump_video"),
    "resumed as another network": (["--resume", "--output", "{run}", "--network", "nature"], "--network small"),
    "resumed as another game": (["--resume", "--output", "{run}", "--env", "Breakout-v0"], "--env Pong-v0"),
    "another run's directory": (["--output", "{run}"], "--resume"),
    "another game": (["--task", "eval", "--env", "Breakout-v0", "--load", "{model}"], "trained on Pong-v0"),
    "no run to draw": (["--task", "plot", "--output", "nothing-here"], "nothing-here"),
    "two outputs": (["--output", "a", "b"], "one --output"),
    "another network": (["--task", "eval", "--network", "batch-a3c", "--load", "{model}"], "--network"),
    "an output that cannot be made": (["--output", "x" * 300], "File name too long"),
    "videos that cannot be written": (
        ["--task", "dump_video", "--load", "{model}", "--output", "{corrupt}"],
        "it is no directory",
    ),
    "scores that cannot be written": (
        ["--task", "eval", "--episode", "1", "--load", "{model}", "--output", "{corrupt}/eval"],
        "Not a directory",
    ),
    "corrupt model": (["--task", "eval", "--load", "{corrupt}"], "corrupt.npz"),
}


def test_a_training_from_weights_that_do_not_say_their_game_asks_for_it(trained, tmp_path):
    plain = tmp_path / "plain.npz"
    with np.load(trained / "Pong-v0.npz") as model:
        np.savez(plain, **{name: model[name] for name in model.files if name != "metadata"})
    out = run("--load", str(plain), "--output", str(tmp_path / "run"), status=2)
    assert f"train-atari.py: {plain} does not say its game: add --env" in out


def test_play_where_nobody_serves_the_display(trained):
    out = run("--task", "play", "--load", str(trained / "Pong-v0.npz"), status=2, DISPLAY=":4093", WAYLAND_DISPLAY="")
    assert "train-atari.py: no window can be opened on DISPLAY=:4093; watch in a browser with --watch PORT" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("case", ERRORS)
def test_a_users_error_is_told_in_one_line(case, trained, tmp_path):
    args, remedy = ERRORS[case]
    corrupt = tmp_path / "corrupt.npz"
    corrupt.write_bytes((trained / "Pong-v0.npz").read_bytes()[:1000])
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    places = {"model": str(trained / "Pong-v0.npz"), "run": str(trained), "corrupt": str(corrupt)}
    out = run(*(arg.format(**places) for arg in args), status=2, DISPLAY="", WAYLAND_DISPLAY="")
    message = [line for line in out.splitlines() if line.startswith("train-atari.py: ")]
    assert len(message) == 1
    assert remedy in message[0]
    assert "Traceback" not in out
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


FAILED_STARTS = {
    "no room for the pool": (["--pool-states", str(1 << 20)], {}, 1, "--pool-states"),
    "no socket": ([], {"TMPDIR": "{long}"}, 2, "export TMPDIR=/tmp"),
    "no game": (["--env", "Breakot-v0"], {}, 2, "Breakout-v0"),
}


@pytest.mark.parametrize("case", FAILED_STARTS)
def test_a_start_that_fails_leaves_nothing(case, tmp_path):
    flags, env, status, remedy = FAILED_STARTS[case]
    long = tmp_path / ("x" * 100)
    long.mkdir()
    out = run(*SHORT, *flags, "--output", str(tmp_path / "new" / "run"), status=status,
              **{name: value.format(long=long) for name, value in env.items()})  # fmt: skip
    (message,) = [line for line in out.splitlines() if line.startswith("train-atari.py: ")]
    assert remedy in message
    assert "Traceback" not in out
    assert not (tmp_path / "new").exists()
    assert list(long.iterdir()) == []


def test_a_checkpoint_of_another_network_is_told(trained, tmp_path):
    output = tmp_path / "run[seed=0]"
    shutil.copytree(trained, output)
    text = (output / "config.json").read_text()
    (output / "config.json").write_text(text.replace('"network": "small"', '"network": "batch-a3c"'))
    out = run("--resume", "--output", str(output), "--max-epoch", "9", status=2)
    assert "is not of network batch-a3c on Pong-v0: its conv0/W is [8, 8, 12, 16] and not [5, 5, 12, 32]" in out
    assert "Traceback" not in out


def test_a_directory_whose_name_is_a_pattern_is_resumed_with_a_schedule_that_ends_in_nothing(trained, tmp_path):
    output = tmp_path / "run[seed=0]*"
    shutil.copytree(trained, output)
    before = stats(output)
    epoch = len(before) + 1
    run("--resume", "--output", str(output), "--max-epoch", str(epoch), "--eval-every", "0", "--learning-rate", "1,5:0")
    assert stats(output)[:-1] == before
    assert stats(output)[-1]["learning_rate"] == 0
    with np.load(trained / "Pong-v0.npz") as before, np.load(output / "Pong-v0.npz") as after:
        np.testing.assert_array_equal(before["fc0/W"], after["fc0/W"])
