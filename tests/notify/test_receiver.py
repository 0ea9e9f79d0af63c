"""Messages to people, against a server that is slow, busy, closed or away; quiet hours and limits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import Notify
from edge_agent.events import DetectionsEvent, Event, TextEvent
from edge_agent.notify import receiver as receivers
from edge_agent.notify.notices import Notices
from edge_agent.notify.receiver import People
from edge_agent.notify.send import Sent
from edge_agent.notify.spool import Waiting
from tests.broker import until
from tests.notify.hook import Hook, hangs, hook, reply

Make = Callable[..., Notices]


@pytest.fixture
def server() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Hook) -> Iterator[Make]:
    """Notices to that server; what waits stays between two of them."""
    monkeypatch.setattr(receivers, "PAUSES", dict.fromkeys(receivers.PAUSES, (0.02, 0.1)))
    made: list[Notices] = []

    def make(picture: Callable[[str], Path | None] = lambda name: None, start: bool = True, **more: object) -> Notices:
        (tmp_path / "url").write_text(f"{server.url}\nX-Token: t0p\n")
        settings = {"name": "phone", "url_file": str(tmp_path / "url"), "kinds": ["text", "detections"], **more}
        notices = Notices([People(Notify(**settings), tmp_path / "store" / "phone", picture)])  # type: ignore[arg-type]
        made.append(notices)
        if start:
            notices.start()
        return notices

    yield make
    server.over.set()
    for one in made:
        one.stop(10)
        one.close()


def tell(notices: Notices, *texts: str, first: int = 1) -> None:
    for number, text in enumerate(texts, first):
        event = TextEvent(pipeline="p", device="d", at="2026-11-01T10:00:00.000Z", text=text)
        keep(notices, event, number)


def keep(notices: Notices, event: Event, number: int) -> None:
    """As Keep does it."""
    notices.before(event, "alert")
    notices.listen(msgspec.structs.replace(event, id=f"d/1/{number}", epoch=1, seq=number))


def settled(notices: Notices) -> None:
    until(lambda: not notices.busy, "nothing is left that can be sent")


def test_each_event_is_one_message_with_a_key_and_the_files_are_gone(make: Make, server: Hook, tmp_path: Path) -> None:
    notices = make()
    tell(notices, "one", "two")
    settled(notices)
    assert server.messages() == ['"one"', '"two"']
    first = server.taken[0]
    assert first.json["title"] == "d: p" and first.json["event"]["id"] == "d/1/1" and first.json["notify"] == "phone"
    assert first.headers["idempotency-key"] == "d/1/1/phone" and first.headers["x-token"] == "t0p"
    assert not list((tmp_path / "store").rglob("*.json"))
    assert notices.about() == "ok"


def test_a_server_that_is_away_for_a_while_costs_nothing(make: Make, server: Hook) -> None:
    server.answers = [503, lambda to: reply(to, 429), 408, 500]
    notices = make()
    tell(notices, "one", "two")
    until(lambda: len(server.taken) == 2, "both came")
    assert server.messages() == ['"one"', '"two"'] and len(server.requests) == 6


def test_what_waits_is_sent_after_a_restart(make: Make, server: Hook, tmp_path: Path) -> None:
    notices = make(start=False)
    tell(notices, "one", "two")
    notices.receivers[0].spool.confirm()
    tell(make(), "three", first=3)
    until(lambda: len(server.taken) == 3, "all came")
    assert server.messages() == ['"one"', '"two"', '"three"']


def test_a_message_that_is_refused_is_given_up_and_said_in_the_next(
    make: Make, server: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [422] * receivers.TRIES
    notices = make()
    with caplog.at_level(logging.WARNING):
        tell(notices, "one")
        settled(notices)
        until(lambda: len(server.requests) == receivers.TRIES, "it was tried")
        tell(notices, "two")
        until(lambda: len(server.taken) == 1, "the next came")
    assert server.messages() == ['"two"\n(1 older ones could not be sent)']
    assert "notify phone: HTTP 422; 1 wait" in caplog.text and "1 given up so far" in caplog.text
    tell(notices, "three")
    settled(notices)
    assert server.messages()[-1] == '"three"'


def test_a_receiver_that_is_closed_to_us_keeps_its_messages_and_health_says_so(make: Make, server: Hook) -> None:
    server.choose = lambda: 401
    notices = make()
    tell(notices, "one")
    until(lambda: "HTTP 401" in notices.about() and len(server.requests) > receivers.TRIES, "it is said")
    server.choose = lambda: 200
    until(lambda: server.messages() == ['"one"'], "it comes once the door is open")
    until(lambda: notices.about() == "ok", "it is said that it works again")


def test_a_pause_that_the_server_asks_for_is_kept_until_somebody_says_that_things_have_changed(
    make: Make, server: Hook
) -> None:
    server.answers = [lambda to: reply(to, 503, Retry_After="3000")]
    notices = make()
    tell(notices, "one")
    settled(notices)
    assert notices.receivers[0]._until > time.monotonic() + 1000 and len(server.requests) == 1
    notices.again()
    until(lambda: len(server.taken) == 1, "it came")


def test_a_server_that_hangs_holds_up_neither_events_nor_the_stop(make: Make, server: Hook) -> None:
    server.answers = [hangs]
    notices = make(limit=100)
    tell(notices, "0")
    until(lambda: len(server.requests) == 1, "it hangs")
    tell(notices, *map(str, range(1, 11)), first=2)
    assert notices.busy
    notices.stop(0.1)
    notices.close()
    make(limit=100)
    until(lambda: len(server.taken) == 11, "all came", 120)
    assert server.messages() == [f'"{number}"' for number in range(11)]


def test_a_limit_and_what_was_held_back(make: Make, server: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    notices = make(limit=3)
    tell(notices, *"abcdefgh")
    settled(notices)
    told = server.messages()
    assert len(told) == 3 and told[:2] == ['"a"', '"b"']
    # the third holds all that waited by then; what came later waits for the hour to pass
    assert told[2].startswith('"') and notices.about() == "ok"
    monkeypatch.setattr(receivers, "HOUR", 0.0)
    notices.receivers[0].again()
    until(lambda: not list(notices.receivers[0].spool.place.glob("*.json")), "all was told")
    ids = [one.json["event"]["id"] for one in server.taken] + [i for one in server.taken for i in one.json["held"]]
    assert sorted(ids) == sorted(f"d/1/{n}" for n in range(1, 9))


def test_a_limit_outlives_a_restart(make: Make, server: Hook) -> None:
    first = make(limit=1)
    tell(first, "a")
    settled(first)
    first.stop(5)
    first.close()
    again = make(limit=1)
    tell(again, "b", first=2)
    settled(again)
    assert server.messages() == ['"a"']


def test_quiet_hours_and_one_message_afterwards(make: Make, server: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "LOOK_S", 0.05)
    clock = [time.mktime((2026, 11, 5, 23, 30, 0, 0, 0, -1))]
    notices = make(quiet="22:00-07:00", start=False)
    notices.receivers[0].spool.clock = lambda: clock[0]
    notices.start()
    tell(notices, "a", "b", "c")
    settled(notices)
    assert not server.requests
    clock[0] += 7.5 * 3600
    tell(notices, "d", first=4)
    until(lambda: len(server.taken) == 2, "the night is told, and then the morning")
    night, morning = (one.json for one in server.taken)
    assert night["message"].splitlines()[0] == '"c"' and "and 2 more, held back since" in night["message"]
    assert night["held"] == ["d/1/1", "d/1/2"] and morning["held"] == []


@pytest.mark.parametrize(
    ("quiet", "clock", "is_quiet"),
    [
        ("22:00-07:00", "21:59", False),
        ("22:00-07:00", "22:00", True),
        ("22:00-07:00", "03:00", True),
        ("22:00-07:00", "07:00", False),
        ("12:00-14:00", "13:59", True),
        ("12:00-14:00", "14:00", False),
        ("12:00-14:00", "03:00", False),
    ],
)
def test_hours_by_the_clock_on_the_wall(quiet: str, clock: str, is_quiet: bool, tmp_path: Path) -> None:
    people = People(Notify(name="a", url_file="x", quiet=quiet), tmp_path / "a", lambda name: None)
    at = time.mktime((2026, 11, 5, int(clock[:2]), int(clock[3:]), 0, 0, 0, -1))
    assert people.is_quiet(at) is is_quiet


def test_text_that_is_to_stay_is_in_no_message(make: Make, server: Hook) -> None:
    notices = make(text=False)
    tell(notices, "my number is 12")
    settled(notices)
    sent = server.taken[0]
    assert sent.json["message"] == "text" and sent.json["event"]["text"] == "" and b"12" not in sent.body


def test_a_picture_goes_along_where_it_is_asked_for_and_not_where_it_is_too_large(
    make: Make, server: Hook, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 picture")

    class Pictured(DetectionsEvent, frozen=True, kw_only=True, tag="detections"):
        snapshot: str = "a.jpg"

    event = Pictured(pipeline="p", at="2026-11-01T10:00:00.000Z", width=1, height=1, detections=[])
    notices = make(picture=lambda name: tmp_path / name, snapshot=True)
    server.answers = [200, 413]
    keep(notices, event, 1)
    settled(notices)
    assert server.taken[0].json["snapshot"] == {"type": "image/jpeg", "base64": "/9ggcGljdHVyZQ=="}
    keep(notices, event, 2)
    settled(notices)
    assert "snapshot" in server.requests[1].json and "snapshot" not in server.taken[1].json
    (tmp_path / "a.jpg").unlink()  # deleted in order while it waited
    keep(notices, event, 3)
    settled(notices)
    assert "snapshot" not in server.taken[2].json


def test_of_telemetry_nobody_is_told(make: Make, server: Hook) -> None:
    notices = make()
    event = TextEvent(pipeline="p", at="2026-11-01T10:00:00.000Z", text="every second")
    assert notices.before(event, "telemetry") is event
    notices.listen(event)
    tell(notices, "alert", first=2)
    settled(notices)
    assert server.messages() == ['"alert"']


def test_an_event_that_a_listener_makes_of_another_is_told_as_well(make: Make, server: Hook) -> None:
    """As rules do: they keep events while they are told of one."""
    notices = make()
    event = TextEvent(pipeline="p", at="2026-11-01T10:00:00.000Z", text="outer")
    notices.before(event, "alert")
    tell(notices, "inner", first=2)
    notices.listen(msgspec.structs.replace(event, id="d/1/1", seq=1))
    settled(notices)
    assert {one.json["event"]["id"] for one in server.taken} == {"d/1/1", "d/1/2"}


def test_an_event_that_we_fail_on_holds_up_no_other(make: Make, server: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    notices = make(start=False)
    people, fails = notices.receivers[0], ["one"]
    deliver = people.deliver

    def bug(events: Sequence[Waiting]) -> Sent:
        if getattr(events[-1].event, "text", "") in fails:
            raise RuntimeError("a bug")
        return deliver(events)

    monkeypatch.setattr(people, "deliver", bug)
    notices.start()
    tell(notices, "one", "two")
    until(lambda: len(server.taken) == 1, "the next came")
    assert server.messages() == ['"two"\n(1 older ones could not be sent)']


def test_an_address_that_changes_is_read_anew_and_none_of_it_is_said(
    make: Make, server: Hook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notices = make()
    (tmp_path / "url").write_text("http://127.0.0.1:1/t0psecret?token=t0psecret\n")
    with caplog.at_level(logging.DEBUG):
        tell(notices, "one")
        until(lambda: "refused" in notices.about(), "it is said")
        (tmp_path / "url").write_text("junk t0psecret\n")
        until(lambda: "no address" in notices.about(), "it is said")
        (tmp_path / "url").write_text(server.url)
        until(lambda: server.messages() == ['"one"'], "it comes")
    assert "t0psecret" not in caplog.text + notices.about()
