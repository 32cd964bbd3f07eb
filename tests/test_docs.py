"""The documents: their links lead somewhere, their commands parse, and docs/flags.md is what its program writes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from a3c import flags
from a3c.config import Config

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_ITS_TIME = ("lab-notebook.md", "CHANGELOG.md")  # they name what was there then
NOT_OURS = ("eval.md", "utils.py")  # what --task eval writes; what there is none of
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def links(page: Path) -> list[str]:
    """The relative targets of a page's links and pictures."""
    found = [first or second for first, second in _LINK.findall(_CODE.sub("", page.read_text()))]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    words = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_links_are_found():
    targets = links(ROOT / "README.md")
    assert "docs/pictures/pong.gif" in targets
    assert "docs/flags.md" in targets


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, two\n```\n# no heading\n```\n## A [link](to.md) and `code` -- three\n")
    assert anchors(page) == {"one-two", "a-link-and-code----three"}


_PLACE = re.compile(r"`((?:a3c|bench|tests|models|results|docs)/[\w/.-]*|[\w-]+\.(?:py|md))`")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OF_ITS_TIME], ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page):
    named = [name for name in _PLACE.findall(page.read_text()) if name not in NOT_OURS]
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_benchmarks_that_a_page_names_are_there(page):
    named = set(re.findall(r"\bbench-([a-z]+(?:-[a-z]+)*)", page.read_text()))
    assert [name for name in named if not (ROOT / "bench" / f"{name.replace('-', '_')}.py").is_file()] == []


def commands(page: Path) -> list[str]:
    """The command lines in a page's blocks of code, without comments."""
    blocks = re.findall(r"```.*?```", page.read_text(), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line.partition("#")[0] for line in lines if line.startswith("./train-atari.py")]


COMMANDS = sorted({line for page in PAGES for line in commands(page)})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_parses(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(flags.parse_args(shlex.split(line)[1:]), Config)


def test_each_task_has_a_command():
    tasks = {flags.parse_args(shlex.split(line)[1:]).task for line in commands(ROOT / "README.md")}
    assert tasks == {"train", "play", "dump_video", "eval", "info", "plot", "doctor"}


def test_flags_page_is_what_its_program_writes():
    written = (ROOT / "docs" / "flags.md").read_text()
    assert written == flags.page(), "type .venv/bin/python -m a3c.flags > docs/flags.md"


def test_flags_page_has_every_flag_with_its_default():
    page = flags.page()
    for name in Config.__dataclass_fields__:
        assert page.count(f"| `--{name.replace('_', '-')}` | ") == 1
    assert "| `--episode` | a whole number, 1 or more | episodes to play, to evaluate or to record | 100 |" in page
    assert "(default" not in page
