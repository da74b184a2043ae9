"""The command line: a small batch from end to end, exit statuses, one sentence for each fault."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from fusionkd_lib.cli import main
from fusionkd_lib.engine import clusters
from fusionkd_lib.engine.graph import CHAPTERS, plan
from fusionkd_lib.params import Params, load_params
from fusionkd_lib.runs import NOTEBOOK, Run

COMMAND = "from fusionkd_lib.cli import main; main()"
HEADS = {"logmel", "gammatone", "fused"}


def fusionkd(*arguments: object, outputs: Path | None = None) -> Result:
    environment = {"FUSIONKD_OUTPUTS": str(outputs)} if outputs else None
    return CliRunner().invoke(main, [str(a) for a in arguments], env=environment)


def start(*arguments: object, outputs: Path) -> psutil.Popen:
    """Start the command as a person does, in a process of its own."""
    return psutil.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env=os.environ | {"FUSIONKD_OUTPUTS": str(outputs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_a_process(*arguments: object, outputs: Path) -> subprocess.CompletedProcess:
    process = start(*arguments, outputs=outputs)
    told = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, *told)


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and its children; none where it has ended."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_for(folder: Path, what: str) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(what)):
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.05)


def listening(process: psutil.Process) -> set[tuple]:
    """Return the addresses that a process listens on, as the network sees them."""
    try:
        connections = process.net_connections(kind="inet")
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return set()
    return {tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN}


def write(path: Path, params: Params, **changes: object) -> Path:
    values = params.model_dump(mode="json", exclude_defaults=True) | changes
    path.write_text(yaml.safe_dump(values))
    return path


class Batch:
    """A pair that succeeds and a branch that diverges, run by one command."""

    def __init__(self, folder: Path, params: Params) -> None:
        self.outputs = folder / "outputs"
        self.good = write(folder / "good.yaml", params.replace(epochs=1))
        bad = params.replace(epochs=1, lr=1e30, representations=["logmel"])
        self.bad = write(folder / "bad.yaml", bad)
        process = start("run", self.good, self.bad, outputs=self.outputs)
        self.n_processes, self.listening = 0, set()
        while process.poll() is None:
            processes = family(process)
            self.n_processes = max(self.n_processes, len(processes))
            self.listening |= {address for one in processes for address in listening(one)}
            time.sleep(0.1)
        self.first = subprocess.CompletedProcess([], process.returncode, *process.communicate())

    def runs(self, file: Path) -> list[Run]:
        """Return the runs that a parameter file asks for."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FUSIONKD_OUTPUTS", str(self.outputs))
            return [node.run for node in plan(load_params(file)).values() if node.kind in CHAPTERS]


@pytest.fixture(scope="module")
def done(tmp_path_factory, tiny) -> Batch:
    return Batch(tmp_path_factory.mktemp("batch"), tiny())


# From end to end


def test_a_batch_leaves_finished_runs_and_their_executed_notebooks(done):
    assert len(done.runs(done.good)) == 3
    for run in done.runs(done.good):
        assert run.is_complete, done.first.stderr
        notebook = nbformat.read(run.folder / NOTEBOOK, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        injected = next(c for c in code if "injected-parameters" in c.metadata.tags)
        assert "clips_per_class = 3" in injected.source
        assert len(run.record.history) == 1
    assert set(run.record.metrics) == set(run.record.scores) == HEADS


def test_a_run_that_fails_leaves_the_others_and_is_named_with_its_cell_and_notebook(done):
    (failed,) = done.runs(done.bad)
    assert done.first.returncode == 1
    assert not failed.is_complete
    assert not (failed.folder / NOTEBOOK).exists()
    told = " ".join(done.first.stderr.split())
    assert "5 of 6 done, 1 failed; the same command goes on with the rest" in told
    assert f"{failed.name}: cell " in told
    assert f"of {failed.folder / f'partial-{NOTEBOOK}'}: InputError: training diverged" in told
    assert "Traceback" not in done.first.stderr


def test_the_same_command_again_does_nothing(done):
    before = {path: path.stat().st_mtime_ns for path in done.outputs.rglob("*")}
    answer = fusionkd("run", done.good, outputs=done.outputs)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert "All 5 nodes are done" in answer.stdout
    assert {path: path.stat().st_mtime_ns for path in done.outputs.rglob("*")} == before


def test_a_dry_run_tells_what_would_run_and_runs_nothing(done):
    answer = fusionkd("run", "--dry-run", done.good, done.bad, outputs=done.outputs)
    (failed,) = done.runs(done.bad)
    assert answer.exit_code == 0
    assert answer.stdout.startswith("6 nodes, 2 to run")
    assert f"  will run  {failed.name}" in answer.stdout
    assert answer.stdout.count("  done  ") == 4
    assert not failed.is_complete


def test_a_dry_run_tells_of_clips_that_are_not_there(tmp_path):
    (tmp_path / "run.yaml").write_text("dataset: urbansound8k\ndata_root: nowhere\n")
    answer = fusionkd("run", "--dry-run", tmp_path / "run.yaml", outputs=tmp_path)
    assert answer.exit_code == 0
    assert re.search(r"^cannot run yet: store-.*nowhere.* does not exist", answer.stdout, re.M)


def test_the_table_as_plain_data_is_json(done):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    answer = fusionkd("table", "--json", outputs=done.outputs)
    assert answer.exit_code == 0
    (table,) = json.loads(answer.stdout, parse_constant=refuse)
    fusion = done.runs(done.good)[-1]
    for row in table["rows"]:
        assert (row["folds"], row["seeds"], row["clips"]) == (1, 1, 30)
        assert row["low"] <= row["ours"] <= row["high"]
    students = {row["head"]: row["ours"] for row in table["rows"][-4:] if row["head"] in HEADS}
    assert students == {head: 100 * fusion.record.metrics[head]["accuracy"] for head in HEADS}
    assert [row["head"] for row in table["rows"][:3]] == ["chance", "nearest", "svm_logmel"]


def test_the_table_is_readable_and_names_its_data(done):
    answer = fusionkd("table", "--runs", done.outputs / "runs")
    assert answer.exit_code == 0
    assert "Table I · logmel + gammatone · accuracy in %, urban synth (synthetic)" in answer.stdout
    assert answer.stdout.count("\n| ") == 12
    assert "Data: synthetic." in answer.stdout


def test_a_figure_is_traced_to_its_notebook(done):
    answer = fusionkd("trace", "Table I", "Fused classifier", "--runs", done.outputs / "runs")
    assert answer.exit_code == 0, answer.stderr
    (step,) = json.loads(answer.stdout)
    assert Path(step["notebook"]).exists()
    assert len(step["parents"]) == 2


# Who may have something run


def test_nothing_listens_during_a_run_neither_the_command_nor_a_kernel(done):
    assert done.n_processes >= 2
    assert done.listening == set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname() in listening(psutil.Process())  # we would have seen it


def test_a_scheduler_inside_the_command_cannot_be_reached_from_outside():
    ask = "import sys, distributed; distributed.Client(sys.argv[1], timeout='2s')"
    with clusters.open_client(workers=2) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        address = client.scheduler.address
        assert address.startswith("inproc://")
        assert listening(psutil.Process()) == set()
        answer = subprocess.run(
            [sys.executable, "-c", ask, address], capture_output=True, text=True
        )
    assert answer.returncode == 1
    assert re.search(r"OSError|ValueError", answer.stderr)


def certificate(folder: Path) -> dict[str, Path]:
    """Make a key, and a certificate that vouches for itself, as Dask's options name them."""
    folder.mkdir()
    files = {"ca-file": folder / "cert.pem", "cert": folder / "cert.pem", "key": folder / "key.pem"}
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=fusionkd"]
    command += ["-keyout", files["key"], "-out", files["cert"]]
    subprocess.run(command, check=True, capture_output=True)
    return files


def options(files: dict[str, Path], *, ca: str) -> list[str]:
    names = {"ca-file": f"--tls-{ca}", "cert": "--tls-cert", "key": "--tls-key"}
    return [part for name, path in files.items() for part in (names[name], str(path))]


@pytest.fixture(params=["tcp", "tls"])
def cluster(tmp_path, request) -> Iterator[list[str]]:
    """Start a scheduler and two workers, as a person does; return how a command reaches them."""
    files = certificate(tmp_path / "ours") if request.param == "tls" else {}
    file, dask = tmp_path / "scheduler.json", [sys.executable, "-m", "dask"]
    common = ["--scheduler-file", str(file), "--no-dashboard", *options(files, ca="ca-file")]
    common += ["--protocol", request.param, "--host", "127.0.0.1"]
    with ExitStack() as stack:
        for role in (["scheduler", "--port", "0"], *[["worker", "--nthreads", "1"]] * 2):
            process = subprocess.Popen(
                [*dask, role[0], *common, *role[1:]],
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        wait_for(tmp_path, file.name)
        while not (text := file.read_text()).rstrip().endswith("}"):  # still being written
            time.sleep(0.05)
        yield ["--scheduler", json.loads(text)["address"], *options(files, ca="ca")]


WARNING = ": whoever reaches this port can run code as its user"


@pytest.mark.parametrize("cluster", ["tcp"], indirect=True)
@pytest.mark.slow
def test_a_cluster_elsewhere_gives_the_tables_of_the_local_one(done, cluster, tmp_path):
    answer = in_a_process("run", *cluster, done.good, outputs=tmp_path / "there")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[0] == f"{cluster[1]}{WARNING}"
    tables = [
        fusionkd("table", "--json", "--runs", outputs / "runs").stdout
        for outputs in (done.outputs, tmp_path / "there")
    ]
    assert tables[0] == tables[1]
    assert len(json.loads(tables[0])[0]["rows"]) == 11


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["tls"], indirect=True)
def test_a_tls_cluster_serves_who_holds_its_certificate_and_nobody_else(cluster, tmp_path, tiny):
    file = write(tmp_path / "run.yaml", tiny(representations=["logmel"], epochs=1))
    _, address, *ours = cluster
    foreign = options(certificate(tmp_path / "foreign"), ca="ca")
    for credentials in ([], foreign, [*ours[:2], *foreign[2:]]):
        answer = fusionkd("run", "--scheduler", address, *credentials, file, outputs=tmp_path)
        assert answer.exit_code == 1, answer.stdout
        assert f"--scheduler {address}: no Dask scheduler answers there" in answer.stderr
    answer = fusionkd("run", *cluster, file, outputs=tmp_path)
    assert answer.exit_code == 0, answer.stderr
    answer = fusionkd("run", *cluster, file, outputs=tmp_path / "there")
    assert answer.exit_code == 0, answer.stderr
    assert "(2/2)" in answer.stdout
    assert WARNING not in answer.stdout


# Ctrl-C


def interrupt(tmp_path: Path, params: Params, *, times: int, what: str) -> tuple[str, float]:
    """Press Ctrl-C so many times once a file exists; return what was told, and after how long."""
    process = start("run", write(tmp_path / "run.yaml", params), outputs=tmp_path)
    wait_for(tmp_path, what)
    kernels, begun = family(process)[1:], time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    told = process.communicate(timeout=120)[1].strip()
    seconds = time.monotonic() - begun
    assert process.returncode == 130
    assert psutil.wait_procs(kernels, timeout=5)[1] == []
    assert not list(tmp_path.glob(".stop-*"))
    return told, seconds


def test_ctrl_c_begins_nothing_more_and_the_same_command_goes_on(tmp_path, tiny):
    many = tiny(representations=["logmel"], clips_per_class=60, duration=4.0, epochs=1)
    told, _ = interrupt(tmp_path, many, times=1, what="features/*.partial")
    assert told == "Stopped: 1 of 2 done, 0 failed; the same command goes on"
    answer = fusionkd("run", "--dry-run", tmp_path / "run.yaml", outputs=tmp_path)
    assert answer.stdout.startswith("2 nodes, 2 to run")


@pytest.mark.parametrize("what", ["features/*.partial", "runs/*/history.csv"])
def test_ctrl_c_twice_stops_at_once(tmp_path, tiny, what):
    ample = {"clips_per_class": 300, "duration": 4.0} if "partial" in what else {}
    long = tiny(representations=["logmel"], epochs=100_000, **ample)
    told, seconds = interrupt(tmp_path, long, times=2, what=what)
    assert told.splitlines()[-1] == "Stopped at once; the same command goes on"
    assert seconds < 15


# Exit statuses


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage"),
        (["run"], "Missing argument 'FILES...'"),
        (["run", "--workers", "0", "a.yaml"], "'--workers'"),
        (["run", "--fast", "a.yaml"], "No such option"),
        (["run", "--tls-ca", "none.pem", "a.yaml"], "'none.pem' does not exist"),
        (["run", "--tls-ca", __file__, "a.yaml"], "need --scheduler tls://"),
        (["run", "--scheduler", "tcp://a:1", "--tls-key", __file__, "a.yaml"], "need --scheduler"),
        (["walk"], "No such command 'walk'"),
        (["table", "--runs"], "requires an argument"),
    ],
)
def test_wrong_usage_is_exit_status_2(arguments, said):
    answer = fusionkd(*arguments)
    assert answer.exit_code == 2
    assert said in answer.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3\n", r"unknown key 'epoch': did you mean 'epochs'?"),
        ("lr: 1e-3\n", "write 1.0e-3"),
        ("- a list\n", "holds no parameters"),
        ("representations: [logmel, cqt]\nsample_rate: 8000\n", "above the Nyquist frequency"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_file_that_cannot_be_run_is_one_sentence_and_exit_status_1(tmp_path, text, said, options):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    answer = fusionkd("run", path, *options)
    assert answer.exit_code == 1
    assert answer.stderr.startswith("Error: ")
    assert len(answer.stderr.splitlines()) == 1
    assert said in answer.stderr
    assert str(path) in answer.stderr
    assert answer.stdout == ""


def test_a_missing_file_is_exit_status_1(tmp_path):
    answer = fusionkd("run", tmp_path / "none.yaml")
    assert answer.exit_code == 1
    assert f"{tmp_path / 'none.yaml'}: does not exist" in answer.stderr


def test_outputs_that_cannot_be_written_are_exit_status_1(tmp_path, tiny):
    (tmp_path / "file").touch()
    answer = fusionkd(
        "run", write(tmp_path / "run.yaml", tiny()), outputs=tmp_path / "file" / "outputs"
    )
    assert answer.exit_code == 1
    assert re.fullmatch(r"Error: .*Not a directory: '.*': free space, .*\n", answer.stderr)


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("folder", [".", "missing"])
def test_without_runs_there_is_no_table_but_a_hint(tmp_path, folder, options):
    answer = fusionkd("table", *options, "--runs", tmp_path / folder)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert f"{tmp_path / folder}: holds no finished pair: try fusionkd run" in answer.stderr


def test_a_scheduler_that_is_not_there_is_named(tmp_path, tiny, monkeypatch):
    def refused(address: str, timeout: str, security: None) -> None:
        raise OSError(f"nobody answers at {address} in {timeout}")

    monkeypatch.setattr(clusters, "Client", refused)
    path = write(tmp_path / "run.yaml", tiny())
    answer = fusionkd("run", path, "--scheduler", "tcp://localhost:1")
    assert answer.exit_code == 1
    assert "--scheduler tcp://localhost:1: no Dask scheduler answers there" in answer.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["table", "-h"]])
def test_help_is_exit_status_0(arguments):
    answer = fusionkd(*arguments)
    assert answer.exit_code == 0
    assert answer.stdout.startswith("Usage: ")
