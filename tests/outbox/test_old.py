"""A store and a config as the first builds of 0.1.0 left them: names with dots, marks without a list of segments.

old/store-0.1.0.tar.gz was written by the agent of d844c1b: five lines of a file, read by two pipelines, no broker.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.outbox import marks
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, broker, until

CONFIG = """
[device]
id = "porch.local"
threads = 0

[mqtt]
url = "{url}"
prefix = "edge/v1"
keepalive = 15
ack = false

[store]
path = "store"
max_bytes = 256_000_000
expire_hours = 1_000_000
bytes_per_day = 5_000_000

[[pipeline]]
name = "log.kitchen"
source = "lines:in.txt"

[[pipeline]]
name = "words"
source = "lines:in.txt"
report = "every"
class = "telemetry"
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).parent / "old" / "store-0.1.0.tar.gz") as packed:
        for member in packed.getmembers():
            packed.extract(member, tmp_path, set_attrs=False)
    return tmp_path


def test_nothing_is_lost_and_nothing_declared_lost(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # the second time the files are of the new form
        box = Outbox(old / "store", "porch.local")
        waiting = sorted((record.seq, record.kind, record.pipeline) for record in box.take(50))
        assert [seq for seq, _, _ in waiting] == list(range(1, 11))
        assert {kind: pipeline for _, kind, pipeline in waiting} == {"alert": "log.kitchen", "telemetry": "words"}
        assert (box.last, box.epoch, box.marks) == (10, 1795972297, {"log.kitchen": 110, "words": 110})
        box.close()
    assert not caplog.messages


def test_marks_of_the_old_form_that_were_hit_are_still_found_out(old: Path) -> None:
    file = old / "store" / "marks.json"
    file.write_bytes(file.read_bytes().replace(b'"words":110', b'"words":111'))
    assert marks.load(old / "store").marks == {}


def test_an_agent_sends_what_waited_and_goes_on_where_the_old_one_stopped(old: Path) -> None:
    lines = [f"line {number} of the kitchen\n" for number in range(1, 8)]
    assert len("".join(lines[:5])) == 110
    (old / "in.txt").write_text("".join(lines))
    with broker(old) as server, Consumer(Mqtt(url=server.url)) as consumer:
        file = old / "agent.toml"
        file.write_text(CONFIG.format(url=server.url))
        agent = subprocess.Popen([sys.executable, "-m", "edge_agent", "run", "-c", str(file)])
        until(lambda: len(consumer.events()) >= 14, "ten that waited, and two lines more of each pipeline")
        agent.terminate()
        agent.wait(120)
        events = consumer.events()
        assert sorted(event["seq"] for event in events) == list(range(1, 15)), "each once, none declared lost"
        assert {event["id"].rpartition("/")[0] for event in events} == {"porch.local/1795972297"}
        for pipeline in ("log.kitchen", "words"):
            assert [e["text"] for e in events if e["pipeline"] == pipeline] == [line.strip() for line in lines]
        topics = {topic for topic, _, _ in list(consumer.heard) if topic.endswith("/events")}
        assert topics == {"edge/v1/porch_local/log_kitchen/events", "edge/v1/porch_local/words/events"}
