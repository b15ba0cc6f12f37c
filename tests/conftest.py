"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the directory of real data sets beside the repository, or skip: it is not part of the product."""
    root = Path(os.environ.get("PICOLLM_TEST_DATA", SHARED_DATA))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set PICOLLM_TEST_DATA to a directory in the published layouts")
    return root
