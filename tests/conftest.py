"""What several tests share: where the data lies, and the pictures that the project carries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real models, photos, video and text; $EDGE_AGENT_DATA, else ../shared/data."""
    folder = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set EDGE_AGENT_DATA")
    return folder


@pytest.fixture(scope="session")
def demo_pictures() -> Path:
    """The three pictures that the project carries."""
    return ROOT / "deploy" / "demo"
