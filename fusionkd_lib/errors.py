"""The one exception that is the user's to mend, its words, and the one that a user asks for.

The message of an `InputError` is one sentence that names the file or the key and the way out; the
command line prints it without a traceback and exits with status 1.
"""

import difflib
from collections.abc import Collection
from numbers import Integral
from typing import Any

MOST_OF_A_SENTENCE = 1000


def seen(value: object, *, most: int = 200) -> str:
    r"""Return a value as a person may see it: on one line, its middle cut where it is long.

    >>> seen("red\x1b[31m\n"), seen("a" * 9, most=6)
    ('red\\x1b[31m\\n', 'aaa...')
    """
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
    end = (most - 3) // 2
    return text if len(text) <= most else f"{text[: most - 3 - end]}...{text[len(text) - end :]}"


class InputError(ValueError):
    """Something that was handed in cannot be used: a file, a folder, a parameter."""

    def __init__(self, sentence: str) -> None:
        super().__init__(seen(sentence, most=MOST_OF_A_SENTENCE))


class Stopped(Exception):  # noqa: N818, for it is no error
    """A person asked for the end of a run; the same command goes on with it."""


def not_allowed(key: str, value: Any, way_out: str) -> str:
    """Say in the one grammar of parameters what is wrong; a long value is cut."""
    return f"{key} = {seen(repr(value), most=100)} is not allowed: {way_out}"


def choose(key: str, value: Any, allowed: Collection[str]) -> str:
    """Return a value that is allowed for a key.

    Raises
    ------
    InputError
        With what is allowed and the nearest right spelling.
    """
    if isinstance(value, str) and value in allowed:
        return value
    raise InputError(not_allowed(key, value, one_of(value, allowed)))


def one_of(value: Any, allowed: Collection[str]) -> str:
    """Say what is allowed, and which of it is spelled nearly as a value is."""
    hint = nearest(value, allowed) if isinstance(value, str) else ""
    some = "one of " if len(allowed) > 1 else ""
    return f"use {some}{', '.join(map(repr, allowed))}" + (f"; {hint}" if hint else "")


def nearest(value: str, allowed: Collection[str]) -> str:
    """Ask whether the nearest of what is allowed was meant; nothing where none is near."""
    near = difflib.get_close_matches(value, allowed, n=1)
    return f"did you mean '{near[0]}'?" if near else ""


def check_counts(*, lowest: int = 1, **counts: int) -> None:
    """Refuse a parameter, given by its name, that is not a whole number of at least `lowest`."""
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
            raise InputError(f"{name}={value!r}: must be a whole number, {lowest} or more")
