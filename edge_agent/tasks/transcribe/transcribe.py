"""``transcribe:MODEL?deadline=30``: a segment of sound -> its text; nothing where nothing is said.

An engine is one row of ENGINES: another one that is installed is a file beside this with a function of the same
signature, and its row. The options of the task are followed by those of its engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, InputError, LateError, ManifestError
from edge_agent.manifest import Served
from edge_agent.tasks import found_at
from edge_agent.tasks.transcribe.said import Engine
from edge_agent.types import Audio, Heard, Task, Text
from edge_agent.uri import Uri, number

log = logging.getLogger("edge_agent")

RATE = 16_000
OPTIONS = {"deadline": "off"}
"""seconds behind its end after which a segment is not begun any more"""
MOST_S = 86_400.0
SILENCE = 3e-4
"""amplitude below which nothing is said: a few of the lowest steps of 16 bits"""


class EngineRow(msgspec.Struct, frozen=True):
    """How an engine is loaded."""

    make: str
    """"module:attr" of (uri, model) -> Engine; its module names its OPTIONS. It raises ConfigError or ModelError"""
    needs: str = ""
    """the module that it cannot do without"""
    extra: str = ""
    """what brings that"""


ENGINES: dict[str, EngineRow] = {
    "whisper": EngineRow("edge_agent.tasks.transcribe.whisper:whisper", "ctranslate2", "speech"),
    "pocketsphinx": EngineRow("edge_agent.tasks.transcribe.sphinx:sphinx", "pocketsphinx", "sphinx"),
}
"""family of a model, or name of an engine that brings its own -> how it is loaded"""


@dataclass(slots=True)
class Transcriber:
    """The task. One thread at a time."""

    name: str
    engine: Engine
    called: str
    """the model that hears, and its version"""
    deadline: float
    """seconds; 0: none"""
    takes: tuple[type, ...] = (Audio,)
    gives: type = Text
    behind: bool = False
    """the last one was too late"""

    def __call__(self, item: Audio) -> Iterator[Text]:
        """One Text of a segment, or none. LateError for one that is too old, InputError for one too long or of another
        rate."""
        if item.rate != RATE:
            raise InputError(f"{self.name}: sound of {item.rate} samples a second; it takes {RATE}")
        seconds = len(item.samples) / RATE
        self._refuse_late(time.monotonic() - item.mono - seconds)
        quiet = not len(item.samples) or np.abs(item.samples).max() < SILENCE
        said = None if quiet else self.engine(item.samples)
        if said is not None:
            where = item.name or msgspec.UNSET
            heard = Heard(self.called, round(said.score, 4), round(seconds, 3), said.language, said.words, where)
            yield Text(said.text, item.at, item.mono, got=heard)

    def _refuse_late(self, waited: float) -> None:
        """LateError for what waited too long, which the log says of the first of several."""
        late = bool(self.deadline) and waited > self.deadline
        told, self.behind = self.behind, late
        if late:
            why = f"{self.name}: speech waited longer than its deadline of {self.deadline:g} s: given up"
            if not told:
                log.warning("%s; so is what follows, until it catches up", why)
            raise LateError(why)


def transcribe(uri: Uri, model: Served | None, home: Path) -> Task:
    """Make the task. ConfigError for its options, ModelError for a model that cannot transcribe."""
    name, family = (uri.rest, uri.rest) if model is None else (model.ref.name, model.manifest.family)
    if model is not None and model.manifest.task != "transcribe":
        raise ConfigError(f'"{uri}": {name} transcribes nothing (its task is {model.manifest.task})')
    if family not in ENGINES:
        raise ManifestError(f'{name}: unknown family "{family}"; known are {", ".join(ENGINES)}')
    row = ENGINES[family]
    try:
        make = found_at(row.make)
    except ImportError as error:
        raise ConfigError(
            f'"{uri}": {row.needs} is missing ({error}); pip install "edge-agent-runtime[{row.extra}]"'
        ) from None
    own: Mapping[str, str] = found_at(f"{row.make.partition(':')[0]}:OPTIONS")
    deadline = number(uri, {**OPTIONS, **own}, "deadline", 0.1, MOST_S)
    rest = Uri(uri.scheme, uri.rest, {key: value for key, value in uri.options.items() if key not in OPTIONS})
    called = f"{name} {model.ref.version}" if model is not None else name
    return Transcriber(name, make(rest, model), called, deadline)
