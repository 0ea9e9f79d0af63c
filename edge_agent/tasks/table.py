"""The table of tasks: one row a task, which names all there is of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge_agent.events.objects import Tracked
from edge_agent.events.understood import Answer, Fill, Similar, Summary, Topic
from edge_agent.types import Anomaly, Audio, Detections, Embedding, Frame, Scores, Spans, Text


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
    on: tuple[str, ...] = ()
    """purposes of other models that it runs on, too, where they have what it needs"""
    asks: bool = False
    """its models may need another one: `make` takes `serve` besides"""
    default: str = ""
    """the model that serves where none is named; empty: one has to be named"""
    own: tuple[str, ...] = ()
    """engines that bring their own model, which are named in its place"""
    named: str = ""
    """option that is the pipeline's name where it is not given, for one of `own`"""
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
    threshold: str = ""
    """option, and attribute of the task, that may be changed while it works: a score, or the `limit` of an error"""
    alone: bool = True
    """each sample is answered by itself, so that several may be under way"""
    alike: bool = False
    """what is found in texts may be the same of many, so that a report may leave repeats out"""
    meant: tuple[str, ...] = ()
    """what people call it"""

    @property
    def needs(self) -> bool:
        """Whether it runs on a model."""
        return bool(self.purpose or self.on)


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
        threshold="score",
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
        on=("encode",),
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
        default="edge-tagger",
        prove=f"{_TEXT}.proof:prove_tagger",
        compare=f"{_TEXT}.compare:compare_taggers",
        measure=f"{_TEXT}.measure:measure_tagger",
        measured="F1 of the spans against the parent's",
        threshold="score",
        show=f"{_TEXT}.show:show_spans",
        meant=("ner", "entities", "spans", "slots"),
    ),
    "fill": TaskRow(
        make=f"{_TEXT}.fill:fill",
        takes=Text,
        gives=Fill,
        purpose="fill",
        on=("encode",),
        default="edge-bert",
        prove=f"{_TEXT}.headed:prove_fill",
        compare=f"{_TEXT}.headed:compare_fill",
        measure=f"{_TEXT}.headed:measure_fill",
        measured="share of masked words that are among the parent's first",
        show=f"{_TEXT}.show:show_fill",
        meant=("mask", "mlm", "complete", "repair"),
    ),
    "follows": TaskRow(
        make=f"{_TEXT}.follows:follows",
        takes=Text,
        gives=Scores,
        purpose="follows",
        on=("encode", "fill"),
        default="edge-bert",
        prove=f"{_TEXT}.headed:prove_follows",
        compare=f"{_TEXT}.headed:compare_follows",
        measure=f"{_TEXT}.headed:measure_follows",
        measured="share of pairs of lines that are judged as by the parent",
        show=f"{_TEXT}.show:show_label",
        alone=False,
        meant=("nsp", "next"),
    ),
    "answer": TaskRow(
        make=f"{_TEXT}.answer:answer",
        takes=Text,
        gives=Answer,
        purpose="answer",
        on=("encode",),
        asks=True,
        default="encoder",
        prove=f"{_TEXT}.headed:prove_answer",
        compare=f"{_TEXT}.headed:compare_answer",
        measure=f"{_TEXT}.headed:measure_answer",
        measured="correlation of the scores of answers with the parent's",
        show=f"{_TEXT}.show:show_answer",
        meant=("question", "qa", "squad"),
    ),
    "similar": TaskRow(
        make=f"{_TEXT}.similar:similar",
        takes=Text,
        gives=Similar,
        on=("encode",),
        default="encoder",
        show=f"{_TEXT}.show:show_similar",
        alone=False,
        meant=("nearest", "search", "alike"),
    ),
    "topics": TaskRow(
        make=f"{_TEXT}.topics:topics",
        takes=Text,
        gives=Topic,
        on=("encode",),
        default="encoder",
        show=f"{_TEXT}.show:show_topic",
        alone=False,
        meant=("topic", "segment", "texttiling"),
    ),
    "summarize": TaskRow(
        make=f"{_TEXT}.summarize:summarize",
        takes=Text,
        gives=Summary,
        on=("encode",),
        default="encoder",
        show=f"{_TEXT}.show:show_summary",
        alone=False,
        meant=("summary", "recap", "summarise"),
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
        threshold="score",
        meant=("image", "label"),
    ),
    "state": TaskRow(
        make="edge_agent.tasks.state.state:state",
        takes=Frame,
        gives=Scores,
        purpose="state",
        prove="edge_agent.tasks.state.proof:prove",
        compare="edge_agent.tasks.state.compare:compare",
        measure="edge_agent.tasks.state.compare:measure",
        measured="correlation of the features of a picture with the parent's",
        show="edge_agent.tasks.recognise.show:show",
        alone=False,
        meant=("taught", "teach", "condition"),
    ),
    "anomaly": TaskRow(
        make="edge_agent.tasks.anomaly.anomaly:anomaly",
        gives=Anomaly,
        purpose="anomaly",
        own=("series",),
        named="store",
        prove="edge_agent.tasks.anomaly.proof:prove",
        compare="edge_agent.tasks.anomaly.compare:compare",
        measure="edge_agent.tasks.anomaly.compare:measure",
        measured="rank correlation of the errors with the parent's",
        show="edge_agent.tasks.anomaly.show:show",
        threshold="limit",
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
        threshold="score",
        meant=("ocr", "text", "reader"),
    ),
    "wake": TaskRow(
        make="edge_agent.tasks.wake.wake:wake",
        takes=Audio,
        gives=Audio,
        alone=False,
        meant=("wakeword", "hotword", "keyword"),
    ),
    "crop": TaskRow(make="edge_agent.tasks.crop.crop:crop", takes=Detections, gives=Frame, meant=("cut", "boxes")),
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
