"""The two kinds of error that end a command in one line."""

from __future__ import annotations


class UsageError(Exception):
    """Something a user can put right: told in one line, exit status 2."""


class RunError(Exception):
    """What ended a run, told without our own traceback; exit status 1."""


def first_line(error: object) -> str:
    """The first line of an error's text."""
    return str(error).partition("\n")[0]


def problem(error: Exception) -> str:
    """What an error says, in one line; at least its kind."""
    return first_line(error) or type(error).__name__
