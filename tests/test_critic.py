"""The critic over the console's memory: it learns values that are known, from what it is given and nothing else."""

from __future__ import annotations

import critic
from critic import RamCritic, ValueNetwork
from messages import RUNNING, TERMINATED, TRUNCATED
from unroll import MEMORY_BYTES, Transitions, Unroll, lambda_returns

import numpy as np
import pytest

T, E = 8, 4
GAMMA = 0.9


def unroll_of(memories: np.ndarray, rewards: np.ndarray, ends: np.ndarray) -> Unroll:
    """What a critic does not look at is of no meaning."""
    shape = rewards.shape
    return Unroll(
        states=np.zeros((shape[0] + 1, shape[1], 84, 84, 12), np.uint8),
        actions=np.zeros(shape, np.int32),
        mus=np.ones(shape, np.float32),
        values=np.full(shape, 0.25, np.float32),
        versions=np.zeros(shape, np.int64),
        rewards=rewards,
        ends=ends,
        bootstrap_values=np.full(shape[1], 0.25, np.float32),
        memories=memories,
    )


class Countdowns:
    """Games whose byte 5 counts down from 0x57 by 16; at 7 the episode ends with a reward of 1. Their values are known.

    Byte 9 is noise, and all others are always 77.
    """

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.left = self.rng.integers(1, 6, E)
        self.memories = self._memories()

    def _memories(self) -> np.ndarray:
        memories = np.full((E, MEMORY_BYTES), 77, np.uint8)
        memories[:, 5], memories[:, 9], memories[:, -1] = 7 + 16 * self.left, self.rng.integers(256, size=E), 3
        return memories

    def unroll(self) -> Unroll:
        memories, rewards, ends = [self.memories], [], []
        for _ in range(T):
            self.left -= 1
            over = self.left == 0
            self.left[over] = 5
            self.memories = self._memories()
            memories.append(self.memories)
            rewards.append(over.astype(np.float32))
            ends.append(np.where(over, TERMINATED, RUNNING).astype(np.uint8))
        return unroll_of(np.stack(memories), np.stack(rewards), np.stack(ends))

    @staticmethod
    def values(memories: np.ndarray) -> np.ndarray:
        return GAMMA ** (memories[..., 5] // 16 - 1.0)


@pytest.fixture
def short(monkeypatch):
    """Few states before it judges, and a short replay."""
    monkeypatch.setattr(critic, "_WARM_STATES", 4 * T * E)
    monkeypatch.setattr(critic, "_REPLAY_STATES", 6 * T * E)


def make_critic(seed: int = 0) -> RamCritic:
    return RamCritic(GAMMA, 0.8, 0.5, np.random.default_rng(seed))


def test_the_networks_gradient_is_that_of_finite_differences(monkeypatch):
    monkeypatch.setattr(critic, "_WEIGHT_DECAY", 0.0)
    rng = np.random.default_rng(1)
    used = np.array([0, 2, 3])
    network = ValueNetwork(5, rng)
    network.parameters = [p.astype(np.float64) + rng.normal(0, 0.1, p.shape) for p in network.parameters]
    network.moments = [m.astype(np.float64) for m in network.moments]
    x, y = rng.normal(size=(7, 3)), rng.normal(size=7)

    def loss() -> float:
        return 0.5 * np.square(network(x, used) - y).mean()

    differences = []
    places = [(0, (2, 10)), (1, (3,)), (2, (4, 5)), (3, (6,)), (4, (7, 0)), (5, (0,))]
    for number, place in places:
        kept = network.parameters[number][place]
        losses = []
        for step in (1e-5, -1e-5):
            network.parameters[number][place] = kept + step
            losses.append(loss())
        network.parameters[number][place] = kept
        differences.append((losses[0] - losses[1]) / 2e-5)
    before = [p.copy() for p in network.parameters]
    network.train(x, used, y)
    gradients = [network.moments[number][place] / 0.1 for number, place in places]  # Adam's first mean
    np.testing.assert_allclose(gradients, differences, rtol=1e-4, atol=1e-9)
    np.testing.assert_array_equal(network.parameters[0][[1, 4]], before[0][[1, 4]])  # what is not used stays
    steps = [(network.parameters[number] - before[number])[place] for number, place in places]
    np.testing.assert_allclose(steps, -1e-3 * np.sign(gradients), rtol=1e-2)  # Adam's first step
    assert network.updates == 1


def test_its_inputs_are_the_bytes_that_change_those_before_their_bits_and_the_action():
    judge, memories = make_critic(), np.full((2, 1, MEMORY_BYTES), 77, np.uint8)
    memories[:, 0, 5], memories[:, 0, 128 + 5], memories[:, 0, -1] = (0, 0b10100001), (64, 0), (17, 2)
    unroll = unroll_of(memories, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8))
    judge.judge(unroll)
    inputs = judge._inputs(judge._replay[0])
    actions = np.eye(18)[[17, 2]]
    np.testing.assert_allclose(inputs[:, :10], [[-2, -1] + 8 * [0], [161 / 64 - 2, -2, 1, 0, 1, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(inputs[:, 10:], actions)


def test_it_learns_the_values_of_a_game(short):
    games, judge = Countdowns(), make_critic()
    for _ in range(200):
        unroll = games.unroll()
        values = judge.judge(unroll)
        judge.learn()
    error = values - games.values(unroll.memories)
    assert np.sqrt(np.mean(np.square(error))) < 0.05
    assert games.values(unroll.memories).std() > 0.1


def test_it_says_nothing_before_it_has_seen_enough(short):
    games, judge = Countdowns(), make_critic()
    answers = []
    for _ in range(6):
        answers.append(judge.judge(games.unroll()))
        judge.learn()
    assert [answer is not None for answer in answers] == [False] * 4 + [True] * 2
    assert answers[-1].shape == (T + 1, E)
    assert answers[-1].dtype == np.float32


def test_it_judges_before_it_learns_from_the_same(short):
    games, judge, twin = Countdowns(), make_critic(), make_critic()
    unrolls = [games.unroll() for _ in range(6)]
    for unroll in unrolls[:-1]:
        for one in (judge, twin):
            one.judge(unroll)
            one.learn()
    other = unrolls[-1]._replace(rewards=np.full((T, E), -1, np.float32))
    np.testing.assert_array_equal(judge.judge(unrolls[-1]), twin.judge(other))  # rewards are not known yet


def test_it_keeps_copies_and_forgets_the_oldest(short):
    games, judge = Countdowns(), make_critic()
    for number in range(9):
        unroll = games.unroll()
        judge.judge(unroll)
        unroll.rewards[:] = number  # the builder's arrays are used again
    kept = [lesson.rewards.max() for lesson in judge._replay]
    assert len(kept) == 6
    assert max(kept) == 1


def test_what_it_learned_is_kept_and_taken_up(short):
    games, judge = Countdowns(), make_critic()
    for _ in range(6):
        judge.judge(games.unroll())
        judge.learn()
    state, resumed = judge.state(), make_critic(seed=5)
    resumed.restore(state)
    unroll = games.unroll()
    expected = judge.judge(unroll)
    np.testing.assert_array_equal(resumed.judge(unroll), expected)
    judge.learn()
    assert not np.array_equal(judge.state()["W0"], state["W0"])  # those are copies
    assert all(np.isfinite(array).all() for array in state.values())


def test_a_byte_that_never_changed_has_no_weight_and_one_that_starts_to_does_no_harm(short):
    games, judge = Countdowns(), make_critic()
    for _ in range(6):
        judge.judge(games.unroll())
        judge.learn()
    before = judge.state()["W0"]
    untouched = before[10 * 20 : 10 * 21]
    np.testing.assert_array_equal(untouched, make_critic().state()["W0"][10 * 20 : 10 * 21])
    changed = games.unroll()
    changed.memories[3, :, 20] = 1
    values = judge.judge(changed)
    judge.learn()
    assert np.isfinite(values).all()
    for _ in range(30):
        judge.learn()
    assert not np.array_equal(judge.state()["W0"][10 * 20 : 10 * 21], untouched)


def test_a_truncated_steps_target_is_its_own_value(short):
    """So it is learned from without an effect."""
    games, judge = Countdowns(), make_critic()
    for _ in range(5):
        judge.judge(games.unroll())
        judge.learn()
    lone = make_critic()
    lone.restore(judge.state())
    unroll = games.unroll()
    lone.judge(unroll_of(unroll.memories, unroll.rewards + 9, np.full((T, E), TRUNCATED, np.uint8)))
    before = lone.state()
    lone.learn()  # rewards of 9 that nobody may learn
    for name in ("b0/mean", "W1/mean", "b2/mean"):
        np.testing.assert_allclose(lone.state()[name], 0.9 * before[name], atol=1e-7)


@pytest.mark.parametrize("knows", [True, False])
def test_advantages_are_by_its_values_as_soon_as_it_has_some(knows):
    rng = np.random.default_rng(2)
    values = rng.normal(size=(T + 1, E)).astype(np.float32)

    class Fixed:
        gae_lambda = 0.3

        def judge(self, unroll):
            return values if knows else None

    rewards, ends = rng.normal(size=(T, E)).astype(np.float32), np.full((T, E), RUNNING, np.uint8)
    ends[2, 1], ends[3, 2] = TERMINATED, TRUNCATED
    unroll = unroll_of(np.zeros((T + 1, E, MEMORY_BYTES), np.uint8), rewards, ends)
    batch = Transitions(GAMMA, 0.7, False, critic=Fixed()).cut(unroll)
    if not knows:
        values = np.full_like(values, 0.25)
    keep = ends.reshape(-1) != TRUNCATED
    returns = lambda_returns(rewards, values[:-1], ends, values[-1], GAMMA, 0.7)
    short_sighted = lambda_returns(rewards, values[:-1], ends, values[-1], GAMMA, 0.3 if knows else 0.7)
    np.testing.assert_allclose(batch.returns, returns.reshape(-1)[keep], rtol=1e-6)
    np.testing.assert_allclose(batch.advantages, (short_sighted - values[:-1]).reshape(-1)[keep], rtol=1e-5, atol=1e-6)
