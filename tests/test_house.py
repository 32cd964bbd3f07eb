"""The house: imports between its rooms run one way, and none goes round in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [*ROOT.glob("*.py"), *ROOT.glob("a3c/**/*.py")]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    """A folder of the package; a file at the root, or beside the folders, is a room of its own."""
    parts = module.split(".")
    return ".".join(parts[:2])


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it, but for those that only a type checker sees."""
    tree = ast.parse(path.read_text())
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys() or {node.module}
    return (found & MODULES.keys()) - {"a3c", module_of(path)}


def test_the_walk_sees_imports(tmp_path):
    assert imports_of(ROOT / "a3c" / "watch" / "watcher.py") >= {"a3c.watch.server"}
    assert "a3c.simulation.messages" in imports_of(ROOT / "simulator.py")
    (tmp_path / "late.py").write_text("def f():\n    from a3c import config\n    import simulator\n")
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setitem(globals(), "ROOT", tmp_path)
        assert imports_of(tmp_path / "late.py") == {"a3c.config", "simulator"}


@pytest.mark.parametrize("name", [lambda module: module, room_of], ids=["files", "rooms"])
def test_no_import_goes_round_in_a_circle(name):
    arrows: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        arrows.setdefault(name(module), set()).update(map(name, imports_of(path)))
    graph = {start: ends - {start} for start, ends in arrows.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(reversed(error.args[1]))}")
