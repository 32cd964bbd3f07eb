"""What a training does right now: speeds, how long each stage waits, and in words what limits it.

All is read from counters that the actor's threads publish: on the trainer's thread, once a second and after an epoch.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from a3c.acting.actor import Actor
from a3c.cluster.cluster import UP, Cluster, Network, describe
from a3c.learning.acting import Acting
from a3c.playing.progress import duration
from a3c.system.clock import running_s
from a3c.system.machine import core_seconds

import numpy as np
from tensorpack import Callback
from tensorpack.utils import logger
from tqdm import tqdm

_EVERY_S = 1.0
_LINE_EVERY_S = 30.0  # where the output is no terminal
_ON_THE_WAY = 0.5  # of a step: a core's other process cannot play for so long
_BUSY = 0.9  # of a stage's or the cores' time: it is what the others wait for


class Sample(NamedTuple):
    """The counters at one moment; two of them make a ``Status``.

    Attributes:
        time_s: of ``running_s``.
        steps, emulator_frames: of the actor.
        waits_s: seconds that the master waited for simulators and for the learner, the predictors (their mean) for
            work and the learner for batches, float64 ``[4]``.
        busy_s, all_s: seconds that the usable cores worked, and that there were.
        network: of a cluster.
    """

    time_s: float
    steps: int
    emulator_frames: int
    waits_s: np.ndarray
    busy_s: float
    all_s: float
    network: Network | None = None

    @classmethod
    def of(cls, actor: Actor) -> Sample:
        predictors = sum(actor.predictor_wait_s) / len(actor.predictor_wait_s)
        waits = np.array([actor.simulator_wait_s, actor.queue_wait_s, predictors, actor.learner_wait_s])
        return cls(running_s(), actor.collector.steps, actor.collector.emulator_frames, waits, *core_seconds())


class Status(NamedTuple):
    """What happened between two samples: a second's speeds, and shares of the time from 0 to 1."""

    states_per_s: float
    frames_per_s: float
    master_for_simulators: float
    master_for_learner: float
    predictors: float
    learner: float
    cores_busy: float

    @classmethod
    def between(cls, before: Sample, after: Sample) -> Status:
        seconds = max(1e-9, after.time_s - before.time_s)
        waits = np.clip((after.waits_s - before.waits_s) / seconds, 0, 1)
        busy = (after.busy_s - before.busy_s) / max(1e-9, after.all_s - before.all_s)
        return cls(
            (after.steps - before.steps) / seconds,
            (after.emulator_frames - before.emulator_frames) / seconds,
            *waits.tolist(),
            min(1.0, max(0.0, busy)),
        )


class NetworkUse(NamedTuple):
    """What lies between the learner and its hosts.

    Attributes:
        bytes_per_s: of frames that arrive, packed.
        round_trip_s: to the farthest host that is up, under this load.
        share: of a game's step, how much of the time its message or its actions are on their way, 0 to 1.
        cores_busy: of the hosts, 0 to 1.
    """

    bytes_per_s: float
    round_trip_s: float
    share: float
    cores_busy: float

    @classmethod
    def between(cls, before: Network, after: Network, seconds: float, states_per_s: float, games: int) -> NetworkUse:
        """Of two samples: a game that makes so many steps in a second waits for as many round trips."""
        up = [host for host in after.hosts if host.state == UP]
        round_trip_s = max((host.round_trip_s or 0.0 for host in up), default=0.0)
        playing = games * len(up) / max(1, len(after.hosts))
        share = min(1.0, round_trip_s * states_per_s / max(1.0, playing))
        busy = sum(host.busy for host in up) / max(1, len(up))
        return cls((after.received_bytes - before.received_bytes) / max(1e-9, seconds), round_trip_s, share, busy)


def verdict(status: Status, cores: int, on_gpu: bool, network: NetworkUse | None = None) -> str:
    """Say in words which stage limits the speed, what tells so, and what would help.

    Args:
        status: of some seconds of training, evaluations left out.
        cores: usable cores.
        on_gpu: whether a GPU infers and trains.
        network: if the simulators are on other machines.
    """
    waits = f"predictors wait {status.predictors:.0%}, learner waits {status.learner:.0%}"
    never = 1 - _BUSY
    if status.cores_busy >= _BUSY and not on_gpu:
        return f"cores-bound: {cores} of {cores} busy, {waits}; more cores or a GPU would help"
    if status.learner <= never:
        remedy = "another GPU" if on_gpu else "a GPU or --network small"
        return f"learner-bound: the games wait {status.master_for_learner:.0%} for it; {remedy} would help"
    if status.predictors <= never:
        remedy = "--predictor-thread-per-gpu or another GPU" if on_gpu else "a GPU or --network small"
        return f"inference-bound: {waits}; {remedy} would help"
    if status.master_for_simulators + status.master_for_learner <= never:
        return f"transport-bound: it never waits, {waits}; fewer --simulator-proc with more games each would help"
    if network is not None:
        return _verdict_on_hosts(network, waits)
    if status.cores_busy >= _BUSY:
        return f"simulation-bound: {waits}; more cores would help"
    if status.cores_busy == 0:  # the kernel does not tell
        return f"simulation-bound: {waits}; more cores or more --num-envs would help"
    return f"simulation-bound: {waits}, cores are busy {status.cores_busy:.0%}; more --num-envs would help"


def _verdict_on_hosts(network: NetworkUse, waits: str) -> str:
    busy = f"the hosts' cores are busy {network.cores_busy:.0%}"
    if network.share >= _ON_THE_WAY and network.cores_busy < _BUSY:
        return (
            f"network-bound: {network.bytes_per_s / 1e6:.1f} MB/s, a round trip of {1e3 * network.round_trip_s:.1f} ms "
            f"is {network.share:.0%} of a step's time, {busy}; more --num-envs, --frame-codec lz4 or a faster network "
            "would help"
        )
    remedy = "more --hosts" if network.cores_busy >= _BUSY else "more --num-envs"
    return f"simulation-bound: {waits}, {busy}; {remedy} would help"


class Line(NamedTuple):
    """The parts of the status line, that matter most first."""

    epoch: str
    left: str
    score: float | None
    status: Status
    policy_lag: float
    verdict: str
    hosts: str = ""

    def fit(self, width: int) -> str:
        """As much of the line as goes into so many characters: whole parts, the verdict at least by its first word."""
        score = "-" if self.score is None else f"{self.score:.1f}"
        must = [self.epoch, self.left, f"score {score}", f"{self.status.states_per_s:,.0f} states/s"]
        must += [self.hosts] if self.hosts else []
        frames, lag = f"{self.status.frames_per_s:,.0f} frames/s", f"lag {self.policy_lag:.1f}"
        reason, word = self.verdict.partition(";")[0], self.verdict.partition(":")[0]
        for parts in ([frames, lag, self.verdict], [frames, lag, reason], [frames, lag, word], [lag, word], [word], []):
            line = " | ".join([*must, *parts])
            if len(line) <= width:
                return line
        return line[:width]


def _width() -> int:
    """Characters that a line on the terminal may have."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    return (columns or 80) - 1


class StatusLine(Callback):
    """Shows one line while training runs, the last one of an epoch stays; publishes the epoch's speeds and waits."""

    def __init__(self, acting: Acting, max_epoch: int, cores: int, on_gpu: bool, cluster: Cluster | None = None):
        self._acting, self._max_epoch, self._cores, self._on_gpu = acting, max_epoch, cores, on_gpu
        self._cluster = cluster
        self._bar: tqdm | None = None

    def _before_epoch(self):
        self._epoch_start = self._newest = self._sample()
        self._shown_s = self._epoch_start.time_s
        if sys.stderr.isatty():
            self._bar = tqdm(total=0, bar_format="{desc}", leave=True, file=sys.stderr)

    def _trigger_step(self):
        now = running_s()
        if self._bar is None and now - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now
            logger.info(self._line(self._epoch_start).fit(sys.maxsize))
        elif self._bar is not None and now - self._shown_s >= _EVERY_S:
            self._shown_s = now
            before, self._newest = self._newest, self._sample()
            self._bar.set_description_str(self._line(before).fit(_width()))

    def _sample(self) -> Sample:
        sample = Sample.of(self._acting.actor)
        return sample if self._cluster is None else sample._replace(network=self._cluster.network())

    def _line(self, since: Sample) -> Line:
        now = self._sample()
        status = Status.between(since, now)
        network = None
        if now.network is not None:
            seconds, games = now.time_s - since.time_s, sum(self._acting.envs_per_simulator)
            network = NetworkUse.between(since.network, now.network, seconds, status.states_per_s, games)
        done = self.local_step + 1
        left = (now.time_s - self._epoch_start.time_s) / done * (self.trainer.steps_per_epoch - done)
        return Line(
            f"epoch {self.epoch_num}/{self._max_epoch}",
            f"{duration(left)} left",
            self._acting.actor.collector.online_score,
            status,
            self._acting.policy_lag_mean,
            verdict(status, self._cores, self._on_gpu, network),
            describe(now.network.hosts) if now.network is not None else "",
        )

    def _after_epoch(self):
        line = self._line(self._epoch_start)._replace(left="done")
        status = line.status
        scalars = {
            "states_per_s": status.states_per_s,
            "frames_per_s": status.frames_per_s,
            "wait/master_for_simulators": status.master_for_simulators,
            "wait/master_for_queue": status.master_for_learner,
            "wait/predictors": status.predictors,
            "wait/learner": status.learner,
            "cores_busy": status.cores_busy,
        }
        if self._cluster is not None:
            network = self._cluster.network()
            scalars |= {"hosts_up": sum(host.state == UP for host in network.hosts), "hosts_lost": network.lost}
        for name, value in scalars.items():
            self.trainer.monitors.put_scalar(name, value)
        if self._bar is not None:
            self._bar.set_description_str(line.fit(_width()))
            self._close()
        else:
            logger.info(line.fit(sys.maxsize))

    def _after_train(self):
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
