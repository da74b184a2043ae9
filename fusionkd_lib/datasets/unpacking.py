"""Unpack an archive into its folder and nowhere else, even if it is malicious."""

import gzip
import tarfile
import zlib
from pathlib import Path, PureWindowsPath

from fusionkd_lib.errors import InputError, seen

MOST_BYTES = 2**35  # that an archive unpacks to: five times the largest of ours
SUFFIXES = (".tar.gz", ".tgz")


def extract(archive: str | Path, folder: str | Path, *, strip: str = "") -> None:
    """Unpack a compressed tar archive into a folder, and nowhere else.

    Only files and folders are accepted: no link, no device, no name that is absolute or climbs
    with ``..``. A file that is there already gives way to the archive's, also where
    it is a link: what that leads to is left as it is.

    Parameters
    ----------
    archive
        A ``.tar.gz`` file.
    folder
        The destination.
    strip
        The archive's top folder, which is left out of the paths.

    Raises
    ------
    InputError
        If the archive is damaged or holds any of the above, or the system does not let it be read
        or unpacked.
    """
    folder, n_bytes = Path(folder), 0
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                member = _checked(member, strip)
                if (n_bytes := n_bytes + member.size) > MOST_BYTES:
                    raise tarfile.TarError(f"it unpacks to more than {MOST_BYTES:,} bytes")
                if member.isreg():
                    (folder / member.name).unlink(missing_ok=True)
                members.extract(member, folder, filter="data")  # refuses devices
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        fault = f"{archive}: is damaged or unsafe ({seen(error)})"
        raise InputError(f"{fault}: delete it and fetch it again") from error
    except OSError as error:
        fault = f"{archive}: cannot be unpacked into {folder} ({error.strerror})"
        way_out = "free space or fix the permissions, and try again"
        raise InputError(f"{fault}: {way_out}") from error


def _checked(member: tarfile.TarInfo, strip: str) -> tarfile.TarInfo:
    """Strip the top folder of a name; refuse what tarfile's data filter would let pass."""
    path = PureWindowsPath(member.name)  # Windows' rules know slashes, backslashes and drives
    if path.anchor or ".." in path.parts or member.issym() or member.islnk():
        raise tarfile.TarError(f"{member.name!r} is a link or leads out of the folder")
    parts = path.parts[1:] if path.parts[:1] == (strip,) else path.parts
    return member.replace(name="/".join(parts), deep=False)
