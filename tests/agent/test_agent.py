"""The whole agent as a user runs it: `edge-agent run -c agent.toml` against a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.config import Mqtt, load
from edge_agent.consumer.audit import Audit
from edge_agent.events import Event
from edge_agent.outbox.outbox import Outbox
from edge_agent.sources.rotation import OFFSET
from tests.broker import Consumer, Mosquitto, broker, until
from tests.conftest import ROOT, lines_of
from tests.tiny import tiny_detector

AGENT = [sys.executable, "-m", "edge_agent"]


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


def write(tmp_path: Path, url: str | None, pipelines: str) -> Path:
    file = tmp_path / "agent.toml"
    mqtt = f'[mqtt]\nurl = "{url}"\n' if url else ""
    file.write_text(f'[device]\nid = "porch"\n{mqtt}[store]\npath = "store"\n{pipelines}')
    return file


def pipeline(name: str, source: str, tasks: str = "", more: str = "") -> str:
    return f'[[pipeline]]\nname = "{name}"\nsource = "{source}"\ntasks = [{tasks}]\n{more}\n'


def start(config: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "EDGE_AGENT_HOME": str(config.parent / "home")}
    return subprocess.Popen([*AGENT, "run", "-c", str(config)], stderr=subprocess.PIPE, text=True, env=environment)


def finish(agent: subprocess.Popen[str]) -> str:
    _, said = agent.communicate(timeout=180)
    assert agent.returncode == 0, said
    assert "Traceback" not in said
    return said


def test_lines_and_pictures_to_the_broker_and_the_end_by_itself(
    mosquitto: Mosquitto, tmp_path: Path, demo_pictures: Path
) -> None:
    (tmp_path / "said.txt").write_bytes("one\n\ntwo ü\nbroken \xff byte\n".encode("latin-1") + b"x" * 1_000_000 + b"\n")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("astronaut.png", "coffee.png"):
        (photos / name).write_bytes((demo_pictures / name).read_bytes())
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (photos / os.fsdecode(b"odd\xff.png")).write_bytes((demo_pictures / "coffee.png").read_bytes())
    model = tiny_detector(tmp_path / "model")
    config = write(
        tmp_path,
        mosquitto.url,
        pipeline("words", "lines:said.txt?follow=false") + pipeline("photos", "files:photos", f'"detect:{model}"'),
    )
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        said = finish(start(config))
        until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
        events = consumer.events()
    assert sorted(e["seq"] for e in events) == [1, 2, 3, 4, 5, 6, 7]
    assert all(e["id"] == f"porch/{e['epoch']}/{e['seq']}" and e["device"] == "porch" for e in events)
    words = [e["text"] for e in events if e["pipeline"] == "words"]
    assert words[0] == "one" and len(words) == 4 and 30_000 < len(words[3]) < 40_000
    pictures = [e for e in events if e["pipeline"] == "photos"]
    names = [(e["name"], e["width"]) for e in pictures]
    assert names == [("astronaut.png", 512), ("coffee.png", 600), ("odd?.png", 600)]
    assert all(e["model"]["name"] == "tiny" and "infer" in e["spent_ms"] for e in pictures)
    assert "broken.jpg" in said and "7 events kept, 7 acknowledged, 0 lost" in said
    state = json.loads(consumer.last("photos/state") or b"")
    assert (state["stream"], state["samples"], state["answered"]) == ("ended", 3, 3)
    states = {json.loads(payload)["stream"] for topic, payload, _ in consumer.heard if topic.endswith("photos/state")}
    assert states <= {"starting", "ok", "ended"}, "a source that opens is not reconnecting"


def test_works_without_a_broker_and_delivers_when_it_comes(tmp_path: Path) -> None:
    with broker(tmp_path) as server:
        server.stop()
        (tmp_path / "said.txt").write_text("".join(f"line {i}\n" for i in range(200)))
        agent = start(write(tmp_path, server.url, pipeline("words", "lines:said.txt?follow=false")))
        until(lambda: (tmp_path / "store" / "mark").exists(), "it runs")
        agent.send_signal(signal.SIGSTOP)  # it would deliver before the consumer is there
        server.start()
        with Consumer(Mqtt(url=server.url)) as consumer:
            agent.send_signal(signal.SIGCONT)
            finish(agent)
            until(lambda: len(consumer.seqs()) == 200, "all lines arrive")


def test_kill_nine_loses_no_line_and_counts_none_twice(mosquitto: Mosquitto, tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(1500)]
    (tmp_path / "said.txt").write_text("".join(f"{line}\n" for line in lines))
    config = write(tmp_path, mosquitto.url, pipeline("words", "lines:said.txt?follow=false"))
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        for turn in range(1, 4):
            agent = start(config)
            until(lambda: len(consumer.seqs()) >= 150 * turn, "some lines arrive")  # noqa: B023
            agent.send_signal(signal.SIGKILL)
            agent.communicate()
        finish(start(config))
        until(lambda: len({e.get("text") for e in consumer.events()} & set(lines)) == 1500, "every line arrives")
        by_id = {e["id"]: e for e in consumer.events()}
    assert sorted(e["text"] for e in by_id.values() if e["kind"] == "text") == sorted(lines)
    declared = {n for e in by_id.values() if e["kind"] == "gap" for n in range(e["first"], e["last"] + 1)}
    seqs = {e["seq"] for e in by_id.values()}
    assert set(range(1, max(seqs) + 1)) <= seqs | declared


def test_ctrl_c_stops_in_order_and_keeps_what_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("a\nb\nc\n")
    agent = start(write(tmp_path, "mqtt://127.0.0.1:9", pipeline("words", "lines:said.txt")))
    said = ""
    assert agent.stderr is not None
    for said in agent.stderr:
        if "events wait on disk" in said:
            break
    store = tmp_path / "store"
    until(lambda: any(b'"text":"c"' in path.read_bytes() for path in store.glob("alert-*.log")), "the lines are kept")
    agent.send_signal(signal.SIGINT)
    finish(agent)
    box = Outbox(tmp_path / "store", "porch")
    assert [json.loads(r.payload)["text"] for r in box.take(9)] == ["a", "b", "c"]
    assert box.marks["words"] & OFFSET == 6
    box.close()


def test_text_from_another_device(mosquitto: Mosquitto, tmp_path: Path) -> None:
    config = write(tmp_path, mosquitto.url, pipeline("heard", "mqtt:house/+/said"))
    agent = start(config)
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        until(lambda: consumer.last("porch/status") == b"online", "it is online")
        until(lambda: consumer.last("heard/state"), "the pipeline runs")
        tool = ["mosquitto_pub", "-p", str(mosquitto.port), "-t", "house/kitchen/said", "-m", "water the plants"]
        subprocess.run(tool, check=True)
        until(lambda: [e["text"] for e in consumer.events()] == ["water the plants"], "the text comes back as an event")
        agent.send_signal(signal.SIGTERM)
        finish(agent)


SLOW = """import time
from edge_agent.types import Text
class Slow:
    takes = (Text,)
    def __init__(self, seconds): self.seconds = seconds
    def __call__(self, item):
        time.sleep(self.seconds)
        yield item
def slow(uri, serve, home): return Slow(float(uri.options["seconds"]))
"""


def slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> str:
    """A task that passes texts on after a while."""
    (tmp_path / "slowtask").mkdir()
    (tmp_path / "slowtask" / "it.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    return f'"slowtask.it:slow:?seconds={seconds}"'


def publish(port: int, topic: str, texts: list[str]) -> None:
    """Return once the broker has acknowledged each."""
    tool = ["mosquitto_pub", "-p", str(port), "-q", "1", "-t", topic, "-l"]
    subprocess.run(tool, input="".join(f"{text}\n" for text in texts), text=True, check=True)


def test_texts_that_were_taken_are_answered_before_the_stop_and_the_others_after_it(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 6 pipelines, as what the broker kept comes before threads have started."""
    task = slowly(tmp_path, monkeypatch, 0.02)
    pipes = "".join(pipeline(f"p{i}", f"mqtt:in/{i}", task) for i in range(6))
    config = write(tmp_path, mosquitto.url, pipes)
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:

        def texts() -> list[str]:
            return [e["text"] for e in consumer.events()]

        agent = start(config)
        until(lambda: consumer.last("p5/state"), "the pipelines run")
        publish(mosquitto.port, "in/0", ["probe"])
        until(lambda: texts() == ["probe"], "it is subscribed")
        publish(mosquitto.port, "in/0", [f"taken {i}" for i in range(100)])
        until(lambda: "taken 0" in texts(), "they arrive")
        agent.send_signal(signal.SIGTERM)
        finish(agent)
        until(lambda: consumer.last("porch/status") == b"offline", "all is told")
        for i in range(6):
            publish(mosquitto.port, f"in/{i}", [f"away {i}"])
        agent = start(config)
        wanted = {"probe", *(f"taken {i}" for i in range(100)), *(f"away {i}" for i in range(6))}
        until(lambda: set(texts()) >= wanted, "none is lost")
        agent.send_signal(signal.SIGTERM)
        finish(agent)
        assert sorted(texts()) == sorted(wanted), "none is answered twice"


@pytest.mark.parametrize("report", ["changes", "summary:900s"])
def test_lines_that_were_not_worth_an_event_are_not_answered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str
) -> None:
    (tmp_path / "numbers.txt").write_text("".join(f"{n % 7}\n" for n in range(50)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd.it", raising=False)
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "it.py").write_text(
        "from edge_agent.types import Anomaly, Finding, ModelRef, Text\n"
        "class Odd:\n"
        "    takes = (Text,)\n"
        "    def __call__(self, item):\n"
        "        yield Finding(item, Anomaly(1.0, 2.0), ModelRef('odd', '1', '0' * 64), {})\n"
        "def odd(uri, model, home): return Odd()\n"
    )
    pipe = pipeline("numbers", f"lines:{tmp_path / 'numbers.txt'}", '"odd.it:odd:"', f'report = "{report}"')
    config = write(tmp_path, None, pipe)
    counts: list[tuple[int, int]] = []
    for lines in (50, 1):
        agent, stop = Agent(load(config)), threading.Event()
        running = threading.Thread(target=agent.run, args=(stop,))
        running.start()
        line = agent.lines[0]
        until(lambda: line.stats.samples >= lines, "it answers all")  # noqa: B023
        stop.set()
        running.join(120)
        counts.append((line.stats.samples, agent.outbox.counts.put))
        with (tmp_path / "numbers.txt").open("a") as file:
            file.write("7\n")
    assert counts == [(50, 1), (1, 1)]


def test_what_no_stop_can_wait_for_is_counted_as_lost(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.agent.lines.FINISH_S", 0.5)
    monkeypatch.setattr("edge_agent.agent.lines.STOP_S", 0.5)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = write(tmp_path, None, pipeline("words", f"lines:{tmp_path / 'fifo'}", slowly(tmp_path, monkeypatch, 0.2)))
    os.mkfifo(tmp_path / "fifo")
    agent, stop = Agent(load(config)), threading.Event()
    told: list[Event] = []
    agent.keep.listeners.append(told.append)
    running = threading.Thread(target=agent.run, args=(stop,))
    running.start()
    with (tmp_path / "fifo").open("w") as writer:
        writer.write("one line\n" * 500)
    until(lambda: told, "they are answered")
    stop.set()
    running.join(120)
    assert len(told) + agent.unanswered == 500 and agent.unanswered > 400


@pytest.mark.parametrize(
    ("pipelines", "says", "code"),
    [
        (pipeline("a", "files:none"), "pipeline a: source: ", 2),
        (pipeline("a", "filse:none"), 'did you mean "files"', 2),
        (pipeline("a", "lines:said.txt", '"detect:model"'), "takes pictures, but text comes to it", 2),
        (pipeline("a", "files:said.txt", '"detect:nosuchmodel"'), "pipeline a: ", 2),
        (pipeline("a", "lines:said.txt", '"dettect:detector"'), 'did you mean "detect"', 2),
        (pipeline("a", "lines:said.txt?folow=false"), 'did you mean "follow"', 2),
        (pipeline("a", "camera:0"), "pictures need a task", 2),
        (pipeline("a", "mqtt:x"), "pipeline a: ", 2),
        (pipeline("a", "lines:said.txt", more='report = "summary:10s"'), "each text has its own event", 2),
        (pipeline("a", "lines:said.txt", '"embed"', 'report = "changes"'), "each text has its own event", 2),
    ],
)
def test_what_cannot_work_is_one_line_and_nothing_starts(tmp_path: Path, pipelines: str, says: str, code: int) -> None:
    (tmp_path / "said.txt").write_text("a\n")
    config = write(tmp_path, None, pipelines.replace("detect:model", f"detect:{tiny_detector(tmp_path / 'model')}"))
    for verb in ("run", "check"):
        environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
        done = subprocess.run([*AGENT, verb, "-c", str(config)], capture_output=True, text=True, env=environment)
        assert done.returncode == code, done.stderr
        # a model may have been tried before what is wrong was found
        (line,) = [line for line in lines_of(done.stderr) if " INFO " not in line]
        assert line.startswith(f"edge-agent {verb}: {config}: ") and says in line


def test_commands_run_once_and_are_answered(mosquitto: Mosquitto, tmp_path: Path) -> None:
    def send(verb: str, body: str, *more: str) -> None:
        base = ["mosquitto_pub", "-p", str(mosquitto.port), "-t", f"edge/v1/porch/cmd/{verb}", *more]
        subprocess.run([*base, "-s"], input=body, text=True, encoding="latin-1", check=True)

    config = write(tmp_path, mosquitto.url, pipeline("heard", "mqtt:house/said"))
    send("ping", '{"id": "retained"}', "-r")
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        replies: list[dict[str, object]] = []
        for turn in range(2):
            agent = start(config)
            until(lambda: consumer.last("porch/status") == b"online", "it is online")
            until(lambda: consumer.last("heard/state"), "the pipeline runs")
            send("health", '{"id": "one"}')
            until(lambda: len([t for t, _, _ in consumer.heard if "/reply/" in t]) > 8 * turn, "it answers")  # noqa: B023
            for verb, body in [
                ("ping", "{}"),
                ("ping", "x" * 20_000),
                ("dance", '{"id": "d"}'),
                ("ping", '{"id": ""}'),
                ("ping", '{"id": "\xff"}'),
                ("v" * 65, '{"id": "no topic may have room for its reply"}'),
                ("ping", '{"id": "one\\nforged"}'),
                ("ping", "[" * 15_000),
            ]:
                send(verb, body)
            until(lambda: len([t for t, _, _ in consumer.heard if "/reply/" in t]) == 8 * (turn + 1), "it answers all")  # noqa: B023
            agent.send_signal(signal.SIGTERM)
            finish(agent)
            until(lambda: consumer.last("porch/status") == b"offline", "it is offline")
        replies = [json.loads(payload) for topic, payload, _ in consumer.heard if "/reply/" in topic]
    assert replies[0]["ok"] is True and replies[0]["result"]["version"]  # type: ignore[index]
    assert [r["ok"] for r in replies] == [True] + [False] * 15
    assert replies[8]["error"] == "this id was run before"
    said = " ".join(str(r.get("error")) for r in replies)
    assert (
        "at most 16000 bytes" in said and "unknown command; known are gaps, health, pause, ping, profile, state" in said
    )
    assert not any(r["id"] == "retained" for r in replies)
    assert not [path.name for path in (tmp_path / "store").iterdir() if path.stat().st_mode & 0o077]


def test_gaps_and_swap_by_command_and_a_class_for_each_kind(tmp_path: Path) -> None:
    """What was dropped while nobody listened is told on demand; text is telemetry here, so it goes before alerts."""
    lines = "".join(f"{i} {'word ' * 20}\n" for i in range(4000))
    (tmp_path / "said.txt").write_text(lines)
    more = 'class = {text = "telemetry"}'
    with broker(tmp_path) as server:
        server.stop()
        config = write(tmp_path, server.url, pipeline("words", "lines:said.txt", more=more))
        config.write_text(config.read_text().replace('path = "store"', 'path = "store"\nmax_events = 1000'))
        agent = start(config)
        until(lambda: list((tmp_path / "store").glob("alert-*.log")), "a gap is declared")
        agent.send_signal(signal.SIGSTOP)  # else it may send the gap before anybody listens
        server.start()
        with Consumer(Mqtt(url=server.url)) as consumer:
            agent.send_signal(signal.SIGCONT)
            until(lambda: consumer.last("words/state"), "it is online, and has subscribed")
            for verb in ("gaps", "swap"):
                topic = f"edge/v1/porch/cmd/{verb}"
                tool = ["mosquitto_pub", "-p", str(server.port), "-t", topic, "-m", json.dumps({"id": verb})]
                subprocess.run(tool, check=True)
            until(lambda: consumer.last("reply/gaps") and consumer.last("reply/swap"), "it answers both")
            until(
                lambda: any(e.get("text", "").startswith("3999 ") for e in consumer.events()), "the last line arrives"
            )
            agent.send_signal(signal.SIGTERM)
            said = finish(agent)
    told = json.loads(consumer.last("reply/gaps") or b"")["result"]
    assert told["gaps"] and "1000 events" in told["gaps"][0]["why"] and "telemetry" in told["gaps"][0]["why"]
    assert told["lost"] >= told["gaps"][0]["count"] > 0
    audit = Audit()
    for topic, payload, _ in consumer.heard:
        if topic.endswith("/events"):
            audit.add(payload)
    (row,) = audit.rows()
    assert row.missing == 0 and f"{row.declared} lost" in said, "the consumer's count does not close"
    assert json.loads(consumer.last("reply/swap") or b"")["ok"] is True
