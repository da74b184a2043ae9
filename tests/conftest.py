"""Fixtures that more than one test module uses."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hostile import tiny_run

from fusionkd_lib.params import Params, make_params
from fusionkd_lib.runs import Run

SHARED_DATA = Path(
    os.environ.get("FUSIONKD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)

# A run of a second: 90 clips of half a second, three folds, a network of a quarter million weights.
TINY = {
    "clips_per_class": 3,
    "n_folds": 3,
    "sample_rate": 8000,
    "duration": 0.5,
    "n_fft": 256,
    "hop_length": 128,
    "n_mels": 32,
    "gammatone_bands": 24,
    "cqt_bins": 48,
    "width": 0.25,
    "head": [16, 8],
    "epochs": 2,
    "batch_size": 16,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture(scope="session")
def dcase() -> Path:
    """Return the folder of DCASE 2019 Task 5's validation labels, predictions and their scores."""
    return Path(__file__).parent / "data" / "dcase2019-task5"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real clips and whole tables; skip where this checkout has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real data beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Params]:
    """Return a function that makes the parameters of a tiny run, some of them changed."""
    return lambda **changes: make_params(TINY | changes)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Run:
    """Return a finished run that was never trained."""
    return tiny_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session", autouse=True)
def _outputs_of_the_session(tmp_path_factory) -> Iterator[None]:
    """Keep fixtures of whole modules away from the checkout and from the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSIONKD_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        patch.delenv("FUSIONKD_DATA", raising=False)
        yield


@pytest.fixture(autouse=True)
def _outputs_of_one_test(tmp_path, monkeypatch) -> None:
    """Give each test runs and stores of its own, and the one thread whose figures are the same."""
    monkeypatch.setenv("FUSIONKD_OUTPUTS", str(tmp_path / "outputs"))
    torch.set_num_threads(1)
