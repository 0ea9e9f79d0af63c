"""Sparkplug B, as a host hears it through a real broker, against the rules of the specification by their names."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.config import Mqtt, Sparkplug
from edge_agent.events import Detection, DetectionsEvent, TextEvent, rfc3339
from edge_agent.link import broker as broker_module
from edge_agent.link.budget import Budget
from edge_agent.link.sparkplug import node as node_module
from edge_agent.link.sparkplug.host import Host as Primary
from edge_agent.link.sparkplug.metrics import LONGEST, MOST, Table, flat
from edge_agent.link.sparkplug.node import Node
from edge_agent.link.sparkplug.payload import BOOLEAN, INT64, asked, encode
from edge_agent.link.sparkplug.payload import Metric as Ours
from edge_agent.link.sparkplug.speaker import Seen
from tests.broker import Consumer, Mosquitto, broker, free_port, until
from tests.sparkplug import REBIRTH, RULES, Host, Record, message, request, values

GROUP, NODE = "plant", "porch"
COMMANDS = f"spBv1.0/{GROUP}/NCMD/{NODE}"
STATE = "spBv1.0/STATE/scada"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "FIRST_PAUSE_S", 0.05)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


class Given:
    """What the agent would say, and a node that says it."""

    def __init__(self, folder: Path, url: str, host: str | None = None, budget: Budget | None = None) -> None:
        self.health: dict[str, Any] = {"v": 1, "version": "1", "waiting": 0, "disk": "ok"}
        self.lines: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.stream("door", "ok")
        spark, mqtt = Sparkplug(group=GROUP, primary_host=host), Mqtt(url=url, keepalive=5)
        self.node = Node(spark, mqtt, NODE, folder / "spark", lambda: Seen(self.health, self.lines), budget or Budget())
        self.seq = 0

    def stream(self, name: str, condition: str, **counts: Any) -> None:
        self.lines = {**self.lines, name: ({"v": 1, "stream": condition, "samples": 5}, counts)}

    def event(self, text: str, pipeline: str = "door") -> TextEvent:
        self.seq += 1
        event = TextEvent(id=f"{NODE}/1/{self.seq}", pipeline=pipeline, at=rfc3339(time.time()), text=text)
        self.node.keep(event)
        return event

    def __enter__(self) -> Given:
        self.node.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.node.stop()
        self.node.close()


# ── the rules, over what a real agent says ───────────────────────────────────────────────────────────────────


def agent(folder: Path, url: str) -> subprocess.Popen[str]:
    config = folder / "agent.toml"
    config.write_text(
        f'[device]\nid = "{NODE}"\n[mqtt]\nurl = "{url}"\n[store]\npath = "{folder}/store"\n'
        f'[sparkplug]\ngroup = "{GROUP}"\nprimary_host = "scada"\n'
        f'[[pipeline]]\nname = "words"\nsource = "lines:{folder}/words.txt"\n'
        f'[[pipeline]]\nname = "list"\nsource = "lines:{folder}/list.txt?follow=false"\n'
    )
    (folder / "words.txt").touch()
    command = [sys.executable, "-m", "edge_agent", "run", "-c", str(config)]
    told = {**os.environ, "EDGE_AGENT_HOME": str(folder / "home")}
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True, env=told)


def more(folder: Path, *lines: str) -> None:
    with (folder / "words.txt").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def state(host: Host, online: bool, at: int) -> None:
    host.say(STATE, msgspec.json.encode({"online": online, "timestamp": at}), retain=True)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    """What a host heard of an agent: started, asked for a rebirth, killed, and started again with a host that comes
    late, goes and comes back; then stopped."""
    folder = tmp_path_factory.mktemp("life")
    (folder / "list.txt").write_text("one\ntwo\n")
    with broker(folder) as server, Host(server.port) as host, Consumer(Mqtt(url=server.url)) as consumer:
        state(host, True, 1000)
        running = agent(folder, server.url)
        try:
            until(lambda: host.of("DDEATH", "list"), "the list has ended")
            more(folder, "first", "second")
            until(lambda: ("second", False) in host.values("text/text", "words"), "both are said")
            until(lambda: host.of("NDATA"), "the health is said")
            host.say(COMMANDS, request([REBIRTH]))
            until(lambda: len(host.of("NBIRTH")) == 2, "it is born again")
            more(folder, *(f"line {number}" for number in range(300)))
            until(lambda: ("line 299", False) in host.values("text/text", "words"), "the sequence went around")
            running.kill()
            until(lambda: host.of("NDEATH"), "the broker says its death")
            state(host, False, 2000)
            running.wait()
            running = agent(folder, server.url)
            more(folder, "while the host was away")
            until(lambda: any(event.get("text", "").startswith("while") for event in consumer.events()), "it is kept")
            assert len(host.of("NBIRTH")) == 2
            wrong = Host(server.port)
            wrong.say("spBv1.0/STATE/Scada", b'{"online":true,"timestamp":99999999999999}', retain=True)
            time.sleep(1.0)  # nothing may come
            assert len(host.of("NBIRTH")) == 2
            state(host, True, 3000)
            until(lambda: ("while the host was away", True) in host.values("text/text", "words"), "history is said")
            state(host, False, 2500)  # older than the newest
            more(folder, "still there")
            until(lambda: ("still there", False) in host.values("text/text", "words"), "an old word counts for nothing")
            assert len(host.of("NDEATH")) == 1
            state(host, False, 3000)
            until(lambda: len(host.of("NDEATH")) == 2, "it goes with the host")
            state(host, True, 4000)
            until(lambda: len(host.of("NBIRTH")) == 4, "it comes back with the host")
            running.send_signal(signal.SIGTERM)
            assert running.wait(120) == 0
            until(lambda: len(host.of("NDEATH")) == 3, "its last word is its death")
            assert host.heard[-1].kind == "NDEATH"
            wrong.__exit__()
        finally:
            running.kill()
            running.wait()
        yield list(host.heard)


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule(name: str, life: Record) -> None:
    RULES[name](life, GROUP, NODE)


def test_the_primary_host_is_waited_for_and_followed(life: Record) -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait, -wait-id, -wait-online, -wait-timestamp, -phid-offline,
    tck-id-operational-behavior-edge-node-birth-sequence-wait, -edge-node-termination-host-offline,
    -host-offline-timestamp, -host-offline-reconnect, -edge-node-intentional-disconnect-ndeath,
    tck-id-payloads-ndeath-will-message-publisher: what `life` waits for, in this order.
    """
    kinds = [one.kind for one in life if one.kind in ("NBIRTH", "NDEATH")]
    assert kinds == ["NBIRTH", "NBIRTH", "NDEATH", "NBIRTH", "NDEATH", "NBIRTH", "NDEATH"]


def test_a_rebirth_stops_data_until_all_is_declared(life: Record) -> None:
    """tck-id-operational-behavior-data-commands-rebirth-action-1, -action-2."""
    at = [number for number, one in enumerate(life) if one.kind == "NBIRTH"][1]
    assert [(one.kind, one.device) for one in life[at : at + 2]] == [("NBIRTH", ""), ("DBIRTH", "words")]


def test_history_is_marked_and_what_happens_now_is_not(life: Record) -> None:
    at = [number for number, one in enumerate(life) if one.kind == "NBIRTH"][2]
    past = [one for one in life[at:] if any(each.historical for each in one.metrics)]
    assert past and all(one.kind == "DDATA" and all(each.historical for each in one.metrics) for one in past)


def test_each_event_is_said_with_the_id_that_it_has_in_json(life: Record) -> None:
    events = [msgspec.json.decode(body) for body, _ in values(life, "event/json", "words")]
    assert {event["text"] for event in events} >= {"first", "second", "line 0", "line 299", "still there"}
    assert all(event["id"].startswith(f"{NODE}/") and event["pipeline"] == "words" for event in events)


def test_pysparkplug_reads_it_as_we_do(life: Record, tmp_path: Path) -> None:
    """The oracle lives in an environment of its own, as it needs paho 1: EDGE_AGENT_PYSPARKPLUG names its Python."""
    python = os.environ.get("EDGE_AGENT_PYSPARKPLUG")
    if not python:
        pytest.skip("set EDGE_AGENT_PYSPARKPLUG to the Python of an environment with pysparkplug")
    code = (
        "import json, sys\n"
        "from pysparkplug import DataType\n"
        "from pysparkplug._protobuf import Payload\n"
        "from pysparkplug._topic import Topic\n"
        "types = {}\n"
        "for line in sys.stdin:\n"
        "    topic, body = line.split(' ')\n"
        "    Topic.from_str(topic)\n"
        "    got = Payload.FromString(bytes.fromhex(body))\n"
        "    out = []\n"
        "    for m in got.metrics:\n"
        "        if m.HasField('datatype'):\n"
        "            types[m.alias if m.HasField('alias') else m.name] = DataType(m.datatype)\n"
        "        kind, field = types[m.alias if m.HasField('alias') else m.name], m.WhichOneof('value')\n"
        "        assert field is None or field == kind.field, (field, kind)\n"
        "        value = None if field is None else kind.decode(getattr(m, field))\n"
        "        out.append([m.name if m.HasField('name') else None, m.timestamp, m.is_historical, m.is_null, value])\n"
        "    seq = got.seq if got.HasField('seq') else None\n"
        "    print(json.dumps([got.timestamp, seq, out]))\n"
    )
    told = "".join(f"{one.topic} {one.raw.hex()}\n" for one in life)
    done = subprocess.run([python, "-c", code], input=told, capture_output=True, text=True, check=True)
    for line, one in zip(done.stdout.splitlines(), life, strict=True):
        values = [[m.name, m.timestamp, m.historical, m.null, m.value] for m in one.metrics]
        assert msgspec.json.decode(line) == [one.timestamp, one.seq, values]


# ── how it connects ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_session_is_clean_and_the_will_is_the_death(tmp_path: Path) -> None:
    """tck-id-principles-persistence-clean-session-50, tck-id-payloads-ndeath-will-message,
    tck-id-message-flow-edge-node-birth-publish-will-message: CONNECT as it is on the wire."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Given(tmp_path, f"mqtt://127.0.0.1:{port}"):
            server.settimeout(120)
            peer, _ = server.accept()
            with peer:
                packet = peer.recv(4096)
    assert packet[0] == 0x10 and packet[4:8] == b"MQTT" and packet[8] == 5
    flags = packet[9]
    assert flags & 0b10, "clean start"
    assert flags & 0b100 and (flags >> 3) & 3 == 1 and not flags & 0b100000, "a will with QoS 1 that is not retained"
    assert f"spBv1.0/{GROUP}/NDEATH/{NODE}".encode() in packet
    assert b"\x11\x00\x00" not in packet[10:20], "no session expiry is asked for"


def test_it_subscribes_its_commands_with_qos_1(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """tck-id-message-flow-edge-node-ncmd-subscribe: a message of QoS 1 comes as one, and is acknowledged."""
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url):
        until(lambda: host.of("NBIRTH"), "it is born")
        host.say(COMMANDS, request([REBIRTH]))
        until(lambda: len(host.of("NBIRTH")) == 2, "it is born again")


def test_bdseq_goes_on_after_a_restart_and_around(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Host(mosquitto.port) as host:
        for births in (1, 2):
            with Given(tmp_path, mosquitto.url):
                until(partial(lambda births: len(host.of("NBIRTH")) == births, births), "it is born")
        (tmp_path / "spark" / "bdseq").write_text("255")
        with Given(tmp_path, mosquitto.url):
            until(lambda: len(host.of("NBIRTH")) == 3, "it is born")
    assert [one.named("bdSeq").value for one in host.of("NBIRTH")] == [0, 1, 0]


def test_what_waited_while_the_broker_was_away_is_history(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Given(tmp_path, mosquitto.url) as given:
        with Host(mosquitto.port) as host:
            given.event("before")
            until(lambda: host.values("text/text", "door"), "it is said")
            until(lambda: given.node.outbox.empty, "the broker has it")
        mosquitto.stop()
        until(lambda: given.node.why, "the connection is gone")
        for number in range(50):
            given.event(f"away {number}")
        mosquitto.start()
        with Host(mosquitto.port) as host:
            host.say(COMMANDS, request([REBIRTH]))  # it may have been born before this host listened
            until(lambda: host.of("NBIRTH"), "it is born")
            until(lambda: given.node.outbox.empty, "all is said")
            given.event("after")
            until(lambda: ("after", False) in host.values("text/text", "door"), "what happens now is no history")
            birth = host.of("DBIRTH", "door")[0]
            assert birth.named("text/text").value in ("before", "away 49", "after")


def test_history_comes_in_order_and_ends_before_what_is_new(mosquitto: Mosquitto, tmp_path: Path) -> None:
    given = Given(tmp_path, mosquitto.url)
    for number in range(500):
        given.event(f"{number}")
    with Host(mosquitto.port) as host, given:
        until(lambda: given.node.outbox.empty, "all is said")
        given.event("new")
        until(lambda: ("new", False) in host.values("text/text", "door"), "the new one is said")
        assert host.of("DBIRTH", "door")[0].named("text/text").value == "499", "a birth says what is current"
        told = host.values("text/text", "door")
        assert told == [(f"{number}", True) for number in range(500)] + [("new", False)]


def test_what_was_not_answered_is_said_again_after_a_kill(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Data have QoS 0: an event leaves the store once the broker has answered something that was sent behind it."""
    code = (
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from edge_agent.link.sparkplug import node\n"
        "from tests.link.test_sparkplug import Given\n"
        "node.PROOF_S = 1e9\n"
        "with Given(Path(sys.argv[1]), sys.argv[2]) as given:\n"
        "    given.event('first')\n"
        "    sys.stdin.readline()\n"
        "    given.node._proof_at = 1e18\n"
        "    given.event('unproved')\n"
        "    time.sleep(1000)\n"
    )
    root = str(Path(__file__).parents[2])
    with Host(mosquitto.port) as host:
        command = [sys.executable, "-c", code, str(tmp_path), mosquitto.url, root]
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            until(lambda: host.of("DBIRTH", "door"), "it is born: what is kept from now on is no history")
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            until(lambda: ("unproved", False) in host.values("text/text", "door"), "it was said")
            logs = tmp_path / "spark"
            until(lambda: any(b"unproved" in path.read_bytes() for path in logs.rglob("*.log")), "it is on disk")
        finally:
            child.kill()
            child.wait()
        with Given(tmp_path, mosquitto.url) as given:
            until(lambda: ("unproved", True) in host.values("text/text", "door"), "it is said again, as history")
            until(lambda: given.node.outbox.empty, "and the broker has it")


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pipeline_that_gives_nothing_is_dead_until_it_gives_again(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """tck-id-operational-behavior-device-ddeath."""
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url) as given:
        until(lambda: host.of("DBIRTH", "door"), "it is born")
        given.stream("door", "stalled")
        until(lambda: host.of("DDEATH", "door"), "it is dead")
        assert host.of("DDATA", "door")[-1].metrics[0].value == "stalled", "and said why before"
        given.event("late")
        until(lambda: ("late", False) in host.values("text/text", "door"), "what it found before is said all the same")
        until(lambda: len(host.of("DDEATH", "door")) == 2, "and it is dead again")
        given.stream("door", "ok")
        until(lambda: len(host.of("DBIRTH", "door")) >= 3, "it is back")
        given.stream("yard", "ok")
        until(lambda: host.of("DBIRTH", "yard"), "a new one is born")
        given.lines = {"yard": given.lines["yard"]}
        until(lambda: len(host.of("DDEATH", "door")) == 3, "one that is no more is dead")


def test_counts_are_numbers_of_their_own_and_fall_to_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    def seen(*labels: str) -> DetectionsEvent:
        boxes = [Detection(label=label, class_id=0, score=0.5, box=(0, 0, 1, 1)) for label in labels]
        at = rfc3339(time.time())
        return DetectionsEvent(id="a", pipeline="door", at=at, width=10, height=10, detections=boxes)

    def people() -> list[Any]:
        return [value for value, _ in host.values("detections/count/person", "door")]

    def declared() -> list[Any]:
        return [(each.name, each.value) for one in host.of("DBIRTH", "door") for each in one.metrics]

    zone = "counts/zones/yard/person"
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url) as given:
        given.node.keep(seen("person", "person", "cup"))
        until(lambda: people() == [2], "two people")
        given.node.keep(seen("cup"))
        until(lambda: people() == [2, 0], "nobody any more")
        given.stream("door", "ok", zones={"yard": {"person": 3}})
        until(lambda: (zone, 3) in declared(), "the zone's count")
        given.stream("door", "ok", zones={"yard": {}})
        until(lambda: (0, False) in host.values(zone, "door"), "the zone is empty")


def test_a_flood_of_labels_is_bounded() -> None:
    table = Table({}, "door")
    assert table.learn(flat({str(number): number for number in range(5 * MOST)}, "x"), 1)
    assert len(table.names) == MOST
    assert not table.learn({"x/none": 1}, 2) and not table.data({"x/none": 1}, 2)
    assert max(map(len, flat({"y" * 10_000: 1}, "x"))) == LONGEST


def test_a_number_that_is_whole_by_chance_stays_a_fraction() -> None:
    table = Table({}, "door")
    table.learn({"x": 0.5}, 1)
    assert not table.learn({"x": 1}, 2)
    assert isinstance(table.data({"x": 1}, 2)[0].value, float)
    assert table.learn({"x": "text"}, 3), "another type is declared"


# ── what strangers send, and limits ──────────────────────────────────────────────────────────────────────────


def test_commands_that_are_none_change_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    hostile = [b"", b"\xff" * 100, b"\x12\xff\xff\xff\xff\x0f", os.urandom(2000), b"\x12\x02\x0a\x01", b"{}" * 50_000]
    hostile += [request([REBIRTH], value=False), request(["Node Control/Reboot", "x" * 10_000]), bytes(2_000_000)]
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url) as given:
        until(lambda: host.of("NBIRTH"), "it is born")
        for body in hostile:
            host.say(COMMANDS, body)
        host.say(COMMANDS, request([REBIRTH]), retain=True)  # to the one that listens it comes as not retained
        until(lambda: len(host.of("NBIRTH")) == 2, "the last one counts")
        given.event("goes on")
        until(lambda: ("goes on", False) in host.values("text/text", "door"), "it goes on")
        assert len(host.of("NBIRTH")) == 2
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url):
        until(lambda: host.of("NBIRTH"), "it is born, and the command that the broker keeps is not obeyed")
        time.sleep(0.5)
        assert len(host.of("NBIRTH")) == 1


def test_a_storm_of_commands_is_answered_once_a_second(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url):
        until(lambda: host.of("NBIRTH"), "it is born")
        began = time.monotonic()
        for _ in range(200):
            host.say(COMMANDS, request([REBIRTH]))
        until(lambda: len(host.of("NBIRTH")) >= 2, "it is born again")
        assert len(host.of("NBIRTH")) <= 3 + (time.monotonic() - began) / node_module.REBIRTH_S


def test_asked_reads_what_another_encoder_writes() -> None:
    assert asked(request([REBIRTH, "other"])) == {REBIRTH, "other"}
    assert asked(request([REBIRTH], value=False)) == set()
    with pytest.raises(ValueError):
        asked(b"\x12\x7f")


def test_payloads_hold_the_edges_of_each_type() -> None:
    values: list[bool | int | float | str | None] = [
        True, False, 0, -1, (1 << 63) - 1, -(1 << 63), 0.0, -1.5, 1e308, "", "Grüße \U0001f600", "\ud800", None
    ]  # fmt: skip
    made = [Ours(value, 7, f"n{at}", at, BOOLEAN if value is True else INT64) for at, value in enumerate(values)]
    read = message("spBv1.0/g/NDATA/n", encode(5, made, 255))
    assert (read.timestamp, read.seq) == (5, 255)
    assert [one.value for one in read.metrics] == [*values[:11], "?", None]
    assert [one.null for one in read.metrics] == [False] * 12 + [True]


def test_the_words_of_hosts() -> None:
    host = Primary("scada")
    three, two = host.filters
    assert not host.online
    host.hear(two, b"ONLINE")
    assert host.online, "a host of Sparkplug 2.2"
    host.hear(two, b"OFFLINE")
    assert not host.online
    for nonsense in (
        b"",
        b"null",
        b"[]",
        b'{"online": 1, "timestamp": 1}',
        b'{"online": true}',
        b"\xff" * 9,
        b"[" * 5000,
    ):
        host.hear(three, nonsense)
        assert not host.online
    host.hear(three, b'{"online": true, "timestamp": 5}')
    host.hear(three, b'{"online": false, "timestamp": 4}')
    assert host.online, "an older word"
    host.hear(two, b"OFFLINE")
    assert host.online, "who speaks 3.0 is not heard in the old way"
    host.forget()
    assert not host.online
    host.hear(three, b'{"online": true, "timestamp": 4}')
    assert not host.online
    host.hear(three, b'{"online": true, "timestamp": 5}')
    assert host.online


def test_a_day_s_bytes_hold_for_it_too(mosquitto: Mosquitto, tmp_path: Path) -> None:
    budget = Budget(20_000)
    with Host(mosquitto.port) as host, Given(tmp_path, mosquitto.url, budget=budget) as given:
        until(lambda: host.of("NBIRTH"), "it is born")
        for number in range(200):
            given.event(f"{number:>200}")
        until(lambda: budget.saving, "four fifths are used")
        time.sleep(0.5)
        assert not given.node.outbox.empty
        assert sum(len(one.raw) + len(one.topic) for one in host.heard) < 20_000


def test_a_store_that_is_full_tells_what_it_dropped(mosquitto: Mosquitto, tmp_path: Path) -> None:
    given = Given(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
    given.node.outbox._journal.max_bytes = 300_000
    for number in range(3000):
        given.event(f"{number:>200}")
    until(lambda: given.node.outbox.counts.dropped, "it is full")
    given.node.close()
    again = Given(tmp_path, mosquitto.url)
    with Host(mosquitto.port) as host, again:
        until(lambda: again.node.outbox.empty, "all is said")
        until(lambda: host.values("gap/why"), "what is missing is said")
        assert ("2999".rjust(200), True) in host.values("text/text", "door"), "the newest are there"


def test_the_thread_that_keeps_is_not_held_up_by_a_broker_that_is_away(tmp_path: Path) -> None:
    with Given(tmp_path, f"mqtt://127.0.0.1:{free_port()}") as given:
        kept = threading.Event()

        def keep() -> None:
            for number in range(100):
                given.event(str(number))
            kept.set()

        threading.Thread(target=keep, daemon=True).start()
        assert kept.wait(120)
        assert given.node.why != "", "and says why nothing is sent"
