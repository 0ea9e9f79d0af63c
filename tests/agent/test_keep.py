"""Each event is kept, then told; and who watches a pipeline is shown what it answers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edge_agent.agent.keep import Keep
from edge_agent.events import Event, TextEvent
from edge_agent.outbox.outbox import Outbox
from edge_agent.types import Sample, Text
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Stats, Terms, run
from edge_agent.walk.report import reporter


def test_a_listener_is_told_of_what_is_kept_and_its_failure_costs_no_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "store", "edge")
    keep, told = Keep(outbox), list[Event]()

    def fails(event: Event) -> None:
        raise RuntimeError("a bug")

    keep.listeners += [fails, told.append]
    with caplog.at_level(logging.ERROR):
        kept = keep.put(TextEvent(pipeline="p", at="2026-01-01T00:00:00.000Z", text="hello"))
    assert told == [kept] and kept.seq == 1
    assert outbox.waiting == 1
    assert f"{kept.id}: a listener failed on this event, which is kept" in caplog.text
    outbox.close()


def test_a_watcher_is_shown_each_sample_and_what_was_found_in_it() -> None:
    shown: list[tuple[str, int]] = []

    def watch(sample: Sample, found: object) -> None:
        assert isinstance(sample, Text) and isinstance(found, list)
        shown.append((sample.text, len(found)))

    kept: list[SampleOrFinding] = []
    samples = [Text(word, 0.0, 0.0) for word in ("one", "two")]
    run(samples, [], reporter("every"), kept.append, Stats(), terms=Terms(watchers=[watch]))
    assert shown == [("one", 1), ("two", 1)] and kept == samples
