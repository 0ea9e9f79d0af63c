"""Reconnecting at once, so that the tests do not wait; but for a program that begins, however busy the box is."""

from __future__ import annotations

import pytest

from edge_agent.sources import feed


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(feed, "OPENING", 60.0)
