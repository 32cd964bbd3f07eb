"""A host of simulators: an actor that Ray runs on a node, with the suite's own nurseries.

It has one thread for all calls, as what it forks dies with the thread that forked it; a second one only looks whether
calls still come.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time

from a3c.errors import RunError
from a3c.simulation.nursery import Nursery
from a3c.system.machine import core_seconds

import zmq

WATCHDOG_S = 30.0  # without a call: whoever made this host is cut off, or gone
_LOOK_EVERY_S = 1.0


class SimulatorHost:
    """Forks simulators on this node for the driver, who calls ``turn`` again and again.

    The secret key is made here and goes to the simulators of this host only.
    """

    def __init__(self):
        self._public_key, self._secret_key = (key.decode() for key in zmq.curve_keypair())
        self._nurseries: dict[int, Nursery] = {}
        self._called_s = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def hello(self) -> dict:
        """Who this is: public key, node, process. What an earlier driver's call has left playing is ended."""
        import ray

        self._called_s = time.monotonic()
        self._close(*self._nurseries)
        node = ray.get_runtime_context().get_node_id()
        return {"key": self._public_key, "node": node, "ip": ray.util.get_node_ip_address(), "pid": os.getpid()}

    def turn(self, commands: list, wait_s: float) -> dict:
        """Do what the owners of simulators ask for, wait for ends, and tell them.

        Args:
            commands: ``("spawn", owner, spec)``, ``("kill", owner, index)`` and ``("close", owner)``, where an owner is
                a number and has a nursery of its own here.
            wait_s: seconds to wait for an end at most.

        Returns:
            ``key``, this host's public one, ``exits``, a list of ``[owner, index, life, status]``, and
            ``core_seconds`` of this node.
        """
        self._called_s = time.monotonic()
        try:
            exits = self._turn(commands, wait_s)
        except RunError as error:  # a nursery is gone: so is this host, and Ray makes a new one
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        return {"key": self._public_key, "exits": exits, "core_seconds": core_seconds()}

    def _turn(self, commands: list, wait_s: float) -> list:
        for kind, owner, *argument in commands:
            if kind == "close":
                self._close(owner)
                continue
            nursery = self._nurseries.get(owner)
            if kind == "spawn":
                nursery = nursery or self._nurseries.setdefault(owner, Nursery())
                (spec,) = argument
                keys = {"public_key": self._public_key, "secret_key": self._secret_key}
                nursery.spawn({**spec, "address": {**spec["address"], **keys}})
            elif nursery is not None:
                nursery.kill(*argument)
        select.select(list(self._nurseries.values()), [], [], wait_s)
        return [[owner, *exit_] for owner, nursery in self._nurseries.items() for exit_ in nursery.exits()]

    def _close(self, *owners: int) -> None:
        for owner in owners:
            with contextlib.suppress(KeyError):
                self._nurseries.pop(owner).close()

    def _watch(self) -> None:
        while time.monotonic() - self._called_s < WATCHDOG_S:
            time.sleep(_LOOK_EVERY_S)
        os._exit(1)
