"""How many games, processes and predictors a machine gets where the flags do not say: the rule, and why it is so.

With a GPU the numbers follow its cores and its memory. **Nothing here was measured on a GPU.** The costs are those of
``docs/performance.md``, a Xeon's:

- Two processes to a core: one plays while the other waits for its actions. The original has as many.
- Eight games to a process: they take it 4 ms to play, the time that an inference may need on its way there and back.
  More games would only give the learner older data.
- No more than 16 cores' worth. They play 25,000 states/s, ten times what the original was published with, and half of
  what the master's one thread takes. Then there are 256 games; the original was published with 240.
- Four predictor threads to a GPU, as in the original, but no more than one to two cores.
- An inference has room for half of the games, shared out over the threads: while one half is played, the other is
  inferred. For the original's 240 games and 4 threads that gives 30, the batch that was published with them.
- At least the original's 16. What all threads infer together takes an eighth of the GPU's memory at most: a session may
  use half of it, and the learner needs the rest.
"""

from __future__ import annotations

from typing import NamedTuple

GAMES_PER_CORE = 20  # without a GPU; a simulator on another machine has more where the network is slow
_MOST_CORES = 16
_GAMES_PER_PROCESS = 8
_MOST_THREADS, _CORES_PER_THREAD = 4, 2
_BATCH = 16
STATE_BYTES = 4_000_000  # batch-a3c's inputs and two largest layers have 2.1 MB, float32; the rest is for workspaces
_MEMORY_SHARE = 1 / 8


class ActingDefaults(NamedTuple):
    """What is taken where a flag does not say.

    Attributes:
        simulator_proc: processes.
        num_envs: games of all processes together.
        predictor_thread_per_gpu: threads for each device that infers.
    """

    simulator_proc: int
    num_envs: int
    predictor_thread_per_gpu: int


def acting_defaults(cores: int, on_gpu: bool) -> ActingDefaults:
    """The defaults of a machine with so many usable cores, with or without a GPU."""
    if not on_gpu:
        return ActingDefaults(2 * cores, GAMES_PER_CORE * cores, 1)
    processes = 2 * min(cores, _MOST_CORES)
    threads = max(1, min(_MOST_THREADS, cores // _CORES_PER_THREAD))
    return ActingDefaults(processes, _GAMES_PER_PROCESS * processes, threads)


def predict_batch_size(num_envs: int, num_gpus: int, threads: int, gpu_bytes: int | None) -> int:
    """States of an inference, at the most.

    Args:
        num_envs: games of all processes together.
        num_gpus: how many there are; of n > 1 the last ceil(n/2) infer. 0: the CPU does.
        threads: predictors for each device that infers.
        gpu_bytes: memory of the smallest GPU; None if it is not known.
    """
    if num_gpus == 0:
        return _BATCH
    predictors = threads * -(-num_gpus // 2)
    states = num_envs // (2 * predictors)
    if gpu_bytes is not None:
        states = min(states, int(gpu_bytes * _MEMORY_SHARE / STATE_BYTES) // threads)
    return max(_BATCH, states)
