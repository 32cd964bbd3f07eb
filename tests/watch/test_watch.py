"""The page of ``--watch``: its server, its player, the process beside a training, and what a browser makes of it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import ClassVar

from a3c.errors import UsageError
from a3c.watch import player as play_module
from a3c.watch import server as server_module
from a3c.watch.player import NewestPolicy, Pace, show
from a3c.watch.server import Server, listen
from a3c.weights.model_file import write_model
from atari_wrapper import FRAME_SHAPE, STATE_SHAPE
from bench import browser
from bench.command_line import SHORT, Run, run, start, stats
from bench.screenshot import free_port, playing
from bench.watch import Viewer, events

import cv2
import numpy as np
import pytest
from model_files import small_variables
from processes import wait_until

MODEL = str(Path(__file__).resolve().parents[2] / "models" / "Pong-v0.npz")
ACTIONS = ["NOOP", "FIRE", "RIGHT", "LEFT"]
EPISODE_STEPS = 30


@pytest.fixture
def page():
    """A server whose page is up."""
    listener = listen(0)
    with Server(listener) as server:
        server.port = server._server.port
        yield server


def get(port: int, path: str = "/", method: str = "GET", **headers) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        endless = response.getheader("Content-Length") is None
        return response.status, response.headers, b"" if endless else response.read()


def read(port: int, messages: int) -> list[dict]:
    """So many messages of a client, which then leaves."""
    with contextlib.closing(events(port)) as stream:
        return list(itertools.islice(stream, messages))


class Reader:
    """A client that reads all messages, on a thread of its own, until the server ends."""

    def __init__(self, port: int):
        self.seen: list[dict] = []
        self.thread = threading.Thread(target=self._read, args=(port,), daemon=True)
        self.thread.start()

    def _read(self, port: int) -> None:
        for message in events(port):
            self.seen.append(message)


# The server


def test_the_page_needs_nothing_from_elsewhere(page):
    status, headers, body = get(page.port)
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"EventSource" in body
    assert b"//" not in body.replace(b"  // ", b"").replace(b";  //", b"")  # no address, as in a CDN's


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("localhost:8080", 200),  # of a tunnel
        ("localhost", 200),
        ("attacker.example", 403),
        ("attacker.example:{port}", 403),
        ("127.0.0.1.attacker.example", 403),
        ("localhost.attacker.example:{port}", 403),
        ("10.0.0.1:{port}", 403),
        ("127.0.0.1@attacker.example", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("path", ["/", "/events"])
def test_only_pages_of_this_machine_are_answered(page, path, host, status):
    assert get(page.port, path, Host=host.format(port=page.port))[0] == status


LINK = {"Sec-Fetch-Mode": "navigate"}
HERE, ELSEWHERE = "http://127.0.0.1:{port}", "http://attacker.example"


@pytest.mark.parametrize(
    ("headers", "page_status", "events_status"),
    [
        ({}, 200, 200),  # curl
        ({"Sec-Fetch-Site": "none"} | LINK, 200, 200),  # typed
        ({"Sec-Fetch-Site": "same-origin"}, 200, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": HERE}, 200, 200),
        ({"Origin": "https://127.0.0.1:{port}"}, 200, 200),  # a tunnel's other end
        ({"Sec-Fetch-Site": "cross-site"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site"} | LINK, 200, 403),  # a link to the page
        ({"Sec-Fetch-Site": "same-site"}, 403, 403),  # another port of this machine
        ({"Sec-Fetch-Site": "Cross-Site"}, 403, 403),
        ({"Sec-Fetch-Site": ""}, 403, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": ELSEWHERE}, 403, 403),
        ({"Origin": ELSEWHERE}, 403, 403),  # a browser that does not know Sec-Fetch-Site
        ({"Origin": "http://127.0.0.1:1"}, 403, 403),
        ({"Origin": "http://localhost:{port}"}, 403, 403),  # not the name that it was called by
        ({"Origin": "null"}, 403, 403),  # a file, or a sandbox
        ({"Origin": ""}, 403, 403),
    ],
)
def test_another_site_may_link_to_the_page_and_nothing_else(page, headers, page_status, events_status):
    headers = {name: value.format(port=page.port) for name, value in headers.items()}
    assert get(page.port, "/", **headers)[0] == page_status
    assert get(page.port, "/events", **headers)[0] == events_status
    assert get(page.port, "/events", "POST", **headers)[0] == (405 if events_status == 200 else 403)


def test_a_request_without_a_host_is_refused(page):
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 403 " in client.makefile("rb").readline()


@pytest.mark.parametrize("path", ["/none", "/watch.py", "/../watch.py", "/events/"])
def test_there_is_nothing_else(page, path):
    assert get(page.port, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_it_can_only_be_read(page, method):
    for path in ("/", "/events"):
        status, headers, _ = get(page.port, path, method)
        assert status == 405
        assert headers["Allow"] == "GET"


def test_only_this_machine_can_connect(page):
    assert page._server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_told_in_one_line():
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--watch {port}: the port is taken; name another port") as raised:
            listen(port)
    assert "\n" not in str(raised.value)
    listen(port).close()


def numbered(number: int, size: int = 0) -> bytes:
    return json.dumps({"number": number, "fill": "x" * size}).encode()


def test_messages_arrive_in_order_at_everyone_until_the_server_ends():
    listener = listen(0)
    port = listener.getsockname()[1]
    with Server(listener) as server:
        readers = [Reader(port) for _ in range(2)]
        wait_until(lambda: len(server.broadcast._clients) == 2)
        for count in range(1, 21):
            server.broadcast.publish(numbered(count))
            wait_until(lambda count=count: all(len(reader.seen) == count for reader in readers))
    for reader in readers:
        assert [message["number"] for message in reader.seen] == list(range(1, 21))
        reader.thread.join(10)
        assert not reader.thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        get(port)


def test_a_client_that_does_not_read_holds_nobody_up_and_misses_messages(page):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(30)
        slow.connect(("127.0.0.1", page.port))
        slow.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        reader = Reader(page.port)
        wait_until(lambda: len(page.broadcast._clients) == 2)
        start_s = time.monotonic()
        for number in range(200):  # 20 MB: more than the system holds for a socket
            page.broadcast.publish(numbered(number, 100_000))
            wait_until(lambda number=number: reader.seen and reader.seen[-1]["number"] == number)
        assert time.monotonic() - start_s < server_module._SEND_TIMEOUT_S / 2
        lines = slow.makefile("rb")
        numbers = []
        while 199 not in numbers:
            line = lines.readline()
            if line.startswith(b"data: "):
                numbers.append(json.loads(line.removeprefix(b"data: "))["number"])
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 150
    assert [message["number"] for message in reader.seen] == list(range(200))


def test_a_client_that_takes_nothing_for_too_long_is_given_up(page, monkeypatch):
    monkeypatch.setattr(server_module._Handler, "timeout", server_module._Handler.timeout / 60)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", page.port))
        stuck.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: page.broadcast._clients)

        def gone() -> bool:
            page.broadcast.publish(numbered(0, 1_000_000))
            return not page.broadcast._clients

        wait_until(gone)


def test_a_client_that_left_is_noticed_while_nothing_is_sent(page, monkeypatch):
    monkeypatch.setattr(server_module, "_SILENCE_S", 0.05)
    with socket.create_connection(("127.0.0.1", page.port)) as client:
        client.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: page.broadcast._clients)
    wait_until(lambda: not page.broadcast._clients)


def test_no_more_clients_than_that_are_served(page, monkeypatch):
    monkeypatch.setattr(server_module, "_MAX_CLIENTS", 2)
    readers = [Reader(page.port) for _ in range(2)]
    wait_until(lambda: len(page.broadcast._clients) == len(readers))
    assert get(page.port, "/events")[0] == 503
    assert get(page.port, "/")[0] == 200


def test_of_those_who_come_at_once_no_more_are_served(page, monkeypatch):
    monkeypatch.setattr(server_module, "_MAX_CLIENTS", 1)
    first, second = page.broadcast.messages("first"), page.broadcast.messages("second")
    page.broadcast.publish(numbered(0))
    watcher = threading.Thread(target=next, args=(first,), daemon=True)
    watcher.start()
    wait_until(lambda: page.broadcast.has("first"))
    assert next(second, None) is None
    assert not page.broadcast.has("second")


def connect(port: int, said: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(said)
    return client


def threads_of_connections() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


SAID = {
    "nothing": b"",
    "part of a line": b"GET / HT",
    "no end of the headers": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
    "an endless body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n.",
}


@pytest.mark.parametrize("said", SAID)
def test_a_connection_that_does_not_watch_is_closed_after_a_while(page, said, monkeypatch):
    monkeypatch.setattr(server_module, "_VISIT_S", 0.3)
    reader = Reader(page.port)
    wait_until(lambda: page.broadcast._clients)
    with connect(page.port, SAID[said]) as slow:
        slow.settimeout(0.02)
        deadline = time.monotonic() + 10
        while True:  # a byte now and then: each wait for one is short
            assert time.monotonic() < deadline
            try:
                slow.sendall(b".")
                if slow.recv(10_000) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    wait_until(lambda: threads_of_connections() == 1)
    page.broadcast.publish(numbered(7))
    wait_until(lambda: reader.seen)  # who watches stays


def test_silent_connections_neither_fill_the_machine_nor_lock_anybody_out(page):
    reader, most = Reader(page.port), 0
    wait_until(lambda: page.broadcast._clients)
    with contextlib.ExitStack() as silent:
        for number in range(10):
            for _ in range(30):
                silent.enter_context(connect(page.port))
            most = max(most, threads_of_connections())
            assert get(page.port)[0] == get(page.port, "/events")[0] == 200
            page.broadcast.publish(numbered(number))
            wait_until(lambda number=number: len(reader.seen) == number + 1)
    assert server_module._MAX_CONNECTIONS / 2 < most <= server_module._MAX_CONNECTIONS


def test_where_all_watch_one_more_connection_is_closed(page, monkeypatch):
    monkeypatch.setattr(page._server, "_room", threading.Semaphore(2))
    monkeypatch.setattr(server_module, "_ROOM_TIMEOUT_S", 0.05)
    readers = [Reader(page.port) for _ in range(2)]
    wait_until(lambda: len(page.broadcast._clients) == len(readers))
    with connect(page.port) as late:
        assert late.recv(1) == b""
    page.broadcast.publish(numbered(0))
    wait_until(lambda: all(reader.seen for reader in readers))


def test_a_connection_for_which_there_is_no_thread_is_closed_and_forgotten(page, monkeypatch):
    start, refused = threading.Thread.start, []

    def refuse(thread):
        if "process_request_thread" in thread.name and len(refused) < 2 * server_module._MAX_CONNECTIONS:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2 * server_module._MAX_CONNECTIONS):
        with connect(page.port) as client:
            assert client.recv(1) == b""
    assert get(page.port)[0] == 200


# The player


class FakeGame:
    """Frames of random colours; an episode of 30 steps of 3 frames, each with reward 2. Counts what is asked of it."""

    made: ClassVar[list[FakeGame]] = []
    rendered = 0
    unwrapped = property(lambda self: self)

    def __init__(self):
        self.closed, self._rng = False, np.random.default_rng(len(FakeGame.made))
        FakeGame.made.append(self)
        self.seeds, self.actions, self.screens = [], [], []

    def get_action_meanings(self) -> list[str]:
        return ACTIONS

    def reset(self, seed: int):
        self.seeds.append(seed)
        return self._frame()

    def step(self, action: int):
        self.actions.append(action)
        frame, info = self._frame()
        return frame, 2.0, len(self.actions) == EPISODE_STEPS, False, info

    def render(self) -> np.ndarray:
        FakeGame.rendered += 1
        self.screens.append(self._rng.integers(0, 256, (210, 160, 3), np.uint8))
        return self.screens[-1]

    def close(self) -> None:
        self.closed = True

    def _frame(self):
        return self._rng.integers(0, 256, FRAME_SHAPE, np.uint8), {"frame_number": 4 + 3 * len(self.actions)}


class FakePolicy:
    """Prefers actions in turn; keeps the states that it saw."""

    def __init__(self):
        self.states: list[np.ndarray] = []

    def __call__(self, states: np.ndarray) -> list[np.ndarray]:
        self.states.append(states[0].copy())
        count = len(self.states)
        return [np.eye(4, dtype=np.float32)[[count % 4]] * 0.6 + 0.1, np.array([count / 10], np.float32)]


class Stopped(Exception):  # noqa: N818
    """What the player's ``check_stop`` raises."""


class Player:
    """Runs ``show`` on a thread of its own, with the fakes; counts how often it asked whether to stop."""

    def __init__(self, page: Server, about: dict | None = None, every_steps: int = 1):
        FakeGame.made, FakeGame.rendered = [], 0
        self.policy, self.scores, self.checks, self._stop = FakePolicy(), [], 0, False
        self._scores = show(FakeGame, self.policy, page.broadcast, 5, lambda: about or {}, self._check, every_steps)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _check(self) -> None:
        self.checks += 1
        if self._stop:
            raise Stopped

    def _run(self) -> None:
        with contextlib.suppress(Stopped):
            for score in self._scores:
                self.scores.append(score)

    def stop(self) -> None:
        self._stop = True
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def fast(monkeypatch):
    """No waiting for the game's own speed, and short pauses."""
    monkeypatch.setattr(Pace, "wait", lambda self, frames: time.sleep(0.005))
    monkeypatch.setattr(play_module, "_POLL_S", 0.01)
    monkeypatch.setattr(server_module, "_WAITING_MESSAGES", 10_000)


def picture(base64_png: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(base64_png), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_of_every_so_many_steps_one_is_told_and_no_reward_is_lost(page, fast):
    player = Player(page, every_steps=3)
    told = read(page.port, EPISODE_STEPS // 3 + 2)
    player.stop()
    *first, next_episode = told
    assert [message["step"] for message in first] == list(range(0, EPISODE_STEPS + 1, 3))
    assert [message["score"] for message in first] == [2.0 * message["step"] for message in first]
    assert (next_episode["episode"], next_episode["step"]) == (2, 0)
    assert len(player.policy.states) >= EPISODE_STEPS


def test_each_step_is_told(page, fast):
    player = Player(page, about={"updates": 7})
    told = read(page.port, 2 * EPISODE_STEPS + 2)
    player.stop()
    first, second = told[: EPISODE_STEPS + 1], told[EPISODE_STEPS + 1 :]
    for episode, messages in enumerate((first, second), start=1):
        assert {message["episode"] for message in messages} == {episode}
        assert [message["step"] for message in messages] == list(range(len(messages)))
        assert [message["score"] for message in messages] == [2.0 * step for step in range(len(messages))]
    assert [message["frames"] for message in told] == [
        start + 3 * step for start in (4, 4 + 3 * EPISODE_STEPS + 4) for step in range(EPISODE_STEPS + 1)
    ]
    assert all(message["actions"] == ACTIONS and message["updates"] == 7 for message in told)
    assert player.scores[0] == 2.0 * EPISODE_STEPS
    assert FakeGame.made[0].closed
    assert FakeGame.made[0].seeds != FakeGame.made[1].seeds
    for message, state, screen in zip(first[:-1], player.policy.states, FakeGame.made[0].screens, strict=False):
        np.testing.assert_array_equal(picture(message["screen"]), screen)
        frames = np.split(picture(message["input"]), 4, axis=1)
        np.testing.assert_array_equal(np.concatenate(frames, axis=2), state)
    for number, message in enumerate(first[:-1], start=1):
        assert np.argmax(message["policy"]) == number % 4
        assert sum(message["policy"]) == pytest.approx(1)
        assert message["value"] == pytest.approx(number / 10)
    assert [message["action"] for message in first[:-1]] == FakeGame.made[0].actions
    assert (first[-1]["policy"], first[-1]["action"]) == (first[-2]["policy"], first[-2]["action"])


def test_nothing_is_played_or_drawn_while_nobody_watches(page, fast, monkeypatch):
    monkeypatch.setattr(server_module, "_SILENCE_S", 0.05)
    encoded = []
    monkeypatch.setattr(play_module, "encode", lambda *args: encoded.append(args) or b"{}")

    def assert_rests() -> None:
        checks, before = player.checks, (len(encoded), FakeGame.rendered, len(player.policy.states))
        wait_until(lambda: player.checks > checks + 5)
        assert (len(encoded), FakeGame.rendered, len(player.policy.states)) == before

    player = Player(page)
    wait_until(lambda: player.checks > 2)
    assert not encoded
    assert_rests()
    read(page.port, 10)
    wait_until(lambda: not page.broadcast._clients)
    assert len(encoded) >= 10
    wait_until(lambda: player.checks > 2)
    checks = player.checks
    wait_until(lambda: player.checks > checks + 1)  # the step in hand is over
    assert_rests()
    count = len(encoded)
    read(page.port, 5)
    assert len(encoded) >= count + 5
    player.stop()


def test_the_player_stops_when_asked_with_and_without_watchers(page, fast):
    player = Player(page)
    player.stop()
    player = Player(page)
    reader = Reader(page.port)
    wait_until(lambda: reader.seen)
    player.stop()
    assert FakeGame.made[-1].closed


class Clock:
    """A time that passes only by sleeping."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_the_game_has_its_own_speed(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(play_module, "time", clock)
    pace = Pace()
    for frames in (3, 4, 2) * 20:
        clock.now += 0.004  # a step's work
        pace.wait(frames)
    assert clock.now - 100 == pytest.approx(180 / 60)
    clock.now += 60  # nobody watched
    before = clock.now
    for _ in range(60):
        pace.wait(3)
    assert clock.now - before == pytest.approx(3 - play_module._CATCH_UP_S, abs=0.06)


# The weights of a training


def test_the_newest_weights_play(tmp_path):
    path = tmp_path / "Pong-v0.npz"
    states = np.random.default_rng(0).integers(0, 256, (1, *STATE_SHAPE), np.uint8)
    policy = NewestPolicy(str(path))
    assert not policy.reload()
    write_model(path, small_variables(6, seed=1), {"network": "small", "updates": 8, "online_score": -20.5})
    assert policy.reload()
    first = policy(states)
    assert policy.about() == {"updates": 8, "online_score": -20.5, "age_s": pytest.approx(0, abs=5)}
    write_model(path, small_variables(6, seed=2), {"network": "small", "updates": 16, "online_score": None})
    os.utime(path, (time.time() - 100, time.time() - 100))
    second = policy(states)
    assert np.abs(first[0] - second[0]).max() > 1e-3
    assert policy.about() == {"updates": 16, "online_score": None, "age_s": pytest.approx(100, abs=5)}
    path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(policy(states)[0], second[0])  # the last good ones
    path.unlink()
    np.testing.assert_array_equal(policy(states)[0], second[0])
    write_model(path, small_variables(6, seed=1), {"network": "small"})
    np.testing.assert_array_equal(policy(states)[0], first[0])


def test_the_page_waits_for_the_first_weights(tmp_path, monkeypatch):
    def show_once(make_game, policy, broadcast, seed, about, every_steps):
        broadcast.publish(json.dumps({"seed": seed, "every_steps": every_steps, **about()}).encode())
        return iter(())

    monkeypatch.setattr(play_module, "show", show_once)
    monkeypatch.setattr(play_module, "_POLL_S", 0.01)
    path, listener = tmp_path / "Pong-v0.npz", listen(0)
    reader = Reader(listener.getsockname()[1])
    arguments = (listener, str(path), "Pong-v0", 3)
    watcher = threading.Thread(target=play_module.watch_training, args=arguments, daemon=True)
    watcher.start()
    wait_until(lambda: len(reader.seen) > 2)
    assert all(message == {"env": "Pong-v0", "waiting": "the first weights"} for message in reader.seen)
    write_model(path, small_variables(6), {"network": "small", "updates": 8, "online_score": None})
    watcher.join(30)
    reader.thread.join(10)
    age_s = reader.seen[-1].pop("age_s")
    assert 0 <= age_s < 5
    told = {"seed": 3, "every_steps": 2, "env": "Pong-v0", "updates": 8, "online_score": None}
    assert reader.seen[-1] == told


# The command line, end to end


def test_play_serves_the_live_game_until_ctrl_c():
    with playing(MODEL) as (game, url):
        port = int(url.rpartition(":")[2])
        messages = read(port, 40)
        assert get(port)[0] == 200
        assert get(port, Host="attacker.example")[0] == 403
        game.process.send_signal(signal.SIGINT)
        game.finish(30)
        assert game.process.returncode == 130
        assert game.wait_all_gone(3)
    assert messages[0]["env"] == "Pong-v0"
    assert messages[0]["updates"] > 0
    assert messages[0]["actions"][1] == "FIRE"
    screens = [picture(message["screen"]) for message in messages]
    assert screens[0].shape == (210, 160, 3)
    assert len({screen.tobytes() for screen in screens}) > 20
    assert len(np.unique(screens[-1].reshape(-1, 3), axis=0)) >= 4  # court, lines and two paddles
    assert len({message["value"] for message in messages}) > 20


def test_play_ends_after_its_episodes(monkeypatch):
    checks = []
    monkeypatch.setattr(play_module, "make_player", lambda env, render_mode: FakeGame())
    monkeypatch.setattr(Pace, "wait", lambda self, frames: None)
    FakeGame.made, FakeGame.rendered = [], 0
    policy, lines, listener = FakePolicy(), [], listen(0)
    policy.metadata = {}
    reader = Reader(listener.getsockname()[1])
    play_module.play(listener, policy, "Pong-v0", 2, 0, report=lines.append, check_stop=lambda: checks.append(1))
    assert len(checks) >= 2 * EPISODE_STEPS
    assert lines == ["episode 1/2: score 60", "episode 2/2: score 60"]
    assert all(game.closed for game in FakeGame.made)
    reader.thread.join(10)
    assert not reader.thread.is_alive()


@pytest.mark.parametrize("task", ["play", "train"])
def test_a_taken_port_is_told_before_anything_is_done(task, tmp_path):
    flags = ["--task", "play", "--load", MODEL] if task == "play" else ["--output", str(tmp_path / "run")]
    with listen(0) as taken:
        port = str(taken.getsockname()[1])
        out = run(*flags, "--watch", port, status=2)
    assert [line for line in out.splitlines() if line.startswith("train-atari.py: ")] == [
        f"train-atari.py: --watch {port}: the port is taken; name another port, for example --watch {int(port) + 1}"
    ]
    assert "Traceback" not in out
    assert list(tmp_path.iterdir()) == []


def start_watched(output: Path, *flags: str) -> tuple[Run, int]:
    """Start a short training with a page; returns it and the page's port."""
    port = free_port()
    return start(*SHORT, "--output", str(output), "--watch", str(port), *flags), port


def wait_for_game(training: Run, port: int) -> list[dict]:
    """Wait until a training's page shows the game; returns some messages of it."""
    training.read_until("watch it at")
    with contextlib.closing(events(port)) as stream:
        return list(itertools.islice(itertools.dropwhile(lambda message: "waiting" in message, stream), 30))


def watcher_of(training: Run) -> int:
    """The process that serves a training's page."""
    (pid,) = [pid for pid in training.alive() if b"a3c.watch.player" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def test_a_training_shows_the_game_and_goes_on_without_its_page(tmp_path):
    training, port = start_watched(tmp_path / "run", "--steps-per-epoch", "60", "--max-epoch", "1000")
    try:
        shown = wait_for_game(training, port)
        assert shown[0]["updates"] % 60 == 0
        assert len({message["screen"] for message in shown}) > 10
        watcher = watcher_of(training)
        assert os.getpriority(os.PRIO_PROCESS, watcher) == play_module._NICENESS
        assert os.getsid(watcher) == watcher  # Ctrl-C does not reach it
        assert b"CUDA_VISIBLE_DEVICES=" in Path(f"/proc/{watcher}/environ").read_bytes().split(b"\0")
        os.kill(watcher, signal.SIGKILL)
        training.discard()
        training.read_until("the watcher ended with status -9: training goes on without its page")
        training.read_until("Start Epoch")
        said = training.read_until("Start Epoch")
        assert "watcher" not in said  # once is enough
    finally:
        training.process.send_signal(signal.SIGINT)
        training.finish()
    assert training.process.returncode == 130
    assert training.wait_all_gone(3)


def test_nobody_is_left_when_a_watched_learner_is_killed(tmp_path):
    training, port = start_watched(tmp_path / "run", "--steps-per-epoch", "30", "--max-epoch", "1000")
    try:
        wait_for_game(training, port)
        watcher_of(training)
    finally:
        training.process.kill()
    assert training.wait_all_gone(5)
    training.finish()


def test_a_training_that_ends_ends_its_page(tmp_path):
    out = run(*SHORT, "--steps-per-epoch", "4", "--max-epoch", "2", "--output", str(tmp_path / "run"),
              "--watch", str(port := free_port()))  # fmt: skip
    assert out.count(f"watch it at http://127.0.0.1:{port}") == 1
    assert len(stats(tmp_path / "run")) == 2
    assert "the watcher ended" not in out


# What it costs


def test_a_viewer_tells_the_games_speed(page):
    with Viewer(page.port) as viewer:
        wait_until(lambda: page.broadcast._clients)
        page.broadcast.publish(b'{"waiting": "weights"}')
        begun = time.monotonic()
        for frames in range(6, 36, 3):
            page.broadcast.publish(json.dumps({"frames": frames}).encode())
            time.sleep(0.02)
        wait_until(lambda: viewer.game_speed > 0)
        seconds = time.monotonic() - begun
        page.broadcast.publish(b'{"waiting": "the end"}')
    assert viewer.game_speed >= 27 / 60 / seconds
    assert viewer.game_speed < 10


# In a browser


@pytest.fixture(scope="module")
def chromium() -> str:
    executable = browser.find()
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium is installed: apt-get install chromium")
    return executable


def crop(page: browser.Browser, selector: str) -> np.ndarray:
    """What an element looks like now."""
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    box = f"document.querySelector({selector!r}).getBoundingClientRect()"
    left, top, right, bottom = (int(page.evaluate(f"{box}.{side}")) for side in ("left", "top", "right", "bottom"))
    return shot[max(0, top) : bottom, max(0, left) : right]


def test_a_browser_shows_the_game_move_on_any_screen(chromium):
    grounds = []
    with playing(MODEL) as (_, url):
        for width, height, dark in ((1000, 900, False), (360, 1200, True)):
            with browser.Browser(chromium, width, height, dark) as page:
                page.open(url)
                page.wait_for("values.length > 20")
                pictures = []
                for _ in range(2):
                    shown = page.evaluate("moments.at(-1).frames")
                    page.wait_for(f"moments.at(-1).frames > {shown + 30}")
                    pictures.append({name: crop(page, name) for name in ("#screen", "#input", "#policy", "#curve")})
                one, two = pictures
                for name in one:
                    assert len(np.unique(one[name].reshape(-1, 3), axis=0)) > 3, name
                    assert (one[name] != two[name]).any(), name
                assert one["#screen"].shape[1] > 200
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate("document.querySelectorAll('.chosen').length") == 1
                assert page.evaluate("[...document.querySelectorAll('.action')].map(row => row.textContent)")[1]
                assert "weights of update" in page.evaluate("document.getElementById('status').textContent")
                ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
                grounds.append(int(ground.removeprefix("rgb(").partition(",")[0]))
    assert grounds[0] > 200 > 60 > grounds[1]
