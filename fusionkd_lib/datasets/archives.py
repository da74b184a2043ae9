"""Fetch a dataset from its public record, and check a copy file by file.

The file ``fetched.json`` beside a fetched dataset records its source, licence and checksums.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import pooch
from requests import Response  # what pooch downloads with
from requests.exceptions import RequestException

from fusionkd_lib.audio import cannot_open, read_header
from fusionkd_lib.datasets import files, sonyc_ust, urbansound8k
from fusionkd_lib.datasets.unpacking import SUFFIXES, extract
from fusionkd_lib.errors import InputError

DATASETS: dict[str, ModuleType] = {"urbansound8k": urbansound8k, "sonyc_ust": sonyc_ust}
RECORD = "fetched.json"


@dataclass(frozen=True)
class Report:
    """The contents of a copy of a dataset; paths are relative to its root.

    Parameters
    ----------
    dataset, root
        Its name and folder.
    expected, found
        Number of clips that the metadata list, and number that exist, broken ones included.
    parts
        Folder -> ``"873"`` or ``"387 of 925"``.
    missing, broken, unexpected
        Clips that do not exist, ``path: reason`` for those that cannot be read, and files among
        the clips that the metadata do not list.
    """

    dataset: str
    root: str
    expected: int
    found: int
    parts: dict[str, str]
    missing: list[str]
    broken: list[str]
    unexpected: list[str]

    @property
    def whole(self) -> bool:
        """Whether every clip is there and can be read."""
        return not self.missing and not self.broken

    def as_dict(self) -> dict:
        """Return the report as plain data, ``whole`` included."""
        return {**asdict(self), "whole": self.whole}

    def __str__(self) -> str:
        counted = ", ".join(f"{part} {number}" for part, number in self.parts.items())
        lines = [f"{self.dataset} in {self.root}: {files.count(self.found, self.expected)} clips"]
        lines.append(f"  {counted}")
        for fault in ("missing", "broken", "unexpected"):
            paths = getattr(self, fault)
            if paths:
                lines.append(f"  {len(paths):,} {fault}, the first {paths[0]}")
        return "\n".join(lines)


def fetch(
    name: str, root: str | Path, *, base_url: str | None = None, progress: bool = True
) -> dict[str, str]:
    """Download a dataset's files, verify their checksums and unpack them.

    A file that already has the right checksum is not downloaded again. Where the record gives no
    checksum, the SHA-256 of the first download is recorded and holds from then on.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    root
        Folder for the dataset; made if it does not exist. The archives stay in it.
    base_url
        Address of the files, if not the dataset's own record.
    progress
        Whether to show a progress bar.

    Returns
    -------
    dict
        File -> ``"md5:..."`` or ``"sha256:..."``.

    Raises
    ------
    InputError
        If the name is unknown, a file cannot be reached or written or has another checksum, or an
        archive is damaged or unsafe.
    """
    dataset, root = _dataset(name), Path(root).absolute()
    base_url = base_url or f"{dataset.SOURCE}/files"
    known = _recorded(root)
    checksums = {}
    for file, pinned in dataset.ARCHIVES.items():
        checksum = pinned or known.get(file)
        path = _download(f"{base_url}/{file}", root, checksum=checksum, progress=progress)
        checksums[file] = checksum or f"sha256:{pooch.file_hash(str(path))}"
    _record(root, dataset, source=base_url, checksums=checksums)
    for file in dataset.ARCHIVES:
        if file.endswith(SUFFIXES):
            extract(root / file, root, strip=dataset.ARCHIVE_ROOT)
    return checksums


def check(name: str, root: str | Path) -> Report:
    """Count a copy's clips and read every header.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    root
        The dataset's folder.

    Raises
    ------
    InputError
        If the name is unknown, or the folder lacks the dataset's own metadata.
    """
    dataset, root = _dataset(name), Path(root)
    expected = dataset.expected_files(root)
    located = files.locate(expected)
    pairs = list(zip(expected, located, strict=True))
    found = [path for path in located if path]
    listed = set(found)
    others = [path for path in sorted((root / "audio").rglob("*")) if path.is_file()]
    return Report(
        dataset=dataset.NAME,
        root=str(root),
        expected=len(expected),
        found=len(found),
        parts=_count_parts(pairs),
        missing=[_inside(path, root) for path, there in pairs if there is None],
        broken=[f"{_inside(path, root)}: {fault}" for path in found if (fault := _fault(path))],
        unexpected=[
            _inside(path, root)
            for path in others
            if path not in listed and not path.name.startswith(".")
        ],
    )


def _download(url: str, root: Path, *, checksum: str | None, progress: bool) -> Path:
    name = url.rsplit("/", 1)[-1]
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=1 << 20)
    try:
        return Path(
            pooch.retrieve(url, checksum, fname=name, path=str(root), downloader=downloader)
        )
    except RequestException as error:
        answer = "cannot be reached" if error.response is None else _answer(error.response)
        raise InputError(
            f"{url}: {answer}: check the network, or put {name} into {root}, and try again"
        ) from error
    except ValueError as error:  # pooch's word for a wrong checksum
        raise InputError(
            f"{url}: does not have the checksum {checksum}: fetch it again; if that does not help, "
            "it is not the file that was published"
        ) from error
    except OSError as error:
        raise _unwritable(root, error) from error


def _answer(response: Response) -> str:
    response.close()  # pooch leaves it open
    return f"answers {response.status_code} {response.reason}"


def _record(root: Path, dataset: ModuleType, *, source: str, checksums: dict[str, str]) -> None:
    record = {
        "dataset": dataset.NAME,
        "source": source,
        "licence": dataset.LICENCE,
        "citation": dataset.CITATION,
        "files": checksums,
    }
    try:
        (root / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(root, error) from error


def _unwritable(root: Path, error: OSError) -> InputError:
    return InputError(
        f"{root}: cannot be written ({error.strerror or error}): fix that and try again, or choose "
        "another folder"
    )


def _recorded(root: Path) -> dict[str, str]:
    """Return the checksums of an earlier fetch; none if there was none."""
    path = root / RECORD
    try:
        return dict(json.loads(path.read_bytes())["files"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise cannot_open(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged: delete it and fetch again") from error


def _dataset(name: str) -> ModuleType:
    if name not in DATASETS:
        raise InputError(f"dataset={name!r}: must be one of {', '.join(DATASETS)}")
    return DATASETS[name]


def _count_parts(pairs: list[tuple[Path, Path | None]]) -> dict[str, str]:
    """Count the clips of each folder; fold10 comes after fold9."""
    listed = Counter(path.parent.name for path, _ in pairs)
    found = Counter(path.parent.name for path, there in pairs if there)
    folders = sorted(listed, key=lambda name: (len(name), name))
    return {folder: files.count(found[folder], listed[folder]) for folder in folders}


def _fault(path: Path) -> str:
    """Return what is wrong with a sound file's header, or ""."""
    try:
        read_header(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
