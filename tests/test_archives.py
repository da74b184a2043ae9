"""Fetching: checksums hold, archives stay in their folder, and a copy is checked file by file."""

import csv
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from miniature import URBANSOUND8K_ROWS, make_sonyc_ust, make_urbansound8k

from fusionkd_book import street
from fusionkd_lib import reading
from fusionkd_lib.datasets import archives, sonyc_ust, unpacking, urbansound8k
from fusionkd_lib.datasets.archives import check, fetch
from fusionkd_lib.datasets.unpacking import extract
from fusionkd_lib.errors import InputError


class CountingHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files without a word, and remember which were asked for."""

    def do_GET(self):
        self.server.requested.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """Serve the folder ``tmp_path/record`` on this machine."""
    (tmp_path / "record").mkdir()
    handler = functools.partial(CountingHandler, directory=str(tmp_path / "record"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requested = []
        server.folder = tmp_path / "record"
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def urbansound8k_record(server, tmp_path, monkeypatch):
    """Serve a miniature UrbanSound8K.tar.gz, its checksum pinned."""
    make_urbansound8k(tmp_path / "made" / "UrbanSound8K")
    archive = server.folder / "UrbanSound8K.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "UrbanSound8K", "UrbanSound8K")
    checksum = "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(urbansound8k, "ARCHIVES", {archive.name: checksum})
    monkeypatch.setattr(urbansound8k, "N_CLIPS", len(URBANSOUND8K_ROWS))
    return server


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


# Fetching


def test_what_was_fetched_is_the_dataset(urbansound8k_record, tmp_path):
    root = tmp_path / "data"
    checksums = fetch("urbansound8k", root, base_url=urbansound8k_record.url)
    assert urbansound8k.clips(root).status == "real"
    record = json.loads((root / "fetched.json").read_text())
    assert record["files"] == checksums == urbansound8k.ARCHIVES
    assert record["licence"] == "CC BY-NC 3.0"
    assert record["source"] == urbansound8k_record.url
    assert "Salamon" in record["citation"]


def test_an_archive_with_the_right_checksum_is_not_fetched_again(urbansound8k_record, tmp_path):
    root = tmp_path / "data"
    for _ in range(2):
        fetch("urbansound8k", root, base_url=urbansound8k_record.url)
    assert urbansound8k_record.requested == ["/UrbanSound8K.tar.gz"]
    clip = root / "audio" / "fold2" / "1002-8-0-0.wav"
    clip.unlink()
    fetch("urbansound8k", root, base_url=urbansound8k_record.url)
    assert clip.is_file()


def test_a_damaged_archive_is_fetched_again(urbansound8k_record, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "UrbanSound8K.tar.gz").write_bytes(b"the half of it")
    fetch("urbansound8k", root, base_url=urbansound8k_record.url)
    assert urbansound8k.clips(root).status == "real"


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(
    urbansound8k_record, tmp_path, monkeypatch
):
    wrong = {"UrbanSound8K.tar.gz": "md5:" + "0" * 32}
    monkeypatch.setattr(urbansound8k, "ARCHIVES", wrong)
    root = tmp_path / "data"
    with pytest.raises(InputError, match=r"does not have the checksum md5:0{32}"):
        fetch("urbansound8k", root, base_url=urbansound8k_record.url)
    assert not list(root.iterdir())


def test_a_checksum_found_at_the_first_fetch_holds_from_then_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sonyc_ust, "N_CLIPS", {"train": 2, "validate": 2})
    made = make_sonyc_ust(tmp_path / "made")
    with tarfile.open(server.folder / "audio.tar.gz", "w:gz") as tar:
        tar.add(made / "audio", "audio")
    for name in ("annotations.csv", "dcase-ust-taxonomy.yaml"):
        shutil.copy(made / name, server.folder)
    root = tmp_path / "data"
    checksums = fetch("sonyc_ust", root, base_url=server.url)
    assert checksums == {name: sha256(server.folder / name) for name in sonyc_ust.ARCHIVES}
    assert sonyc_ust.clips(root).status == "real"

    (root / "annotations.csv").unlink()
    (server.folder / "annotations.csv").write_text("another file\n")
    with pytest.raises(InputError, match="does not have the checksum sha256:"):
        fetch("sonyc_ust", root, base_url=server.url)


def test_a_missing_file_of_the_record_is_named(server, tmp_path):
    with pytest.raises(
        InputError, match=r"UrbanSound8K\.tar\.gz: answers 404 .*: check the network"
    ):
        fetch("urbansound8k", tmp_path / "data", base_url=server.url)


def test_no_network_is_said(tmp_path):
    with pytest.raises(InputError, match=r":9/UrbanSound8K\.tar\.gz: cannot be reached: check"):
        fetch("urbansound8k", tmp_path / "data", base_url="http://127.0.0.1:9")


def test_a_folder_that_cannot_be_made_is_said(urbansound8k_record, tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"data: cannot be written \(.*\): fix that and try again"):
        fetch("urbansound8k", tmp_path / "data", base_url=urbansound8k_record.url)


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', "{"])
def test_a_damaged_record_of_the_fetch_is_said(tmp_path, content):
    (tmp_path / "fetched.json").write_text(content)
    with pytest.raises(InputError, match=r"fetched\.json: is damaged"):
        fetch("urbansound8k", tmp_path, base_url="http://127.0.0.1:9")


def test_a_record_of_the_fetch_that_cannot_be_opened_is_not_called_damaged(tmp_path):
    (tmp_path / "fetched.json").mkdir()
    with pytest.raises(InputError, match=r"fetched\.json: cannot be opened \(Is a directory\)"):
        fetch("urbansound8k", tmp_path, base_url="http://127.0.0.1:9")


@pytest.mark.parametrize("act", [fetch, check])
def test_an_unknown_dataset_is_refused(tmp_path, act):
    with pytest.raises(
        InputError, match="dataset = 'esc50' is not allowed: use one of 'urbansound8k', "
    ):
        act("esc50", tmp_path)


# Unpacking


def make_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            member.size = 5 if member.isfile() else 0
            tar.addfile(member, io.BytesIO(b"hello"))
    return path


def file_named(path: Path, name: str) -> Path:
    return make_tar(path, tarfile.TarInfo(name))


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("audio/link")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "name", ["audio/fold1/a.wav", "./audio/fold1/a.wav", "top/audio/fold1/a.wav"]
)
def test_files_are_unpacked_below_the_folder(tmp_path, name):
    extract(file_named(tmp_path / "a.tar.gz", name), tmp_path / "data", strip="top")
    assert (tmp_path / "data" / "audio" / "fold1" / "a.wav").read_text() == "hello"


def test_a_folder_that_stands_in_the_archive_is_made(tmp_path):
    top, empty = tarfile.TarInfo("top"), tarfile.TarInfo("top/audio")
    top.type = empty.type = tarfile.DIRTYPE
    for _ in range(2):
        extract(make_tar(tmp_path / "a.tar.gz", top, empty), tmp_path / "data", strip="top")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["audio"]


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../out.wav", "audio/../../out.wav", "audio/../a.wav", "/tmp/out.wav"),
        *("audio\\..\\..\\out.wav", "C:/out.wav", "c:out.wav", "\\\\server\\share\\out.wav"),
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    archive = file_named(tmp_path / "a.tar.gz", name)
    with pytest.raises(
        InputError, match=r"a\.tar\.gz: is damaged or unsafe \(.* leads out"
    ) as error:
        extract(archive, tmp_path / "data")
    assert repr(name) in str(error.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../..", "audio/a.wav"])
def test_a_link_is_refused(tmp_path, kind, target):
    archive = make_tar(tmp_path / "a.tar.gz", tarfile.TarInfo("audio/a.wav"), link(kind, target))
    with pytest.raises(InputError, match="'audio/link' is a link"):
        extract(archive, tmp_path / "data")
    assert not os.path.lexists(tmp_path / "data" / "audio" / "link")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_is_refused(tmp_path, kind):
    with pytest.raises(InputError, match=r"is damaged or unsafe .*special"):
        extract(make_tar(tmp_path / "a.tar.gz", link(kind, "")), tmp_path / "data")
    assert not (tmp_path / "data" / "audio" / "link").exists()


def test_a_link_that_lies_in_the_folder_already_is_not_followed_out(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "audio").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is damaged or unsafe .*outside the destination"):
        extract(file_named(tmp_path / "a.tar.gz", "audio/a.wav"), tmp_path / "data")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_damaged_archive_is_said(tmp_path, share):
    archive = file_named(tmp_path / "a.tar.gz", "audio/a.wav")
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    with pytest.raises(
        InputError, match=r"a\.tar\.gz: is damaged .*: delete it and fetch it again$"
    ):
        extract(archive, tmp_path / "data")


def test_an_archive_that_cannot_be_decompressed_is_damaged(tmp_path):
    archive, member = tmp_path / "a.tar.gz", tarfile.TarInfo("audio/a.wav")
    content = " ".join(str(number) for number in range(99_999)).encode()
    member.size = len(content)
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(content))
    packed = archive.read_bytes()
    archive.write_bytes(packed[:50_000] + b"\xff" * 1000 + packed[51_000:])
    with pytest.raises(InputError, match=r"a\.tar\.gz: is damaged or unsafe \(.*\): delete it"):
        extract(archive, tmp_path / "data")


def test_what_is_there_gives_way_and_what_a_link_leads_to_is_left(tmp_path):
    members = tarfile.TarInfo("audio/a.wav"), tarfile.TarInfo("audio/b.wav")
    archive = make_tar(tmp_path / "a.tar.gz", *members)
    (tmp_path / "data" / "audio").mkdir(parents=True)
    whole, broken = tmp_path / "data" / "audio" / "a.wav", tmp_path / "data" / "audio" / "b.wav"
    whole.write_text("HELLO")
    (tmp_path / "elsewhere").write_text("HELLO")
    os.link(tmp_path / "elsewhere", broken)
    extract(archive, tmp_path / "data")
    assert whole.read_text() == broken.read_text() == "hello"
    assert (tmp_path / "elsewhere").read_text() == "HELLO"


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    archive = make_tar(tmp_path / "a.tar.gz", tarfile.TarInfo("a"), tarfile.TarInfo("b"))
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2 * len("hello"))
    extract(archive, tmp_path / "data")
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2 * len("hello") - 1)
    with pytest.raises(InputError, match=r"unpacks to more than 9 bytes"):
        extract(archive, tmp_path / "data")


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path, monkeypatch):
    archive = file_named(tmp_path / "a.tar.gz", "audio/a.wav")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(InputError, match=r"cannot be unpacked .*No space left.*: free space"):
        extract(archive, tmp_path / "data")


def test_a_folder_in_the_place_of_the_archive_is_said(tmp_path):
    (tmp_path / "a.tar.gz").mkdir()
    with pytest.raises(InputError, match=r"cannot be unpacked .*Is a directory") as error:
        extract(tmp_path / "a.tar.gz", tmp_path / "data")
    assert "delete" not in str(error.value)


# Checking


def test_a_whole_copy_is_whole(tmp_path):
    report = check("urbansound8k", make_urbansound8k(tmp_path / "data"))
    assert report["whole"]
    assert (report["expected"], report["found"]) == (4, 4)
    assert report["parts"] == {"fold1": "2", "fold2": "1", "fold10": "1"}
    assert archives.describe(report).endswith("4 clips\n  fold1 2, fold2 1, fold10 1")


def test_missing_broken_and_unexpected_files_are_named(tmp_path):
    audio = make_urbansound8k(tmp_path / "data") / "audio"
    (audio / "fold1" / "1001-3-0-1.wav").unlink()
    broken = audio / "fold2" / "1002-8-0-0.wav"
    broken.write_bytes(broken.read_bytes()[:100])
    (audio / "fold10" / "1003-0-0-0.wav").write_text("no sound")
    (audio / "fold1" / "holiday.mp3").touch()
    (audio / "fold1" / ".DS_Store").touch()  # the published archive has them
    report = check("urbansound8k", tmp_path / "data")
    assert not report["whole"]
    assert report["missing"] == ["audio/fold1/1001-3-0-1.wav"]
    assert report["broken"] == [
        "audio/fold2/1002-8-0-0.wav: is truncated (56 of 3,200 bytes are there): copy or fetch it "
        "again",
        "audio/fold10/1003-0-0-0.wav: cannot be read as audio (Format not recognised): WAV, FLAC, "
        "Ogg, MP3 and AIFF can; convert it to WAV or FLAC, or fetch it again",
    ]
    assert report["unexpected"] == ["audio/fold1/holiday.mp3"]
    assert report["parts"]["fold1"] == "1 of 2"
    assert "1 missing, the first audio/fold1/1001-3-0-1.wav" in archives.describe(report)


def test_a_report_can_be_written_as_json(tmp_path):
    report = check("sonyc_ust", make_sonyc_ust(tmp_path / "data"))
    written = json.loads(json.dumps(report))
    assert written["whole"] is True
    assert written["parts"] == {"train": "2", "validate": "2"}
    assert written["dataset"] == "SONYC-UST"


def test_a_folder_without_the_metadata_cannot_be_checked(tmp_path):
    with pytest.raises(InputError, match=r"UrbanSound8K\.csv: does not exist: give the folder"):
        check("urbansound8k", tmp_path)


def test_metadata_that_the_system_does_not_open_are_not_called_damaged(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(reading.os, "open", refuse)
    with pytest.raises(InputError, match=r"\.csv: cannot be opened \(Too many .*\): fix that and"):
        check("urbansound8k", tmp_path)


def test_any_module_with_the_same_constants_can_be_fetched(server, tmp_path, monkeypatch):
    (server.folder / "notes.csv").write_text("a\n1\n")
    dataset = SimpleNamespace(
        NAME="Notes",
        SOURCE=server.url,
        LICENCE="CC0",
        CITATION="Nobody.",
        ARCHIVES={"notes.csv": None},
        ARCHIVE_ROOT="",
    )
    monkeypatch.setitem(archives.DATASETS, "notes", dataset)
    with pytest.raises(InputError, match=r"/files/notes\.csv: answers 404"):  # as at the record
        fetch("notes", tmp_path / "data")
    fetch("notes", tmp_path / "data", base_url=server.url)
    assert (tmp_path / "data" / "notes.csv").read_text() == "a\n1\n"


def test_ten_recordings_from_the_street_come_with_their_credits(server, tmp_path):
    for sound in street.SOUNDS:
        path = server.folder / sound.commit / "audio" / sound.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound.file.encode())
    missing = server.folder / street.SOUNDS[-1].commit / "audio" / street.SOUNDS[-1].file
    content = missing.read_bytes()
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing.name}: answers 404 File not found"):
        street.fetch(tmp_path / "street", site=server.url)
    missing.write_bytes(content)
    paths = street.fetch(tmp_path / "street", site=server.url)
    assert [path.read_bytes().decode() for path in paths] == [path.name for path in paths]
    with open(tmp_path / "street" / "credits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [path.name for path in paths]
    assert len({row["file"] for row in rows}) == 10
    assert {row["licence"] for row in rows} == {"CC0", "CC BY"}
    assert all(all(row.values()) for row in rows)
    # What is there is not asked for again.
    assert len(server.requested) == 11
