"""The command line: a parser made of the fields of ``Config``, and what does not go together."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import ipaddress
import re

from a3c.config import LEARNING_DEFAULTS, MODEL_TASKS, NETWORKS, NO_GPU, Config, Schedule, checked
from a3c.errors import UsageError

_GROUPS = {
    "task": "task",
    "simulation": "simulation",
    "cluster": "cluster (simulators on other machines: docs/cluster.md)",
    "prediction": "prediction",
    "learning": "learning (what is not given here depends on the network: the original's for batch-a3c)",
    "schedule": "schedule",
}


def _default_text(name: str, default) -> str:
    if default is not None:
        return "" if default is False or default == () else f" (default: {default})"
    values = {network: LEARNING_DEFAULTS[network].get(name) for network in NETWORKS}
    if set(values.values()) == {None}:
        return ""
    networks: dict[str, list[str]] = {}
    for network, value in values.items():
        networks.setdefault("the batch size" if value is None else str(value), []).append(network)
    texts = [f"{value} for {' and '.join(names)}" for value, names in networks.items()]
    return f" (default: {', '.join(texts)})"


def _schedule(text: str) -> Schedule:
    try:
        return Schedule.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no VALUE[,UPDATE:VALUE...]: {error}") from None


def make_parser() -> argparse.ArgumentParser:
    """Build the command line's parser from the fields of ``Config``."""

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            raise UsageError(f"{message} (--help lists all flags)")

    parser = Parser(
        prog="train-atari.py",
        usage="./train-atari.py [--task TASK] [--env ENV] [--load FILE.npz] [flags]",
        description="Train, watch, score and record A3C agents on Atari games.",
        epilog="A step is one action of the agent, a frame one of the emulator, an update one applied gradient.",
        allow_abbrev=False,
    )
    groups = {key: parser.add_argument_group(title) for key, title in _GROUPS.items()}
    types = {"int": int, "float": float, "Schedule": _schedule}
    for f in dataclasses.fields(Config):
        options = {"default": None, "help": f.metadata["help"].replace("%", "%%") + _default_text(f.name, f.default)}
        kind = f.type.split(" ")[0]
        if kind == "bool":
            options["action"] = "store_true"
        elif kind.startswith("tuple"):
            options |= {"nargs": "+", "metavar": "PATH"}
        else:
            options["type"] = types.get(kind, str)
            options["metavar"] = {"int": "N", "float": "X", "Schedule": "SCHEDULE"}.get(kind, f.name.upper())
        if "choices" in f.metadata:
            options["choices"] = f.metadata["choices"]
            options["metavar"] = "{" + ",".join(options["choices"]) + "}"
        groups[f.metadata["group"]].add_argument("--" + f.name.replace("_", "-"), **options)
    return parser


def parse_args(argv: list[str] | None = None) -> Config:
    """Parse and check the command line.

    Raises:
        UsageError: an unknown flag or a value out of its range, in one line.
    """
    given = {name: value for name, value in vars(make_parser().parse_args(argv)).items() if value is not None}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    for f in dataclasses.fields(Config):
        flag = "--" + f.name.replace("_", "-")
        values = given.get(f.name)
        if "" in (values if isinstance(values, tuple) else (values,)):
            raise UsageError(f"{flag} is given nothing: is a variable of your shell not set?")
        if f.name in given and not f.type.startswith("tuple"):
            try:
                checked(f, given[f.name])
            except ValueError as error:
                raise UsageError(f"{flag} {given[f.name]} is out of range: {error}") from None
    config = Config(**given)
    if config.resume:
        saved = config.saved()
        given = _keep_what_the_run_is(given, saved, config.directory)
        config = dataclasses.replace(saved, **_follow(given, saved) | given)
    if config.gpu not in (None, NO_GPU):
        parts = config.gpu.split(",")
        if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) != len(parts):
            raise UsageError(
                f"--gpu {config.gpu!r} is no list of GPU numbers: type for example --gpu 0 or "
                f"--gpu 0,1, or --gpu {NO_GPU} for the CPU"
            )
    _check_task(config)
    return config


def _follow(given: dict, saved: Config) -> dict:
    """Settings of a resumed run that follow from those given; None is chosen anew."""
    changes = {}
    if "num_envs" in given:
        changes["simulator_proc"] = None
    elif given.get("simulator_proc", 0) > (saved.num_envs or 0):
        changes["num_envs"] = None
    if "deterministic" in given:
        changes |= {"simulator_proc": None, "predictor_thread_per_gpu": None}
    if changes or "predictor_thread_per_gpu" in given:
        changes["predict_batch_size"] = None
    if "batch_size" in given and saved.pool_states == saved.batch_size:  # batches in the order of arrival stay so
        changes["pool_states"] = given["batch_size"]
    return changes


def _keep_what_the_run_is(given: dict, saved: Config, directory: str) -> dict:
    """Leave out what a resumed run has anyway. Raises UsageError for what would make its saved state another's."""
    if given.get("network") == "auto":
        given = {name: value for name, value in given.items() if name != "network"}
    for f in dataclasses.fields(Config):
        was = getattr(saved, f.name)
        if f.metadata.get("of_the_run") and was is not None and given.get(f.name, was) != was:
            flag = f"--{f.name.replace('_', '-')}"
            raise UsageError(
                f"{flag} {given[f.name]}: the run in {directory} was begun with {flag} {was}, which --resume keeps; "
                f"leave it out, or start a new run with another --output"
            )
    return given


def _check_task(config: Config) -> None:
    """Raise UsageError if flags are given that the task cannot do with, or without."""
    task = config.task
    if task in MODEL_TASKS and not config.load:
        raise UsageError(f"--task {task} needs a model: add --load FILE.npz")
    if task == "doctor" and config.load:
        raise UsageError("--task doctor takes no --load: name the game with --env, the network with --network")
    if len(config.load) > 1 and task not in ("eval", "info"):
        raise UsageError(f"--task {task} takes one --load file")
    if task == "plot" and not config.output:
        raise UsageError("--task plot needs the runs to draw: add --output RUN [RUN ...]")
    if len(config.output) > 1 and task != "plot":
        raise UsageError(f"--task {task} takes one --output directory")
    if config.watch is not None and task not in ("train", "play"):
        raise UsageError("--watch is for --task train and --task play")
    if config.sample_actions and task not in ("play", "dump_video", "eval"):
        raise UsageError("--sample-actions is for --task play, dump_video and eval")
    if config.overlay and task != "dump_video":
        raise UsageError("--overlay is for --task dump_video")
    if config.ray is None:
        for name in ("hosts", "host_cores", "listen"):
            if getattr(config, name) is not None:
                raise UsageError(f"{_name(name)} is for simulators on a Ray cluster: add --ray ADDRESS, or --ray local")
    elif task not in ("train", "eval", "doctor"):
        raise UsageError("--ray is for --task train, eval and doctor")
    if config.listen is not None:
        _check_listen(config.listen)
    if config.resume and task != "train":
        raise UsageError("--resume is for --task train")
    if config.resume and config.load:
        raise UsageError("--resume and --load exclude each other: --load starts a new run from the file's weights")


def _check_listen(address: str) -> None:
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(address).is_unspecified:
            return
    raise UsageError(f"--listen {address}: it must be one IP address of this machine, which the hosts reach")


# The flags to know first, and what they are for.
_FIRST = {
    "env": "The game. The suite measures on the `-v0` ids; scores of other ids [do not compare](protocol.md).",
    "gpu": "Of several GPUs the last half infers and the rest train, asynchronously, as in the original. If a GPU that "
    "you ask for is missing, the suite warns and builds the same towers on the CPU.",
    "network": "`batch-a3c` is the original's, with 3.4 million parameters. `small` is the A3C paper's, a tenth of the "
    "work. `nature` has DQN's convolutions.",
    "num_envs": "How many games are played at once. More games give the learner older data.",
    "simulator_proc": "`--simulator-proc 240` alone gives 240 processes of one game each, as in the original.",
    "local_time_max": "The length of an unroll. With `--correction vtrace` it must divide `--batch-size`.",
    "correction": "How the learner allows for data of an older policy: the original's clipped importance weight, "
    "IMPALA's V-trace, or PPO's clipped objective.",
    "max_policy_lag": "Drops what is too old when the learner takes a batch, and counts it in `dropped_transitions`.",
    "pool_states": "Games play until a pool is full. Then its states are drawn as batches of `--batch-size` in random "
    "order, each of them `--sample-reuse` times.",
    "queue_size": "How far the games may be ahead of the learner. A longer queue means "
    "[older data](results.md#fresh-data-and-the-correction).",
    "learning_rate": "`0.001,120000:0.0003` means 0.001, and 0.0003 from update 120,000 on. A line in `hyper.txt` "
    "[changes it by hand](tasks.md#the-output-directory). `--entropy-beta` takes the same.",
    "eval_every": "How often training stops for an evaluation of `--eval-episode` episodes.",
}
_PAGE = """# Flags

<!-- Written by a3c/flags.py. Do not edit it here: .venv/bin/python -m a3c.flags > docs/flags.md -->

`./train-atari.py --help` prints the same list. A *step* is one action of the agent, a *frame* one of the emulator, an
*update* one applied gradient. Learning settings that you leave out depend on the network. With `--network batch-a3c`
they are the original's. What a run has chosen is printed when it starts, and kept in its `config.json`.

## The flags to know first

{first}

{groups}"""


def page() -> str:
    """Write docs/flags.md: the flags to know first, then all of them in groups."""
    first = [f"- `{_name(name)}`: {text}" for name, text in _FIRST.items()]
    groups = []
    for key, title in _GROUPS.items():
        rows = [_row(f) for f in dataclasses.fields(Config) if f.metadata["group"] == key]
        heading = f"## {title.partition(' ')[0].capitalize()}"
        groups += [heading, "", "| flag | takes | meaning | default |", "|---|---|---|---|", *rows, ""]
    return _PAGE.format(first="\n".join(first), groups="\n".join(groups))


def _name(field: str) -> str:
    return "--" + field.replace("_", "-")


def _row(f: dataclasses.Field) -> str:
    text = f.metadata["help"] + _default_text(f.name, f.default)
    default = re.search(r" \(default: (.*?)\)", text)
    meaning = text.replace(default[0], "") if default else text
    return f"| `{_name(f.name)}` | {_takes(f)} | {meaning} | {default[1] if default else ''} |"


def _takes(f: dataclasses.Field) -> str:
    kind = f.type.split(" ")[0]
    if "choices" in f.metadata:
        return ", ".join(f"`{choice}`" for choice in f.metadata["choices"])
    if kind == "bool":
        return f"nothing; `--no-{f.name.replace('_', '-')}` for the opposite" if f.default is None else "nothing"
    words = {"int": "a whole number", "float": "a number", "Schedule": "a schedule", "str": "text"}.get(kind, "paths")
    low, high = f.metadata.get("low"), f.metadata.get("high")
    if low is None:
        return words
    return f"{words}, {low:,.15g} or more" if high is None else f"{words}, {low:,.15g} to {high:,.15g}"


if __name__ == "__main__":
    print(page(), end="")
