"""The agent as its service manager sees it: watched, stopped, reloaded, and heard in the journal."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.stop import Stop
from edge_agent.cli.log import ForJournal, Seldom
from edge_agent.config import Mqtt, load
from edge_agent.config.kept import BEFORE, NOW
from edge_agent.errors import ConfigError
from edge_agent.events import Event, TextEvent
from edge_agent.outbox.outbox import Outbox
from edge_agent.sources.judge import Rules
from edge_agent.sources.watch import StreamReader, watch
from edge_agent.tasks.text import captured
from edge_agent.types import Frame, StreamState
from tests.broker import Consumer, broker, until
from tests.conftest import ROOT
from tests.sources.servers import Camera, mjpeg_server

HANGS = """import time
from edge_agent.sources import Opened
from edge_agent.types import StreamState, Text
def source(uri, here):
    def run(stop):
        yield StreamState("ok")
        yield Text("first", time.time(), time.monotonic())
        while uri.rest == "idle" and not stop.wait(0.1):
            pass
        while uri.rest == "hangs":
            time.sleep(1)
    return Opened(run=run, yields=Text, live=False)
class Task:
    takes = (Text,)
    def __call__(self, item):
        time.sleep(1000)
        yield item
def task(uri, model, home): return Task()
"""


class Notified:
    """A stand-in for systemd's NOTIFY_SOCKET: what the agent says there."""

    def __init__(self, folder: Path) -> None:
        self.path, self.said = str(folder / "notify"), list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            self.said.append(self._socket.recv(1000).decode())


@contextmanager
def serving(tmp_path: Path, text: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`edge-agent run` with this config."""
    (tmp_path / "agent.toml").write_text(f'[store]\npath = "store"\n{text}')
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "it.py").write_text(HANGS)
    told = {"EDGE_AGENT_HOME": str(tmp_path / "home"), "PYTHONPATH": f"{tmp_path}:{ROOT}", **more}
    command = [sys.executable, "-m", "edge_agent", "run", "-c", str(tmp_path / "agent.toml")]
    with (tmp_path / "stderr").open("w") as stderr:
        agent = subprocess.Popen(command, stderr=stderr, text=True, env={**os.environ, **told})
    try:
        yield agent
    finally:
        agent.kill()
        agent.wait()


def said(tmp_path: Path) -> str:
    return (tmp_path / "stderr").read_text()


def pipeline(name: str, source: str, tasks: str = "") -> str:
    return f'[[pipeline]]\nname = "{name}"\nsource = "{source}"\ntasks = [{tasks}]\n'


# ── watched ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pipeline_that_hangs_ends_the_service(tmp_path: Path) -> None:
    """Two services at once, one that hangs in its source and one in its task: most of the time is waiting."""
    pipes = {
        "its source has not come back from a call for": pipeline("p", "strange.it:source:hangs"),
        "a sample is worked on for": pipeline("p", "lines:words", '"strange.it:task:"'),
    }
    with ExitStack() as stack:
        started = []
        for number, (says, pipe) in enumerate(pipes.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "words").write_text("one\n")
            manager = Notified(folder)
            told = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "4000000"}
            started.append((folder, says, manager, stack.enter_context(serving(folder, pipe, **told))))
        for folder, says, manager, agent in started:
            assert agent.wait(60) == 1, "in order, before the manager kills it"
            assert f"pipeline p hangs: {says}" in said(folder), said(folder)
            until(lambda manager=manager: manager.said[-1:] == ["STOPPING=1"], "its last word")  # type: ignore[misc]
            assert "READY=1" in manager.said


def test_what_waits_does_not_end_the_service(tmp_path: Path) -> None:
    """A source without anything to give, lines that are not there, a camera and a broker that are away."""
    manager = Notified(tmp_path)
    pipes = pipeline("i", "strange.it:source:idle") + pipeline("l", f"lines:{tmp_path}/none")
    pipes += pipeline("c", "camera:250", '"detect:edge-yolo"')
    with serving(
        tmp_path,
        f'[mqtt]\nurl = "mqtt://127.0.0.1:9"\n{pipes}',
        NOTIFY_SOCKET=manager.path,
        WATCHDOG_USEC="6000000",
    ) as agent:
        # each is said three quarters of a second and more after the one before; what hangs may take three
        until(lambda: manager.said.count("WATCHDOG=1") > 5, "it is fed for longer than what hangs may take")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0, said(tmp_path)


def test_reads_that_never_return_are_said_to_hang() -> None:
    """As of a driver: each reader thread is left behind, until there are too many of them."""
    for_ever, stop = threading.Event(), Stop()

    def open_() -> StreamReader:
        def read() -> Frame | None:
            for_ever.wait()
            return None

        return StreamReader(read, lambda: None)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edge_agent.sources.feed.OPENING", 0.0)
            patch.setattr("edge_agent.sources.feed.FIRST_PAUSE", 0.0)
            states = watch(open_, Rules(stall=0.1, pause=0.1), stop)
            hung = next(state for state in states if isinstance(state, StreamState) and state.condition == "hung")
        assert "never returned" in hung.why and stop.unseen < 60
    finally:
        for_ever.set()


def test_a_source_that_waits_by_its_stop_is_seen() -> None:
    stop = Stop()
    thread = threading.Thread(target=stop.wait, daemon=True)
    thread.start()
    until(lambda: stop.unseen == 0, "it waits")
    stop.set()
    thread.join()
    assert stop.is_set() and stop.unseen < 60


# ── stopped ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stop_keeps_what_came_with_a_camera_texts_and_a_broker_that_does_not_answer(
    tmp_path: Path,
) -> None:
    """Such a stop took 0.5 to 0.9 s here, whether the broker is mute, refuses or is a black hole (systemd waits 45)."""
    mute = socket.create_server(("127.0.0.1", 0))
    lines = tmp_path / "lines"
    lines.write_text("".join(f"line {i}\n" for i in range(50)))
    with mjpeg_server(Camera()) as server:
        text = f'[mqtt]\nurl = "mqtt://127.0.0.1:{mute.getsockname()[1]}"\n'
        text += pipeline("c", f"http://127.0.0.1:{server.port}/x", '"detect:edge-yolo"') + pipeline(
            "l", f"lines:{lines}?follow=yes"
        )
        with serving(tmp_path, text) as agent:
            until(lambda: "l: stream is ok" in said(tmp_path), "it runs")
            store = tmp_path / "store"
            until(lambda: any(b"line 49" in path.read_bytes() for path in store.glob("*.log")), "the texts are kept")
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0, said(tmp_path)
    assert "50 events kept" in said(tmp_path) or "events kept, 0 acknowledged, 0 lost" in said(tmp_path)
    mute.close()
    outbox = Outbox(tmp_path / "store", "porch")
    assert outbox.waiting >= 50
    outbox.close()


# ── reloaded ─────────────────────────────────────────────────────────────────────────────────────────────


def test_another_config_changes_what_changed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    for name in "abc":
        (tmp_path / name).write_text(f"{name}1\n")
    file = tmp_path / "agent.toml"

    def write(*names: str, more: str = "") -> None:
        file.write_text('[store]\npath = "store"\n' + "".join(pipeline(n, f"lines:{n}") for n in names) + more)

    def texts() -> list[str]:
        return [event.text for event in events if isinstance(event, TextEvent)]

    def add(name: str, text: str) -> None:
        with (tmp_path / name).open("a") as out:
            out.write(f"{text}\n")

    write("a", "b")
    agent, stop, events = Agent(load(file), reread=lambda: load(file)), threading.Event(), list[Event]()
    agent.keep.listeners.append(events.append)
    running = threading.Thread(target=agent.run, args=(stop,))
    running.start()
    try:
        until(lambda: {"a1", "b1"} <= set(texts()), "both begin")
        first = agent.lines[0]
        write("a", "c")
        agent.reload()
        until(lambda: "c1" in texts(), "the new one begins")
        assert agent.lines[0] is first and [line.config.name for line in agent.lines] == ["a", "c"]
        add("b", "b2")
        add("a", "a2")
        until(lambda: "a2" in texts(), "what did not change goes on")
        write("a", "c", more='[[pipeline]]\nname = "d"\nsource = "nothing:x"\n')
        agent.reload()
        until(lambda: "nothing" in agent.state.refused, "a wrong one is refused")
        assert agent.state.health()["config"] == agent.state.refused and len(agent.lines) == 2
        file.write_text(file.read_text() + "[what]\n")
        agent.reload()
        until(lambda: "what" in agent.state.refused, "one that cannot be read, too")
        # the options of c change: it goes on behind its last line
        file.write_text('[store]\npath = "store"\n' + pipeline("a", "lines:a") + pipeline("c", "lines:c?rate=100"))
        add("c", "c2")
        agent.reload()
        until(lambda: "c2" in texts() and agent.state.refused == "", "it is opened anew")
        add("c", "c3")
        until(lambda: "c3" in texts(), "and works")
        assert agent.lines[0] is first and texts().count("c1") == texts().count("c2") == 1 and "b2" not in texts()
        numbers = sorted(event.seq for event in events)
        assert numbers == list(range(1, len(events) + 1)), "numbering goes on"
    finally:
        stop.set()
        running.join(60)
    assert not running.is_alive()


@contextmanager
def turning(folder: Path) -> Iterator[tuple[Agent, Callable[[str], None], list[Event]]]:
    """An agent at work by folder/agent.toml, what has it turn to another config, and its events."""
    file, events, stop = folder / "agent.toml", list[Event](), threading.Event()
    agent = Agent(load(file), reread=lambda: load(file))
    agent.keep.listeners.append(events.append)
    running = threading.Thread(target=agent.run, args=(stop,))

    def turn(text: str) -> None:
        file.write_text(text)
        before, agent.state.refused = agent.config, ""
        agent.reload()
        until(lambda: agent.config is not before or agent.state.refused != "", "it turns")

    running.start()
    try:
        yield agent, turn, events
    finally:
        stop.set()
        running.join(60)
        assert not running.is_alive()


def test_sections_that_change_leave_all_pipelines_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    words, pipes = tmp_path / "words", pipeline("w", "lines:words")
    words.write_text("one\n")
    (tmp_path / "agent.toml").write_text(f'[store]\npath = "store"\n{pipes}')

    def texts() -> list[str]:
        return [event.text for event in events if isinstance(event, TextEvent)]

    def add(text: str, says: str) -> None:
        with words.open("a") as out:
            out.write(f"{text}\n")
        until(lambda: says in texts(), says)

    with turning(tmp_path) as (agent, turn, events):
        until(lambda: "one" in texts(), "it begins")
        (line,), replies = agent.lines, list[dict[str, object]]()
        add("write to me@example.com", "write to me@example.com")
        more = f'[store]\npath = "store"\nmax_events = 1000\nmax_bytes = 2000000\n[limits]\nmemory_mb = 900\n{pipes}'
        turn(f'[privacy]\nredact = ["email"]\npatterns = {{ badge = "B-[0-9]+" }}\n{more}')
        add("write to you@example.com of B-17", "write to [email] of [badge]")
        assert agent.work._hide is not None and agent.work._hide._own is not None
        child = agent.work._hide._own._child
        assert child is not None and child.poll() is None
        agent.requests.ask(b'{"text": "a"}', replies.append)
        assert "not taken here" in str(replies.pop())
        turn(f'[understand]\ncaptured = 3\n[privacy]\nredact = ["phone"]\n{more}')
        add("write to them@example.com", "write to them@example.com")
        until(lambda: child.poll() is not None, "what looked for the patterns of before is ended")
        assert captured.lately() == [("write to them@example.com", "w")]
        agent.requests.ask(b'{"text": "a"}', replies.append)
        until(lambda: bool(replies), "it is taken now")
        assert "no model that may be asked" in str(replies.pop())
        # one that is wrong changes nothing of it
        turn(f'[understand]\nmodels = ["nothing"]\n{more}'.replace("900", "901"))
        assert "nothing" in agent.state.refused and agent.config.understand is not None
        assert agent.governor._limits.memory_mb == 900
        # texts of hundreds of bytes: what is over the new quota goes, the oldest first, and is declared
        for number in range(1500):
            agent.keep.put(TextEvent(pipeline="w", at="2026-01-01T00:00:00Z", text=f"{number}"), "telemetry")
        until(lambda: agent.outbox.counts.dropped > 300, "the quota holds")
        assert agent.lines == [line] and agent.again is None and not line.ended


def test_a_zone_that_changes_opens_its_own_pipeline_anew(tmp_path: Path) -> None:
    zone = '[[zone]]\nname = "z"\npipeline = "a"\npoints = [[0, 0], [1, 0], [1, {0}]]\n'
    with mjpeg_server(Camera()) as server:
        pipes = '[store]\npath = "store"\n' + "".join(
            pipeline(name, f"http://127.0.0.1:{server.port}/x", '"detect:edge-yolo", "track"') for name in "ab"
        )
        (tmp_path / "agent.toml").write_text(pipes + zone.format(1))
        with turning(tmp_path) as (agent, turn, _):
            a, b = agent.lines
            until(lambda: b.stats.samples > 0 and a.stats.samples > 0, "both work")
            turn(pipes + zone.format(0.5))
            assert agent.lines[1] is b and agent.lines[0] is not a and a.ended and agent.again is None
            assert agent.lines[0].zones[0].points[2] == (1, 0.5)
            before = b.stats.samples
            until(lambda: agent.lines[0].stats.samples > 0 and b.stats.samples > before, "both go on")
            assert not b.ended


def test_another_broker_is_gone_to_in_the_same_process(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("one\n")
    pipes = pipeline("w", "lines:words") + pipeline("h", "mqtt:in/h")
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    manager = Notified(tmp_path)
    head = '[device]\nid = "porch"\n[mqtt]\nurl = "{}"\n'
    with (
        broker(tmp_path / "b") as first, broker(tmp_path / "c") as second,
        Consumer(Mqtt(url=first.url)) as before, Consumer(Mqtt(url=second.url)) as consumer,
    ):  # fmt: skip
        with serving(tmp_path, head.format(first.url) + pipes, NOTIFY_SOCKET=manager.path) as agent:
            until(lambda: before.seqs() == {1}, "it reaches the first")
            config = tmp_path / "agent.toml"
            good = config.read_text()
            config.write_text(good.replace("[mqtt]", "[mqtt"))
            agent.send_signal(signal.SIGHUP)
            until(lambda: "is refused, the one before goes on" in said(tmp_path), "a wrong one is refused")
            config.write_text(good.replace(first.url, second.url))
            agent.send_signal(signal.SIGHUP)
            until(lambda: consumer.last("porch/h/state"), "it reaches the second, and has subscribed there")
            with words.open("a") as out:
                out.write("two\n")
            subprocess.run(
                ["mosquitto_pub", "-p", str(second.port), "-q", "1", "-t", "in/h", "-m", "heard"], check=True
            )
            until(lambda: {"two", "heard"} <= {e["text"] for e in consumer.events()}, "both pipelines work there")
            assert agent.poll() is None
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
        numbers = [e["seq"] for e in consumer.events()]
        assert min(numbers) >= 2 and len(set(numbers)) == len(numbers), "it goes on from where the first was left"
        until(lambda: manager.said.count("STOPPING=1") == 1, "it says that it stops")
    assert (tmp_path / "store" / NOW).read_text() != (tmp_path / "store" / BEFORE).read_text() == good
    assert (tmp_path / "store" / NOW).stat().st_mode & 0o777 == 0o600


def test_a_pipeline_that_hears_the_broker_is_opened_anew_without_loss(tmp_path: Path) -> None:
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        text = f'[device]\nid = "porch"\n[mqtt]\nurl = "{server.url}"\n' + pipeline("h", "mqtt:in/+")

        def publish(word: str) -> None:
            subprocess.run(["mosquitto_pub", "-p", str(server.port), "-q", "1", "-t", "in/x", "-m", word], check=True)

        def texts() -> set[str]:
            return {e["text"] for e in consumer.events()}

        with serving(tmp_path, text) as agent:
            until(lambda: consumer.last("porch/h/state"), "it runs")
            publish("probe")
            until(lambda: "probe" in texts(), "it hears")
            config = tmp_path / "agent.toml"
            config.write_text(config.read_text() + 'class = "telemetry"\n')
            agent.send_signal(signal.SIGHUP)
            for number in range(20):
                publish(f"word {number}")
            until(lambda: {f"word {n}" for n in range(20)} <= texts(), "none is lost")
            config.write_text(config.read_text().replace('name = "h"', 'name = "other"'))
            agent.send_signal(signal.SIGHUP)
            until(lambda: consumer.last("porch/other/state"), "another name")
            until(lambda: not consumer.last("porch/h/state"), "the state of the old one is cleared")
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0, said(tmp_path)


# ── said ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_broker_hears_why_a_service_is_not_started_again(tmp_path: Path) -> None:
    manager = Notified(tmp_path)
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        head = f'[device]\nid = "porch"\n[mqtt]\nurl = "{server.url}"\n'
        with serving(tmp_path, head + '[[pipeline]]\nname = "p"\nsorce = "x:y"\n', NOTIFY_SOCKET=manager.path) as agent:
            assert agent.wait(60) == 2 and "READY=1" not in manager.said
        until(lambda: consumer.last("porch/health"), "it is retained")
        told = msgspec.json.decode(consumer.last("porch/health") or b"")
        assert "sorce" in told["config"] and "did you mean" in told["config"] and said(tmp_path).count("\n") == 1


@pytest.mark.parametrize("line", ["memory_mb = 1", "cpu_percent = 0", "memory = 100", "celsius = 500", "watts = 0"])
def test_limits_are_checked(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.toml").write_text(f'[limits]\n{line}\n[[pipeline]]\nname = "a"\nsource = "camera:0"\n')
    with pytest.raises(ConfigError, match="limits"):
        load(tmp_path / "a.toml")


def test_the_journal_gets_the_priority_of_each_line(tmp_path: Path) -> None:
    read, write = os.pipe()
    at = os.fstat(write)
    (tmp_path / "agent.toml").write_text(
        '[store]\npath = "s"\n' + pipeline("p", "files:/none/x.png", '"detect:edge-yolo"')
    )
    (tmp_path / "words").write_text("a\n")
    (tmp_path / "agent.toml").write_text('[store]\npath = "s"\n' + pipeline("p", "lines:words?follow=no"))
    for stream, begins in ((f"{at.st_dev}:{at.st_ino}", "<6>p: stream is ok"), ("1:2", "20")):
        command = [sys.executable, "-m", "edge_agent", "run", "-c", str(tmp_path / "agent.toml")]
        told = {**os.environ, "JOURNAL_STREAM": stream, "EDGE_AGENT_HOME": str(tmp_path / "home")}
        subprocess.run(command, stderr=write, env=told, check=True)
        assert os.read(read, 10_000).decode().startswith(begins)
    os.close(read)
    os.close(write)
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    assert {line[:3] for line in ForJournal().format(record).splitlines()} == {"<3>"}


def test_what_repeats_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    seldom = Seldom()

    def through(text: str, *args: object) -> logging.LogRecord | None:
        record = logging.LogRecord("x", logging.WARNING, "", 0, text, args, None)
        return record if seldom.filter(record) else None

    assert [through("frame %d is bad", number) is not None for number in range(15)] == [True] * 10 + [False] * 5
    assert through("another") is not None
    now = 200.0
    again = through("frame %d is bad", 99)
    assert again is not None and again.getMessage() == "frame 99 is bad (5 more like it were left out)"
