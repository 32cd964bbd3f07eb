"""The run's configuration: one frozen dataclass, its fields the flags of the command line.

``flags.parse_args`` turns the command line into a ``Config`` in which what was not given is still ``None``;
``Config.resolve`` fills that in for the machine. From then on nothing is set from anywhere else.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from a3c.acting_defaults import GAMES_PER_CORE, acting_defaults, predict_batch_size
from a3c.errors import UsageError, first_line
from a3c.run_files import CONFIG_FILE, file_name

TASKS = ("train", "play", "eval", "dump_video", "info", "plot", "doctor")
MODEL_TASKS = ("play", "eval", "dump_video", "info")  # which need --load
DEFAULT_ENV = "Pong-v0"
NO_GPU = "-1"  # of --gpu
NETWORKS = ("batch-a3c", "small", "nature")
CORRECTIONS = ("clipped-is", "vtrace", "clipped-surrogate")
GRADIENT_CLIPS = ("per-tensor", "global-norm")
REMOVED = "was removed; commit d80910a reads it"
REMOVED_NETWORK, REMOVED_OPTIMIZER = "small-ln", "soap"
_CLUSTER_FLAGS = ("ray", "hosts", "host_cores", "listen", "frame_codec")
_MAX_TOLD = 60  # characters of a value that is refused


@dataclass(frozen=True)
class Schedule:
    """A value that is piecewise constant over learner updates: ``0.001,120000:0.0003``.

    Attributes:
        initial: the value from update 0 on.
        changes: ``(update, value)`` pairs, in the order of the updates.
    """

    initial: float
    changes: tuple[tuple[int, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parse ``VALUE[,UPDATE:VALUE...]``. Raises ValueError."""
        head, *tail = str(text).split(",")
        changes = tuple(map(_change, tail))
        schedule = cls(_number(head, float, "a number"), changes)
        updates = [update for update, _ in changes]
        values = [schedule.initial, *(value for _, value in changes)]
        if updates != sorted(set(updates)) or any(u <= 0 for u in updates):
            raise ValueError("updates must be positive and rising")
        if not all(math.isfinite(v) and v >= 0 for v in values):
            raise ValueError("values must be finite and not negative")
        return schedule

    def at(self, update: int) -> float:
        """The value in force when so many updates were made."""
        return [self.initial, *(value for change, value in self.changes if change <= update)][-1]

    def __str__(self) -> str:
        return ",".join([f"{self.initial!r}", *(f"{update}:{value!r}" for update, value in self.changes)])


def _change(part: str) -> tuple[int, float]:
    update, colon, value = part.partition(":")
    if not part.strip():
        raise ValueError("a comma is followed by nothing")
    if not colon:
        raise ValueError(f"{part.strip()!r} is no UPDATE:VALUE")
    return _number(update, int, "a whole number of updates"), _number(value, float, "a number")


def _number(text: str, kind: type, wanted: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text.strip()!r} is not {wanted}") from None


def _flag(default, group: str, text: str, **options):
    return field(default=default, metadata={"group": group, "help": text, **options})


@dataclass(frozen=True)
class Config:
    """Every flag of the command line, under its name in snake case. ``None`` stands for "not given".

    The texts beside the fields are what ``--help`` prints; they state the units. What is marked ``of_the_run`` makes a
    run's saved state what it is: ``--resume`` keeps it. All else may change: speed, schedules, losses, evaluation.
    """

    # fmt: off
    task: str = _flag("train", "task", "what to do: train; play, to watch a model; eval, to score it; dump_video, to "
                      "record it; info, to read what it is; plot, to draw runs; doctor, to check this machine",
                      choices=TASKS)
    env: str | None = _flag(None, "task", "Atari environment id: Pong-v0, ALE/Pong-v5, BreakoutNoFrameskip-v4 ... "
                            f"(default: that of the --load file, without one {DEFAULT_ENV})", of_the_run=True)
    gpu: str | None = _flag(None, "task", "GPUs, a list such as 0 or 0,1, numbered within CUDA_VISIBLE_DEVICES if that "
                            "is set; of n > 1 the last ceil(n/2) infer, the rest train; -1: none, the CPU does it all "
                            "(default: GPU 0 if there is one)")
    load: tuple[str, ...] = _flag((), "task", "weights: an .npz, a TensorFlow checkpoint, or the directory of a "
                                  "run; eval and info take several, and all models of a directory")
    output: tuple[str, ...] = _flag((), "task", "output directory (default: train_log/train-atari-ENV); plot takes "
                                    "several, the runs to draw, and draws into the first")
    episode: int = _flag(100, "task", "episodes to play, to evaluate or to record", low=1)
    watch: int | None = _flag(None, "task", "train and play: serve a page on http://127.0.0.1:N that shows the "
                              "agent play", low=1, high=65535)
    sample_actions: bool = _flag(False, "task", "play, dump_video and eval: draw actions from the policy, as in "
                                 "training; else the most probable is taken, and 1% are random")
    overlay: bool = _flag(False, "task", "dump_video: draw the policy and the value beside the frames")
    resume: bool = _flag(False, "task", "continue the training run in the output directory")
    seed: int = _flag(0, "task", "seed of the weights, the games and the actions", low=0, high=2**31 - 1,
                      of_the_run=True)

    simulator_proc: int | None = _flag(None, "simulation", "simulator processes (default: 2 per core that plays; with "
                                       "a GPU 32 at most)", low=1, high=4096)
    num_envs: int | None = _flag(None, "simulation", "games, spread evenly over the processes, at least one to each "
                                 f"(default: {GAMES_PER_CORE} per core that plays; with a GPU 16, 256 at most; on a "
                                 "cluster more where the network is slow)", low=1, high=65536)

    simulator_timeout: float = _flag(60.0, "simulation", "seconds that a simulator may take for a step, and three "
                                     "times that to start: then it is killed and replaced", low=0.1, high=1e9)

    ray: str | None = _flag(None, "cluster", "play on the machines of a Ray cluster: HOST:PORT of its head; auto: "
                            "RAY_ADDRESS, else the cluster that this machine is part of; local: a small one of this "
                            "machine, to try it")
    hosts: int | None = _flag(None, "cluster", "simulator hosts; those that are not there yet are waited for, while "
                              "the others play (default: as many as the nodes have cores for)", low=1, high=256)
    host_cores: int | None = _flag(None, "cluster", "cores of each host (default: those of the smallest node)", low=1,
                                   high=1024)
    listen: str | None = _flag(None, "cluster", "this machine's IP address, on which it listens for the simulators "
                               "(default: the one that Ray was started with)")
    frame_codec: str = _flag("lz4", "cluster", "how frames are packed for the network; none suits one of 10 Gbit/s",
                             choices=("lz4", "none"))

    predict_batch_size: int | None = _flag(None, "prediction", "states in an inference batch, at most; made of whole "
                                           "blocks of one process's games, at least one (default: 16; with a GPU half "
                                           "of the games, shared out over the predictor threads, as far as memory "
                                           "goes, 16 at least)", low=1, high=65536)
    predictor_thread_per_gpu: int | None = _flag(None, "prediction", "predictor threads per inference device (default: "
                                                 "1 on the CPU; on a GPU 1 for 2 usable cores, 4 at most)",
                                                 low=1, high=64)

    network: str = _flag("auto", "learning", "batch-a3c is the original's; small is for machines without a GPU; "
                         "nature has DQN's convolutions; auto takes batch-a3c with a GPU and small without, for "
                         "training, and what the file holds for the other tasks",
                         choices=("auto", *NETWORKS), of_the_run=True)
    batch_size: int | None = _flag(None, "learning", "states in a learner update", low=1, high=65536)
    local_time_max: int | None = _flag(None, "learning", "steps in an unroll", low=1, high=4096)
    gamma: float = _flag(0.99, "learning", "discount per step", low=0.0, high=1.0)
    gae_lambda: float | None = _flag(None, "learning", "lambda of the returns (GAE); 1 gives n-step returns",
                                     low=0.0, high=1.0)
    correction: str | None = _flag(None, "learning", "how data of an older policy is corrected: clipped-is weighs the "
                                   "policy gradient with pi/mu clipped at 10, the original's; vtrace is IMPALA's, "
                                   "over whole unrolls with the learner's values; clipped-surrogate is the clipped "
                                   "objective of PPO, with the advantages of a pool normalised", choices=CORRECTIONS)
    max_policy_lag: int | None = _flag(None, "learning", "learner updates between acting and learning; what is older "
                                       "is dropped: with vtrace the whole unroll, and a batch that is mostly too old "
                                       "(default: no limit)", low=0)
    surrogate_clip: float = _flag(0.1, "learning", "clipped-surrogate: range of pi/mu around 1", low=0.0, high=10.0)
    pool_states: int | None = _flag(None, "learning", "states that batches are drawn from at random; equal to "
                                    "--batch-size: in the order of arrival", low=1, high=1 << 20)
    sample_reuse: int | None = _flag(None, "learning", "batches that each state is part of", low=1, high=64)
    learning_rate: Schedule | None = _flag(None, "learning", "VALUE[,UPDATE:VALUE...], in learner updates")
    entropy_beta: Schedule | None = _flag(None, "learning", "weight of the entropy: VALUE[,UPDATE:VALUE...]")
    value_weight: float | None = _flag(None, "learning", "weight of half the squared value error", low=0.0, high=100.0)
    adam_epsilon: float | None = _flag(None, "learning", "epsilon of Adam", low=1e-12, high=1.0)
    gradient_clip: str | None = _flag(None, "learning", "per-tensor clips each tensor's norm to NORM times its number "
                                      "of elements, the original's; global-norm clips the norm of all to NORM",
                                      choices=GRADIENT_CLIPS)
    gradient_clip_norm: float | None = _flag(None, "learning", "NORM of --gradient-clip", low=1e-9, high=1e9)

    steps_per_epoch: int | None = _flag(None, "schedule", "trainer steps in an epoch, each one update per training GPU "
                                        "(default: 6000 on a GPU, 768 on the CPU)", low=1)
    max_epoch: int = _flag(1000, "schedule", "epochs to train", low=1)
    eval_every: int | None = _flag(None, "schedule", "epochs between evaluations, 0 for none (default: 3 on a GPU, 10 "
                                   "on the CPU)", low=0)
    eval_episode: int | None = _flag(None, "schedule", "episodes of an evaluation during training (default: 50 on a "
                                     "GPU, 20 on the CPU)", low=1)
    queue_size: int | None = _flag(None, "schedule", "batches that may wait between actor and learner while the games "
                                   "play on, per training GPU; with several training GPUs one more is on its way",
                                   low=1, high=256)
    max_to_keep: int = _flag(10, "schedule", "checkpoints to keep, the newest ones", low=1, high=100_000)
    stall_timeout: float = _flag(300.0, "schedule", "seconds without a batch for the learner, evaluations not counted, "
                                 "after which the run ends and says what is stuck", low=1.0, high=1e9)
    deterministic: bool = _flag(False, "schedule", "make runs repeatable to the bit: one simulator, which plays while "
                                "the learner waits and waits while it learns; slow")
    # fmt: on

    def resolve(
        self,
        cores: int,
        num_gpus: int,
        gpu_bytes: int | None = None,
        *,
        playing_cores: int | None = None,
        games_per_core: int = GAMES_PER_CORE,
    ) -> Config:
        """Fill in what was not given, for a machine.

        Args:
            cores: usable ones of this machine.
            num_gpus: visible ones.
            gpu_bytes: memory of the smallest of them; None if it is not known.
            playing_cores: those that simulators have, if they are on other machines.
            games_per_core: games that keep such a core busy.

        Raises:
            UsageError: values that do not go together.
        """
        on_gpu = num_gpus > 0
        network = self.network if self.network != "auto" else ("batch-a3c" if on_gpu else "small")
        if self.deterministic and (self.simulator_proc or 1, self.predictor_thread_per_gpu or 1, max(1, num_gpus)) != (
            1, 1, 1
        ):  # fmt: skip
            raise UsageError(
                "--deterministic plays with one simulator and one predictor on one device: leave --simulator-proc and "
                "--predictor-thread-per-gpu out, and name one --gpu at most"
            )
        acting = acting_defaults(cores, on_gpu)
        if playing_cores is not None:
            acting = acting._replace(simulator_proc=2 * playing_cores, num_envs=games_per_core * playing_cores)
        processes = self.simulator_proc or (1 if self.deterministic else acting.simulator_proc)
        if self.num_envs is not None:
            processes = min(processes, self.num_envs) if self.simulator_proc is None else processes
        num_envs = max(self.num_envs or (acting.num_envs if self.simulator_proc is None else 1), processes)
        threads = self.predictor_thread_per_gpu or (1 if self.deterministic else acting.predictor_thread_per_gpu)
        chosen = dict(
            LEARNING_DEFAULTS[network],
            env=self.env or DEFAULT_ENV,
            network=network,
            simulator_proc=processes,
            num_envs=num_envs,
            predict_batch_size=predict_batch_size(num_envs, num_gpus, threads, gpu_bytes),
            predictor_thread_per_gpu=threads,
            steps_per_epoch=6000 if on_gpu else 768,
            eval_every=3 if on_gpu else 10,
            eval_episode=50 if on_gpu else 20,
        )
        chosen.setdefault("pool_states", self.batch_size or chosen["batch_size"])
        keep = ("network", "num_envs")  # already made from what was given
        filled = {name: value for name, value in chosen.items() if name in keep or getattr(self, name) is None}
        config = dataclasses.replace(self, **filled)
        if config.num_envs != self.num_envs and self.num_envs is not None:
            raise UsageError(
                f"--num-envs {self.num_envs} is less than --simulator-proc {self.simulator_proc}: "
                "each process plays at least one game"
            )
        if config.pool_states % config.batch_size:
            raise UsageError(
                f"--pool-states {config.pool_states} is no multiple of --batch-size {config.batch_size}: "
                f"try {config.batch_size * max(1, round(config.pool_states / config.batch_size))}"
            )
        if config.correction == "vtrace" and config.batch_size % config.local_time_max:
            raise UsageError(f"--correction vtrace learns from whole unrolls: {config._fitting_sizes()}")
        return config

    def _fitting_sizes(self) -> str:
        batch, steps = self.batch_size, self.local_time_max
        divisors = [n for n in range(1, batch + 1) if batch % n == 0]
        below = max(n for n in divisors if n <= steps)
        above = min((n for n in divisors if n >= steps), default=below)
        multiple = steps * max(1, round(batch / steps))
        lengths = " or ".join(str(n) for n in sorted({below, above}))
        return (
            f"--local-time-max {steps} does not divide --batch-size {batch}; try --local-time-max {lengths}, "
            f"or --batch-size {multiple}"
        )

    @property
    def directory(self) -> str:
        """The output directory; the first one where several are named."""
        return self.output[0] if self.output else f"train_log/train-atari-{file_name(self.env or DEFAULT_ENV)}"

    @property
    def model(self) -> str | None:
        """The model file to start from or to use; the first one where several are named."""
        return self.load[0] if self.load else None

    @property
    def envs_per_simulator(self) -> tuple[int, ...]:
        """Number of games of each simulator process, as even as can be."""
        return spread(self.num_envs, self.simulator_proc)

    @property
    def gpu_ids(self) -> tuple[int, ...]:
        """The GPUs asked for; none if ``--gpu`` was not given, or gave them up."""
        return tuple(int(part) for part in self.gpu.split(",")) if self.gpu not in (None, NO_GPU) else ()

    def saved(self) -> Config:
        """The configuration saved in this one's output directory, to be resumed; this one if there is none."""
        path = Path(self.directory) / CONFIG_FILE
        remedy = "mend it, or start afresh with a new --output"
        try:
            record = json.loads(path.read_text()) if path.is_file() else {}
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else first_line(error)
            raise UsageError(f"{path} cannot be read ({reason}): {remedy}") from None
        if not isinstance(record, dict):
            raise UsageError(f"{path} holds no settings by name: {remedy}")
        for name, value in (("network", REMOVED_NETWORK), ("optimizer", REMOVED_OPTIMIZER)):
            if record.get(name) == value:
                raise UsageError(f'{path}: "{name}" is "{value}", which {REMOVED}')
        values = {}
        # As typed; weights of its own; where it is by now; of that time; no training's; where it plays this time.
        left_out = {"task", "load", "output", "watch", "overlay", "sample_actions", *_CLUSTER_FLAGS}
        if record.get("ray") is not None or self.ray is not None:
            left_out |= {"simulator_proc", "num_envs", "predict_batch_size"}  # they follow the cores that play
        for f in dataclasses.fields(self):
            if f.name not in left_out and record.get(f.name) is not None:
                try:
                    values[f.name] = checked(f, record[f.name])
                except ValueError as error:
                    told = json.dumps(record[f.name])[:_MAX_TOLD]
                    raise UsageError(f'{path}: "{f.name}" is {told}: {error}; {remedy}') from None
        return dataclasses.replace(self, **values)

    def as_json(self) -> str:
        """The configuration as ``config.json`` has it."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record = {name: str(value) if isinstance(value, Schedule) else value for name, value in values.items()}
        return json.dumps(record, indent=2) + "\n"


_TYPES = {  # of a field: what JSON and the command line have for it, and in words
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "text in quotes"),
    "Schedule": ((str, int, float, Schedule), "VALUE[,UPDATE:VALUE...] in quotes"),
}


def checked(f: dataclasses.Field, value: object) -> object:
    """A value as a field of ``Config`` holds it; the paths among them are not for this.

    Raises:
        ValueError: it is of another type, out of the range or none of the choices; says what it must be.
    """
    kind = f.type.split(" ")[0]
    types, words = _TYPES[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"it must be {words}")
    if kind == "Schedule":
        return Schedule.parse(str(value))
    choices = f.metadata.get("choices", (value,))
    if value not in choices:
        raise ValueError(f"it must be one of {', '.join(choices)}")
    low, high = f.metadata.get("low", -math.inf), f.metadata.get("high", math.inf)
    if kind in ("int", "float") and not low <= value <= high:
        raise ValueError(f"it must be {f'at least {low}' if high == math.inf else f'from {low} to {high}'}")
    return float(value) if kind == "float" else value


# What the learner does by default: the original's settings, and what learns on a machine without a GPU.
_FEW_CORES = {
    "batch_size": 256,
    "local_time_max": 64,
    "gae_lambda": 0.95,
    "correction": "clipped-surrogate",
    "pool_states": 2560,
    "sample_reuse": 1,
    "queue_size": 2,
    "learning_rate": Schedule(5e-4, ((24_000, 2.5e-4), (40_000, 1e-4), (72_000, 3e-5))),
    "entropy_beta": Schedule(0.01, ((24_000, 0.005), (40_000, 0.002))),
    "value_weight": 0.5,
    "adam_epsilon": 1e-5,
    "gradient_clip": "global-norm",
    "gradient_clip_norm": 0.5,
}
LEARNING_DEFAULTS = {
    "batch-a3c": {
        "batch_size": 128,
        "local_time_max": 5,
        "gae_lambda": 1.0,
        "correction": "clipped-is",
        "sample_reuse": 1,
        "queue_size": 1,
        "learning_rate": Schedule(1e-3, ((120_000, 3e-4), (720_000, 1e-4))),
        "entropy_beta": Schedule(0.01, ((480_000, 0.005),)),
        "value_weight": 1.0,
        "adam_epsilon": 1e-3,
        "gradient_clip": "per-tensor",
        "gradient_clip_norm": 0.1,
    },
    "small": _FEW_CORES,
    "nature": _FEW_CORES
    | {
        "gae_lambda": 0.98,
        "learning_rate": Schedule(5e-4, ((12_000, 2.5e-4), (36_000, 1e-4), (64_000, 3e-5))),
        "entropy_beta": Schedule(0.01, ((16_000, 0.005), (36_000, 0.002))),
    },
}


def spread(total: int, parts: int) -> tuple[int, ...]:
    """Split ``total`` into ``parts`` whole numbers that differ by at most one, the larger ones first."""
    return tuple(total // parts + (i < total % parts) for i in range(parts))
