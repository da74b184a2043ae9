"""Trust: what others wrote is refused in one sentence and at once, and nothing is left behind."""

import io
import json
import logging
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from distributed.client import FutureCancelledError
from handmade import write_pair
from hostile import check, refused, score, sentence_of, tone, write_predictions
from miniature import make_sonyc_ust, make_urbansound8k

from fusionkd_book import publish
from fusionkd_lib import cli, storage
from fusionkd_lib.audio import load_mono
from fusionkd_lib.datasets import sonyc_labels, urbansound8k
from fusionkd_lib.engine import batch, clusters, notebooks, watching
from fusionkd_lib.engine.graph import plan
from fusionkd_lib.errors import InputError, seen
from fusionkd_lib.params import load_params
from fusionkd_lib.reading import parse_csv, parse_json, parse_yaml, read_bytes
from fusionkd_lib.runs import find_records

SOON = 5.0  # seconds


@pytest.fixture(autouse=True)
def _soon():
    started = time.perf_counter()
    yield
    assert time.perf_counter() - started < 4 * SOON


# What a person sees


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\ud800", "\x9b", "\u202e", "\0", "\u2028"])
def test_what_a_person_sees_is_one_line_that_any_terminal_takes(text):
    shown = seen(f"before {text} after")
    assert shown.isprintable()
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert str(InputError(f"{text}: no")).isprintable()


def test_what_a_person_sees_is_cut_in_its_middle():
    shown = seen("a" + "x" * 10**6 + "z")
    assert len(shown) == 200
    assert (shown[0], shown[-1]) == ("a", "z")
    assert seen("x" * 200) == "x" * 200


# The one reader


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [fifo, endless])
def test_what_may_never_end_is_not_read(tmp_path, make):
    make(tmp_path / "x.wav")
    check(sentence_of(read_bytes, tmp_path / "x.wav", remedy="name another"), "no regular file")
    check(sentence_of(load_params, tmp_path / "x.wav"), "no regular file")
    check(sentence_of(load_mono, tmp_path / "x.wav", sample_rate=8000), "no regular file")
    root = make_sonyc_ust(tmp_path / "SONYC-UST", audio=False)
    for name in ("annotations.csv", "dcase-ust-taxonomy.yaml"):
        (root / name).unlink()
        make(root / name)
    check(sentence_of(sonyc_labels.read_annotations, root / "annotations.csv"), "no regular file")
    taxonomy = root / "dcase-ust-taxonomy.yaml"
    check(sentence_of(sonyc_labels.read_taxonomy, taxonomy), "no regular file")


def test_a_file_is_read_to_its_limit_and_no_further(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", remedy="", most=5) == b"12345"
    with pytest.raises(InputError, match="more than 4 bytes: cut it"):
        read_bytes(tmp_path / "x", remedy="cut it", most=4)


ALIASES = b"a: &a [x, x]\nb: &b [*a, *a]\nrepresentations: [*b, *b]\n"
YAML = {
    "an alias": ALIASES,
    "an alias of itself": b"a: &a [*a]",
    "a merge key": b"a: {<<: {b: 1}}",
    "a merge key of another key's value": b"<<: {epochs: 3}\nepochs: 4",
    "a key twice": b"a: 1\na: 2",
    "a key twice, spelled in two ways": b"1: a\n0x1: b",
    "a key twice, deep": b"a: [{b: {c: 1, c: 2}}]",
    "20,000 lists": b"a: " + b"[" * 20_000 + b"]" * 20_000,
    "21 maps": b"{a: " * 21 + b"1" + b"}" * 21,
    "5,000 digits": b"a: " + b"9" * 5_000,
    "5,000 hexadecimal digits": b"a: 0x" + b"f" * 5_000,
    "5,000 digits to base 60": b"a: 1" + b":1" * 5_000,
    "a surrogate": b'a: "\\ud800"',
    "an escape code": b'a: "\\e[31m"',
    "two lines": b'a: "b\\nc"',
    "a zero byte": b'a: "\\0"',
    "a megabyte": b"a: " + b"x" * 10**6,
    "a key that is a list": b"[a]: 1",
    "not UTF-8": b"a: \xff",
}


@pytest.mark.parametrize("content", YAML.values(), ids=YAML.keys())
def test_yaml_that_can_be_read_in_two_ways_or_grows_is_refused_at_once(tmp_path, content):
    with pytest.raises(ValueError, match=r"^(is not YAML|has more than)"):
        parse_yaml(content)
    (tmp_path / "run.yaml").write_bytes(content)
    check(refused("run", tmp_path / "run.yaml", "--dry-run"), "run.yaml: ")
    with pytest.raises(InputError, match="not the challenge's taxonomy"):
        sonyc_labels.read_taxonomy(tmp_path / "run.yaml")


def test_plain_yaml_is_what_pyyaml_says():
    content = b"a: 1\nb: [x, 2.5, {c: null}]\n1: {d: {e: [[yes]]}}\ng: ''\n"
    assert parse_yaml(content) == {
        "a": 1,
        "b": ["x", 2.5, {"c": None}],
        1: {"d": {"e": [[True]]}},
        "g": "",
    }


@pytest.mark.parametrize(
    "content", [b'{"a": 1, "a": 2}', b'{"a": [{"b": 1, "b": 1}]}', b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_json_whose_keys_are_not_unique_or_whose_digits_do_not_end_is_refused(content):
    with pytest.raises(ValueError, match=r"stands twice|4300 digits"):
        parse_json(content)


def test_json_is_not_read_deeper_than_the_stack():
    with pytest.raises(RecursionError):
        parse_json(b"[" * 10**6)


@pytest.mark.parametrize(
    "content", [b"a,b,a\n1,2,3\n", b'a,"a"\n1,2\n', b"a,b\n1,2,3\n4,5,6\n", b"\n\na,a\n1,2\n"]
)
def test_csv_in_which_not_every_column_has_a_name_of_its_own_is_refused(content):
    with pytest.raises(ValueError, match=r"name of its own|Expected 2 fields"):
        parse_csv(content)


def test_a_column_that_stands_twice_is_refused_with_the_file(tmp_path):
    root = make_urbansound8k(tmp_path / "UrbanSound8K")
    path = root / "metadata" / "UrbanSound8K.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"{line},{line.split(',')[0]}" for line in lines))
    told = sentence_of(urbansound8k.clips, root, allow_partial=True)
    check(told, "UrbanSound8K.csv", "a name of its own")


@pytest.mark.parametrize("suffix", [".gz", ".zip", ".bz2", ".xz"])
def test_nothing_is_decompressed_by_its_suffix(tmp_path, suffix):
    root = make_sonyc_ust(tmp_path / "SONYC-UST", audio=False)
    plain = write_predictions(tmp_path / "p.csv")
    named = plain.rename(tmp_path / f"p.csv{suffix}")
    answer = CliRunner().invoke(cli.main, [str(x) for x in score(root, named)])
    assert answer.exit_code == 0, answer.output  # plain text by another name
    pd.read_csv(named, compression=None).to_csv(tmp_path / f"q.csv{suffix}")
    check(refused(*score(root, tmp_path / f"q.csv{suffix}")), f"q.csv{suffix}", "as CSV")


# Parameters


@pytest.mark.parametrize(("n_keys", "n_runs"), [(6, "1,000,000"), (12, "1,000,000,000,000")])
def test_a_grid_is_counted_before_it_is_made(tmp_path, n_keys, n_runs):
    keys = ["fold", "seed", "epochs", "lr", "patience", "batch_size", "n_mels", "hop_length"]
    keys += ["cqt_bins", "tap", "width", "temperature"]
    values = list(range(1, 11))
    (tmp_path / "run.yaml").write_text(json.dumps({"grid": dict.fromkeys(keys[:n_keys], values)}))
    check(sentence_of(load_params, tmp_path / "run.yaml"), "run.yaml", n_runs, "at most 1,000")


HUGE = {
    "sample_rate": 10**9,
    "duration": 1e9,
    "n_mels": 10**9,
    "n_fft": 2**40,
    "cqt_bins": 10**9,
    "bins_per_octave": 10**9,
    "gammatone_bands": 10**9,
    "hop_length": 10**12,
    "clips_per_class": 10**9,
    "n_folds": 10**9,
    "epochs": 10**12,
    "batch_size": 10**12,
    "threads": 10**9,
    "seed": 10**30,
    "lr": 10**30,
    "cqt_fmin": 0.001,
}


@pytest.mark.parametrize("key", HUGE)
def test_a_value_that_no_machine_can_hold_is_refused_before_it_is_tried(tmp_path, key):
    (tmp_path / "run.yaml").write_text(f"{key}: {HUGE[key]!r}\n")
    if key == "lr":  # that training diverges is found in its first epoch
        assert load_params(tmp_path / "run.yaml")
    else:
        check(refused("run", tmp_path / "run.yaml", "--dry-run"), f"run.yaml: {key} = ", "use ")


# Sounds


def chained(path: Path) -> None:
    soundfile.write(path, tone(), 8000, format="OGG")
    path.write_bytes(2 * path.read_bytes())


def miscounted(path: Path) -> None:
    soundfile.write(path, tone(), 8000, format="AIFF")
    content = bytearray(path.read_bytes())
    place = content.index(b"COMM") + 10
    content[place : place + 4] = struct.pack(">I", 400)
    path.write_bytes(content)


def written(rate: int, file_format: str):
    return lambda path: soundfile.write(path, tone(), rate, format=file_format)


SOUNDS = {
    "two Ogg streams in a row": (chained, "it holds several Ogg streams"),
    "an AIFF of another number of frames": (miscounted, "its header and its samples disagree"),
    "a rate of 1 Hz": (written(1, "WAV"), "its rate is 1 Hz"),
    "a rate of a gigahertz": (written(10**9, "WAV"), "its rate is 1,000,000,000 Hz"),
    "RF64": (written(8000, "RF64"), "its format is RF64"),
}


@pytest.mark.parametrize(("make", "says"), SOUNDS.values(), ids=SOUNDS.keys())
def test_a_sound_that_would_be_read_in_part_or_grow_is_refused(tmp_path, make, says):
    make(tmp_path / "x.bin")
    check(sentence_of(load_mono, tmp_path / "x.bin", sample_rate=44100), "x.bin", says)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_of_one_stream_is_read_whole(tmp_path, subtype):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 80_000)
    soundfile.write(tmp_path / "x.ogg", noise, 8000, format="OGG", subtype=subtype)
    assert len(load_mono(tmp_path / "x.ogg", sample_rate=8000)) == 80_000


# Files that are written

FULL = """
import resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from safetensors.torch import save_file
from fusionkd_lib.storage import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for save in (torch.save, save_file):
    try:
        with replacing(Path(sys.argv[1])) as partial:
            save({"x": torch.zeros(100_000)}, partial)
    except OSError as error:
        print("OSError", str(error).startswith(sys.argv[1]))
"""


def test_a_full_disk_is_the_systems_error_whichever_library_writes(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_text("old")
    command = [sys.executable, "-c", FULL, str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert answer.stdout.split() == ["OSError", "True"] * 2, answer.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert path.read_text() == "old"


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from fusionkd_lib.storage import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_swept_and_what_lives_is_not(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "weights")]
    subprocess.run(command, check=False, cwd=Path(__file__).parents[1])
    assert len(list(tmp_path.glob("weights.*.partial"))) == 1
    (tmp_path / "store.partial").mkdir()  # is gone on with
    with storage.replacing(tmp_path / "a") as living:
        living.write_text("a")
        storage.write_text(tmp_path / "b", "b")
        assert living.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "store.partial"]


# Runs


HISTORIES = [b"", b"\xff\xfe\0", b"a,b\n1,2\n", b"epoch,loss,seconds\n1,x,y\n"]
HISTORIES += [b"loss,seconds\n1,nan\n", b"loss,seconds\n1,inf\n", b"loss,loss,seconds\n1,2,3\n"]


@pytest.mark.parametrize("content", HISTORIES)
def test_a_history_that_is_none_is_not_shown_and_stops_nothing(tiny, content):
    node = next(n for n in plan([tiny()]).values() if n.kind == "branch")
    node.run.folder.mkdir(parents=True)
    (node.run.folder / "history.csv").write_bytes(content)
    assert watching._progress(node) == ""
    (node.run.folder / "history.csv").write_text("epoch,loss,seconds\n1,0.25,3\n")
    assert "epoch 1/2, loss 0.250" in watching._progress(node)


class Gone:
    def result(self):
        raise FutureCancelledError("run", "scheduler lost")


def test_a_scheduler_that_died_is_one_sentence_and_no_traceback():
    outcome = batch.outcome_of("run", Gone())
    assert (outcome.status, outcome.message) == (
        "failed",
        "the scheduler is gone: start it, and the same command again",
    )


@pytest.mark.parametrize("part", ["client", "batched"])
def test_nor_does_dask_log_one_when_it_loses_a_connection(part):
    # `batched` writes one, now and then, when a cluster closes before its last message has left.
    with clusters.open_client(workers=1):
        assert not logging.getLogger(f"distributed.{part}").isEnabledFor(logging.ERROR)
    assert not logging.getLogger(f"distributed.{part}").isEnabledFor(logging.ERROR)


@pytest.mark.parametrize(("workers", "says"), [({}, "waiting for workers"), ({"w": {}}, "")])
def test_a_scheduler_without_workers_is_not_waited_for_without_a_word(
    monkeypatch, capsys, workers, says
):
    client = SimpleNamespace(dashboard_link=None, scheduler_info=lambda: {"workers": workers})
    monkeypatch.setattr(clusters, "Client", lambda *_, **__: client)
    assert clusters.open_client(workers=1, scheduler="tls://there:1") is client
    told = capsys.readouterr().out
    assert says in told if says else told == ""


def test_an_outputs_folder_whose_path_is_too_long_for_a_socket_can_be_used(
    tmp_path, tiny, monkeypatch
):
    folder = tmp_path / ("x" * 150)
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(folder))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    folder.mkdir()
    executed = notebooks.execute(notebook, folder / "x.ipynb")
    assert executed.cells[-1].outputs[0].text == "42\n"


def test_a_folder_for_temporary_files_that_is_too_long_for_a_socket_is_one_sentence(
    tmp_path, monkeypatch
):
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    notebook = nbformat.v4.new_notebook()
    check(sentence_of(notebooks.execute, notebook, tmp_path / "x.ipynb"), "TMPDIR", "shorter")


def test_an_outputs_folder_that_is_a_loop_is_one_sentence(tmp_path, tiny, monkeypatch):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "loop"))
    with pytest.raises(OSError, match=r"symbolic links|File exists"), batch.stop_file():
        pass
    (tmp_path / "run.yaml").write_text("epochs: 1\n")
    check(refused("run", tmp_path / "run.yaml"), "loop")


def pair_with(root: Path, params, **told) -> Path:
    alone = {name: np.array([[0.75, 0.25], [0.5, 0.5]]) for name in params.representations}
    together = {**alone, "fused": np.array([[0.75, 0.25], [0.5, 0.5]])}
    write_pair(root, params, {"alone": alone, "together": together}, **told)
    return root


@pytest.mark.parametrize("text", ["\x1b[31mred", "two\nlines", "\u202eright"])
def test_a_record_with_what_a_terminal_obeys_is_refused(tmp_path, tiny, text):
    with pytest.raises((InputError, ValueError)):
        pair_with(tmp_path / "runs", tiny(), data_note=text)
    records, _ = find_records(tmp_path / "runs")
    assert records == []


def test_what_a_record_says_is_text_on_a_page(tmp_path):
    evil = "<script>alert(1)</script> [here](javascript:alert(1)) <img src=x onerror=y>"
    output = nbformat.v4.new_output("display_data", {"text/markdown": f"**T** & {evil}"})
    cell = nbformat.v4.new_code_cell("table", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
    page = publish.render(tmp_path / "x.ipynb").read_text()
    assert "<strong>T</strong> &amp; " in page
    assert "<script>alert(1)" not in page
    assert not re.search(r"href=.javascript:alert", page)
    assert "<img src=x" not in page


# The command line


def test_a_score_error_says_which_file(tmp_path):
    root = make_sonyc_ust(tmp_path / "SONYC-UST", audio=False)
    path = write_predictions(tmp_path / "p.csv")
    path.write_text(path.read_text().replace("00_000001", "77_000001"))
    check(refused(*score(root, path)), f"{path}: ", "lacks clips: 1 of them, the first 00_000001")


def test_a_newline_in_a_name_makes_no_second_line(tmp_path):
    (tmp_path / "a\nb.yaml").write_text("epochs: 0\n")
    check(refused("run", tmp_path / "a\nb.yaml"), "a\\nb.yaml: epochs = 0")


@pytest.mark.parametrize("error", [RuntimeError("odd\x1b"), MemoryError(), RecursionError("deep")])
def test_what_nobody_foresaw_is_one_sentence_that_names_its_traceback(tmp_path, monkeypatch, error):
    def fail(files):
        raise error

    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(cli, "_plan", fail)
    sentence = refused("run", tmp_path / "x.yaml")
    check(sentence, type(error).__name__, "please report it with ")
    path = Path(sentence.rpartition(" ")[2])
    assert "in fail" in path.read_text()
    assert path.parent == tmp_path / "outputs"


def test_a_file_name_that_is_no_text_is_printed_as_ascii(tmp_path, finished):
    path = tmp_path / os.fsdecode(b"\xff\x9b.wav")
    soundfile.write(io.BytesIO(), tone(), 8000, format="WAV")
    with open(path, "wb") as file:
        soundfile.write(file, tone(), 8000, format="WAV")
    answer = CliRunner().invoke(cli.main, ["tag", str(finished.folder), str(path)])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.rstrip("\n").isascii()
    assert json.loads(answer.stdout)["file"] == str(path)
