"""The actor, and the learner's choice of devices."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

from a3c.acting.actor import Actor, ActorStoppedError, StallError
from a3c.acting.batches import Batch, BatchQueue, UnrollBatch, WholeUnrolls, empty_batch
from a3c.config import Config
from a3c.learning.acting import Acting, ActorInput
from a3c.learning.devices import Devices
from a3c.simulation.messages import StepBlock
from a3c.system.stopping import StopRequest
from atari_wrapper import FRAME_SHAPE

import numpy as np
import pytest
from tensorpack.dataflow import DataFlowTerminated
from tensorpack.train import StopTraining

# The actor, without its threads


def make_actor(envs_per_simulator: tuple[int, ...], lives: int = 0, **options) -> Actor:
    options = {"local_time_max": 1, "batch_size": 1, "pool_states": 1, "correction": "clipped-is"} | options
    config = Config(simulator_proc=len(envs_per_simulator), num_envs=sum(envs_per_simulator), **options)
    playing = {(index, 1) for index in range(len(envs_per_simulator))}
    master = SimpleNamespace(
        playing=playing,
        at_play=lambda: playing,
        envs_per_simulator=envs_per_simulator,
        lives=lives,
        restarts=0,
        hosts_away=False,
        replace_dead=lambda: None,
        close=lambda: None,
    )
    return Actor(config.resolve(cores=1, num_gpus=0), master, 1, 1, StopRequest())


def step_block(index: int, life: int, sequence: int, envs: int = 1) -> StepBlock:
    frames = np.full((envs, *FRAME_SHAPE), 10 * life + sequence, np.uint8)
    return StepBlock(index, life, sequence, 3 * envs, np.zeros(envs, np.float32), np.zeros(envs, np.uint8), frames)


def decide(request, action: int) -> None:
    request.builder.push(request.frames)
    request.builder.decide(np.array([action]), np.array([0.5]), np.array([0.0]), version=action)


def test_a_resumed_run_draws_other_random_numbers_than_it_began_with():
    began, again, resumed, other = (
        make_actor((1,), lives, seed=seed)._predictors[0]._rng.random()
        for lives, seed in [(0, 1), (0, 1), (2, 1), (0, 2)]
    )
    assert began == again
    assert len({began, resumed, other}) == 3


def test_a_late_choice_for_a_life_that_ended_changes_nothing():
    actor = make_actor((1,))
    actor.collector.on_step(step_block(0, life=1, sequence=0))
    late = actor._requests.get_nowait()
    actor.collector.on_step(step_block(0, life=2, sequence=0))
    decide(actor._requests.get_nowait(), action=2)
    decide(late, action=1)  # another predictor thread was slower
    actor.collector.on_step(step_block(0, life=2, sequence=1))
    decide(actor._requests.get_nowait(), action=3)
    actor.collector.on_step(step_block(0, life=2, sequence=2))
    batch = actor.take_batch()
    assert batch.states[0, 0, 0].tolist() == 9 * [0] + 3 * [20]
    assert batch.actions.tolist() == [2]
    assert batch.versions.tolist() == [2]


# Unrolls of one step. Script: (simulator, sequence), and the simulators that may act after it.
GENERATIONS = {
    "no pool, nobody waits": (
        (1, 1), 4, 4, [((0, 0), [0]), ((0, 1), [0]), ((0, 2), [0]), ((0, 3), [0])]
    ),
    "all wait for the last": (
        (1, 1), 4, 2,
        [((0, 0), [0]), ((1, 0), [1]), ((0, 1), [0]), ((0, 2), []), ((1, 1), [1]), ((1, 2), [0, 1]), ((1, 3), [])],
    ),
    "a full pool ends the waiting": (
        (2, 2, 2), 4, 2,
        [((0, 0), [0]), ((1, 0), [1]), ((0, 1), [0]), ((1, 1), [1]), ((0, 2), []), ((1, 2), [0, 1]), ((1, 3), [])],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("envs_per_simulator", "pool_states", "batch_size", "script"), GENERATIONS.values(), ids=GENERATIONS
)
def test_with_a_pool_simulators_wait_for_each_other(envs_per_simulator, pool_states, batch_size, script):
    actor = make_actor(envs_per_simulator, pool_states=pool_states, batch_size=batch_size, queue_size=4)
    for (index, sequence), expected in script:
        actor.collector.on_step(step_block(index, life=1, sequence=sequence, envs=envs_per_simulator[index]))
        released = []
        while actor._requests.qsize():
            request = actor._requests.get_nowait()
            decide(request, action=0)
            released.append(request.index)
        assert released == expected, (index, sequence)


@pytest.mark.parametrize("queue_size", [1, 2])
def test_simulators_wait_until_few_of_a_pools_batches_are_left(queue_size):
    actor = make_actor((1,), pool_states=8, batch_size=2, queue_size=queue_size)
    for sequence in range(9):  # the pool is full with step 9
        actor.collector.on_step(step_block(0, life=1, sequence=sequence))
        decide(actor._requests.get_nowait(), action=sequence)
    on_step = threading.Thread(target=actor.collector.on_step, args=(step_block(0, life=1, sequence=9),), daemon=True)
    on_step.start()
    actions = []
    for _ in range(4 - queue_size):
        on_step.join(0.1)
        assert on_step.is_alive()
        assert actor._requests.empty()
        actions += actor.take_batch().actions.tolist()
    on_step.join(5)
    assert not on_step.is_alive()
    assert actor._requests.qsize() == 1
    for _ in range(queue_size):
        actions += actor.take_batch().actions.tolist()
    assert sorted(actions) == list(range(8))


@pytest.mark.parametrize(
    ("size", "puts", "room"),
    [(1, [1], True), (1, [1, 1], False), (1, [8], False), (2, [1, 1], True), (2, [1, 8], False)],
)
def test_there_is_room_while_no_more_than_the_queues_size_wait(size, puts, room):
    batches = BatchQueue(size)
    for number, count in enumerate(puts):
        batches.put([(number, i) for i in range(count)])
    assert batches.wait_for_room(timeout_s=0) is room
    for number, count in enumerate(puts):
        assert [batches.get(timeout_s=0) for _ in range(count)] == [(number, i) for i in range(count)]
    assert batches.wait_for_room(timeout_s=0)
    assert batches.get(timeout_s=0) is None


def test_a_simulator_that_died_while_it_waited_acts_again():
    actor = make_actor((1, 1), pool_states=4, batch_size=2)
    acting = []
    for life, sequence in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]:
        actor._master.playing |= {(0, life)}
        actor._master.playing -= {(0, life - 1)}
        actor.collector.on_step(step_block(0, life=life, sequence=sequence))
        acting.append(actor._requests.qsize() == 1)
        while actor._requests.qsize():
            request = actor._requests.get_nowait()
            assert request.life == life
            decide(request, action=0)
    assert acting == [True, True, False, True, True, False]  # simulator 1 has not filled its unroll


@pytest.mark.parametrize("held_first", ["the one that goes", "the other"])
def test_nobody_waits_for_a_simulator_that_is_gone(held_first):
    actor = make_actor((1, 1), pool_states=8, batch_size=2)
    steps = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    gone = 1 if held_first == "the other" else 0
    for index, sequence in steps:
        actor.collector.on_step(step_block(index, life=1, sequence=sequence))
        while actor._requests.qsize():
            decide(actor._requests.get_nowait(), action=0)
    actor.collector.look()
    assert actor._requests.empty()  # 0 waits for 1
    actor._master.playing -= {(gone, 1)}  # its host went away, and no new life has stepped yet
    if gone == 1:
        actor.collector.look()
    else:
        actor.collector.on_step(step_block(1, life=1, sequence=2))
    released = {actor._requests.get_nowait().index for _ in range(actor._requests.qsize())}
    assert 1 - gone in released


def test_a_failure_of_a_thread_reaches_the_trainer_with_its_cause():
    actor = make_actor((1,))
    failure = ValueError("in a thread")

    def target():
        raise failure

    actor._guard(target)
    actor.close()  # the failure is what is told, not that the actor has stopped
    with pytest.raises(RuntimeError, match="thread of the actor") as raised:
        actor.take_batch()
    assert raised.value.__cause__ is failure


def test_a_stopped_actor_stops_the_training():
    actor = make_actor((1,))
    actor.close()
    with pytest.raises(ActorStoppedError):
        actor.take_batch()


def test_a_thread_that_hangs_is_waited_for_once():
    actor, waits = make_actor((1,)), []
    actor._threads = [SimpleNamespace(join=waits.append, is_alive=lambda: True)]
    actor.close()
    actor.close()
    assert len(waits) == 1


# The limit of the policy lag


def queued_batch(versions) -> Batch:
    versions = np.array(versions)
    batch = empty_batch(len(versions))
    batch.versions[:] = versions
    batch.actions[:] = np.arange(len(versions))
    batch.states[:] = np.arange(len(versions))[:, None, None, None]
    return batch


def enqueue(actor, *batches) -> None:
    actor._batches.put([lambda batch=batch: batch for batch in batches])


def queued_unrolls(versions) -> UnrollBatch:
    batch = WholeUnrolls(np.shape(versions)[1]).empty(len(versions))
    batch.versions[:] = versions
    batch.actions[:] = np.arange(len(versions))[:, None]
    return batch


@pytest.mark.parametrize(
    ("max_lag", "versions", "kept", "dropped"),
    [
        (None, [0, 0, 0, 20], [0, 1, 2, 3], 0),
        (20, [0, 5, 0, 20], [0, 1, 2, 3], 0),
        (19, [0, 5, 1, 20], [1, 2, 3], 1),
        (5, [15, 14, 16, 14], [0, 2], 2),
        (0, [20, 20, 20, 19], [0, 1, 2], 1),
    ],
)
def test_transitions_older_than_the_limit_are_dropped_and_counted(max_lag, versions, kept, dropped):
    actor = make_actor((1,), max_policy_lag=max_lag)
    actor.updates = 20
    enqueue(actor, queued_batch(versions))
    batch = actor.take_batch()
    assert batch.actions.tolist() == kept
    assert batch.states[:, 5, 5, 5].tolist() == kept
    assert actor.dropped_transitions == dropped


def test_a_batch_that_is_mostly_too_old_is_dropped_whole():
    actor = make_actor((1,), max_policy_lag=3, queue_size=2)
    actor.updates = 20
    enqueue(actor, queued_batch([16, 16, 16, 20]))
    enqueue(actor, queued_batch([17, 18, 19, 20]))
    assert actor.take_batch().versions.tolist() == [17, 18, 19, 20]
    assert actor.dropped_transitions == 4


def test_an_unroll_with_a_step_that_is_too_old_is_dropped():
    actor = make_actor((1,), max_policy_lag=3)
    actor.updates = 20
    enqueue(actor, queued_unrolls([[16, 20, 20], [17, 18, 19], [20, 20, 20]]))
    batch = actor.take_batch()
    assert batch.actions.tolist() == [[1, 1, 1], [2, 2, 2]]
    assert len(batch.states) == 2
    assert actor.dropped_transitions == 3


def test_the_learner_gets_unrolls_flat():
    actor = make_actor((1,))
    unrolls = queued_unrolls([[1, 2, 3], [4, 5, 6]])
    unrolls.states[:] = np.arange(8).reshape(2, 4)[..., None, None, None]
    enqueue(actor, unrolls)
    states, actions, *_, versions = next(iter(ActorInput(actor)))
    assert states[:, 0, 0, 0].tolist() == list(range(8))
    assert actions.tolist() == [0, 0, 0, 1, 1, 1]
    assert versions.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_deterministic_actor_waits_until_the_learner_has_learned():
    batches = BatchQueue(None)
    batches.put([1, 2])
    assert not batches.wait_for_room(0)
    assert [batches.get(0), batches.get(0)] == [1, 2]
    assert not batches.wait_for_room(0)  # the last one is being learned from
    assert batches.get(0) is None  # now it wants another
    assert batches.wait_for_room(0)
    batches.put([3])
    assert not batches.wait_for_room(0)


# No batch for 2 s: what the master and the predictors waited meanwhile, and what is stuck.
STALLS = [
    (2.0, [2.0, 2.0], "simulators"),
    (2.0, [0.0, 2.0], "predictors"),
    (2.0, [2.0, 0.4], "predictors"),
    (0.0, [2.0, 2.0], "queue"),
]


@pytest.mark.parametrize(("simulator_wait_s", "predictor_wait_s", "stage"), STALLS)
def test_what_is_stuck(simulator_wait_s, predictor_wait_s, stage):
    actor = make_actor((1,), predictor_thread_per_gpu=2)
    before = actor._waits()
    actor.simulator_wait_s += simulator_wait_s
    for predictor, wait_s in zip(actor._predictors, predictor_wait_s, strict=True):
        predictor.wait_s += wait_s
    assert actor._blocked_stage(before, 2.0) == stage


def test_a_stall_is_told_with_the_stacks():
    actor = make_actor((1,), stall_timeout=1.0)
    with pytest.raises(StallError) as stalled:
        actor.take_batch()
    assert "no batch for 1 s" in str(stalled.value)
    assert "take_batch" in str(stalled.value)


def test_a_host_is_waited_for_and_that_is_no_stall():
    actor = make_actor((1,), stall_timeout=1.0)
    actor._master.hosts_away = True
    later = threading.Timer(2.5, lambda: setattr(actor._master, "hosts_away", False))
    later.start()
    start = time.monotonic()
    with pytest.raises(StallError):
        actor.take_batch()
    later.join()
    assert time.monotonic() - start > 3


def test_a_signal_ends_the_training():
    actor = make_actor((1,))
    stop = actor._stop_request
    stop._hear(signal.SIGTERM)
    with pytest.raises(ActorStoppedError):
        actor.take_batch()
    with pytest.raises(StopTraining):
        next(iter(ActorInput(actor)))
    with pytest.raises(DataFlowTerminated):
        next(iter(ActorInput(actor, DataFlowTerminated)))
    acting = Acting(actor, actor._master, Devices((0,), (-1,)), stop)
    acting.trainer = SimpleNamespace(local_step=0, steps_per_epoch=2)
    with pytest.raises(StopTraining, match="SIGTERM"):
        acting._trigger_step()
    acting.trainer.local_step = 1  # the epoch is complete: its end is not left out
    acting._trigger_step()


# Devices


@pytest.mark.parametrize(
    ("num_devices", "train", "infer"),
    [
        (0, (0,), (-1,)),
        (1, (0,), (0,)),
        (2, (0,), (1,)),
        (3, (0,), (1, 2)),
        (4, (0, 1), (2, 3)),
        (5, (0, 1), (2, 3, 4)),
        (8, (0, 1, 2, 3), (4, 5, 6, 7)),
    ],
)
def test_devices(num_devices, train, infer):
    assert Devices.split(num_devices) == Devices(train, infer)
