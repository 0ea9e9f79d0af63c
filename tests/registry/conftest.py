"""A registry of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$EDGE_AGENT_HOME in the test's folder; no mirror."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGE_AGENT_MODEL_MIRROR", raising=False)
    return tmp_path / "home"
