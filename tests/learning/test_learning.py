"""It learns: 40 updates on a real game, 10,000 steps, beat the untrained policy.

Both act by sampling from their policy. So early the most probable action is not yet a way to play: a greedy climber
hangs on to one window and scores less than random actions; the same policy, sampled, climbs twice as high.
"""

from a3c.playing.episode import sampled_actions
from a3c.playing.evaluation import evaluate
from a3c.seeds import Purpose, Seeds
from a3c.weights.file_policy import FilePolicy
from a3c.weights.model_file import read_model
from bench.command_line import run

import numpy as np
import pytest

pytestmark = pytest.mark.long

GAME = "CrazyClimber-v0"
EPISODES = 20  # of each; 6 are too few: by chance a policy that had learned missed p < 0.01
PLAYER_ARGS = {"env_id": GAME, "max_episode_steps": 600}


def permutation_p(better: np.ndarray, worse: np.ndarray, rng: np.random.Generator, rounds: int = 20_000) -> float:
    """One-sided p of a difference of means, under exchange of the labels."""
    pooled = np.concatenate([better, worse])
    shuffled = rng.permuted(np.tile(pooled, (rounds, 1)), axis=1)
    differences = shuffled[:, : len(better)].mean(axis=1) - shuffled[:, len(better) :].mean(axis=1)
    return (1 + (differences >= better.mean() - worse.mean()).sum()) / (1 + rounds)


def test_permutation_p():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 10), rng.normal(3, 1, 10)
    assert permutation_p(high, low, rng) < 0.001
    assert permutation_p(low, high, rng) > 0.99
    assert 0.01 < permutation_p(low, rng.normal(0, 1, 10), rng) < 0.99


def test_ten_thousand_steps_beat_the_untrained_policy(tmp_path):
    run("--env", GAME, "--num-envs", "16", "--pool-states", "1024", "--learning-rate", "0.002", "--eval-every", "0",
        "--steps-per-epoch", "40", "--max-epoch", "1", "--output", str(tmp_path / "run"))  # fmt: skip
    model = read_model(str(tmp_path / "run" / f"{GAME}.npz"))
    rng = np.random.default_rng(0)

    def untrained(states):  # before its first update the network's policy is uniform
        return np.full((len(states), model.num_actions), 1 / model.num_actions, np.float32), np.zeros(len(states))

    scores = {
        name: np.array(
            evaluate(
                policy, PLAYER_ARGS, EPISODES, processes=4, seeds=Seeds(1, Purpose.EVALUATION), choose=sampled_actions
            ).scores
        )
        for name, policy in {"trained": FilePolicy(model, 2), "untrained": untrained}.items()
    }
    p = permutation_p(scores["trained"], scores["untrained"], rng)
    print({name: (s.mean(), s.std()) for name, s in scores.items()}, "p", p)
    assert p < 0.01, scores
