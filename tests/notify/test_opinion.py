"""A second opinion: what is asked, what becomes of the answer, and of a server that hangs, drips, floods or lies."""

from __future__ import annotations

import base64
import json
import logging
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.config import Config, Opinion, load, parse
from edge_agent.errors import ConfigError
from edge_agent.events import JSON, DetectionsEvent, Event, OpinionEvent, RuleEvent
from edge_agent.link.budget import Budget
from edge_agent.notify import opinion as opinions
from edge_agent.notify import receiver as receivers
from edge_agent.notify.notices import Notices
from edge_agent.notify.opinion import Opinions, verdict
from edge_agent.outbox.outbox import Outbox
from edge_agent.pictures.draw import jpeg
from edge_agent.recorder.collect import Collect
from edge_agent.samples import collected
from tests.agent.test_agent import AGENT, finish, start
from tests.broker import until
from tests.notify.hook import Act, Hook, drips, falls_over, floods, hangs, hook, leads, no_http, reply
from tests.notify.test_receiver import keep, settled

AT = "2026-11-01T10:00:00.000Z"
JPEG = b"\xff\xd8\xff\xe0 a picture"


def says(text: object, **more: str) -> Act:
    body = json.dumps({"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})
    return lambda to: reply(to, 200, body.encode(), **more)


class Seen:
    """Opinions with what they kept."""

    def __init__(self, config: Opinion, folder: Path, doubted: opinions.Doubted | None = None) -> None:
        self.kept: list[OpinionEvent] = []
        (folder / "a.jpg").write_bytes(JPEG)
        self.budget = Budget(config.bytes_per_day, folder / "opinion.json")

        def pictures(name: str) -> Path | None:
            return folder / name if (folder / name).exists() else None

        self.opinions = Opinions(config, folder / "opinion", pictures, self.budget, self._keep, doubted)
        self.notices = Notices([self.opinions])
        self.notices.start()

    def _keep(self, event: OpinionEvent) -> Event:
        self.kept.append(event)
        return msgspec.structs.replace(event, id=f"d/1/{100 + len(self.kept)}")

    def see(self, number: int, snapshot: str = "a.jpg") -> None:
        event = DetectionsEvent(pipeline="door", at=AT, width=9, height=9, detections=[], snapshot=snapshot)
        keep(self.notices, event, number)


@pytest.fixture
def server() -> Iterator[Hook]:
    with hook() as made:
        made.choose = lambda: says("Yes, a person at the gate.")
        yield made


Make = Callable[..., Seen]


@pytest.fixture
def make(tmp_path: Path, server: Hook, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(receivers, "PAUSES", dict.fromkeys(receivers.PAUSES, (0.02, 0.1)))
    made: list[Seen] = []

    def make(doubted: opinions.Doubted | None = None, **more: Any) -> Seen:
        (tmp_path / "key").write_text("t0psecret\n")
        settings = {"url": f"http://127.0.0.1:{server.port}/v1", "model": "big", "kinds": ["detections"], **more}
        made.append(Seen(Opinion(key_file=str(tmp_path / "key"), **settings), tmp_path, doubted))
        return made[-1]

    yield make
    server.over.set()
    for one in made:
        one.notices.stop(10)
        one.notices.close()


def test_what_is_asked_and_what_becomes_of_the_answer(make: Make, server: Hook) -> None:
    seen = make(prompt="Is it so: {kind} at {pipeline}?", options={"max_tokens": 9, "temperature": 0.5})
    seen.see(1)
    settled(seen.notices)
    asked = server.requests[0]
    assert asked.path == "/v1/chat/completions" and asked.headers["authorization"] == "Bearer t0psecret"
    assert (asked.json["model"], asked.json["max_tokens"], asked.json["temperature"]) == ("big", 9, 0.5)
    text, picture = asked.json["messages"][0]["content"]
    assert text == {"type": "text", "text": "Is it so: detections at door?"}
    head, _, data = picture["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64" and base64.b64decode(data) == JPEG
    (event,) = seen.kept
    assert (event.about, event.by, event.verdict, event.pipeline) == ("d/1/1", "big", "yes", "door")
    assert event.answer == "Yes, a person at the gate." and event.age_ms is not None and event.age_ms > 0
    assert OpinionEvent.words(msgspec.to_builtins(event)) == '"Yes, a person at the gate."   (big on d/1/1)'
    assert seen.budget.left < 5_000_000 - len(asked.body)
    assert JSON.decode(JSON.encode(event)) == event


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (says(""), "its answer is empty"),
        (says(None), "its answer is empty"),
        (says(7), "not one of chat/completions"),
        (lambda to: reply(to, 200, b'{"choices": []}'), "not one of chat/completions"),
        (lambda to: reply(to, 200, b'{"choices": [{"mess'), "not one of chat/completions"),
        (lambda to: reply(to, 200, b"[" * 100_000), "not one of chat/completions"),
        (lambda to: reply(to, 200, b'"\xff\xfe'), "not one of chat/completions"),
        (says("yes", Content_Type="text/html"), "something else than JSON"),
        (floods, "answers with too much"),
        (leads("http://127.0.0.1:1/"), "HTTP 307"),
        (400, "HTTP 400"),
        (401, "HTTP 401"),
        (500, "HTTP 500"),
        (drips, "no whole answer in time"),
        (hangs, "no whole answer in time"),
        (falls_over, "does not speak HTTP"),
        (no_http, "does not speak HTTP"),
    ],
)
def test_a_server_that_lies_changes_nothing_and_the_next_question_is_asked(
    make: Make,
    server: Hook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: int | Act,
    why: str,
) -> None:
    monkeypatch.setattr(opinions, "ANSWER_S", 1.0)
    server.answers = [answer]
    seen = make()
    seen.see(1)
    until(lambda: len(seen.kept) == 1, "it is asked once more")
    assert why in caplog.text
    assert seen.kept[0].verdict == "yes" and seen.kept[0].about == "d/1/1"
    until(lambda: seen.notices.about() == "ok", "it works again")


def test_a_server_that_lies_for_ever_is_given_up(make: Make, server: Hook, caplog: pytest.LogCaptureFixture) -> None:
    server.choose = lambda: lambda to: reply(to, 200, b"<html>t0psecret", "text/html")
    seen = make()
    with caplog.at_level(logging.DEBUG):
        seen.see(1)
        until(lambda: not list(seen.opinions.spool.place.glob("*.json")), "it is given up")
    assert not seen.kept and len(server.requests) == receivers.TRIES
    assert "t0psecret" not in caplog.text


def test_what_it_says_is_hostile(make: Make, server: Hook) -> None:
    server.answers = [says("No.\r\n\x1b[2J" + "x" * 100_000), says([{"type": "text", "text": "unsure"}, {"text": "!"}])]
    seen = make()
    seen.see(1)
    seen.see(2)
    until(lambda: len(seen.kept) == 2, "both are there")
    first = seen.kept[0]
    assert first.verdict == "no" and first.answer.startswith("No. [2Jxx") and len(first.answer) == opinions.MOST_SAID
    assert (seen.kept[1].verdict, seen.kept[1].answer) == ("unsure", "unsure !")


@pytest.mark.parametrize(
    ("said", "is_so"), [("**Yes**, so", "yes"), ("no", "no"), ("Nobody is there", ""), ("", ""), ("Unsure.", "unsure")]
)
def test_verdicts(said: str, is_so: str) -> None:
    assert verdict(said) == is_so


def test_a_picture_to_which_it_says_no_is_kept_to_be_corrected_where_somebody_consented(
    make: Make, server: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    collect = Collect(["disagreed"], 600.0, 10, 1.0, "the test's own")
    collect.start()
    seen = make(collect.doubted)
    (tmp_path / "a.jpg").write_bytes(jpeg(np.zeros((40, 60, 3), np.uint8)))
    for number, said in ((1, "Yes, a person."), (2, "No. It is a coat on a hook.")):
        server.choose = lambda said=said: says(said)  # type: ignore[misc]
        seen.see(number)
        settled(seen.notices)
    collect.stop()
    collect.close()
    (kept,) = collected.collected()
    assert kept.path.read_bytes() == (tmp_path / "a.jpg").read_bytes()
    assert (kept.about.why, kept.about.pipeline, kept.about.consent) == ("disagreed", "door", "the test's own")
    assert (kept.about.width, kept.about.height) == (60, 40) and "big on d/1/2: No. It is a coat" in kept.about.note


def test_without_a_picture_nothing_is_asked(make: Make, server: Hook, tmp_path: Path) -> None:
    seen = make()
    seen.see(1, "")
    seen.see(2, "gone.jpg")
    seen.see(3)
    until(lambda: len(seen.kept) == 1, "the third is")
    assert seen.kept[0].about == "d/1/3" and len(server.requests) == 1
    until(lambda: not list(seen.opinions.spool.place.glob("*.json")), "nothing waits")


def test_a_rule_is_asked_about_by_the_picture_of_what_made_it_but_not_one_that_we_made(
    make: Make, server: Hook
) -> None:
    def rule(*because: str) -> RuleEvent:
        return RuleEvent(pipeline="agent", at=AT, rule="yard", phase="on", since=AT, because=list(because))

    seen = make(kinds=["rule"])
    seen.see(1)  # not chosen, but its picture is known
    keep(seen.notices, rule("d/1/1"), 2)
    until(lambda: len(seen.kept) == 1, "it is asked about")
    assert seen.kept[0].about == "d/1/2"
    ours = msgspec.structs.replace(seen.kept[0], id="d/1/101")
    keep(seen.notices, ours, 101)
    keep(seen.notices, rule("d/1/101"), 102)
    settled(seen.notices)
    assert len(seen.kept) == 1 and not list(seen.opinions.spool.place.glob("*.json"))


def test_a_day_s_bytes_are_kept_to(make: Make, server: Hook) -> None:
    seen = make(bytes_per_day=100_500)
    for number in range(1, 9):
        seen.see(number)
    settled(seen.notices)
    asked = len(server.requests)
    assert 1 <= asked < 8 and seen.budget.left < opinions.ROOM


PIPES = '[[pipeline]]\nname = "door"\nsource = "camera:0"\ntasks = ["detect:detector"]\n[samples]\nsnapshots = true\n'


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('url = "ftp://a/v1"', "opinion: url: is no address"),
        ('url = "http://"', "opinion: url: is no address"),
        ('url = "http://[::1/v1"', "opinion: url: is no address"),
        ('url = "https://me:t0p@a/v1"', "opinion: url: holds a user, a key or options"),
        ('url = "https://a/v1?key=t0p"', "opinion: url: holds a user, a key or options"),
        ('url = "http://a/v1"\nkinds = ["text"]', 'opinion: kinds: "text" is none; known are rule, detections'),
        ('url = "http://a/v1"\nkinds = ["opinion"]', '"opinion" is none'),
        ('url = "http://a/v1"', "opinion: nothing is chosen, as there is no [[rule]]"),
        ('url = "http://a/v1"\nkinds = ["object"]\nprompt = "{wrods}"', 'prompt: "{wrods}" is none'),
        ('url = "http://a/v1"\nkinds = ["object"]\nbytes_per_day = 5', "opinion.bytes_per_day"),
        ('url = "http://a/v1"\nkey = "t0p"', 'unknown key "opinion.key"; did you mean "key_file"?'),
    ],
)
def test_mistakes_in_a_config(more: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'{PIPES}[opinion]\nmodel = "big"\n{more}\n')
    assert told in str(caught.value) and "t0p" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_without_snapshots_has_nothing_to_ask_about() -> None:
    with pytest.raises(ConfigError, match="there is no picture to ask about; write snapshots = true"):
        parse(PIPES.replace("true", "false") + '[opinion]\nurl = "http://a/v1"\nmodel = "big"\nkinds = ["object"]\n')


def opinion_events(store: Path) -> list[dict[str, Any]]:
    outbox = Outbox(store, "porch")
    try:
        return [json.loads(record.payload) for record in outbox.take(1000)]
    finally:
        outbox.close()


def agent_config(tmp_path: Path, server: Hook, pictures: Path, more: str = "") -> Path:
    (tmp_path / "key").write_text("t0psecret")
    (tmp_path / "key").chmod(0o600)
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[device]\nid = "porch"\n[store]\npath = "store"\n[samples]\nsnapshots = true\n'
        f'[[pipeline]]\nname = "door"\nsource = "files:{pictures}/coffee.png"\ntasks = ["detect:edge-yolo"]\n{more}'
        f'[opinion]\nurl = "http://127.0.0.1:{server.port}/v1/"\nmodel = "big"\n'
        'key_file = "key"\nkinds = ["detections"]\n'
    )
    return file


def test_the_whole_agent_asks_about_what_it_saw(tmp_path: Path, server: Hook, demo_pictures: Path) -> None:
    server.answers = [says("Yes: call me at +49 30 1234567.")]
    file = agent_config(tmp_path, server, demo_pictures)
    file.write_text(file.read_text() + '[privacy]\nredact = ["phone"]\n')
    said = finish(start(file))
    assert "t0psecret" not in said
    found, opinion = opinion_events(tmp_path / "store")
    assert found["snapshot"] and opinion["kind"] == "opinion" and opinion["about"] == found["id"]
    assert (opinion["verdict"], opinion["answer"]) == ("yes", "Yes: call me at [phone].")
    data = server.requests[0].json["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2]
    assert base64.b64decode(data)[:3] == b"\xff\xd8\xff"
    check = subprocess.run([*AGENT, "check", "--notify", "-c", str(file)], capture_output=True, text=True)
    assert check.returncode == 0 and "ok  opinion: big answers (it was shown no picture)" in check.stdout
    assert f"opinion: big at http://127.0.0.1:{server.port}/v1/chat/completions (not encrypted)" in check.stdout
    assert "t0psecret" not in check.stdout + check.stderr


def test_text_that_is_to_stay_is_in_no_opinion(tmp_path: Path, server: Hook, demo_pictures: Path) -> None:
    finish(start(agent_config(tmp_path, server, demo_pictures, "text = false\n")))
    opinion = opinion_events(tmp_path / "store")[1]
    assert (opinion["verdict"], opinion["answer"]) == ("yes", "")


def test_a_server_that_hangs_delays_no_end(tmp_path: Path, server: Hook, demo_pictures: Path) -> None:
    server.answers = [hangs]
    file = agent_config(tmp_path, server, demo_pictures)
    agent = start(file)
    until(lambda: len(server.requests) == 1, "it hangs")
    agent.send_signal(signal.SIGTERM)
    said = finish(agent)
    assert "1 events kept" in said
    config: Config = load(file)
    assert config.opinion is not None and len(list((tmp_path / "store" / "opinion").glob("*.json"))) == 1
