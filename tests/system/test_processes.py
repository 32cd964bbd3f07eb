"""Helper processes: what they find, and that they die with whoever started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from a3c.system.processes import ONE_THREAD, start_program

import pytest
from processes import alive, wait_for_descendants, wait_until

TELLS = """
import json, os, sys
print(json.dumps({
    "name": __name__, "arguments": sys.argv[1:], "path": sys.path, "session": os.getsid(0), "read": sys.stdin.read(),
    "environment": dict(os.environ),
}))
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a module where this process finds it, and its helpers by that."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str, name: str = "helper_of_a_test") -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def output(process: subprocess.Popen, given: str | None = None) -> dict:
    with process:
        text, _ = process.communicate(given, timeout=30)
    assert process.returncode == 0
    return json.loads(text)


def test_a_module_is_a_program_with_a_session_of_its_own(program, tmp_path):
    process = start_program(program(TELLS), 7, tmp_path, 0.5, "a b", stdout=subprocess.PIPE, text=True)
    told = output(process)
    assert told["name"] == "__main__"
    assert told["arguments"] == ["7", str(tmp_path), "0.5", "a b"]
    assert set(filter(None, sys.path)) <= set(told["path"])
    assert told["session"] == process.pid != os.getsid(0)
    assert told["read"] == ""


def test_modules_of_the_working_directory_do_not_take_the_place_of_ours(program, tmp_path, monkeypatch):
    strange = tmp_path / "strange"
    (strange / "a3c").mkdir(parents=True)
    (strange / "a3c" / "__init__.py").touch()
    (strange / "helper_of_a_test.py").write_text("import sys; sys.exit(7)")
    name = program(TELLS)
    monkeypatch.chdir(strange)
    told = output(start_program(name, stdout=subprocess.PIPE, text=True))
    assert str(strange) not in told["path"]


def test_variables_are_added_to_our_environment(program, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("OURS", "stays")
    process = start_program(program(TELLS), env=ONE_THREAD | {"ADDED": ""}, stdout=subprocess.PIPE, text=True)
    told = output(process)["environment"]
    assert told | ONE_THREAD | {"OURS": "stays", "ADDED": ""} == told
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_it_may_be_told_something(program):
    process = start_program(program(TELLS), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert output(process, "news")["read"] == "news"


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [("import sys; sys.exit('no luck')", 1, "no luck"), ("import sys; sys.exit(7)", 7, ""), ("1 / 0", 1, "Zero")],
)
def test_its_end_is_the_modules(program, text, status, error):
    with start_program(program(text), stderr=subprocess.PIPE, text=True) as process:
        _, told = process.communicate(timeout=30)
    assert process.returncode == status
    assert error in (told.splitlines() or [""])[-1]


def ours(**env: str) -> dict[str, str]:
    """The environment of a process that finds our modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **env}


OWNER = """
import sys
from a3c.system.processes import start_program
start_program(sys.argv[1])
sys.stdin.read()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_it_dies_with_a_killed_owner(program, stopped):
    name = program("import signal\nprint('it runs', flush=True)\nwhile True:\n    signal.pause()")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ours()
    )
    with owner:
        assert owner.stdout.readline() == b"it runs\n"
        helpers = wait_for_descendants(1, owner.pid)
        if stopped:  # it cannot see that the owner is gone
            helpers[0].suspend()
        owner.kill()
        wait_until(lambda: not alive(helpers), timeout_s=3)
    assert owner.returncode == -signal.SIGKILL


def test_a_module_whose_owner_is_gone_never_runs(program):
    name = program("print('it runs')")
    command = [sys.executable, "-m", "a3c.system.processes"]
    for parent, told in ((os.getpid(), b"it runs\n"), (os.getppid(), b"")):
        done = subprocess.run([*command, str(parent), name], capture_output=True, env=ours(), timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0 if told else 1, told, b"")


def test_a_parent_that_is_already_gone():
    code = "import os; from a3c.system.processes import die_with_parent; die_with_parent(os.getpid()); print('alive')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ours(), timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"")


def test_who_gives_way_does_so_also_among_sessions(program):
    code = "import os; from a3c.system.processes import give_way; give_way(); print(os.getpriority(os.PRIO_PROCESS, 0))"
    if (shared := Path("/proc/self/autogroup")).exists():
        code += f"; print(open({str(shared)!r}).read().split()[-1])"
    process = start_program(program(code), stdout=subprocess.PIPE, text=True)
    with process:
        assert set(process.stdout.read().split()) == {"19"}
