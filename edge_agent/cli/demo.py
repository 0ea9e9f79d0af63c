"""The main job on one machine: a clip and some lines in, a real broker, and what comes back from it.

The clip is made of three carried pictures as a camera would see them: one comes in, over a line into an area; then it
goes black, zooms, freezes, pans. A rule says when somebody is there and light is asked for. What else is carried
(PARTS) takes part where the extra and the models that it needs are here.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import paths
from edge_agent.agent.agent import Agent
from edge_agent.cli.demo_source import HEAD, clip_in, text_of
from edge_agent.cli.page import page_of
from edge_agent.config import Config, Mqtt, load
from edge_agent.consumer.listen import listen
from edge_agent.device.health import rss_bytes
from edge_agent.errors import EdgeAgentError, FetchError, UsageError
from edge_agent.link import topics
from edge_agent.registry.catalogue import locate
from edge_agent.registry.files import serves
from edge_agent.types import Audio, Frame, Text

DEVICE = "demo"
CONFIG = (
    HEAD
    + """source = "files:{folder}/clip.avi?pace=own&loop=true&frozen=1.5"
tasks = ["detect:detector", "track:?new=0.5"]

[[zone]]
name = "porch"
pipeline = "camera"
points = [[0.0, 0.5], [0.4, 0.5], [0.4, 1.0], [0.0, 1.0]]

[[zone]]
name = "gate"
pipeline = "camera"
line = true
points = [[0.45, 0.0], [0.45, 1.0]]

[[pipeline]]
name = "words"
source = "lines:{folder}/lines.txt?rate=2&follow=false"
tasks = ["classify:encoder?labels={labels}"]

[[rule]]
name = "welcome"
when = [{{ object = "person", in = "porch" }}, {{ label = "light", pipeline = "words" }}]
within = "10s"
"""
)


@dataclass(frozen=True, slots=True)
class Part:
    """A pipeline that runs beside these where all that it needs is here already: the demo fetches nothing."""

    name: str
    source: str
    tasks: str
    module: str
    """that it cannot do without; empty: none"""
    extra: str
    """what brings that"""
    models: tuple[str, ...]

    def lacks(self) -> str:
        """What to type for it; empty where nothing is missing."""
        extra = f'pip install "edge-agent-runtime[{self.extra}]"' if self.module and not find_spec(self.module) else ""
        absent = [name for name in self.models if not serves(locate(name))]
        return " && ".join(filter(None, [extra, f"edge-agent models pull {' '.join(absent)}" if absent else ""]))

    def config(self, **places: object) -> str:
        """Its table."""
        table = f'\n[[pipeline]]\nname = "{self.name}"\nsource = "{self.source}"\ntasks = {self.tasks}\n'
        return table.format(**places)


SPEECH = Part(
    name="speech",
    source="files:{demo}/speech/*.wav",
    tasks='["transcribe:whisper-tiny", "classify:encoder?labels={labels}"]',
    module="ctranslate2",
    extra="speech",
    models=("whisper-tiny", "silero-vad"),
)
READ = Part(
    name="sign",
    source="files:{demo}/read",
    tasks='["read:ocr"]',
    module="",
    extra="",
    models=("ocr",),
)
PARTS = (SPEECH, READ)
CATCH_UP_S = 10.0
"""seconds that the last events have to come back"""


@dataclass(slots=True)
class Summary:
    """What the demo did; `lost` is what was sent to the outbox and never came back from the broker."""

    seconds: float = 0.0
    frames: int = 0
    texts: int = 0
    heard: int = 0
    """sentences"""
    sent: int = 0
    received: int = 0
    lost: int = 0
    duplicates: int = 0
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    """pipeline.stage -> median and 95th percentile, ms"""
    peak_rss: int = 0
    models: list[str] = field(default_factory=list)


Heard = Callable[[str, dict[str, Any]], None]
"""Told of each message that came back: what follows the device in its topic, and its JSON."""


def run(
    seconds: float | None,
    heard: Heard,
    note: Callable[[str], None],
    stop: threading.Event,
    microphone: bool = False,
    source: str | None = None,
) -> Summary:
    """Run for `seconds`, or until `stop`. `note` hears one line about each step. `microphone`: what is said into the
    default one is heard, instead of the carried sentences. `source`: a camera or film, instead of the clip.

    Raises UsageError when the demo's extra is not installed, EdgeAgentError when the broker does not start.
    """
    with tempfile.TemporaryDirectory(prefix="edge-agent-demo-") as name, _broker() as port:
        folder = Path(name)
        note(f"broker: iotcore on 127.0.0.1:{port}")
        note("making a clip of three pictures; then each model is tried, which takes longer the first time")
        clip_in(folder)
        shutil.copy(paths.carried("deploy", "demo", "lines.txt"), folder / "lines.txt")
        labels = paths.carried("deploy", "demo", "intents.toml")
        text = text_of(CONFIG, source, note, device=DEVICE, port=port, folder=folder, labels=labels)
        text += _beside(note, microphone, demo=paths.carried("deploy", "demo"), labels=labels)
        (folder / "demo.toml").write_text(text)
        config = load(folder / "demo.toml")
        back = _Consumer(config.mqtt, heard)
        back.start()
        page = page_of(config, folder / "store", folder / "demo.toml", say=note)
        if seconds is not None:
            threading.Timer(seconds, stop.set).start()
        began, again = time.monotonic(), config
        while True:
            agent = _agent(again, note, lambda: load(folder / "demo.toml"))
            if page is not None:
                page.show(agent)
            agent.run(stop)
            if agent.again is None or stop.is_set():
                break
            again = agent.again
        if page is not None:
            page.stop()
        spent = time.monotonic() - began
        back.wait_for(agent.outbox.last, CATCH_UP_S)
        back.stop.set()
        return _sum_up(agent, back, spent)


def _agent(config: Config, note: Callable[[str], None], reread: Callable[..., Config]) -> Agent:
    """The agent, and what serves in it, said."""
    try:
        agent = Agent(config, race=True, reread=reread)
    except FetchError as error:  # no text encoder of our own beside the program: get the published one
        note(f"{error}; fetching it")
        agent = Agent(config, pull=True, race=True, reread=reread)
    for line in agent.lines:
        for why in line.models:
            note(f"{line.config.name}: {why}")
    return agent


def _beside(note: Callable[[str], None], microphone: bool, **places: object) -> str:
    """The tables of PARTS that can run; what to type for the others is said. UsageError where it has to be heard."""
    tables = ""
    for part in PARTS:
        lacks = part.lacks()
        if lacks and microphone and part is SPEECH:
            raise UsageError(f"--microphone: nothing here hears yet; {lacks}")
        if lacks:
            note(f"without {part.name}: {lacks}")
            continue
        source = "microphone:" if microphone and part is SPEECH else part.source
        tables += replace(part, source=source).config(**places)
    return tables


def _sum_up(agent: Agent, back: _Consumer, spent: float) -> Summary:
    total = Summary(seconds=spent, peak_rss=rss_bytes(peak=True))
    for line in agent.lines:
        total.frames += line.taken if line.opened.yields is Frame else 0
        total.texts += line.taken if line.opened.yields is Text else 0
        total.heard += line.stats.findings if line.opened.yields is Audio else 0
    total.sent, total.received, total.duplicates = agent.outbox.last, len(back.seqs), back.duplicates
    total.lost = len(set(range(1, agent.outbox.last + 1)) - back.seqs)
    for line in agent.lines:
        total.models += line.models
        for stage, times in line.stats.stages.items():
            ordered = sorted(times)
            p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
            total.stages[f"{line.config.name}.{stage}"] = (statistics.median(ordered), p95)
    return total


class _Consumer(threading.Thread):
    """Hears what comes back from the broker and counts it."""

    def __init__(self, mqtt: Mqtt, heard: Heard) -> None:
        super().__init__(name="consumer", daemon=True)
        self.mqtt, self.heard = mqtt, heard
        self.seqs: set[int] = set()
        self.duplicates = 0
        self.stop = threading.Event()
        self._state = threading.Condition()
        self._ready = threading.Event()

    def start(self) -> None:
        """Return once it is subscribed, so that it misses nothing."""
        super().start()
        if not self._ready.wait(20):
            raise EdgeAgentError("demo: the broker on 127.0.0.1 does not answer; is a firewall in the way?")

    def run(self) -> None:
        base = f"{self.mqtt.prefix}/{DEVICE}/"
        for message in listen(self.mqtt, [topics.everything(self.mqtt.prefix, DEVICE)], self.stop):
            if isinstance(message, str):
                self._ready.set()
                continue
            topic, payload, _ = message
            tail = topic.removeprefix(base)
            body: dict[str, Any] = (
                msgspec.json.decode(payload) if tail != topics.STATUS else {"status": payload.decode()}
            )
            if topics.holds_events(tail):
                with self._state:
                    self.duplicates += body["seq"] in self.seqs
                    self.seqs.add(body["seq"])
                    self._state.notify_all()
            self.heard(tail, body)

    def wait_for(self, last: int, seconds: float) -> None:
        """Wait until every number up to `last` came back, or the time is over."""
        with self._state:
            self._state.wait_for(lambda: len(self.seqs) >= last, seconds)


@contextmanager
def _broker() -> Iterator[int]:
    """An embedded broker on a free port of 127.0.0.1; yields the port."""
    try:
        from iotcore import Broker
    except ImportError:
        raise UsageError('the demo brings its own broker: pip install "edge-agent-runtime[demo]"') from None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with Broker(listen="127.0.0.1", port=port, max_payload_size=256 * 1024):
        yield port
