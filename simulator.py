"""Simulators: the processes that play, and the fork server that they come from. A ``SimulatorMaster`` talks to them.

As a program this is the fork server, which a ``Nursery`` starts: it imports the games once and forks a simulator
whenever it is asked to.

A simulator process plays a block of E games in step. After each step it pushes one message, the newest frames,
rewards and ends of its games, and waits for their actions:

    SimulatorProcess  -- PUSH ---------> PULL --   SimulatorMaster.receive() -> StepBlock
                      <- DEALER ------ ROUTER --   SimulatorMaster.send(index, life, actions)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback

from a3c.simulation.connection import Connection
from a3c.simulation.messages import (
    REST,
    RUNNING,
    TERMINATED,
    TRUNCATED,
    MessageError,
    SimulatorSpec,
    StepBlock,
    encode_failure,
    encode_step,
)
from a3c.simulation.nursery import receive_packet
from a3c.system.processes import die_with_parent
from atari_wrapper import FRAME_SHAPE

import cv2
import numpy as np


class GameBlock:
    """E games that are played in step, an episode after the other.

    Attributes:
        emulator_frames, rewards, ends, frames: of the last step, as in ``StepBlock``.
    """

    def __init__(self, players: list, seed: int):
        """Reset the games; the first one's seed is ``seed``, the others' follow, one up each."""
        self._players = players
        envs = len(players)
        self.frames = np.empty((envs, *FRAME_SHAPE), np.uint8)
        self.rewards = np.zeros(envs, np.float32)
        self.ends = np.zeros(envs, np.uint8)
        self._emulated = [0] * envs
        self._slots = list(self.frames)
        for env, player in enumerate(players):
            player.frame = self._slots[env]  # an Atari player then writes there
            frame, info = player.reset(seed=seed + env)
            self._keep(env, frame, info)
        self.emulator_frames = sum(self._emulated)

    def step(self, actions: np.ndarray) -> None:
        """Take the actions, int8 ``[E]``; a game that ends goes on with its next episode."""
        before = sum(self._emulated)
        for env, (player, action) in enumerate(zip(self._players, actions.tolist(), strict=True)):
            if action == REST:
                self.rewards[env], self.ends[env] = 0.0, RUNNING
                continue
            frame, self.rewards[env], terminated, truncated, info = player.step(action)
            self.ends[env] = TERMINATED if terminated else TRUNCATED if truncated else RUNNING
            if terminated or truncated:
                frame, info = player.reset()
            self._keep(env, frame, info)
        self.emulator_frames = sum(self._emulated) - before
        if not np.isfinite(self.rewards).all():
            raise ValueError(f"a game gave a reward that is not finite: {self.rewards.tolist()}")

    def _keep(self, env: int, frame: np.ndarray, info: dict) -> None:
        slot = self._slots[env]
        if frame is not slot:
            slot[...] = frame
        self._emulated[env] = info["frame_number"]


class SimulatorProcess:
    """The process that plays E games in step. All of it runs in the process that the nursery forked."""

    def __init__(self, spec: SimulatorSpec):
        self._spec = spec
        self._connection = Connection(spec)

    def run(self) -> None:
        """Play until killed. A failure is told to the master before it is raised."""
        try:
            self._play()
        except Exception:
            self._connection.close_with(encode_failure(self._spec.index, self._spec.life, traceback.format_exc()))
            raise

    def _play(self) -> None:
        cv2.setNumThreads(1)
        module, function = self._spec.player.split(":")
        make_player = getattr(importlib.import_module(module), function)
        seeds = range(self._spec.seed, self._spec.seed + self._spec.num_envs)
        games = GameBlock([make_player(**self._spec.player_args, seed=seed) for seed in seeds], self._spec.seed)
        sequence = 0
        while True:
            block = StepBlock(
                self._spec.index,
                self._spec.life,
                sequence,
                games.emulator_frames,
                games.rewards,
                games.ends,
                games.frames,
            )
            self._connection.send(encode_step(block))
            sequence += 1
            games.step(self._receive_actions())

    def _receive_actions(self) -> np.ndarray:
        actions = np.frombuffer(self._connection.receive(), np.int8)
        if len(actions) != self._spec.num_envs:
            raise MessageError(f"{len(actions)} actions for {self._spec.num_envs} games")
        return actions


def run_simulator(spec: dict) -> None:
    """Run a simulator in this process; ``spec`` holds the fields of ``SimulatorSpec``."""
    SimulatorProcess(SimulatorSpec(**spec)).run()


def serve(sock: socket.socket) -> None:
    """Fork simulators as the owner at the other end asks for, until it closes its end; then kill them."""
    children: dict[int, tuple[int, int]] = {}  # pid -> (index, life)

    def tell(index: int, life: int, status: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # the owner is closing: the next packet is the end
            sock.send(json.dumps([index, life, status]).encode())

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    nursery_pid = os.getpid()
    while True:
        ready, _, _ = select.select([sock, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            while children:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                tell(*children.pop(pid), os.waitstatus_to_exitcode(status))
        if sock in ready:
            packet = receive_packet(sock)
            if not packet:
                break
            message = json.loads(packet)
            if "kill" in message:
                for pid, (index, _) in children.items():
                    if index == message["kill"]:
                        os.kill(pid, signal.SIGKILL)
                continue
            spec = message["spawn"]
            try:
                pid = os.fork()
            except OSError as error:
                print(f"simulator {spec['index']} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
                tell(spec["index"], spec["life"], 1)
                continue
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (sock.fileno(), wake_read, wake_write):
                    os.close(descriptor)
                sock.detach()
                status = 1
                try:
                    die_with_parent(nursery_pid)
                    run_simulator(spec)
                    status = 0
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            children[pid] = (spec["index"], spec["life"])
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    # What is sent to all processes of a job is for the owner, with whose end this process and its simulators end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A simulator that gets its actions does not interrupt another one in the middle of its step.
    with contextlib.suppress(OSError):  # where that is not allowed, it is only slower
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    serve(socket.socket(fileno=int(sys.argv[1])))
