"""Kill a small grid of runs at random moments and compare its tables with an undisturbed grid's.

``make torture`` kills 30 times; the test suite once or twice. A victim is the command itself, a
worker, or a kernel, killed as a power cut would: at once and unasked.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

GRID = {
    "grid": {"representations": [["logmel", "gammatone"], ["logmel", "cqt"]], "seed": [0, 1]},
    "dataset": "urban_synth",
    "clips_per_class": 4,
    "sample_rate": 8000,
    "duration": 1.0,
    "n_mels": 32,
    "gammatone_bands": 32,
    "cqt_bins": 60,
    "width": 0.25,
    "head": [32, 16],
    "epochs": 4,
    "batch_size": 16,
    "lr": 0.003,
    "threads": 1,
}
FUSIONKD = "from fusionkd_lib.cli import main\nif __name__ == '__main__':\n    main()"


def start(grid: Path, outputs: Path) -> psutil.Popen:
    """Start the command, in a session of its own."""
    return psutil.Popen(
        [sys.executable, "-c", FUSIONKD, "run", str(grid)],
        env={**os.environ, "FUSIONKD_OUTPUTS": str(outputs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_something(process: psutil.Popen, generator: random.Random, seconds: float) -> str | None:
    """Wait, then kill the command or one of its descendants; None where it ended before."""
    time.sleep(seconds)
    if process.poll() is not None:
        return None
    victims = [process, *process.children(recursive=True)]
    victim = generator.choice(victims)
    try:
        kind = "the command" if victim is process else kind_of(victim.cmdline())
        victim.kill()
    except psutil.NoSuchProcess:
        return None
    return f"{kind}, process {victim.pid}"


def kind_of(command: list[str]) -> str:
    """Say which of the command's descendants a process is.

    >>> kind_of(["python", "-m", "ipykernel_launcher", "-f", "x.json"])
    'a kernel'
    """
    line = " ".join(command)
    kinds = {"ipykernel": "a kernel", "resource_tracker": "a tracker of resources"}
    kinds |= {"spawn_main": "a worker", "forkserver": "a worker", "git": "git"}
    return next((kind for word, kind in kinds.items() if word in line), "another process")


def finish(grid: Path, outputs: Path, *, tries: int = 5) -> None:
    """Run the command until everything is done."""
    for _ in range(tries):
        if start(grid, outputs).wait() == 0:
            return
    raise RuntimeError(f"{grid} does not come to its end in {tries} tries")


def tables(outputs: Path) -> list[dict]:
    """Return the grid's tables as plain data."""
    answer = subprocess.run(
        [sys.executable, "-c", FUSIONKD, "table", "--json"],
        env={**os.environ, "FUSIONKD_OUTPUTS": str(outputs)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


def kept(outputs: Path) -> dict:
    """Return the digests of every finished run's weights and metrics."""
    names = (".safetensors", "metrics.json")
    return {
        path.parent.name: {
            name: digest
            for name, digest in json.loads(path.read_text())["files"].items()
            if name.endswith(names)
        }
        for path in sorted((outputs / "runs").glob("*/complete.json"))
    }


def results(outputs: Path) -> dict:
    """Return what must be equal to the bit: the tables, and every run's weights and metrics."""
    return {"tables": tables(outputs), "weights": kept(outputs)}


def torture(
    folder: Path, settings: dict, *, kills: int, seed: int = 0, longest: float = 20.0
) -> tuple[dict, dict]:
    """Return the results of an undisturbed grid, and of one that was killed so many times."""
    grid = folder / "grid.yaml"
    grid.write_text(yaml.safe_dump(settings))
    finish(grid, folder / "calm")
    generator, process, done = random.Random(seed), None, 0
    while done < kills:
        if process is None or process.poll() is not None:
            process = start(grid, folder / "killed")
        killed = kill_something(process, generator, generator.uniform(1, longest))
        if killed is None:
            # Everything was trained before the last kill: begin again, with nothing.
            if process.wait() == 0:
                subprocess.run(["rm", "-rf", folder / "killed"], check=True)
            continue
        done += 1
        print(f"kill {done}/{kills}: {killed}", flush=True)
    process.wait()
    finish(grid, folder / "killed")
    return results(folder / "calm"), results(folder / "killed")


def main() -> None:
    """Kill as often as the first argument says, 30 times by default."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder:
        calm, killed = torture(Path(folder), GRID, kills=kills)
    rows, runs = sum(len(table["rows"]) for table in calm["tables"]), len(calm["weights"])
    if calm != killed:
        sys.exit(f"after {kills} kills the tables or the weights differ")
    print(
        f"{kills} of {kills} kills survived: {rows} rows of {len(calm['tables'])} tables, weights "
        f"and metrics of {runs} runs are equal"
    )


if __name__ == "__main__":
    main()
