#!/usr/bin/env python3
"""Train, watch, score and record A3C agents on Atari games.

    ./train-atari.py --env Breakout-v0 --gpu 0
    ./train-atari.py --task play --env Breakout-v0 --load Breakout-v0.npz
    ./train-atari.py --task dump_video --load Breakout-v0.npz --env Breakout-v0 --output output_dir --episode 3
    ./train-atari.py --task eval --env Breakout-v0 --load Breakout-v0.npz --episode 100

Typed without an active environment it runs in the project's own, .venv, which `make train` and `make test` create.
"""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

from machine import quiet_stderr
from stopping import StoppedError, StopRequest

HERE = Path(__file__).resolve().parent


def enter_environment() -> None:
    """Go on in the project's .venv if no environment is active; say what to type if the packages are missing."""
    if sys.platform == "win32":
        fail("Windows is not supported: use Linux, or the Windows Subsystem for Linux")
    python = HERE / ".venv" / "bin" / "python"
    if sys.prefix == sys.base_prefix and python.exists():
        os.execv(python, [str(python), *sys.argv])
    if sys.version_info < (3, 11):
        fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: type 'make train' in {HERE}")
    missing = [name for name in ("ale_py", "tensorflow", "tensorpack", "zmq") if not importlib.util.find_spec(name)]
    if missing:
        fail(f"{', '.join(missing)} not installed: type 'make train' in {HERE}")


def fail(message: str) -> None:
    """Tell a user's error in one line and leave."""
    print(f"train-atari.py: {message}", file=sys.stderr)
    sys.exit(2)


def main(stop: StopRequest) -> None:
    from config import RunError, UsageError
    from flags import parse_args

    try:
        run(parse_args(), stop)
    except UsageError as error:
        fail(str(error))
    except RunError as error:
        print(f"train-atari.py: {error}", file=sys.stderr)
        sys.exit(1)
    except StoppedError:
        pass
    sys.exit(stop.exit_status)


def run(config, stop: StopRequest) -> None:
    from atari_wrapper import get_protocol

    if config.task == "plot":
        from curves import plot_runs

        print(f"written to {plot_runs([Path(run) for run in config.output])}")
        return
    if config.env:
        get_protocol(config.env)  # a wrong one is told before TensorFlow is loaded, which takes seconds
    with quiet_stderr():
        import model_file
    if config.task == "info":
        print("\n\n".join(model_file.describe(model_file.read_model(path)) for path in model_file.expand(config.load)))
        return
    stop.defer()
    {"train": train, "play": play, "dump_video": dump_video, "eval": evaluate}[config.task](config, stop)


def train(config, stop: StopRequest) -> None:
    import learner
    from atari_wrapper import get_protocol
    from config import DEFAULT_ENV
    from machine import usable_cores
    from model_file import check_model, read_model

    model = read_model(config.model) if config.model else None
    env = config.env or (model and model.metadata.get("env")) or DEFAULT_ENV
    protocol = get_protocol(env)
    print(protocol, flush=True)
    if model is not None:
        check_model(model, protocol, config.network)
        config = dataclasses.replace(config, network=model.network)
    num_gpus, cores = learner.visible_gpus(config.gpu_ids), usable_cores()
    if len(config.gpu_ids) > num_gpus:
        learner.warn_missing_gpus(config, num_gpus)
    config = dataclasses.replace(config, env=env).resolve(cores, num_gpus)
    learner.train(config, protocol, model, cores, num_gpus, stop)


def load_agent(path: str, config):
    """A model file's protocol and policy, checked against the flags."""
    import learner
    from atari_wrapper import get_protocol
    from machine import usable_cores
    from model_file import check_model, environment_of, load_policy, read_model

    model = read_model(path)
    protocol = get_protocol(environment_of(model, config.env))
    print(protocol, flush=True)
    check_model(model, protocol, config.network)
    num_gpus = learner.visible_gpus(config.gpu_ids)
    if len(config.gpu_ids) > num_gpus:
        learner.warn_missing_gpus(config, num_gpus)
    return protocol, load_policy(model, usable_cores())


def play(config, stop: StopRequest) -> None:
    import common

    if config.watch is not None:
        watch_play(config, stop)
        return
    protocol, policy = load_agent(config.model, config)
    common.play(policy, protocol.env, config.episode, config.seed, check_stop=stop.check)


def watch_play(config, stop: StopRequest) -> None:
    import watch

    listener = watch.listen(config.watch)
    print(f"watch it at {watch.address(listener)}", flush=True)
    protocol, policy = load_agent(config.model, config)
    watch.play(listener, policy, protocol.env, config.episode, config.seed, check_stop=stop.check)


def dump_video(config, stop: StopRequest) -> None:
    import common

    protocol, policy = load_agent(config.model, config)
    directory = Path(dataclasses.replace(config, env=protocol.env).directory)
    common.record(policy, protocol.env, config.episode, directory, config.seed, config.overlay, check_stop=stop.check)


def evaluate(config, stop: StopRequest) -> None:
    import common
    import score_report
    from machine import usable_cores
    from model_file import expand

    evaluations = []
    for path in expand(config.load):
        protocol, policy = load_agent(path, config)
        scores = common.evaluate(
            policy, {"env_id": protocol.env}, config.episode, 2 * usable_cores(), config.seed, check_stop=stop.check
        )
        evaluations.append(score_report.Evaluation(path, protocol, common.EVALUATION, scores))
    several = len(evaluations) > 1 and not config.output
    env = evaluations[0].protocol.env
    directory = "train_log/eval" if several else dataclasses.replace(config, env=env).directory
    score_report.report(evaluations, Path(directory))


if __name__ == "__main__":
    stop_request = StopRequest()
    stop_request.listen()
    enter_environment()
    main(stop_request)
