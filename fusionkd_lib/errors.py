"""The one exception that is the user's to mend, and the one that a user asks for.

The message of an `InputError` is one sentence that names the file or the key and the way out; the
command line prints it without a traceback and exits with status 1.
"""


class InputError(ValueError):
    """Something that was handed in cannot be used: a file, a folder, a parameter."""


class Stopped(Exception):  # noqa: N818, for it is no error
    """A person asked for the end of a run; the same command goes on with it."""
