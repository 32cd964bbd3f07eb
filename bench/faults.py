"""Faults, injected into runs of the real command line: what is promised holds, or the trial counts as lost.

    make faults                              # all of it, about an hour on two cores
    make faults ARGS="--only stall --trials 3"

Each trial is a training, or a part of one, that something is done to; a trial that does not end as promised tells why.
The moments are drawn at random from ``--seed``.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pty
import random
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench import harness
from bench.command_line import SHORT, Run, hear_signals, start, stats
from checkpoint import newest_whole, saved_steps
from messages import encode_failure, encode_step
from model_file import read_model
from nursery import Nursery
from simulator_master import SimulatorMaster

import numpy as np
import psutil
import zmq

_GONE_S = 3.0
_STOP_S = 15.0
_NOTICE_S = 2.0
_CAP_DAC_OVERRIDE, _PR_CAPBSET_DROP = 1, 24
Trials = Iterator[None]  # one item for each trial that was survived; what is lost is an AssertionError


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Wait for a condition. Raises AssertionError if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def expect_end(run: Run, status: int, timeout_s: float = 60.0) -> str:
    """Wait for a run's end; return what it printed. Raises AssertionError for another status, or if one is left."""
    out = run.finish(timeout_s)
    assert run.process.returncode == status, f"status {run.process.returncode} instead of {status}:\n{out[-3000:]}"
    assert run.wait_all_gone(_GONE_S), "a process was left behind"
    return out


def train(output: Path, *flags: str, **options) -> Run:
    """Start a short training that only a fault ends, with epochs of 8 updates."""
    return start(*SHORT, "--steps-per-epoch", "8", "--output", str(output), *flags, **options)


def without_traceback(out: str) -> None:
    """Raise AssertionError if there is a traceback in it."""
    assert "Traceback" not in out, out[-3000:]


# The faults. Each draws its moments from ``rng`` and works in an empty directory.


def killed_simulators(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Kill simulators of one run, one after the other; the learner never stops, and each has its successor in time."""
    run = train(directory / "run", "--max-epoch", "100000")
    seen = run.read_until("Start Epoch 2")
    for _ in range(trials):
        wait_for(lambda: len(run.simulators()) == 2, 10, "two simulators")
        time.sleep(rng.uniform(0, 0.3))
        victim = rng.choice(run.simulators())
        os.kill(victim, signal.SIGKILL)
        before = {*run.simulators()} - {victim}
        wait_for(lambda known=before | {victim}: {*run.simulators()} - known, _NOTICE_S, "a new simulator")
        yield
    epoch = len(stats(directory / "run"))
    wait_for(lambda: len(stats(directory / "run")) > epoch + 2, 60, "learning goes on")
    assert stats(directory / "run")[-1]["simulator_restarts"] == trials
    run.process.send_signal(signal.SIGTERM)
    without_traceback(seen + expect_end(run, 143))


def simulators_that_die_at_each_start(directory: Path, trials: int, rng: random.Random) -> Trials:
    """A game that cannot be made ends the run, with its traceback."""
    for trial in range(trials):
        out = expect_end(train(directory / f"{trial}", script="tests/broken_game.py"), 1)
        assert "fake game that cannot be made" in out, out[-3000:]
        yield


def hanging_simulators(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop simulators of one run; each is killed and replaced after its time."""
    run = train(directory / "run", "--simulator-timeout", "2")
    run.read_until("Start Epoch 2")
    for _ in range(trials):
        wait_for(lambda: len(run.simulators()) == 2, 10, "two simulators")
        victim = rng.choice(run.simulators())
        os.kill(victim, signal.SIGSTOP)
        wait_for(lambda pid=victim: pid not in run.alive(), 2 + 5, "the one that hangs is killed")
        yield
    epoch = len(stats(directory / "run"))
    wait_for(lambda: len(stats(directory / "run")) > epoch + 1, 60, "learning goes on")
    assert stats(directory / "run")[-1]["simulator_restarts"] == trials
    run.process.send_signal(signal.SIGTERM)
    expect_end(run, 143)


def ended_learner(directory: Path, trials: int, rng: random.Random) -> Trials:
    """End the learner in all ways at all moments: nobody stays; of signals that can be heard, all is saved."""
    ways = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None]
    for trial in range(trials):
        way, output = ways[trial % len(ways)], directory / f"{trial}"
        env = {} if trial % 2 else {"PYTHONPATH": str(Path(__file__).parents[1] / "tests" / "without_prctl")}
        if way is None:
            terminal, theirs = pty.openpty()
            run = train(output, stdin=theirs, stdout=theirs, stderr=theirs, env=env, preexec_fn=_own_terminal)
            os.close(theirs)
            _read_for(terminal, rng.uniform(0.3, 12))
            os.close(terminal)
        else:
            run = train(output, env=env)
            time.sleep(rng.uniform(0.3, 12))
            run.process.send_signal(way)
        out = run.finish(_STOP_S)
        assert run.wait_all_gone(_GONE_S), f"{way or 'closed terminal'}: a process was left behind"
        expected = {signal.SIGKILL: -9, None: 129}.get(way, 128 + (way or 0))
        assert run.process.returncode == expected, f"{way}: status {run.process.returncode}\n{out}"
        without_traceback(out)
        yield


def _read_for(terminal: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            os.read(terminal, 1 << 16)


def _own_terminal() -> None:
    hear_signals()
    os.open(os.ttyname(0), os.O_RDWR)  # the first one opened by a session's leader is its terminal


def second_signals(directory: Path, trials: int, rng: random.Random) -> Trials:
    """A second signal ends the run at once."""
    for trial in range(trials):
        run = train(directory / f"{trial}")
        run.read_until("Start Epoch 2")
        time.sleep(rng.uniform(0, 0.5))
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGTERM)
        start_s = time.monotonic()
        run.process.wait(_STOP_S)
        assert time.monotonic() - start_s < 1.0, "it took more than a second"
        out = run.finish()
        assert run.process.returncode in (130, 143), out
        without_traceback(out)
        assert run.wait_all_gone(_GONE_S), "a process was left behind"
        yield


def interrupted_tasks(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop an evaluation or a recording: it tidies up and leaves no half video."""
    model = str(Path(__file__).parents[1] / "models" / "Pong-v0.npz")
    for trial in range(trials):
        output, task = directory / f"{trial}", ("eval", "dump_video")[trial % 2]
        run = start("--task", task, "--load", model, "--output", str(output))
        run.read_until("sticky actions")
        time.sleep(rng.uniform(0.1, 12))
        number = rng.choice((signal.SIGINT, signal.SIGTERM))
        run.process.send_signal(number)
        out = expect_end(run, 128 + number, _STOP_S)
        without_traceback(out)
        left = [path.name for path in output.glob("*")] + [path.name for path in output.glob(".*")]
        assert not any("unfinished" in name for name in left), left
        yield


def kills_while_saving(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Kill a run that saves all the time, and resume it, over and over: it always goes on, and never from the start."""
    output, newest = directory / "run", 0
    for trial in range(trials):
        flags = ("--resume",) if trial else (*SHORT, "--steps-per-epoch", "1", "--max-to-keep", "3")
        run = start("--output", str(output), *flags)
        run.read_until(f"Start Epoch {newest + 3} ")
        time.sleep(rng.uniform(0, 2))
        run.process.kill()
        run.finish()
        assert run.wait_all_gone(_GONE_S), "a process was left behind"
        prefix = newest_whole(output)
        step = int(prefix.rpartition("-")[2])
        assert step >= newest + 2, f"resumed at {newest}, killed later, and found {step}"
        assert step == saved_steps(output)[-1], "the newest checkpoint was not whole"
        assert len(saved_steps(output)) <= 4
        newest = step
        yield
    read_model(str(output / "Pong-v0.npz"))


def damaged_checkpoints(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Cut or change the newest checkpoint, and cut ``stats.json``: that is told, and the one before is taken."""
    output = directory / "run"
    expect_end(train(output, "--max-epoch", "3"), 0)
    for trial in range(trials):
        *_, before, newest = saved_steps(output)
        path = output / f"model-{newest}.{('data-00000-of-00001', 'index')[trial % 2]}"
        content = bytearray(path.read_bytes())
        if trial % 4 < 2:
            path.write_bytes(content[: rng.randrange(len(content))])
        else:
            at = rng.randrange(len(content))
            content[at] ^= 0xFF
            path.write_bytes(content)
        cut = output / "stats.json"
        cut.write_text(cut.read_text()[: -rng.randrange(1, 200)])
        out = expect_end(start("--resume", "--output", str(output), "--max-epoch", str(newest // 8)), 0)
        assert f"model-{newest} is not whole" in out, out[-3000:]
        assert "stats.json is not whole" in out, out[-3000:]
        assert saved_steps(output)[-1] == newest
        epochs = [record["epoch_num"] for record in stats(output)]
        assert epochs[-1] == newest // 8, epochs
        assert before in saved_steps(output)
        yield


def resumed_runs(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Stop a run in the midst of an epoch and resume it: updates, Adam, epochs, schedules and steps go on."""
    import tensorflow as tf

    for trial in range(trials):
        output = directory / f"{trial}"
        run = train(output, "--learning-rate", "0.001,20:0.0005", "--max-to-keep", "2")
        run.read_until("Start Epoch 2 ")
        time.sleep(rng.uniform(0, 1))
        run.process.send_signal(signal.SIGINT)
        expect_end(run, 130)
        step, before = saved_steps(output)[-1], stats(output)
        steps = int(tf.train.load_variable(newest_whole(output), "progress/steps"))
        assert read_model(str(output / "Pong-v0.npz")).metadata["updates"] == step
        last = max(step // 8 + 2, 3)
        expect_end(start("--resume", "--output", str(output), "--max-epoch", str(last)), 0)
        after = stats(output)
        assert after[: len(before)] == before
        assert [record["global_step"] for record in after] == [8 * record["epoch_num"] for record in after]
        assert [record["epoch_num"] for record in after] == list(range(1, last + 1))
        assert after[-1]["learning_rate"] == np.float32(0.0005)
        assert steps < after[-1]["steps"]
        ended = tf.train.load_checkpoint(newest_whole(output))
        adams_count = 0.9 ** (8 * last + 1)
        np.testing.assert_allclose(ended.get_tensor("beta1_power"), adams_count, rtol=1e-4)
        assert len(saved_steps(output)) == 2
        yield


def deterministic_runs(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Two runs of a seed are equal to the bit, a run of another seed is not."""
    for trial in range(trials):
        seed, weights = rng.randrange(1000), []
        for number, its_seed in enumerate((seed, seed, seed + 1)):
            output = directory / f"{trial}-{number}"
            flags = ("--deterministic", *SHORT, "--simulator-proc", "1", "--steps-per-epoch", "12", "--max-epoch", "2")
            expect_end(start(*flags, "--seed", str(its_seed), "--output", str(output)), 0)
            weights.append(read_model(str(output / "Pong-v0.npz")).variables)
        same = [all(np.array_equal(weights[0][name], other[name]) for name in other) for other in weights[1:]]
        assert same == [True, False], same
        yield


def wrong_numbers(directory: Path, trials: int, rng: random.Random) -> Trials:
    """A loss that is not finite stops the run at that update; its batch is written, the checkpoints before it stay."""
    for trial in range(trials):
        output, update = directory / f"{trial}", rng.randrange(9, 24)
        out = expect_end(train(output, "--learning-rate", f"0.001,{update}:1e30"), 1)
        without_traceback(out)
        told = next(line for line in out.splitlines() if "the loss is" in line)
        (batch,) = output.glob("batch-of-update-*.npz")
        number = int(batch.stem.rpartition("-")[2])
        assert f"update {number}:" in told, told
        assert update <= number <= update + 2, (update, number)
        with np.load(batch, allow_pickle=False) as arrays:
            assert arrays["state"].shape == (64, 84, 84, 12)
        assert saved_steps(output)[-1] <= number
        assert all(np.isfinite(v).all() for v in read_model(str(output / "Pong-v0.npz")).variables.values())
        yield


def full_disks(directory: Path, trials: int, rng: random.Random) -> Trials:
    """Nothing can be written for a while: that is told, training goes on, and the next save that can is made."""
    run = train(directory / "run", "--max-epoch", "100000")
    run.read_until("Start Epoch 2")
    learner = psutil.Process(run.process.pid)
    for _ in range(trials):
        run.discard()
        learner.rlimit(resource.RLIMIT_FSIZE, (rng.randrange(100_000), resource.RLIM_INFINITY))
        run.read_until("could not be written")
        prefix = newest_whole(directory / "run")
        learner.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_for(lambda before=prefix: newest_whole(directory / "run") != before, 30, "a checkpoint afterwards")
        yield
    run.process.send_signal(signal.SIGTERM)
    without_traceback(expect_end(run, 143))
    assert newest_whole(directory / "run").endswith(f"-{saved_steps(directory / 'run')[-1]}")


def read_only_directories(directory: Path, trials: int, rng: random.Random) -> Trials:
    """The same for an output directory that goes read-only."""
    output = directory / "run"
    run = train(output, "--max-epoch", "100000", preexec_fn=_obey_permissions)
    run.read_until("Start Epoch 2")
    for _ in range(trials):
        run.discard()
        output.chmod(0o555)
        run.read_until("could not be written")
        prefix = newest_whole(output)
        output.chmod(0o755)
        wait_for(lambda before=prefix: newest_whole(output) != before, 30, "a checkpoint afterwards")
        yield
    run.process.send_signal(signal.SIGTERM)
    without_traceback(expect_end(run, 143))


def _obey_permissions() -> None:
    """Also root then may not write where it says so."""
    hear_signals()
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def stalls(directory: Path, trials: int, rng: random.Random) -> Trials:
    """No batch comes: the run says which stage is stuck, with the stacks of its threads, and ends."""
    for trial in range(trials):
        stage, flags = ("simulators", "predictors", "learner")[trial % 3], ("--stall-timeout", "4")
        if stage == "simulators":
            run = train(directory / f"{trial}", *flags)
            run.read_until("Start Epoch 2")
            for pid in run.simulators():
                os.kill(pid, signal.SIGSTOP)
        else:
            output = str(directory / f"{trial}")
            run = start(stage, *SHORT, "--steps-per-epoch", "8", "--output", output, *flags, script="tests/hanging.py")
        out = expect_end(run, 1)
        assert f"blocked: {stage}" in out, out[-3000:]
        assert "thread master:" in out, out[-3000:]
        yield


def bad_messages(directory: Path, trials: int, rng: random.Random, messages: int = 50_000) -> Trials:
    """Send anything to the sockets: it is counted, memory stays, and the games go on."""
    for _ in range(trials):
        nursery = _RecordingNursery()
        master = SimulatorMaster(nursery, (1,), {"env_id": "Pong-v0"})
        context = zmq.Context()
        try:
            peer, stranger = context.socket(zmq.PUSH), context.socket(zmq.DEALER)
            peer.connect(f"ipc://{nursery.address}/steps")
            stranger.connect(f"ipc://{nursery.address}/actions")
            block = master.receive(20)
            good = encode_step(block)
            for number in range(messages):
                if number % 10 == 0:
                    _offer(stranger, [rng.randbytes(rng.randrange(300))])
                message = _bad_message(rng, good)
                while not _offer(peer, message):
                    assert master.receive(0.01) is None, "it was taken for a step"
                assert master.receive(0) is None, "it was taken for a step"
                if number == messages // 5:
                    memory = psutil.Process().memory_info().rss
            for sequence in range(1, 4):
                master.send(block.index, block.life, np.zeros(1, np.int8))
                step = master.receive(20)
                assert step is not None, "no step after them"
                assert step.sequence == sequence
            assert master.malformed_messages > messages / 2
            assert psutil.Process().memory_info().rss - memory < 20e6, "memory grew"
        finally:
            context.destroy(linger=0)
            master.close()
        yield


class _RecordingNursery(Nursery):
    """Knows where the sockets are."""

    def spawn(self, spec: dict) -> None:
        self.address = spec["address"]
        super().spawn(spec)


def _offer(peer: zmq.Socket, message: list[bytes]) -> bool:
    try:
        peer.send_multipart(message, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def _bad_message(rng: random.Random, good: list) -> list[bytes]:
    header, frames = bytes(good[0]), bytes(good[1])
    kind = rng.randrange(7)
    if kind == 0:
        return [rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 5))]
    if kind == 1:
        return [header[: rng.randrange(len(header))], frames]
    if kind == 2:
        return [header, frames[: rng.randrange(len(frames))]]
    if kind == 3:  # the first step of this life once more
        return [header, frames]
    if kind == 4:
        at = rng.randrange(2, 4)  # index or life
        return [header[:at] + bytes([header[at] ^ rng.randrange(1, 256)]) + header[at + 1 :], frames]
    if kind == 5:
        return encode_failure(rng.randrange(3, 9), rng.randrange(2, 9), "a stranger's last words")
    return [header, frames, frames[: rng.randrange(10)]]


class Fault(NamedTuple):
    """A fault: how often ``make faults`` injects it, and how often the tests do."""

    inject: Callable[[Path, int, random.Random], Trials]
    trials: int
    short_trials: int


FAULTS = {
    "simulator killed": Fault(killed_simulators, 50, 4),
    "simulator dies at each start": Fault(simulators_that_die_at_each_start, 20, 1),
    "simulator hangs": Fault(hanging_simulators, 20, 1),
    "learner ended": Fault(ended_learner, 100, 5),
    "second signal": Fault(second_signals, 20, 1),
    "evaluation or recording stopped": Fault(interrupted_tasks, 20, 2),
    "killed while saving": Fault(kills_while_saving, 50, 3),
    "damaged checkpoint and statistics": Fault(damaged_checkpoints, 20, 2),
    "stopped and resumed": Fault(resumed_runs, 20, 1),
    "deterministic": Fault(deterministic_runs, 20, 1),
    "loss not finite": Fault(wrong_numbers, 20, 1),
    "full disk": Fault(full_disks, 20, 2),
    "read-only directory": Fault(read_only_directories, 20, 2),
    "stall": Fault(stalls, 20, 3),
    "bad messages": Fault(bad_messages, 20, 1),
}


def run(name: str, trials: int, seed: int) -> dict:
    """Inject a fault; return its row of the table: trials, survived, and what was lost first."""
    survived, lost = 0, ""
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        injected = FAULTS[name].inject(Path(directory), trials, random.Random(seed))
        try:
            for survived, _ in enumerate(injected, start=1):
                harness.progress(f"{name}: {survived} of {trials} survived")
        except Exception as error:
            lost = f"{type(error).__name__}: {error}"
            survived = min(survived, trials - 1)  # the end of the run that had them all can be what is lost
    return {"fault": name, "trials": trials, "survived": survived, "lost": lost}


def main() -> None:
    """Inject the faults and print the table; the exit status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FAULTS, nargs="+", default=list(FAULTS))
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [run(name, args.trials or FAULTS[name].trials, args.seed) for name in args.only]
    harness.progress("")
    harness.report([{**row, "lost": row["lost"].partition("\n")[0][:60] or "-"} for row in rows],
                   {"benchmark": "faults", "faults": rows})  # fmt: skip
    sys.exit(any(row["lost"] for row in rows))


if __name__ == "__main__":
    main()
