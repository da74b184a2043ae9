"""The one exception that is the user's to mend.

Its message is one sentence that names the file or the key and the way out; the command line prints
it without a traceback and exits with status 1.
"""


class InputError(ValueError):
    """Something that was handed in cannot be used: a file, a folder, a parameter."""


class Stopped(Exception):  # noqa: N818
    """A person asked for the end of a run; the same command goes on with it."""
