"""Fetch a dataset from its public record, and check a copy file by file.

The file ``fetched.json`` beside a fetched dataset records its source, licence and checksums.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm

from fusionkd_lib import catalogue
from fusionkd_lib.datasets import files
from fusionkd_lib.datasets.unpacking import MOST_BYTES, SUFFIXES, extract
from fusionkd_lib.errors import InputError, choose, seen
from fusionkd_lib.reading import parse_json, read_bytes
from fusionkd_lib.storage import write_json

# The module of each dataset on disk holds its NAME, SOURCE, LICENCE, CITATION, ARCHIVES (file ->
# checksum or None), ARCHIVE_ROOT and `expected_files`; where they are known, SIZES (file -> bytes).
DATASETS = {
    name: import_module(entry.loader.partition(":")[0])
    for name, entry in catalogue.DATASETS.items()
    if entry.folder and not entry.own
}
RECORD = "fetched.json"


def fetch(name: str, root: str | Path, *, base_url: str | None = None) -> dict[str, str]:
    """Download a dataset's files, verify their checksums and unpack them.

    A file that already has the right checksum is not downloaded again. If the record gives no
    checksum, the SHA-256 of the first download is stored and required from then on.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    root
        Folder for the dataset, created if needed. The archives stay in it.
    base_url
        Address of the files, if not the dataset's own record.

    Returns
    -------
    dict
        File -> ``"md5:..."`` or ``"sha256:..."``.

    Raises
    ------
    InputError
        If the name is unknown, a file cannot be reached or written, is longer than was published or
        than anything is unpacked to, or has another checksum, or an archive is damaged or unsafe.
    """
    dataset, root = DATASETS[choose("dataset", name, DATASETS)], Path(root).absolute()
    base_url = base_url or f"{dataset.SOURCE}/files"
    known, checksums = _recorded(root), {}
    record = {"dataset": dataset.NAME, "source": base_url, "files": checksums}
    record |= {"licence": dataset.LICENCE, "citation": dataset.CITATION}
    try:
        for file, pinned in dataset.ARCHIVES.items():
            checksum = pinned or known.get(file)
            most = getattr(dataset, "SIZES", {}).get(file, MOST_BYTES)
            path = download(f"{base_url}/{file}", root, checksum=checksum, most=most)
            checksums[file] = checksum or f"sha256:{pooch.file_hash(path)}"
        write_json(root / RECORD, record)
    except OSError as error:
        fault = f"cannot be written ({error.strerror or error})"
        way_out = "fix that and try again, or choose another folder"
        raise InputError(f"{root}: {fault}: {way_out}") from error
    for file in dataset.ARCHIVES:
        if file.endswith(SUFFIXES):
            extract(root / file, root, strip=dataset.ARCHIVE_ROOT)
    return checksums


def check(name: str, root: str | Path) -> dict[str, Any]:
    """Count a copy's clips and read every header.

    Parameters
    ----------
    name
        A key of `DATASETS`.
    root
        The dataset's folder.

    Returns
    -------
    dict
        Plain data, with paths relative to the root: ``dataset`` and ``root``; ``expected`` and
        ``found``, the number of clips in the metadata, and of those that exist, broken ones
        included; ``parts``, folder -> ``"873"`` or ``"387 of 925"``; lists of what is ``missing``,
        ``broken`` (``path: reason``) and, in ``audio``, ``unexpected``; ``whole``, whether every
        clip exists and can be read.

    Raises
    ------
    InputError
        If the name is unknown, or the folder lacks the dataset's own metadata.
    """
    dataset, root = DATASETS[choose("dataset", name, DATASETS)], Path(root)
    expected = dataset.expected_files(root)
    pairs = zip(expected, files.locate(expected), strict=True)
    found = {listed: path for listed, path in pairs if path}
    others = {path for path in (root / "audio").rglob("*") if path.is_file()} - {*found.values()}
    folders = ([path.parent.name for path in paths] for paths in (expected, found))
    missing = [_inside(root, path) for path in expected if path not in found]
    broken = [fault for path in found.values() if (fault := files.rate_or_fault(root, path)[1])]
    unexpected = [_inside(root, path) for path in sorted(others) if path.name[0] != "."]
    counts = {"expected": len(expected), "found": len(found), "parts": files.count_parts(*folders)}
    faults = {"missing": missing, "broken": broken, "unexpected": unexpected}
    whole = not missing and not broken
    return {"dataset": dataset.NAME, "root": str(root), **counts, **faults, "whole": whole}


def describe(report: dict[str, Any]) -> str:
    """Say on a few lines what `check` found."""
    counted = ", ".join(f"{part} {number}" for part, number in report["parts"].items())
    clips = files.count(report["found"], report["expected"])
    faults = {key: report[key] for key in ("missing", "broken", "unexpected")}
    told = [f"{len(p):,} {key}, the first {seen(p[0])}" for key, p in faults.items() if p]
    return "\n  ".join([f"{report['dataset']} in {report['root']}: {clips} clips", counted, *told])


def download(url: str, root: Path, *, checksum: str | None, most: int) -> str:
    """Download a file of at most so many bytes into a folder, and return its path.

    A file that is there, with that checksum if one is given, is not downloaded again.

    Raises
    ------
    InputError
        Naming the address and what is wrong, or the checksum that the file does not have.
    """
    name = url.rsplit("/", 1)[-1]
    way_out = f"check the network, or put {name} into {root}, and try again"

    def stream(url: str, path: str, _: Any) -> None:
        with requests.get(url, stream=True, timeout=30) as answer, open(path, "wb") as file:
            answer.raise_for_status()
            size = int(answer.headers.get("content-length", 0))
            with tqdm(total=size, ncols=79, unit="B", unit_scale=True) as bar:
                for chunk in answer.iter_content(1 << 20):
                    if file.tell() + len(chunk) > most:
                        raise InputError(f"{url}: is longer than {most:,} bytes: {way_out}")
                    bar.update(file.write(chunk))

    try:
        return pooch.retrieve(url, checksum, fname=name, path=root, downloader=stream)
    except requests.RequestException as error:
        answer = "cannot be reached"
        if error.response is not None:
            answer = f"answers {error.response.status_code} {error.response.reason}"
        raise InputError(f"{url}: {answer}: {way_out}") from error
    except InputError:
        raise
    except ValueError as error:  # how pooch reports a wrong checksum
        way_out = "fetch it again; if that does not help, it is not the file that was published"
        raise InputError(f"{url}: does not have the checksum {checksum}: {way_out}") from error


def _recorded(root: Path) -> dict[str, str]:
    """Return the checksums of an earlier fetch; none if there was none."""
    path, remedy = root / RECORD, "delete it and fetch again"
    if not path.exists():
        return {}
    content = read_bytes(path, remedy=remedy)
    try:
        return dict(parse_json(content)["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is damaged: {remedy}") from error


def _inside(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
