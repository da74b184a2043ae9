"""Hostile archives and servers: nothing leaves the folder, nothing half fetched stays."""

import functools
import http.server
import io
import re
import tarfile
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hostile import FETCH, check, holding, sentence_of, table

from fusionkd_lib.cli import main
from fusionkd_lib.datasets import archives, urbansound8k
from fusionkd_lib.datasets.unpacking import extract

# Archives


def tar(*members: tuple[str, bytes, str]):
    """Make a tar of (name, type, target of a link)."""

    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            for name, kind, target in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, target
                member.size = 5 if kind == tarfile.REGTYPE else 0
                archive.addfile(member, io.BytesIO(b"hello"))

    return make


def file_named(name: str):
    return tar((name, tarfile.REGTYPE, ""))


OUT, UNSAFE, AGAIN = "leads out of", "unsafe", "delete it and fetch it again"
ARCHIVES = {
    "a tar that climbs out": (file_named("../out.wav"), ("a.tar.gz", UNSAFE, AGAIN)),
    "a tar that climbs out from within": (
        file_named("audio/../../out.wav"),
        ("a.tar.gz", UNSAFE, AGAIN),
    ),
    "a tar with an absolute name": (file_named("/tmp/fusionkd-out.wav"), ("a.tar.gz", "out")),
    "a tar with a drive": (file_named("C:/out.wav"), ("a.tar.gz", OUT, AGAIN)),
    "a tar with backslashes": (file_named("..\\out.wav"), ("a.tar.gz", OUT, AGAIN)),
    "a tar with a symbolic link": (
        tar(("audio", tarfile.SYMTYPE, ".."), ("audio/out.wav", tarfile.REGTYPE, "")),
        ("a.tar.gz", "'audio' is a link", AGAIN),
    ),
    "a tar with a symbolic link to a secret": (
        tar(("audio/a.wav", tarfile.SYMTYPE, "/etc/passwd")),
        ("a.tar.gz", "'audio/a.wav' is a link", AGAIN),
    ),
    "a tar with a hard link": (
        tar(("audio/a.wav", tarfile.LNKTYPE, "/etc/passwd")),
        ("a.tar.gz", "'audio/a.wav' is a link", AGAIN),
    ),
    "a tar with a disk": (tar(("audio", tarfile.BLKTYPE, "")), ("a.tar.gz", UNSAFE, AGAIN)),
    "a tar with a terminal": (tar(("audio", tarfile.CHRTYPE, "")), ("a.tar.gz", UNSAFE, AGAIN)),
    "a tar with a pipe": (tar(("audio", tarfile.FIFOTYPE, "")), ("a.tar.gz", UNSAFE, AGAIN)),
    "an empty tar": (holding(b""), ("a.tar.gz", "damaged", "fetch it again")),
    "a web page": (holding(b"<html>404</html>"), ("a.tar.gz", "damaged", "fetch it again")),
    "a zip": (holding(b"PK\3\4" + bytes(99)), ("a.zip", "damaged", AGAIN)),
    "a cut tar": (
        lambda path: (file_named("a.wav")(path), path.write_bytes(path.read_bytes()[:-20])),
        ("a.tar.gz", "damaged", AGAIN),
    ),
    "an archive that is not there": (lambda path: None, ("a.tar.gz", "No such file")),
}


@table(ARCHIVES)
def test_an_archive_that_cannot_be_trusted(tmp_path, make, says):
    archive = tmp_path / says[0]
    make(archive)
    check(sentence_of(extract, archive, tmp_path / "data"), *says)
    outside = [path for path in tmp_path.iterdir() if path not in (archive, tmp_path / "data")]
    assert not outside
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() or path.is_fifo()]
    assert not Path("/tmp/fusionkd-out.wav").exists()


# Fetching


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve a folder on this machine as the record of UrbanSound8K."""
    folder = tmp_path / "record" / "files"
    folder.mkdir(parents=True)
    handler = functools.partial(Silent, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(urbansound8k, "SOURCE", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def refused_fetch(root: Path) -> str:
    answer = CliRunner().invoke(main, ["data", "fetch", "urbansound8k", "--root", str(root)])
    assert isinstance(answer.exception, SystemExit), answer.exception
    assert answer.exit_code == 1
    # After the bar.
    return re.search(r"^Error: (.*)\n\Z", answer.stderr, re.MULTILINE)[1]


def test_a_download_with_a_wrong_checksum(tmp_path, served):
    (served / "UrbanSound8K.tar.gz").write_bytes(b"another file")
    sentence = refused_fetch(tmp_path / "data")
    check(sentence, "UrbanSound8K.tar.gz", "does not have the checksum md5:9aa69802", FETCH)
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("length", [True, False])
def test_a_download_that_is_longer_than_was_published(tmp_path, served, monkeypatch, length):
    if not length:  # a server may leave out how long its answer is
        monkeypatch.setattr(Silent, "send_header", lambda *_: None)
    monkeypatch.setattr(urbansound8k, "SIZES", {"UrbanSound8K.tar.gz": 3_000_000})
    archive = served / "UrbanSound8K.tar.gz"
    for n_bytes, says in ((3_000_000, "does not have the checksum"), (3_000_001, "is longer than")):
        archive.write_bytes(b"x" * n_bytes)
        check(refused_fetch(tmp_path / "data"), "UrbanSound8K.tar.gz", says)
        assert not list((tmp_path / "data").iterdir())


def test_a_file_without_a_published_size_has_the_limit_of_what_is_unpacked(
    tmp_path, served, monkeypatch
):
    monkeypatch.setattr(urbansound8k, "SIZES", {})
    monkeypatch.setattr(archives, "MOST_BYTES", 10)
    (served / "UrbanSound8K.tar.gz").write_bytes(b"x" * 11)
    check(refused_fetch(tmp_path / "data"), "is longer than 10 bytes", "put UrbanSound8K.tar.gz")
    assert not list((tmp_path / "data").iterdir())


def test_a_download_that_is_not_there(tmp_path, served):
    check(refused_fetch(tmp_path / "data"), "UrbanSound8K.tar.gz", "answers 404", "try again")


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(urbansound8k, "SOURCE", "http://127.0.0.1:9")
    check(refused_fetch(tmp_path / "data"), "UrbanSound8K.tar.gz", "cannot be reached", "network")


def test_a_root_that_is_a_file(tmp_path, served):
    (tmp_path / "data").write_text("")
    check(refused_fetch(tmp_path / "data"), "data: cannot be written", "choose another")


def test_a_damaged_record_of_an_earlier_fetch(tmp_path, served):
    (tmp_path / "fetched.json").write_text("{")
    check(refused_fetch(tmp_path), "fetched.json", "is damaged", "delete it")
