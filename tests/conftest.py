"""Fixtures that more than one test module uses."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(os.environ.get("FUSIONKD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real clips and labels; skip where this checkout has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real clips beside this checkout")
    return SHARED_DATA
