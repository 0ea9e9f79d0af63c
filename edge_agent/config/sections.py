"""The sections of a config file. The unit of each field stands in its docstring."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

from edge_agent.config.accuracy import Accuracy
from edge_agent.config.archive import Archived
from edge_agent.config.fleet import Policy, Update
from edge_agent.config.homeassistant import HomeAssistant
from edge_agent.config.inference import Inference
from edge_agent.config.mcp import Mcp
from edge_agent.config.notify import Notify
from edge_agent.config.opinion import Opinion
from edge_agent.config.page import Page
from edge_agent.config.rollout import RolloutBy
from edge_agent.config.rules import Profile, Rule
from edge_agent.config.samples import Samples
from edge_agent.config.sparkplug import Sparkplug
from edge_agent.config.zones import Zone
from edge_agent.events import AnyEvent, GapEvent, RuleEvent, kind_of
from edge_agent.toml import PREFIX, REPORT, Name


def level(name: str) -> str:
    """A device's or a pipeline's name as it stands in topics: NATS and RabbitMQ read a dot as the end of a level."""
    return name.replace(".", "_")


RESERVED = ("agent", "status", "health", "cmd", "reply", "ack", "profile", "rules")
"""Pipeline names that would collide with topics of the device itself."""

_LEVELS = "1 to 3 topic levels without + # or spaces"
_REPORTS = '"changes", "every" or "summary:10s"'
Text = Annotated[str, msgspec.Meta(min_length=1)]
CLASSES = ("alert", "telemetry")
EVENT_KINDS = tuple(kind_of(event) for event in get_args(AnyEvent) if event not in (GapEvent, RuleEvent))
"""of events; gaps and what rules say are alerts always"""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[device]``."""

    id: Name = "edge"
    """name in topics and event ids; the host's name when the config has none"""
    threads: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """cores that the models may use together; 0: those that the process may run on"""


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[mqtt]``. Without a url nothing is sent, and events wait in the store."""

    url: (
        Annotated[str, msgspec.Meta(examples=["mqtt://broker.local"])]
        | Annotated[list[str], msgspec.Meta(max_length=32)]
        | None
    ) = None
    """mqtt://host[:1883], mqtts://host[:8883], or over WebSockets ws://host[:80]/path, wss://host[:443]/path; or a list
    of such addresses: nodes of one cluster, of which each device takes any, and another one when that is gone"""
    prefix: Annotated[str, msgspec.Meta(pattern=PREFIX, description=_LEVELS)] = "edge/v1"
    """1 to 3 topic levels before the device's id"""
    username: Text | None = None
    password_file: Text | None = None
    """path, or credential:NAME"""
    ca: Text | None = None
    """PEM of the authority that signed the broker's certificate; the system's own otherwise"""
    cert: Text | None = None
    """PEM of the device's certificate (mTLS)"""
    key: Text | None = None
    """PEM of its private key"""
    ack: bool = False
    """true: an alert stays in the store until a consumer acknowledges it on PREFIX/DEVICE/ack"""
    signers: str | None = None
    """PEM of Ed25519 public keys: acknowledgements and commands count only if one of them signed them"""
    keepalive: Annotated[int, msgspec.Meta(ge=2, le=3600)] = 15
    """seconds; a silent network is noticed after about one and a half of these"""
    longest_pause_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 30.0
    """seconds, longest pause before it connects again: pauses begin with less than half a second and double, each with
    jitter"""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[store]``: where events wait."""

    path: Text | None = None
    """folder; $STATE_DIRECTORY/outbox under systemd, else ~/.local/state/edge-agent/DEVICE"""
    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000, le=10**15)] = 256_000_000
    """bytes on disk; when full the oldest telemetry goes first, then the oldest alerts, declared by a gap event"""
    max_events: Annotated[int, msgspec.Meta(ge=1000, le=10**12)] | None = None
    """events that may wait on disk, beside max_bytes; what goes then, goes as for max_bytes; no bound, when absent"""
    expire_hours: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """events that waited longer are dropped, declared by a gap event; never, when absent"""
    bytes_per_day: Annotated[int, msgspec.Meta(ge=10_000, le=10**15)] | None = None
    """bytes that may be sent a day (UTC); the last fifth of them is kept for alerts, repeats of telemetry are folded
    while telemetry waits; no bound, when absent"""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: the agent steps down before it passes one (docs/governor.md)."""

    memory_mb: Annotated[int, msgspec.Meta(ge=64, le=1_000_000)] | None = None
    """megabytes (of 1024 kB) of the whole service; `edge-agent install` gives it to the service manager: more ends it,
    and it is started anew"""
    cpu_percent: Annotated[int, msgspec.Meta(ge=5, le=25_600)] | None = None
    """of one core: 150 is one and a half; given to the service manager, too"""
    celsius: Annotated[float, msgspec.Meta(ge=20, le=120)] | None = None
    """degrees Celsius of the board's warmest sensor"""
    watts: Annotated[float, msgspec.Meta(gt=0, le=10_000)] | None = None
    """that the board draws, where it has a sensor that says so"""


class Privacy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[privacy]``: what is taken out of captured text before anything is done with it, and of pictures before they
    are kept, shown or sent.
    """

    redact: list[Literal["email", "phone", "card", "iban", "plate"]] = []
    """each becomes its name in brackets, as in "call [phone]"; see docs/privacy.md"""
    patterns: dict[str, str] = {}
    """name -> regular expression, in Python's words; what it finds becomes its name in brackets"""
    blur: list[Text] = []
    """labels of things that become coarse blocks in each picture that is kept, shown or sent; see docs/snapshots.md"""


class Understand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[understand]``: texts are taken on ``cmd/understand``; without it they are not."""

    models: list[Name] = []
    """that may be asked, besides those that pipelines run on"""
    documents: Text | None = None
    """file or folder of texts in which `answer` looks"""
    labels: Text | None = None
    """TOML of example sentences that `classify` tells apart"""
    captured: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """texts that were heard, read or received last and are remembered, in memory alone, for `answer` to look in"""


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[pipeline]]``: one source and what is done with what it yields."""

    name: Name
    source: Annotated[str, msgspec.Meta(min_length=1, examples=["camera:0"])]
    """scheme:rest?option=value, see the README's table"""
    tasks: Annotated[list[str], msgspec.Meta(examples=[["detect:detector"]])] = []
    """in order, e.g. "detect:detector"; none: the sample itself goes out"""
    report: Annotated[str, msgspec.Meta(pattern=REPORT, description=_REPORTS)] | None = None
    """changes: when the labels in view differ from those last reported; every: each result; summary:10s: the fullest
    of each 10 s; when absent, changes for live sources and every for others"""
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """samples that are answered at once, each on its share of the cores; 1: one after the other, on all of them, each
    as fresh as can be: fewer answers, but sooner ones; 0: as was measured, where they come faster than one at a time
    can be answered"""
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    """who goes first where there is not processor enough: 9 before 0, but only within its share"""
    share: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0
    """weight of its processor time against the others', where there is not enough of it"""
    deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=3_600_000)] | None = None
    """milliseconds after its capture at which an answer is late: a sample of a live source whose turn comes later is
    given up, any other is answered late; both are counted"""
    isolate: bool = False
    """a camera of the network (http, https, rtsp, rtsps) is read and decoded in a process of its own, locked in"""
    tamper: Annotated[float, msgspec.Meta(gt=0, le=720)] | None = None
    """hours in which it learns how its camera's picture usually is, by day and night; from then on its stream is moved,
    covered or blurred where it is none of that; see docs/anomaly.md"""
    text: bool = True
    """false: what was captured in words stays on the device; events hold labels, places and scores only"""
    blur: list[Text] | None = None
    """as `privacy.blur`, of this pipeline alone; when absent, that holds"""
    cls: str | dict[str, str] = msgspec.field(default="alert", name="class")
    """alert: on disk before it counts; telemetry: on disk within a second. By kind of event: {text = "telemetry"},
    and what is not named is an alert"""

    def class_of(self, kind: str) -> str:
        """The class of an event of this kind."""
        return self.cls if isinstance(self.cls, str) else self.cls.get(kind, "alert")


def tracks(pipe: Pipeline) -> bool:
    """Whether it follows objects: whether that is the last that it does."""
    return bool(pipe.tasks) and pipe.tasks[-1].partition(":")[0] == "track"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    device: Device = Device()
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    limits: Limits = Limits()
    privacy: Privacy = Privacy()
    understand: Understand | None = None
    archive: Archived | None = None
    accuracy: Accuracy | None = None
    mcp: Mcp | None = None
    page: Page | None = None
    inference: Inference | None = None
    rollout: RolloutBy | None = None
    sparkplug: Sparkplug | None = None
    homeassistant: HomeAssistant | None = None
    pipeline: list[Pipeline] = []
    samples: Samples = Samples()
    update: Update | None = None
    policy: Policy = Policy()
    zone: list[Zone] = []
    notify: list[Notify] = []
    opinion: Opinion | None = None
    rule: list[Rule] = []
    profile: list[Profile] = []


def photographed(config: Config) -> list[str]:
    """Names of the pipelines of which there may be snapshots: those that find things in pictures."""
    tasks = {pipe.name: {task.partition(":")[0] for task in pipe.tasks} for pipe in config.pipeline}
    return [name for name in tasks if config.samples.snapshots and tasks[name] & {"detect", "anomaly"}]
