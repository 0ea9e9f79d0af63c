"""The config: TOML in, frozen structs out. The unit of each field stands in its docstring.

Secrets never stand in the file: it names a file that holds one, or a systemd credential
(``password_file = "credential:mqtt"`` reads ``$CREDENTIALS_DIRECTORY/mqtt``).
"""

from __future__ import annotations

import glob
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec

from edge_agent.errors import ConfigError
from edge_agent.types import AnyEvent, GapEvent, Uri

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# \Z and not $, which lets a newline stand behind
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}\Z"
"""What may stand in a topic, a path and an id alike: no slash, no wildcard, no space."""

PREFIX = r"^[^/+#\s\0]+(/[^/+#\s\0]+){0,2}\Z"
REPORT = r"^(changes|every|summary:\d+(\.\d+)?s)\Z"

RESERVED = ("agent", "status", "health", "cmd", "reply", "ack")
"""Pipeline names that would collide with topics of the device itself."""

Name = Annotated[str, msgspec.Meta(pattern=NAME)]
CLASSES = ("alert", "telemetry")
KINDS = tuple(str(event.__struct_config__.tag) for event in get_args(AnyEvent) if event is not GapEvent)
"""of events; gaps are alerts always"""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[device]``."""

    id: Name = "edge"
    """name in topics and event ids; the host's name when the config has none"""
    threads: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """cores that the models may use together; 0: those that the process may run on"""


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[mqtt]``. Without a url nothing is sent, and events wait in the store."""

    url: str | None = None
    """mqtt://host[:1883], mqtts://host[:8883]"""
    prefix: Annotated[str, msgspec.Meta(pattern=PREFIX)] = "edge/v1"
    """1 to 3 topic levels before the device's id"""
    username: str | None = None
    password_file: str | None = None
    """path, or credential:NAME"""
    ca: str | None = None
    """PEM of the authority that signed the broker's certificate; the system's own otherwise"""
    cert: str | None = None
    """PEM of the device's certificate (mTLS)"""
    key: str | None = None
    """PEM of its private key"""
    ack: bool = False
    """true: an alert stays in the store until a consumer acknowledges it on PREFIX/DEVICE/ack"""
    keepalive: Annotated[int, msgspec.Meta(ge=2, le=3600)] = 15
    """seconds; a silent network is noticed after about one and a half of these"""


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[store]``: where events wait."""

    path: str | None = None
    """folder; $STATE_DIRECTORY/outbox under systemd, else ~/.local/state/edge-agent/DEVICE"""
    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000)] = 256_000_000
    """bytes on disk; when full the oldest telemetry goes first, then the oldest alerts, declared by a gap event"""
    max_events: Annotated[int, msgspec.Meta(ge=1000)] | None = None
    """events that may wait on disk, beside max_bytes; what goes then, goes as for max_bytes; no bound, when absent"""
    expire_hours: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """events that waited longer are dropped, declared by a gap event; never, when absent"""
    bytes_per_day: Annotated[int, msgspec.Meta(ge=10_000)] | None = None
    """bytes that may be sent a day (UTC); the last fifth of them is kept for alerts, repeats of telemetry are folded
    while telemetry waits; no bound, when absent"""


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[pipeline]]``: one source and what is done with what it yields."""

    name: Name
    source: str
    """scheme:rest?option=value, see the README's table"""
    tasks: list[str] = []
    """in order, e.g. "detect:detector"; none: the sample itself goes out"""
    report: Annotated[str, msgspec.Meta(pattern=REPORT)] | None = None
    """changes: when the labels in view differ from those last reported; every: each result; summary:10s: the fullest
    of each 10 s; when absent, changes for live sources and every for others"""
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """samples that are answered at once, each on its share of the cores; 1: one after the other, on all of them, each
    as fresh as can be: fewer answers, but sooner ones; 0: as was measured, where they come faster than one at a time
    can be answered"""
    cls: str | dict[str, str] = msgspec.field(default="alert", name="class")
    """alert: on disk before it counts; telemetry: on disk within a second. By kind of event: {text = "telemetry"},
    and what is not named is an alert"""

    def class_of(self, kind: str) -> str:
        """The class of an event of this kind."""
        return self.cls if isinstance(self.cls, str) else self.cls.get(kind, "alert")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    device: Device = Device()
    mqtt: Mqtt = Mqtt()
    store: Store = Store()
    pipeline: list[Pipeline] = []


def load(path: str | Path) -> Config:
    """Read and check a config file.

    Relative paths in it are relative to the file. Raises ConfigError: one line with the file, the key and the mend.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from None
    try:
        return parse(raw.decode(), base=path.resolve().parent)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(text: str, base: Path | None = None) -> Config:
    """Check a config's text; `base` is the folder that its relative paths start from."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None
    try:
        config = msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), FIELDS)) from None
    return _checked(config, base or Path.cwd(), table)


def _checked(config: Config, base: Path, table: dict[str, Any]) -> Config:
    """What the types alone cannot say: names that differ, URIs that parse, paths made absolute."""
    if "id" not in table.get("device", {}):
        import socket

        host = re.sub(r"[^A-Za-z0-9_.\-]", "-", socket.gethostname())[:64].lstrip("-._") or "edge"
        config = msgspec.structs.replace(config, device=Device(id=host))
    if not config.pipeline:
        raise ConfigError("no [[pipeline]]; add one with name and source")
    seen: set[str] = set()
    for i, pipe in enumerate(config.pipeline):
        if pipe.name in seen:
            raise ConfigError(f'pipeline[{i}].name: "{pipe.name}" stands twice; give each pipeline its own name')
        if pipe.name in RESERVED:
            raise ConfigError(f'pipeline[{i}].name: "{pipe.name}" is a topic of the device itself; choose another')
        seen.add(pipe.name)
        for kind, cls in pipe.cls.items() if isinstance(pipe.cls, dict) else [("", pipe.cls)]:
            for given, known in ((kind or KINDS[0], KINDS), (cls, CLASSES)):
                if given not in known:
                    near = _nearest(given, dict.fromkeys(known, ""))
                    raise ConfigError(f'pipeline[{i}].class: "{given}" is none{near}')
        try:
            parse_uri(pipe.source)
            for task in pipe.tasks:
                parse_uri(task if ":" in task else f"{task}:")
        except ConfigError as error:
            raise ConfigError(f"pipeline[{i}] ({pipe.name}): {error}") from None
    mqtt = config.mqtt
    if mqtt.url is not None:
        secure = parse_broker(mqtt.url)[2]
        unused = [key for key in ("ca", "cert", "key") if getattr(mqtt, key) is not None and not secure]
        if unused:
            raise ConfigError(f"mqtt.{unused[0]}: mqtt:// is not encrypted, and would not use it; write mqtts://")
    if (mqtt.cert is None) != (mqtt.key is None):
        raise ConfigError("mqtt: cert and key come together; give both or none")
    if mqtt.password_file and not mqtt.username:
        raise ConfigError("mqtt.password_file: needs mqtt.username beside it")
    mqtt = msgspec.structs.replace(
        mqtt,
        **{
            key: _path(f"mqtt.{key}", value, base)
            for key in ("ca", "cert", "key", "password_file")
            if (value := getattr(mqtt, key)) is not None and not value.startswith("credential:")
        },
    )
    store = config.store
    if store.path is not None:
        store = msgspec.structs.replace(store, path=_path("store.path", store.path, base))
    pipes = [
        msgspec.structs.replace(
            pipe, source=_based(pipe.source, base), tasks=[_task_based(task, base) for task in pipe.tasks]
        )
        for pipe in config.pipeline
    ]
    return msgspec.structs.replace(config, mqtt=mqtt, store=store, pipeline=pipes)


def _path(what: str, given: str, base: Path) -> str:
    """A path of the config made absolute. ConfigError where it cannot be one."""
    try:
        if "\0" in given:
            raise ValueError("a path holds no NUL")
        return str(base / Path(given).expanduser())
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f'{what}: "{given}": {error}') from None


def _text(what: str, uri: Uri) -> str:
    """A URI as text. ConfigError where its path would be read as options."""
    if parse_uri(str(uri)) != uri:
        raise ConfigError(f'{what}: "{uri}": the folder\'s name reads as options; rename it')
    return str(uri)


def _based(source: str, base: Path) -> str:
    """A source of files with its path made absolute."""
    uri = parse_uri(source)
    if uri.scheme not in ("files", "lines") or uri.rest in ("-", ""):
        return source
    if uri.scheme == "files" and glob.has_magic(uri.rest):
        base = Path(glob.escape(str(base)))
    return _text("source", Uri(uri.scheme, _path("source", uri.rest, base), uri.options))


def _task_based(task: str, base: Path) -> str:
    """A task with its labels file, and its model where that is a path and no name, made absolute."""
    uri = parse_uri(task if ":" in task else f"{task}:")
    made = uri
    if "labels" in uri.options:
        made = Uri(uri.scheme, uri.rest, {**uri.options, "labels": _path("labels", uri.options["labels"], base)})
    is_file = uri.rest.endswith((".onnx", ".tflite")) and (base / uri.rest).is_file()
    if ":" not in uri.scheme and ("/" in uri.rest or is_file):
        return _text("tasks", Uri(uri.scheme, _path("tasks", uri.rest, base), made.options))
    return task if made == uri else str(made)


def parse_uri(text: str) -> Uri:
    """Split ``scheme:rest?key=value``.

    /dev/videoN reads as camera:/dev/videoN. In rtsp and http addresses the query belongs to the camera, so our
    options stand after a ``#``: ``rtsp://host/stream?channel=1#fps=5``.
    """
    if text.startswith("/dev/video"):
        text = f"camera:{text}"
    scheme, colon, rest = text.partition(":")
    # "theirpkg.module:attr:rest" names somebody else's source or task
    if "." in scheme and colon:
        attr, _, rest = rest.partition(":")
        scheme = f"{scheme}:{attr}"
    if not colon or not re.fullmatch(r"[A-Za-z][\w+.\-]*(:\w+)?", scheme):
        raise ConfigError(f'"{text}" has no scheme; write e.g. "camera:0", "files:photos" or "lines:-"')
    mark = "#" if scheme in ("rtsp", "rtsps", "http", "https") else "?"
    head, found, tail = rest.rpartition(mark)
    if not found or not re.fullmatch(r"[\w\-]+=[^&]*(&[\w\-]+=[^&]*)*", tail):
        return Uri(scheme, rest)
    return Uri(scheme, head, dict(pair.split("=", 1) for pair in tail.split("&")))


def option(uri: Uri, known: dict[str, str], key: str) -> str:
    """One option of a URI, or its default from `known`; ConfigError names the nearest for an unknown one."""
    for given in uri.options:
        if given not in known:
            raise ConfigError(f'"{uri}": unknown option "{given}"{_nearest(given, known)}')
    return uri.options.get(key, known[key])


def parse_broker(url: str) -> tuple[str, int, bool]:
    """``mqtt[s]://host[:port]`` -> host, port, whether TLS."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f'mqtt.url: "{url}": {error}') from None
    if parts.username or parts.password:
        raise ConfigError("mqtt.url: no user or password in the address; use mqtt.username and mqtt.password_file")
    odd = parts.path not in ("", "/") or parts.query or parts.fragment or port == 0 or re.search(r"\s", parts.netloc)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or odd:
        raise ConfigError(f'mqtt.url: "{url}" is not mqtt://host[:port] or mqtts://host[:port]')
    secure = parts.scheme == "mqtts"
    return parts.hostname, port or (8883 if secure else 1883), secure


def secret(where: str) -> str:
    """Read a secret from a file or from ``credential:NAME``. ConfigError when it cannot be had."""
    if where.startswith("credential:"):
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise ConfigError(f"{where}: no systemd credentials here; start as a service or give a file")
        path = Path(folder) / where.removeprefix("credential:")
    else:
        path = Path(where)
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: secret cannot be read ({error}); check the path and its owner") from None


FIELDS: dict[str, type[msgspec.Struct]] = {
    "$": Config,
    "$.device": Device,
    "$.mqtt": Mqtt,
    "$.store": Store,
    "$.pipeline": Pipeline,
}


_PATTERNS = {
    NAME: "1 to 64 letters, digits or _ . - (it stands in topics)",
    PREFIX: "1 to 3 topic levels without + # or spaces",
    REPORT: '"changes", "every" or "summary:10s"',
}


def explain(message: str, fields: dict[str, type[msgspec.Struct]]) -> str:
    """msgspec's ``... - at `$.pipeline[0].name` `` as ``pipeline[0].name: ...``, with the nearest known key."""
    what, _, where = message.partition(" - at `")
    where = where.rstrip("`") or "$"
    unknown = re.match(r"Object contains unknown field `(.*)`", what)
    place = where.removeprefix("$").lstrip(".")
    if unknown:
        struct = fields.get(re.sub(r"\[.*?\]", "", where), fields["$"])
        known = {f.encode_name: "" for f in msgspec.structs.fields(struct)}
        at = f"{place}." if place else ""
        return f'unknown key "{at}{unknown[1]}"{_nearest(unknown[1], known)}'
    missing = re.match(r"Object missing required field `(.*)`", what)
    if missing:
        return f'{place}: "{missing[1]}" is missing'
    for pattern, meaning in _PATTERNS.items():
        if repr(pattern) in what:
            return f"{place}: must be {meaning}"
    what = what.replace("Expected `", "expected ").replace("`, got `", ", got ").replace("`", "")
    return f"{place or 'the file'}: {what}"


def _nearest(given: str, known: dict[str, str]) -> str:
    import difflib

    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f'; did you mean "{near[0]}"?' if near else f"; known are {', '.join(sorted(known))}"
