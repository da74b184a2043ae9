from pathlib import Path

import pytest

from bench.torture import GRID, kind_of, torture

SHORT = {**GRID, "grid": {"representations": [["logmel", "gammatone"]]}, "epochs": 3}


@pytest.mark.slow
def test_a_grid_that_was_killed_ends_in_the_tables_of_an_undisturbed_one(tmp_path: Path) -> None:
    calm, killed = torture(tmp_path, SHORT, kills=2, longest=8.0)
    assert len(calm["tables"][0]["rows"]) == 11
    assert len(calm["weights"]) == 4  # two branches, the pair, and the baselines, which have none
    assert sorted(len(digests) for digests in calm["weights"].values()) == [1, 2, 2, 4]
    assert killed == calm


def test_a_kill_says_in_a_word_what_it_hit():
    assert kind_of(["python", "-m", "ipykernel_launcher", "-f", "x.json"]) == "a kernel"
    assert kind_of(["python", "-c", "from multiprocessing.spawn import spawn_main"]) == "a worker"
    assert kind_of(["bash"]) == "another process"
