#!/usr/bin/env python3
"""Train, watch, score and record A3C agents on Atari games.

    ./train-atari.py --env Breakout-v0 --gpu 0
    ./train-atari.py --task play --env Breakout-v0 --load Breakout-v0.npz
    ./train-atari.py --task dump_video --load Breakout-v0.npz --env Breakout-v0 --output output_dir --episode 3
    ./train-atari.py --task eval --env Breakout-v0 --load Breakout-v0.npz --episode 100

Typed without an active environment it runs in the project's own, .venv, which `make train` and `make test` create.
"""

import contextlib
import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

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
    from config import RunError, UsageError, parse_args
    from machine import usable_cores

    try:
        config = parse_args()
        from atari_wrapper import get_protocol

        protocol = get_protocol(config.env)
        print(protocol, flush=True)
        run(config, protocol, usable_cores(), stop)
    except UsageError as error:
        fail(str(error))
    except RunError as error:
        print(f"train-atari.py: {error}", file=sys.stderr)
        sys.exit(1)
    except StoppedError:
        pass
    sys.exit(stop.exit_status)


@contextlib.contextmanager
def quiet_stderr():
    """Drop what native libraries say while they are loaded; TensorFlow's notes there cannot be turned off."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def run(config, protocol, cores: int, stop: StopRequest) -> None:
    with quiet_stderr():
        import common
        import learner
    from model_file import check_model, load_policy, read_model

    stop.defer()
    model_file = None
    if config.load:
        model_file = read_model(config.load)
        check_model(model_file, protocol, config.network)
        config = dataclasses.replace(config, network=model_file.network)
    num_gpus = learner.visible_gpus(config.gpu_ids)
    if len(config.gpu_ids) > num_gpus:
        learner.warn_missing_gpus(config, num_gpus)
    if config.task == "train":
        config = config.resolve(cores, num_gpus)
        learner.train(config, protocol, model_file, cores, num_gpus, stop)
        return
    policy = load_policy(model_file, cores)
    output = Path(config.output or config.default_output())
    if config.task == "play":
        common.play(policy, config.env, config.episode, config.seed, check_stop=stop.check)
    elif config.task == "dump_video":
        common.record(policy, config.env, config.episode, output, config.seed, check_stop=stop.check)
    else:
        scores = common.evaluate(
            policy, {"env_id": config.env}, config.episode, 2 * cores, config.seed, check_stop=stop.check
        )
        common.report_scores(scores, protocol, output)


if __name__ == "__main__":
    stop_request = StopRequest()
    stop_request.listen()
    enter_environment()
    main(stop_request)
