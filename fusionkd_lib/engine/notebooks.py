"""What runs a notebook: a chapter's source read as one, and executed by papermill.

A chapter is a py:percent script under ``book/``. Its kernel speaks through the file system, so that
nothing of it is to be heard on the network.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from traitlets import Dict
from traitlets.config import Config

from fusionkd_lib.errors import InputError, Stopped
from fusionkd_lib.runs import project_root

LONGEST_SOCKET = 90  # of the 103 characters that every system allows, less the socket's own name
# papermill warns of each parameter that a chapter leaves at its default; ours are validated.
logging.getLogger("papermill").setLevel(logging.ERROR)


def read(name: str) -> nbformat.NotebookNode:
    """Return a chapter as a notebook, its cells named by their place."""
    notebook = jupytext.read(project_root() / "book" / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    return notebook


def execute(
    notebook: nbformat.NotebookNode,
    path: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> nbformat.NotebookNode:
    """Have papermill execute a notebook and save it cell by cell.

    Parameters
    ----------
    notebook
        From `read`.
    path
        Where the executed notebook goes.
    parameters
        Injected after the cell that is tagged ``parameters``.
    environment
        Variables that the kernel has beside those of this process.

    Raises
    ------
    InputError
        Naming the notebook, the cell and the message, where a cell fails.
    Stopped
        Where a cell was stopped by the user.
    """
    try:
        with _configuration(environment or {}) as config:
            options = {"config": config, "progress_bar": False}
            return papermill.execute_notebook(notebook, path, dict(parameters or {}), **options)
    except PapermillExecutionError as error:
        message = f"cell {error.exec_count} of {path}: {error.ename}: {error.evalue}"
        kind = Stopped if error.ename == Stopped.__name__ else InputError
        raise kind(message) from None


class Kernel(AsyncKernelManager):
    """A kernel of this Python, with variables of its own in its environment."""

    environment = Dict(config=True)

    async def start_kernel(self, **options: Any) -> None:
        """Start the kernel, the variables added to those of this process."""
        module = "fusionkd_lib.engine.kernel"
        self.kernel_spec.argv = [sys.executable, "-m", module, "-f", "{connection_file}"]
        await super().start_kernel(env=os.environ | self.environment, **options)


@contextmanager
def _configuration(environment: Mapping[str, str]) -> Iterator[Config]:
    """Have a kernel speak through sockets in a folder that is its own, and its owner's.

    Kernels that start at the same time would else take each other's.
    """
    with TemporaryDirectory(prefix="fusionkd-") as folder:
        if len(folder) > LONGEST_SOCKET:
            raise InputError(f"{folder}: is too long for a socket: set TMPDIR to a shorter folder")
        kernel = {"transport": "ipc", "ip": f"{folder}/kernel", "environment": dict(environment)}
        # A kernel that is told to end reports an interrupt, which is nobody's concern.
        quiet = ["--IPKernelApp.log_level=CRITICAL"]
        client = {"kernel_manager_class": Kernel, "extra_arguments": quiet}
        yield Config({"KernelManager": kernel, "NotebookClient": client})
