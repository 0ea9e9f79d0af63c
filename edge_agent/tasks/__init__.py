"""A sample becomes findings: detect, recognise, understand, anomaly, transcribe.

One row a task, which names all there is of it; what stands behind a row is imported when it is first needed. Somebody
else's task is written as ``theirpkg.module:attr:MODEL`` and made by a function of the same signature.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import ConfigError, EdgeAgentError, nearest
from edge_agent.manifest import Served
from edge_agent.objects import Tracked
from edge_agent.types import Anomaly, Audio, Detections, Embedding, Frame, Scores, Spans, Task, Text
from edge_agent.uri import Uri

log = logging.getLogger("edge_agent")


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of one task elsewhere. Functions are written as "module:attr"; see `found_at`."""

    make: str
    """(uri, model, home) -> Task"""
    takes: type | None = None
    """what goes in, where that does not hang on its model: a kind of sample, or of what another task finds"""
    gives: type
    """what comes out: what it finds, or a kind of sample for the task behind it"""
    purpose: str = ""
    """what a manifest says of the models that it needs nothing but; empty: it runs on no model"""
    default: str = ""
    """the model that serves where none is named; empty: one has to be named"""
    own: tuple[str, ...] = ()
    """engines that bring their own model, which are named in its place"""
    prove: str = ""
    """(model, recorder) -> notes on what it says of carried samples; RefusedError where that makes no sense"""
    compare: str = ""
    """(variant, parent) -> how far the variant agrees, 1 the most; on how many samples; what that is"""
    measure: str = ""
    """(parent, samples) -> function of a candidate: how well it does what the parent does, 1 the most (the workshop)"""
    measured: str = ""
    """what `measure` gives, for people"""
    show: str = ""
    """finding -> its JSON fields and its words, as the verbs print them"""
    wants: Mapping[str, str] = {}
    """options of the task before it, where they are not given"""
    behind: str = ""
    """the task that has to stand before it, and is put there where the config names none"""
    alone: bool = True
    """each sample is answered by itself, so that several may be under way"""
    alike: bool = False
    """what is found in texts may be the same of many, so that a report may leave repeats out"""
    meant: tuple[str, ...] = ()
    """what people call it"""


_TEXT = "edge_agent.tasks.text"
TASKS = {
    "detect": TaskRow(
        make="edge_agent.tasks.detect.detect:detect",
        takes=Frame,
        gives=Detections,
        purpose="detect",
        default="detector",
        prove="edge_agent.tasks.detect.proof:prove",
        compare="edge_agent.tasks.detect.compare:compare",
        measure="edge_agent.tasks.detect.compare:measure",
        measured="mAP50 against the parent",
        show="edge_agent.tasks.detect.show:show",
        meant=("yolo", "find", "objects"),
    ),
    "embed": TaskRow(
        make=f"{_TEXT}.understand:embed",
        takes=Text,
        gives=Embedding,
        purpose="encode",
        default="encoder",
        prove=f"{_TEXT}.proof:prove_encoder",
        compare=f"{_TEXT}.compare:compare_encoders",
        measure=f"{_TEXT}.measure:measure_encoder",
        measured="correlation of similarities with the parent's",
        show=f"{_TEXT}.show:show_vector",
        meant=("vector", "encode", "encoder"),
    ),
    "classify": TaskRow(
        make=f"{_TEXT}.understand:classify",
        takes=Text,
        gives=Scores,
        purpose="classify",
        default="encoder",
        prove=f"{_TEXT}.proof:prove_labeller",
        compare=f"{_TEXT}.compare:compare_labellers",
        measure="edge_agent.tasks.proofs:measure_labels",
        measured="share of texts with the parent's label",
        show=f"{_TEXT}.show:show_label",
        meant=("intent", "intents", "understand", "bert"),
    ),
    "tag": TaskRow(
        make=f"{_TEXT}.texthead:tag",
        takes=Text,
        gives=Spans,
        purpose="tag",
        prove=f"{_TEXT}.proof:prove_tagger",
        compare=f"{_TEXT}.compare:compare_taggers",
        measure=f"{_TEXT}.measure:measure_tagger",
        measured="F1 of the spans against the parent's",
        show=f"{_TEXT}.show:show_spans",
        meant=("ner", "entities", "spans", "slots"),
    ),
    "recognise": TaskRow(
        make="edge_agent.tasks.recognise.recognise:recognise",
        takes=Frame,
        gives=Scores,
        purpose="recognise",
        prove="edge_agent.tasks.recognise.proof:prove",
        compare="edge_agent.tasks.recognise.compare:compare",
        measure="edge_agent.tasks.proofs:measure_labels",
        measured="share of pictures with the parent's label",
        show="edge_agent.tasks.recognise.show:show",
        meant=("image", "label"),
    ),
    "anomaly": TaskRow(
        make="edge_agent.tasks.anomaly.anomaly:anomaly",
        gives=Anomaly,
        purpose="anomaly",
        prove="edge_agent.tasks.anomaly.proof:prove",
        compare="edge_agent.tasks.anomaly.compare:compare",
        measure="edge_agent.tasks.anomaly.compare:measure",
        measured="rank correlation of the errors with the parent's",
        show="edge_agent.tasks.anomaly.show:show",
        alone=False,
        alike=True,
    ),
    "transcribe": TaskRow(
        make="edge_agent.tasks.transcribe.transcribe:transcribe",
        takes=Audio,
        gives=Text,
        behind="speech",
        purpose="transcribe",
        default="whisper-tiny",
        own=("pocketsphinx",),
        prove="edge_agent.tasks.transcribe.proof:prove",
        compare="edge_agent.tasks.transcribe.compare:compare",
        measure="edge_agent.tasks.transcribe.compare:measure",
        measured="share of the parent's words that are heard",
        show="edge_agent.tasks.transcribe.show:show",
        meant=("speech", "stt", "asr", "whisper", "hear", "transcription"),
    ),
    "speech": TaskRow(
        make="edge_agent.tasks.speech.speech:speech",
        takes=Audio,
        gives=Audio,
        purpose="speech",
        default="silero-vad",
        prove="edge_agent.tasks.speech.proof:prove",
        compare="edge_agent.tasks.speech.proof:compare",
        alone=False,
        meant=("vad", "voice", "silero", "utterance"),
    ),
    "read": TaskRow(
        make="edge_agent.tasks.read.read:read",
        takes=Frame,
        gives=Text,
        purpose="read",
        default="ocr",
        prove="edge_agent.tasks.read.proof:prove",
        compare="edge_agent.tasks.read.compare:compare",
        measure="edge_agent.tasks.read.compare:measure",
        measured="share of the parent's characters that are read",
        show="edge_agent.tasks.read.show:show",
        meant=("ocr", "text", "reader"),
    ),
    "crop": TaskRow(
        make="edge_agent.tasks.crop.crop:crop",
        takes=Detections,
        gives=Frame,
        meant=("cut", "boxes"),
    ),
    "track": TaskRow(
        make="edge_agent.tasks.track.track:track",
        takes=Detections,
        gives=Tracked,
        wants={"low": "0.1"},
        alone=False,
        meant=("follow", "tracker", "objects", "bytetrack"),
    ),
}
"""what a config calls a task -> all there is of it"""
PLAIN = {row.purpose: name for name, row in TASKS.items() if row.purpose}
"""what a model's manifest says it is for -> the task that needs nothing but the model"""
MEANT = {word: name for name, row in TASKS.items() for word in row.meant}
"""what people call a task -> what it is called here"""


def row_of(model: Served) -> TaskRow:
    """The row of the task that needs nothing but this model."""
    return TASKS[PLAIN[model.manifest.task]]


def found_at(place: str) -> Any:
    """What "module:attr" names. ImportError or AttributeError where there is no such thing."""
    module, _, attr = place.partition(":")
    return getattr(importlib.import_module(module), attr)


def make_task(uri: Uri, serve: Callable[[str], Served], home: Path) -> Task:
    """Make the task that `uri` names (scheme) on the model that it names (rest), which `serve` gives.

    `home` is the folder for what a task stores. Somebody else's task that names no model is given None for it.
    Raises ConfigError for an unknown task or option, and what `serve` and the task raise about the model.
    """
    if ":" in uri.scheme:
        return _theirs(uri, serve, home)
    if uri.scheme not in TASKS:
        raise ConfigError(f'"{uri}": unknown task "{uri.scheme}"{nearest(uri.scheme, TASKS, MEANT)}')
    row = TASKS[uri.scheme]
    name = uri.rest or row.default
    if row.purpose and not name:
        raise ConfigError(f'"{uri}": which model? write "{uri.scheme}:MODEL"')
    task: Task = found_at(row.make)(uri, serve(name) if row.purpose and name not in row.own else None, home)
    return task


def _theirs(uri: Uri, serve: Callable[[str], Served], home: Path) -> Task:
    """Make somebody else's task."""
    try:
        make = found_at(uri.scheme)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f'"{uri}": task {uri.scheme} cannot be imported ({error}); is it installed?') from None
    model = serve(uri.rest) if uri.rest else None
    try:
        task: Task = make(uri, model, home)
    except EdgeAgentError:
        raise
    except Exception as error:
        log.debug("", exc_info=True)
        told = f"{type(error).__name__}: {error}"
        raise ConfigError(f'"{uri}": task {uri.scheme} fails: {told}; ask those who made it') from None
    return task
