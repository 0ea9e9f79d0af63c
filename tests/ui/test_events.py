"""Events as they come and looked back at: none is missed, none is rendered."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.events import AnomalyEvent, CrossingEvent, Event, GapEvent, ScoresEvent, TextEvent
from edge_agent.paths import carried
from edge_agent.types import Heard
from tests.broker import until
from tests.ui.conftest import both
from tests.ui.serving import ask, at_work, comes_true

from edge_agent.ui import events, ring as rings  # isort: skip
from edge_agent.ui.ring import Ring  # isort: skip
from edge_agent.ui.server import Page  # isort: skip

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"
AT = "2026-05-01T10:00:00.000Z"
TEXTS = """[[pipeline]]
name = "said"
source = "lines:{}"
[understand]
models = ["encoder"]
labels = "{}"
"""


def some(at: str = AT) -> list[Event]:
    """One of several kinds each."""
    heard = Heard(engine="whisper-tiny 1.0.0", score=0.83, seconds=2.4)
    box = (0.0, 0.0, 1.0, 1.0)
    return [
        ScoresEvent(pipeline="said", at=at, text=EVIL, label=EVIL, score=0.9, scores={EVIL: 0.9}, heard=heard),
        TextEvent(pipeline="said", at=at, text="turn it on"),
        AnomalyEvent(pipeline="pump", at=at, error=9.0, limit=1.0, unusual=True),
        CrossingEvent(pipeline="cam", at=at, line="gate", direction="in", object="a-1", label="car", score=0.9, box=box,
                      width=1, height=1),
        GapEvent(pipeline="agent", at=at, first=1, last=3, count=3, why="the disk was full"),
    ]  # fmt: skip


@pytest.fixture(params=["memory", "archive"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Agent, Page]]:
    (tmp_path / "texts").touch()
    (tmp_path / "intents.toml").write_text(
        'light = ["turn the light on", "lamp off"]\nrain = ["will it rain", "rain"]\n'
    )
    labels = carried("deploy", "demo", "intents.toml")
    text = TEXTS.format(tmp_path / "texts", labels) + ("[archive]\n" if request.param == "archive" else "")
    with at_work(tmp_path, text) as made:
        yield made


def put(agent: Agent, *given: Event) -> list[str]:
    """Keep events; their ids, once they can be looked back at."""
    kept = [agent.keep.put(event) for event in given or some()]
    if agent.archiver is not None:
        archive = agent.archiver.archive
        until(lambda: archive.count() == agent.outbox.counts.put, "they are archived")
    return [event.id for event in kept]


class Stream:
    """Server-sent events, as a browser reads them."""

    def __init__(self, made: Page, last: str = "") -> None:
        self.wire = http.client.HTTPConnection("127.0.0.1", made.port, timeout=120)
        self.wire.request("GET", "/api/v1/events/stream", headers={"Last-Event-ID": last} if last else {})
        self.answer = self.wire.getresponse()
        assert self.answer.status == 200 and self.answer.getheader("content-type", "").startswith("text/event-stream")

    def next(self, kind: str = "event") -> tuple[str, Any]:
        """The id and data of the next message of a kind."""
        told: dict[str, str] = {}
        while True:
            line = self.answer.readline().decode().rstrip("\n")
            if line:
                key, _, value = line.partition(": ")
                told[key] = value
            elif told.get("event") == kind:
                return told.get("id", ""), json.loads(told["data"])
            else:
                told = {}


@contextmanager
def stream(made: Page, last: str = "") -> Iterator[Stream]:
    one = Stream(made, last)
    try:
        yield one
    finally:
        one.wire.close()
        one.answer.close()


def test_they_come_as_they_are_kept_and_none_is_missed_on_reconnect(work: tuple[Agent, Page]) -> None:
    agent, made = work
    with stream(made) as one:
        one.next("state")
        ids = put(agent)
        got = [one.next() for _ in ids]
        assert [told["event"]["id"] for _, told in got] == ids
        assert [told["alert"] for _, told in got] == [False, False, True, False, True]
        assert got[3][1]["zones"] == ["gate"] and got[3][1]["labels"] == ["car"]
        assert got[4][1]["words"] == "3 events lost: the disk was full"
    missed = put(agent)
    with stream(made, got[1][0]) as one:
        assert [one.next()[1]["event"]["id"] for _ in range(8)] == [*ids[2:], *missed]
        later = put(agent)
        assert [one.next()[1]["event"]["id"] for _ in later] == later


def test_many_threads_at_once_and_a_ring_that_is_too_small_is_said(
    work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, made = work
    with stream(made) as one:
        one.next("state")
        cursor = put(agent)[-1] and one.next()[0]

        def many() -> None:
            for _ in range(50):
                agent.keep.put(some()[1])

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        got = {one.next()[1]["event"]["id"] for _ in range(204)}
        assert len(got) == 204
    monkeypatch.setattr(rings, "MOST_EVENTS", 10)
    put(agent)
    with stream(made, cursor) as one:
        assert one.next("missed")[1] == 199 and one.next()[1]["event"]["kind"] == "text"
    with stream(made, "of another start-7") as one:
        first = [one.next()[1]["event"]["seq"] for _ in range(10)]
        assert len(set(first)) == 10 and agent.outbox.last in first, "all that are left"


def test_a_ring_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "MOST_BYTES", 10_000)
    ring = Ring()
    for number in range(100):
        ring.add(TextEvent(pipeline="p", at=AT, id=str(number), text="x" * 1000))
    assert ring.last == 100 and 1 <= len(ring.after(0, 1000)[1]) <= 10 and ring.after(0, 1000)[0] >= 90
    ring.add(TextEvent(pipeline="p", at=AT, id="large", text="x" * 100_000))
    assert len(ring.after(0, 1000)[1]) == 1, "and holds the last one, however large"


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("", ["gap", "crossing", "anomaly", "text", "scores"]),
        ("kind=text,gap", ["gap", "text"]),
        ("pipeline=cam", ["crossing"]),
        ("label=car", ["crossing"]),
        ("zone=gate", ["crossing"]),
        ("limit=2", ["gap", "crossing"]),
        ("since=2026-05-01T10:00:01Z", []),
        ("until=2026-05-01T12:00:00%2B02:00", []),
        ("since=1777629600&until=1777629601", ["gap", "crossing", "anomaly", "text", "scores"]),
        ("reviewed=1", []),
    ],
)
def test_they_are_looked_back_at(tmp_path: Path, query: str, kinds: list[str]) -> None:
    ring = Ring()
    for number, event in enumerate(some()):
        ring.add(type(event)(**{**{key: getattr(event, key) for key in event.__struct_fields__}, "id": str(number)}))

    class Asked:
        def query(self, name: str, default: str = "") -> str:
            from urllib.parse import parse_qs

            return parse_qs(query).get(name, [default])[0]

    limit = int(Asked().query("limit") or 100)
    found = ring.search(events.wanted_of(Asked()), None, limit)  # type: ignore[arg-type]
    assert [json.loads(bytes(told.event))["kind"] for told in found] == kinds


def test_of_the_archive_and_of_memory_alike(work: tuple[Agent, Page]) -> None:
    agent, made = work
    ids = put(agent)

    def found(query: str) -> list[str]:
        return [told["event"]["id"] for told in ask(made, "GET", f"/api/v1/events?{query}").json["events"]]

    assert found("") == ids[::-1] and found("kind=gap") == ids[4:] and found("zone=gate&label=car") == ids[3:4]
    number = ask(made, "GET", "/api/v1/events?limit=2").json["events"][-1]["number"]
    assert found(f"limit=2&before={number}") == ids[1:3][::-1]
    for reviewed, left in ((True, [*ids[:2], *ids[3:]]), (False, ids)):
        ask(made, "POST", "/api/v1/events/review", {"ids": [ids[2], "nothing/1/2"], "reviewed": reviewed})
        assert found("reviewed=0") == left[::-1]
    for wrong in ("since=yesterday", "limit=many"):
        assert ask(made, "GET", f"/api/v1/events?{wrong}").status == 400


def test_a_clock_that_jumps_changes_nothing(work: tuple[Agent, Page]) -> None:
    agent, made = work
    with stream(made) as one:
        one.next("state")
        ids = put(agent, *some("2031-01-01T00:00:00.000Z"), *some("1970-01-01T00:00:00.000Z"))
        assert [one.next()[1]["event"]["id"] for _ in ids] == ids


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────


@both
@pytest.mark.parametrize("work", ["archive"], indirect=True)
def test_the_pages_of_events_and_words(work: tuple[Agent, Page], tab: Any) -> None:
    agent, made = work
    put(agent)
    tab.goto(f"{made.address}#events")
    comes_true(tab, "document.querySelectorAll('.event').length === 5")
    assert tab.locator(".event.alert").count() == 2 and tab.locator("#alerts").inner_text() == "2"
    loud = tab.get_by_role("region", name="Alerts not reviewed")
    assert "3 events lost: the disk was full" in loud.inner_text()
    # nothing of it became an element
    assert tab.locator("main script, main img").count() == 0 and EVIL in tab.locator("main").inner_text()
    loud.get_by_role("button", name="Review").first.click()
    comes_true(tab, "document.querySelector('#alerts').textContent === '1'")
    put(agent, some()[3])
    comes_true(tab, "document.querySelectorAll('.event').length === 6")
    tab.get_by_label("Kind").select_option("crossing")
    comes_true(tab, "document.querySelectorAll('.event').length === 2")
    tab.get_by_label("Label").select_option("car")
    tab.locator("summary").first.click()
    comes_true(tab, "document.querySelector('.event pre')?.textContent.includes('\"line\": \"gate\"')")

    tab.goto(f"{made.address}#words")
    comes_true(tab, "document.querySelectorAll('tbody tr').length === 2")
    assert "heard by whisper-tiny 1.0.0, 83 % sure, 2.4 s" in tab.locator("tbody").inner_text()
    assert tab.locator("main script, main img").count() == 0 and EVIL in tab.locator("tbody").inner_text()
    put(agent, TextEvent(pipeline="said", at=AT, text="and more"))
    comes_true(tab, "document.querySelector('tbody tr').textContent.includes('and more')")
    tab.get_by_label("Text", exact=True).fill("please turn the lamp on")
    tab.get_by_role("button", name="Try").click()
    comes_true(tab, "document.querySelector('pre.code')?.textContent.includes('\"label\": \"light\"')")
    tab.get_by_label("Task").select_option("topics")
    tab.get_by_role("button", name="Try").click()
    comes_true(tab, "document.querySelector('form .error, pre.code') !== null")
