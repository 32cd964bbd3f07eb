"""The server of the page of ``--watch``: whom it answers, and that nobody blocks it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

from a3c.errors import UsageError
from a3c.watch import server as server_module
from a3c.watch.server import Server, listen

import pytest
from pages import Reader, get
from processes import wait_until


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


def test_what_is_no_request_is_not_told(page, capfd):
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", page.port), timeout=10) as odd:
            odd.sendall(b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while odd.recv(1000):
                    pass
    assert get(page.port)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_little_waits_in_the_system_for_a_slow_client(page):
    """What waits there is late by the time that it takes to send it."""
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", page.port))
        slow.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: page.broadcast._clients)
        (waiting,) = page.broadcast._clients.values()
        sent = 0
        while len(waiting) < server_module._WAITING_MESSAGES and sent < 200:
            page.broadcast.publish(numbered(0, 10_000))
            sent += 1
            time.sleep(0.02)
    assert sent < 50


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
