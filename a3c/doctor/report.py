"""``--task doctor``: what this machine has for a training, what is in its way, and how fast it will be.

Nothing but the standard library is needed before the packages are known to be there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import statistics
import textwrap
from collections.abc import Callable
from typing import NamedTuple

from a3c.config import DEFAULT_ENV, NO_GPU, Config
from a3c.doctor import checks, gpus
from a3c.doctor.checks import FAIL, OK, WARN, Check
from a3c.errors import RunError, problem
from a3c.system import gpu, machine

SECONDS = 2.5  # of each of the six measurements; the whole then takes half a minute
_FORWARD_BATCHES = (32, 128)
_MOST_ACTIONS = 18  # that a game has
_WIDTHS = (40, 100)  # of the text, at least and at most
_LABEL = "{:<5} {:<10} "
_NARROW = 60
_NODE_S = 60.0  # that a node may take to tell of itself


class Report:
    """Prints what is found, line by line as it comes, wrapped to the terminal's width, without colours."""

    def __init__(self, width: int | None = None):
        low, high = _WIDTHS
        self._width = max(low, min(width or shutil.get_terminal_size((high, 24)).columns, high))
        self._checks: list[Check] = []

    def add(self, *found: Check) -> None:
        """Print checks, each with its remedy below it."""
        for check in found:
            self._checks.append(check)
            self._print(_LABEL.format(check.status, check.name), check.found)
            if check.remedy:
                self._print(_LABEL.format("", ""), f"try: {check.remedy}")

    def title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def line(self, name: str, text: str) -> None:
        """Print a line that is no check."""
        self._print(_LABEL.format("", name), text)

    def _print(self, label: str, text: str) -> None:
        indent = " " * (len(label) if self._width >= _NARROW else 6)
        if self._width < _NARROW and not label.strip():
            label = indent
        print(textwrap.fill(text, self._width, initial_indent=label, subsequent_indent=indent,
                            break_long_words=False, break_on_hyphens=False), flush=True)  # fmt: skip

    def finish(self, *found: Check) -> None:
        """Print the last checks and say how it went. Raises RunError if a check failed."""
        self.add(*found)
        print(flush=True)
        failed = [check for check in self._checks if check.status == FAIL]
        if failed:
            names = ", ".join(dict.fromkeys(check.name for check in failed))
            raise RunError(f"{len(failed)} of {len(self._checks)} checks failed ({names}): a remedy is below each")
        warnings = sum(check.status == WARN for check in self._checks)
        print(f"nothing failed, {warnings} warning{'' if warnings == 1 else 's'}", flush=True)


class Estimate(NamedTuple):
    """How fast training can be.

    Attributes:
        states_per_s: at most.
        limited_by: the part that takes the most time, or the stage that is the slowest.
        shares: of each part, how much of the time of what it runs on it takes at that speed.
    """

    states_per_s: float
    limited_by: str
    shares: dict[str, float]


def estimate(parts: dict[str, float], transport_per_s: float, cores: int, num_gpus: int) -> Estimate:
    """Work out the limit of training.

    Without a GPU the cores do it all: ``cores / (game + inference + training)``. With GPUs these are stages that work
    at the same time, and the slowest is the limit: of n > 1 GPUs the last ceil(n/2) infer. The transport, whose speed
    was measured with all cores, limits either.

    Args:
        parts: seconds for a state, of ``game`` and on one device ``inference`` and ``training``.
        transport_per_s: states per second.
        cores: usable cores.
        num_gpus: GPUs.
    """
    game, inference, training = (parts[name] for name in ("game", "inference", "training"))
    if num_gpus == 0:
        limit = min(cores / (game + inference + training), transport_per_s)
        shares = {name: limit * part / cores for name, part in parts.items()}
        if limit == transport_per_s:
            return Estimate(limit, "transport", shares)
        return Estimate(limit, max(shares, key=shares.get), shares)
    rates = {"game": cores / game, "transport": transport_per_s}
    inferring = -(-num_gpus // 2)
    if num_gpus == 1:
        rates["GPU"] = 1 / (inference + training)
    else:
        rates |= {"inference": inferring / inference, "training": (num_gpus - inferring) / training}
    slowest = min(rates, key=rates.get)
    return Estimate(rates[slowest], slowest, {name: rates[slowest] / rate for name, rate in rates.items()})


def expectation(found: Estimate, parts: dict[str, float], cores: int, num_gpus: int) -> list[tuple[str, str]]:
    """The lines about an estimate: names and texts."""
    times = " + ".join(f"{1e3 * part:.2f} ms {name}" for name, part in parts.items())
    shares = ", ".join(f"{name} {part:.0%}" for name, part in sorted(found.shares.items(), key=lambda item: -item[1]))
    if num_gpus:
        made_of = f"a state takes {times}; {_count(cores, 'core')}, {_count(num_gpus, 'GPU')}"
        busy = f"how busy each is: {shares}"
    else:
        made_of = f"{_count(cores, 'core')} / ({times})"
        busy = f"the cores' time: {shares}"
    return [
        ("at most", f"{_rounded(found.states_per_s)} states/s: {made_of}"),
        ("limit", f"{found.limited_by}; {busy}"),
    ]


def command(config: Config, num_gpus: int) -> str:
    """The training's command line with what ``Config.resolve`` has chosen."""
    numbers = ",".join(map(str, config.gpu_ids[:num_gpus] or (0,))) if num_gpus else ""
    if config.gpu == NO_GPU:
        numbers = NO_GPU
    chosen = f" --gpu {numbers}" if numbers else ""
    line = (
        f"./train-atari.py --env {config.env}{chosen} --network {config.network} "
        f"--num-envs {config.num_envs} --simulator-proc {config.simulator_proc}"
    )
    if num_gpus:
        line += (
            f" --predict-batch-size {config.predict_batch_size} "
            f"--predictor-thread-per-gpu {config.predictor_thread_per_gpu}"
        )
    return line


def advice(limited_by: str, config: Config, num_gpus: int) -> str:
    """What would make it faster."""
    if limited_by == "transport":
        return "more games in each process: leave --simulator-proc out, or raise --num-envs"
    if limited_by == "game":
        return "more cores"
    if num_gpus:
        return f"another GPU: --gpu {','.join(map(str, range(num_gpus + 1)))}"
    small = "" if config.network == "small" else "--network small, less work for each state; "
    return f"{small}more cores, or a GPU for inference and training"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _rounded(speed: float) -> str:
    """A speed to two digits: more are not to be relied on."""
    return f"{float(f'{speed:.2g}'):,.0f}"


def run(config: Config, seconds: float | None = None, quiet: Callable = contextlib.nullcontext) -> None:
    """Check, measure and report.

    Args:
        config: the flags, as for a training.
        seconds: of each measurement, by default SECONDS.
        quiet: context in which TensorFlow is loaded.

    Raises:
        UsageError: flags that a training would refuse.
        RunError: a check failed.
    """
    report, seconds = Report(), seconds or SECONDS
    if missing := checks.missing():
        report.finish(*missing)
    cores, visible = machine.usable_cores(), os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        report.add(*checks.packages())
        with quiet():
            checks.load()
            num_gpus, names, weights = _load_tensorflow(config)
    except Exception as error:  # of many kinds, when native libraries do not fit
        remedy = f"{checks.PIP} --force-reinstall -r {checks.REQUIREMENTS.name}"
        report.finish(Check("imports", FAIL, f"a package cannot be loaded: {problem(error)}", remedy))
    config = dataclasses.replace(config, env=config.env or DEFAULT_ENV)
    game = checks.game(config.env)
    report.add(game, checks.display(), checks.prctl(), checks.sockets(), *checks.cores(0.2 * seconds))
    cards = gpu.query()
    config = config.resolve(cores, num_gpus, gpu.smallest_bytes(cards))
    looked_at = gpus.look(config, cards, num_gpus)
    report.add(checks.gpu(config, names, checks.listed_gpus(), visible), *looked_at, checks.files(config, cores),
               checks.processes(config, cores), checks.memory(config, cores),
               checks.output(config, weights[config.network]))  # fmt: skip
    report.title("Speed")
    computes = not any(check.name == "convolution" and check.status == FAIL for check in looked_at)
    speeds = _measure(report, config, cores, seconds, game.status == OK, num_gpus > 0, computes)
    if speeds is not None and config.ray:
        _report_cluster(report, config, speeds, cores, num_gpus, seconds)
    elif speeds is not None:
        found = estimate(*speeds, cores, num_gpus)
        report.title("Expect")
        for name, text in expectation(found, speeds.parts, cores, num_gpus):
            report.line(name, text)
        report.title("Use")
        report.line("flags", command(config, num_gpus))
        report.line("faster", advice(found.limited_by, config, num_gpus))
    report.finish()


def _report_cluster(report: Report, config: Config, speeds: Speeds, cores: int, num_gpus: int, seconds: float) -> None:
    """Look at each node, measure the network, and say what to expect. Raises UsageError: it cannot be joined."""
    from a3c.cluster.cluster import UP, Cluster, describe
    from a3c.cluster.latency import games_per_core
    from a3c.doctor import nodes
    from atari_wrapper import get_protocol

    report.title("Cluster")
    with Cluster(config) as cluster:
        found = cluster.on_each_node("a3c.doctor.nodes:facts", config.env, seconds, timeout_s=_NODE_S)
        checked = [nodes.check(node, nodes.versions()) for node in found]
        report.add(*checked)
        playing = [node for node, check in zip(found, checked, strict=True) if check.status != FAIL]
        if not playing:
            return
        games = games_per_core(cluster.round_trip_s)
        sizes = {"simulator_proc": None, "num_envs": None}
        config = dataclasses.replace(config, **sizes).resolve(
            cores, num_gpus, playing_cores=cluster.cores, games_per_core=games
        )
        actions = len(get_protocol(config.env).actions)
        try:
            carried, state_bytes = nodes.transport(cluster, config, actions, seconds)
        except RunError as error:
            hosts = cluster.network().hosts
            remedy = "free the hosts' cores (ray status), or name fewer with --hosts"
            if all(host.state == UP for host in hosts):
                remedy = "let the hosts in through the firewall, or name with --listen an address that they reach"
            report.add(Check("network", FAIL, f"not measured: {problem(error)} ({describe(hosts)})", remedy))
            return
        report.line("network", f"{carried:,.0f} states/s of games that cost nothing, {carried * state_bytes / 1e6:.1f} "
                    f"MB/s: {state_bytes:,.0f} bytes a state, --frame-codec {config.frame_codec}")  # fmt: skip
        parts = {**speeds.parts, "game": 1e-9}
        learner = estimate(parts, carried, cores, num_gpus).states_per_s
        expected = nodes.forecast(playing, cluster.host_cores, cluster.hosts, games, learner, carried)
        report.title("Expect")
        rates = ", ".join(f"{name} {_rounded(rate)}" for name, rate in expected.rates.items())
        report.line("at most", f"{_rounded(expected.states_per_s)} states/s: {rates}")
        report.line("limit", expected.limited_by)
        report.title("Use")
        hosts = f" --ray {config.ray} --hosts {cluster.hosts} --host-cores {cluster.host_cores}"
        report.line("flags", command(config, num_gpus) + hosts)


def _load_tensorflow(config: Config) -> tuple[int, list[str], dict[str, int]]:
    """How many GPUs a run would use, the names of those that TensorFlow sees, and each network's number of weights."""
    from a3c.learning import devices
    from a3c.policy.networks import NETWORKS

    import tensorflow as tf

    num_gpus = devices.visible_gpus(config.gpu)
    seen = tf.config.list_physical_devices("GPU")[:num_gpus]
    names = [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in seen]
    shapes = {name: network.variable_shapes(_MOST_ACTIONS).values() for name, network in NETWORKS.items()}
    return num_gpus, names, {name: sum(map(math.prod, sizes)) for name, sizes in shapes.items()}


class Speeds(NamedTuple):
    """What was measured, as ``estimate`` takes it."""

    parts: dict[str, float]
    transport_per_s: float


def _measure(
    report: Report, config: Config, cores: int, seconds: float, plays: bool, on_gpu: bool, computes: bool
) -> Speeds | None:
    """Measure and print the speeds; None if one could not be measured, which is a failed check."""
    from a3c.doctor import speed
    from atari_wrapper import get_protocol

    def measured(name: str, function: Callable):
        try:
            return function()
        except Exception as error:
            text = f"cannot be measured: {problem(error)}"
            report.add(Check(name, FAIL, text, "put right what failed above; if nothing did, make test"))
            return None

    actions = _MOST_ACTIONS
    step = None
    if plays:
        protocol = get_protocol(config.env)
        actions = len(protocol.actions)
        step = measured("game", lambda: speed.game_seconds(protocol, seconds))
    if step is not None:
        alone, together = step
        at_once = sum(1 / second for second in together)
        text = f"{1 / alone:,.0f} states/s, {statistics.mean(protocol.frameskip) / alone:,.0f} frames/s on one core"
        report.line("game", f"{text}; on {cores} at once {alone * at_once:.1f} times as many" if cores > 1 else text)
    transport = measured("transport", lambda: speed.transport_states_per_s(config.envs_per_simulator, actions, seconds))
    if transport is not None:
        report.line("transport", f"{transport:,.0f} states/s, of games that cost nothing")
    network = computes and measured(
        "network", lambda: speed.network_seconds(config, actions, seconds, _FORWARD_BATCHES, (config.batch_size,))
    )
    if network:
        for name, key in (("inference", "forward"), ("training", "train")):
            where = "on a GPU" if on_gpu else "on one core"
            report.line(name, f"{1 / network[key]:,.0f} states/s {where}, network {config.network}")
    if step is None or transport is None or not network:
        return None
    parts = {"game": step[0], "inference": network["forward"], "training": config.sample_reuse * network["train"]}
    return Speeds(parts, transport)
