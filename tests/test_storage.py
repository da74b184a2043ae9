"""Storage: whoever is interrupted, a file is the old one or the whole new one, and locks hold."""

import hashlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fusionkd_lib.storage import digest, file_digest, held, replacing, write_json, write_text


class PowerCutError(Exception):
    """What interrupts a writer."""


# Digests


def test_a_digest_is_of_the_content_and_not_of_its_order():
    text = json.dumps({"a": 1, "b": [2, 3]})
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1}) == expected
    others = [{"a": 1, "b": [3, 2]}, {"a": 1}, {"a": 1.0, "b": [2, 3]}, {"a": "1", "b": [2, 3]}, []]
    assert len({expected, *map(digest, others)}) == 6


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of no bytes
    )


# Atomic writing


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"

    def fail_in_the_middle() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the n")
            assert not path.exists() or path.read_text() == "old"
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fail_in_the_middle()
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(PowerCutError):
        fail_in_the_middle()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_text_and_json_are_written_into_folders_that_are_made(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "städtisch\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "städtisch\n".encode()
    write_json(tmp_path / "c" / "d.json", {"a": [1, None]})
    text = (tmp_path / "c" / "d.json").read_text()
    assert json.loads(text) == {"a": [1, None]}
    assert text.endswith("}\n")


def test_of_two_threads_each_writes_the_file_whole(tmp_path):
    path, n_bytes = tmp_path / "file.txt", 100_000
    faults, both = [], threading.Barrier(2)

    def write(letter: str) -> None:
        both.wait()
        for _ in range(30):
            write_text(path, letter * n_bytes)
            found = path.read_text()
            if found not in ("a" * n_bytes, "b" * n_bytes):
                faults.append(found[:100])

    threads = [threading.Thread(target=write, args=letter) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert list(tmp_path.iterdir()) == [path]


# Locks


def test_a_second_process_waits_and_says_for_whom(tmp_path, capsys):
    order = []

    def second() -> None:
        with held(tmp_path / "run"):
            order.append("second")

    with held(tmp_path / "run"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert re.search(r"run: waiting for process \d+ on \S+, since ", capsys.readouterr().out)


def test_a_lock_that_is_free_is_taken_without_a_word(tmp_path, capsys):
    for name in ("run", "run", "another"):
        with held(tmp_path / name):
            pass
    with pytest.raises(PowerCutError), held(tmp_path / "run"):
        raise PowerCutError
    with held(tmp_path / "run"), held(tmp_path / "another"):
        pass
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.glob("*.holder"))


HOLD = """
import sys, time
from pathlib import Path
from fusionkd_lib.storage import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_process_that_died_is_free_at_once(tmp_path, capsys):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert (tmp_path / "run.holder").exists()  # of the dead
    with held(tmp_path / "run"):
        assert capsys.readouterr().out == ""
    assert not (tmp_path / "run.holder").exists()
