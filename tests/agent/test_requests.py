"""Texts that are asked about over MQTT: the whole agent, a real broker, the carried models."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.requests import WAITING, Requests, check
from edge_agent.config import Config, Mqtt, load
from edge_agent.errors import ConfigError, ManifestError
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from edge_agent.serving.models import Models
from edge_agent.tasks.text import captured
from tests.broker import Consumer, Mosquitto, broker, until

UNDERSTAND = """[understand]
models = ["edge-bert", "edge-tagger"]
documents = "manual.txt"
captured = 3
"""


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    yield
    captured.keep(0)


def config(tmp_path: Path, url: str | None, more: str = "", tasks: str = "") -> Path:
    (tmp_path / "manual.txt").write_text("The fuse is in the grey box. Oil is changed in May.")
    mqtt = f'[mqtt]\nurl = "{url}"\n' if url else ""
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[device]\nid = "porch"\n{mqtt}[store]\npath = "store"\n{more}'
        f'[[pipeline]]\nname = "words"\nsource = "lines:said.txt"\ntasks = [{tasks}]\n'
    )
    (tmp_path / "said.txt").write_text("the postman rang at ten\nit began to rain\nthe cat came home\nit is late\n")
    return file


@contextmanager
def at_work(file: Path) -> Iterator[None]:
    """The agent of a config, until the end of the block."""
    agent, stop = Agent(load(file)), threading.Event()
    running = threading.Thread(target=agent.run, args=(stop,), daemon=True)
    running.start()
    try:
        yield
    finally:
        stop.set()
        running.join(60)


class Asker:
    """Somebody who asks over the broker."""

    def __init__(self, url: str, box: Outbox, consumer: Consumer) -> None:
        self.link, self.consumer, self.asked = Link(Mqtt(url=url, prefix="edge/v1/porch"), "cmd", box), consumer, 0
        self.link.start()

    def send(self, **what: Any) -> str:
        self.asked += 1
        name = f"r{self.asked}"
        self.link.tell("understand", msgspec.json.encode({"id": name, **what}))
        return name

    def reply(self, name: str) -> dict[str, Any]:
        def told() -> list[dict[str, Any]]:
            said = [
                msgspec.json.decode(load)
                for at, load, _ in list(self.consumer.heard)
                if at.endswith("/reply/understand")
            ]
            return [one for one in said if one["id"] == name]

        until(told, f"{name} is answered")
        return told()[0]

    def __call__(self, **what: Any) -> dict[str, Any]:
        return self.reply(self.send(**what))


def test_requests_are_answered_within_what_the_config_allows(mosquitto: Mosquitto, tmp_path: Path) -> None:
    box = Outbox(tmp_path / "other", "cmd")
    with Consumer(Mqtt(url=mosquitto.url)) as consumer, at_work(config(tmp_path, mosquitto.url, UNDERSTAND)):
        ask = Asker(mosquitto.url, box, consumer)
        until(lambda: len(consumer.events()) == 4, "the lines are events")
        found = ask(task="tag", text="wake me at seven tomorrow")
        assert found["ok"] and found["result"]["model"]["name"] == "edge-tagger"
        assert [(s["label"], s["text"]) for s in found["result"]["found"][0]["spans"]] == [
            ("time", "seven"),
            ("date", "tomorrow"),
        ]
        filled = ask(task="fill", text="turn the [MASK] on", top=3)["result"]["found"][0]
        assert len(filled["places"][0]["words"]) == 3
        assert ask(task="follows", text="Turn on the light.", second="And dim it.")["result"]["found"][0]["label"]
        answer = ask(task="answer", text="where is the fuse?")["result"]["found"][0]
        assert answer["passages"][0]["source"] == "manual.txt"
        given = ask(task="answer", text="who sleeps", context="A dog sleeps. Prices rise.")["result"]["found"][0]
        assert "dog sleeps" in given["passages"][0]["text"]
        assert len(ask(task="embed", text="hello")["result"]["found"][0]["embedding"]) == 384
        assert (
            ask(task="summarize", text="One cat sat. Two dogs ran. It rained.", top=1)["result"]["found"][0]["of"] == 3
        )
        for what, error in (
            ({"task": "detect", "text": "x"}, "no such task; there are embed"),
            ({"task": "tag", "text": "x", "model": "/etc/passwd"}, "no such model may be asked; there are edge-bert"),
            ({"task": "fill", "text": "x", "model": "edge-tagger"}, "no model that fills in masked words"),
            ({"task": "fill", "text": " "}, "the text is empty"),
            ({"task": "similar", "text": "x"}, "which store"),
            ({"task": "similar", "text": "x", "store": "../x"}, "a name has 1 to 64 letters"),
            ({"task": "follows", "text": "x"}, '"second" is missing'),
            ({"task": "classify", "text": "x"}, "no labels"),
            ({"text": 5}, "Expected `str`, got `int`"),
        ):
            said = ask(**what)
            assert not said["ok"] and error in said["error"], said
        # what is asked leaves no event
        assert len(consumer.events()) == 4
        ask.link.stop()
    box.close()
    # only the newest are remembered
    assert [text for text, _ in captured.lately()] == ["it began to rain", "the cat came home", "it is late"]


def test_what_was_captured_is_looked_in_where_no_documents_are_named(tmp_path: Path) -> None:
    made = load(config(tmp_path, None, '[understand]\nmodels = ["edge-bert"]\ncaptured = 9\n'))
    heard = ("the postman rang at ten", "x" * 5000)
    (found,) = answer(made, {"id": "1", "task": "answer", "text": "when did the postman ring?"}, heard)["result"][
        "found"
    ]
    assert found["passages"][0] | {"score": 0} == {"text": "the postman rang at ten", "source": "hall", "score": 0}
    assert len(captured.lately()[1][0]) == 2000


def answer(made: Config, what: dict[str, Any], heard: Sequence[str] = ()) -> dict[str, Any]:
    """What is replied to one request, without a broker, once some texts were heard in the hall."""
    requests, stop, replies = (
        Requests(made.understand, Models(threads=1, once=True)),
        threading.Event(),
        list[dict[str, Any]](),
    )
    for text in heard:
        captured.note(text, "hall")
    working = threading.Thread(target=requests.work, args=(stop,), daemon=True)
    working.start()
    requests.ask(msgspec.json.encode(what), replies.append)
    until(lambda: replies, "it is answered")
    stop.set()
    working.join()
    return replies[0]


def test_without_the_section_nothing_is_taken_and_too_much_is_refused(tmp_path: Path) -> None:
    made = load(config(tmp_path, None))
    assert answer(made, {"id": "1", "text": "x"})["error"].startswith("texts are not taken here; write [understand]")
    allowed = load(config(tmp_path, None, UNDERSTAND))
    requests, replies = Requests(allowed.understand, Models(threads=1, once=True)), list[dict[str, Any]]()
    for _ in range(WAITING + 1):
        requests.ask(b"{}", replies.append)
    assert [one["error"] for one in replies] == [f"{WAITING} requests wait already; try again later"]


def test_a_pipeline_that_keeps_its_words_leaves_none_to_ask_about(mosquitto: Mosquitto, tmp_path: Path) -> None:
    file = config(tmp_path, mosquitto.url, UNDERSTAND, '"tag:edge-tagger"')
    file.write_text(file.read_text() + "text = false\n")
    with Consumer(Mqtt(url=mosquitto.url)) as consumer, at_work(file):
        until(lambda: len(consumer.events()) == 4, "the lines are events")
    assert captured.lately() == []


def test_a_config_says_what_it_wants_remembered(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"understand.models: no model \"no-such-model\"; known are"):
        check(load(config(tmp_path, None, '[understand]\nmodels = ["no-such-model"]\n')).understand)
    with pytest.raises(ConfigError, match="captured"):
        load(config(tmp_path, None, "[understand]\ncaptured = -1\n"))
    with pytest.raises(ConfigError, match="context=captured: nothing is remembered; write captured = 200 under"):
        load(config(tmp_path, None, tasks='"answer:edge-bert?context=captured"'))
    made = load(config(tmp_path, None, UNDERSTAND, '"answer:edge-bert?context=manual.txt"'))
    assert made.understand is not None and made.understand.documents == str(tmp_path / "manual.txt")
    assert made.pipeline[0].tasks == [f"answer:edge-bert?context={tmp_path / 'manual.txt'}"]
