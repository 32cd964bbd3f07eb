"""How many games, processes and predictors: by table, on the CPU and on GPUs."""

from __future__ import annotations

from a3c.acting_defaults import acting_defaults, predict_batch_size
from a3c.flags import parse_args

import pytest

GB = 10**9


@pytest.mark.parametrize("cores", [1, 2, 12, 96])
def test_on_the_cpu_they_follow_the_cores_alone(cores):
    assert acting_defaults(cores, on_gpu=False) == (2 * cores, 20 * cores, 1)
    assert predict_batch_size(20 * cores, 0, 1, 80 * GB) == 16


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1, (2, 16, 1)), (2, (4, 32, 1)), (6, (12, 96, 3)), (12, (24, 192, 4)), (16, (32, 256, 4)), (96, (32, 256, 4))],
)
def test_on_a_gpu_they_grow_with_the_cores_until_the_master_is_full(cores, expected):
    assert acting_defaults(cores, on_gpu=True) == expected


BATCHES = {  # games, GPUs, threads, bytes of memory: states of an inference at the most
    "the original's 240 games": ((240, 1, 4, None), 30),
    "the original's default": ((24, 1, 4, 16 * GB), 16),
    "12 cores": ((192, 1, 4, 16 * GB), 24),
    "one thread": ((192, 1, 1, 16 * GB), 96),
    "two of three GPUs infer": ((240, 3, 2, 16 * GB), 30),
    "one of two GPUs infers": ((240, 2, 4, 16 * GB), 30),
    "many games": ((4096, 1, 4, 80 * GB), 512),
    "more than memory has room for": ((4096, 1, 4, 8 * GB), 62),
    "of a small GPU": ((4096, 1, 4, GB), 16),
}


@pytest.mark.parametrize("case", BATCHES)
def test_an_inference_has_room_for_its_share_of_half_of_the_games(case):
    args, states = BATCHES[case]
    assert predict_batch_size(*args) == states


def resolved(line: str, cores: int, num_gpus: int, gpu_bytes: int | None = None) -> tuple[int, ...]:
    config = parse_args(line.split()).resolve(cores, num_gpus, gpu_bytes)
    return (config.simulator_proc, config.num_envs, config.predict_batch_size, config.predictor_thread_per_gpu)


RESOLVED = {  # flags: processes, games, states of an inference, threads; on 12 cores and a GPU
    "": (24, 192, 24, 4),
    "--simulator-proc 24 --predict-batch-size 16": (24, 24, 16, 4),  # the original's
    "--simulator-proc 240 --predict-batch-size 30 --predictor-thread-per-gpu 6": (240, 240, 30, 6),  # as published
    "--num-envs 480": (24, 480, 60, 4),
    "--num-envs 10": (10, 10, 16, 4),
    "--predictor-thread-per-gpu 1": (24, 192, 96, 1),
    "--deterministic": (1, 192, 96, 1),
}


@pytest.mark.parametrize("line", RESOLVED)
def test_what_is_given_decides_the_rest(line):
    assert resolved(line, 12, 1) == RESOLVED[line]


def test_the_memory_reaches_the_rule():
    assert resolved("--num-envs 4096", 12, 1, 8 * GB) == (24, 4096, 62, 4)


def test_a_gpu_that_is_missing_changes_nothing():
    assert resolved("--gpu 0,1", 2, 0) == resolved("", 2, 0) == (4, 40, 16, 1)
