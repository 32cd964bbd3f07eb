"""The actor's place in the trainer: its batches are the trainer's input, its policy the trainer's newest weights."""

from __future__ import annotations

from a3c.acting.actor import Actor, ActorStoppedError
from a3c.learning.devices import Devices
from a3c.learning.progress import COUNTS
from a3c.policy.session import make_policy
from a3c.simulation.master import SimulatorMaster
from a3c.system.stopping import StopRequest

import tensorflow as tf
from tensorpack import Callback, DataFlow, FeedInput, InputSource, QueueInput, tfv1
from tensorpack.dataflow import DataFlowTerminated
from tensorpack.train import StopTraining


class ActorInput(DataFlow):
    """The actor's batches, as the model's inputs; the trainer's thread iterates, or tensorpack's that fills a queue."""

    def __init__(self, actor: Actor, end: type[BaseException] = StopTraining):
        """``end`` is raised when the run stops: what the thread that iterates takes for the end."""
        self._actor, self._end = actor, end

    def __iter__(self):
        while True:
            try:
                states, *columns = self._actor.take_batch()
            except ActorStoppedError:
                raise self._end from None
            yield [states.reshape(-1, *states.shape[-3:]), *(column.reshape(-1) for column in columns)]


def trainer_input(actor: Actor, inputs: list[tf.TensorSpec], updates_per_step: int) -> InputSource:
    """The actor's batches for one training tower, or through a queue of one for several."""
    if updates_per_step == 1:
        return FeedInput(ActorInput(actor))
    queue = tfv1.FIFOQueue(1, [spec.dtype for spec in inputs])
    return QueueInput(ActorInput(actor, DataFlowTerminated), queue)


class Acting(Callback):
    """Runs the actor while the trainer trains, and counts what is learned from. On the trainer's thread.

    Attributes:
        actor: the actor.
    """

    def __init__(self, actor: Actor, master: SimulatorMaster, devices: Devices, stop: StopRequest):
        """
        Args:
            actor: started before training and closed after it.
            master: its simulators.
            devices: those that train and infer.
            stop: ends the training between two updates.
        """
        self.actor, self._master, self._devices, self._stop = actor, master, devices, stop
        self._lag_sum, self._lag_count, self._lag_max = 0, 0, 0

    @property
    def envs_per_simulator(self) -> tuple[int, ...]:
        """How many games each simulator plays."""
        return self._master.envs_per_simulator

    @property
    def policy_lag_mean(self) -> float:
        """Learner updates between acting and learning, the mean over what was learned from in this epoch."""
        return self._lag_sum / max(1, self._lag_count)

    def _setup_graph(self):
        self._policy_versions = [tower.get_tensor("policy_version") for tower in self.trainer.towers.training()]
        self._towers = [self.trainer.get_predictor(["state"], ["policy", "value"], d) for d in self._devices.infer]
        with tfv1.variable_scope("progress"):
            self._progress = [
                tfv1.get_variable(name, [], tfv1.int64, tfv1.zeros_initializer(), trainable=False) for name in COUNTS
            ]

    def _before_train(self):
        actor, session = self.actor, self.trainer.sess
        steps, frames, *_ = (int(value) for value in session.run(self._progress))
        actor.collector.steps, actor.collector.emulator_frames = steps, frames
        actor.updates = self.global_step * self._devices.updates_per_step
        policies = [make_policy(session, tower.input_tensors[0], tower.output_tensors) for tower in self._towers]
        actor.start(policies)

    def _before_epoch(self):
        self.actor.learning = True
        self._lag_sum, self._lag_count, self._lag_max = 0, 0, 0

    def _before_run(self, _):
        return tfv1.train.SessionRunArgs(self._policy_versions)

    def _after_run(self, _, run_values):
        for versions in run_values.results:
            lags = self.actor.updates - versions
            self._lag_sum += int(lags.sum())
            self._lag_count += len(lags)
            self._lag_max = max(self._lag_max, int(lags.max()))
        self.actor.updates += self._devices.updates_per_step

    def _trigger_step(self):
        # With an epoch's last update comes its end, which is not left out.
        if self._stop.signal and self.local_step + 1 < self.trainer.steps_per_epoch:
            raise StopTraining(self._stop.reason)

    def _after_epoch(self):
        actor = self.actor
        actor.learning = False
        scalars = {
            "policy_lag_mean": self.policy_lag_mean,
            "policy_lag_max": self._lag_max,
            "dropped_transitions": actor.dropped_transitions,
            "steps": actor.collector.steps,
            "emulator_frames": actor.collector.emulator_frames,
            "updates": actor.updates,
            "episodes": actor.collector.episodes,
            "simulator_restarts": self._master.restarts,
            "malformed_messages": self._master.malformed_messages,
        }
        if actor.collector.online_score is not None:
            scalars["online_score"] = actor.collector.online_score
        for name, value in scalars.items():
            self.trainer.monitors.put_scalar(name, value)
        self._keep_progress()

    def _keep_progress(self) -> None:
        collector = self.actor.collector
        values = (collector.steps, collector.emulator_frames, self._master.lives, self.actor.updates)
        for variable, value in zip(self._progress, values, strict=True):
            variable.load(value, self.trainer.sess)

    def _after_train(self):
        self.actor.learning = False
        self.actor.close()
        self._keep_progress()
