"""Unpack an archive into its folder and nowhere else, whoever made it."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fusionkd_lib.errors import InputError

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
CHUNK_BYTES = 1 << 20

# Name in the archive, size in bytes, and how to open it.
Entry = tuple[str, int, Callable[[], BinaryIO]]


def extract(archive: str | Path, folder: str | Path, *, strip: str = "") -> None:
    """Unpack a tar or zip archive into a folder, and nowhere else.

    Only files and folders are accepted: no link, no device, no name that is absolute or climbs
    with ``..``. A file that is there with its size is kept, so that a broken run is taken up.

    Parameters
    ----------
    archive
        A ``.tar``, ``.tar.gz``, ``.tgz`` or ``.zip`` file.
    folder
        Where to.
    strip
        The folder at the archive's top that is left out.

    Raises
    ------
    InputError
        If the archive is damaged, holds any of the above, or cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with ExitStack() as stack:
            for name, size, open_entry in _entries(archive, folder, stack):
                target = _target(archive, folder, name, strip)
                if target.is_file() and target.stat().st_size == size:
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with open_entry() as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, CHUNK_BYTES)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        # Of a file that is no tar, each compression that was tried makes a line.
        reason = str(error).split("\n")[0].rstrip(":")
        raise InputError(
            f"{archive} is damaged or unsafe ({reason}); delete it and fetch it again."
        ) from error
    except OSError as error:
        raise InputError(
            f"{archive} cannot be unpacked into {folder} ({error.strerror or error}); "
            "free space, see to the folder's permissions, or delete a damaged archive."
        ) from error


def _entries(archive: Path, folder: Path, stack: ExitStack) -> Iterator[Entry]:
    if archive.name.endswith(".zip"):
        return _zip_entries(stack.enter_context(zipfile.ZipFile(archive)))
    return _tar_entries(stack.enter_context(tarfile.open(archive)), folder)


def _tar_entries(archive: tarfile.TarFile, folder: Path) -> Iterator[Entry]:
    for member in archive:
        if member.issym() or member.islnk():
            raise tarfile.TarError(f"{member.name} is a link")
        tarfile.data_filter(member, str(folder))  # raises at devices and at ways out
        if member.isfile():
            yield member.name, member.size, lambda member=member: archive.extractfile(member)


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for member in archive.infolist():
        if stat.S_ISLNK(member.external_attr >> 16):
            raise zipfile.BadZipFile(f"{member.filename} is a link")
        if not member.is_dir():
            yield member.filename, member.file_size, lambda member=member: archive.open(member)


def _target(archive: Path, folder: Path, name: str, strip: str) -> Path:
    """Return where an entry goes, and refuse a name that would lead out of the folder."""
    pure = PurePosixPath(name)
    if strip and pure.parts[:1] == (strip,):
        pure = PurePosixPath(*pure.parts[1:])
    target = folder / pure
    # A backslash or a colon would be a path elsewhere than here; a link may lie there already.
    odd = pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name
    if odd or not target.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{archive} holds {name!r}, which leads out of {folder}; do not trust this archive."
        )
    return target
