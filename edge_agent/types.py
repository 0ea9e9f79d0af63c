"""What moves through the house, and the four seams it moves across.

Values are frozen and slotted. Arrays are columns whose shapes are checked when they are made. Nobody writes into a
Frame. Two clocks: `at` is wall time (seconds since 1970, UTC), for people; `mono` is the monotonic clock, from which
ages and deadlines are computed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import msgspec

from edge_agent.got import Heard as Heard
from edge_agent.got import Read as Read
from edge_agent.uri import Uri

if TYPE_CHECKING:  # code that only reads or sends events needs no arrays
    import numpy as np
    import numpy.typing as npt

Pixels: TypeAlias = "npt.NDArray[np.uint8]"
Floats: TypeAlias = "npt.NDArray[np.float32]"
Ints: TypeAlias = "npt.NDArray[np.int32]"
Tensors: TypeAlias = Mapping[str, "npt.NDArray[Any]"]


# ── samples: what a source yields ────────────────────────────────────────────────────────────────────────


class Frame(msgspec.Struct, frozen=True):
    """A picture: `image` is (height, width, 3) uint8 BGR, never written to."""

    image: Pixels
    at: float
    """capture, seconds since 1970 UTC"""
    mono: float
    """capture, seconds of the monotonic clock"""
    name: str = ""
    """the file it came from, if it came from one"""
    decode_ms: float = 0.0
    """time spent to get pixels out of the file or stream"""
    played: float | None = None
    """seconds of its film that were played before it, at the film's own pace; None where it is of no film"""
    cut: tuple[int, int] = (0, 0)
    """left and top of it in the source's frame, pixels, where it was cut out of one"""
    words: ClassVar[str] = "pictures"
    """what people call such samples"""
    room: ClassVar[int] = 4
    """samples that wait for a task where none may be dropped, then the source waits: each takes megabytes"""
    text: ClassVar[str] = ""
    mark: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != "uint8":
            raise ValueError(f"a Frame is (h, w, 3) uint8 BGR, not {self.image.shape} {self.image.dtype}")

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.image.shape[0])

    def described(self) -> str:
        """The sample in a few words."""
        return f"a picture of {self.width}x{self.height}"


class Text(msgspec.Struct, frozen=True):
    """A line of text, NFC, without its line end, never empty."""

    text: str
    at: float
    mono: float
    mark: int | None = None
    """where its source goes on behind it after a restart; None when the source has no place to resume at"""
    got: Heard | Read | None = None
    """how it was captured; None where it came as text"""
    words: ClassVar[str] = "text"
    room: ClassVar[int] = 64
    name: ClassVar[str] = ""

    def described(self) -> str:
        """The sample in a few words; what was written stays private."""
        return f"a text of {len(self.text)} characters"


class Audio(msgspec.Struct, frozen=True):
    """Sound: `samples` is (n,) float32 in -1..1, one channel, never written to."""

    samples: Floats
    at: float
    """capture of the first of them, seconds since 1970 UTC"""
    mono: float
    """the same, seconds of the monotonic clock"""
    rate: int = 16_000
    """samples a second"""
    last: bool = False
    """nothing follows it: its file or stream has ended, so what is collected is complete"""
    name: str = ""
    """the file it came from, if it came from one"""
    words: ClassVar[str] = "sound"
    room: ClassVar[int] = 16
    text: ClassVar[str] = ""
    mark: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != "float32":
            raise ValueError(f"an Audio is (n,) float32 of one channel, not {self.samples.shape} {self.samples.dtype}")

    def described(self) -> str:
        """The sample in a few words, and how loud it is."""
        power = float((self.samples.astype(float) ** 2).sum()) / max(1, len(self.samples))
        return f"{len(self.samples) / self.rate:.2g} s of sound at {10 * math.log10(power or 1e-12):.0f} dB"


Sample: TypeAlias = Frame | Text | Audio
"""a kind of sample says all of itself that the walk asks for: its `words`, how many have `room`, its `name`, `text` and
`mark` where it has them, and how it is `described`"""

StreamCondition = Literal[
    "starting", "ok", "stalled", "hung", "dark", "frozen", "moved", "covered", "blurred", "reconnecting", "paused",
    "ended", "stopped"]  # fmt: skip


class StreamState(msgspec.Struct, frozen=True):
    """What a source says about itself, in between its samples."""

    condition: StreamCondition
    why: str = ""
    """one line for people; empty when all is well, but that a microphone says which it is, and a camera that moves by
    itself that it does"""


# ── findings: what a task yields ─────────────────────────────────────────────────────────────────────────


class ModelRef(msgspec.Struct, frozen=True):
    """Which model answered, to the bit."""

    name: str
    version: str
    sha256: str
    why: Annotated[str, msgspec.Meta(description="why this model, where the config left the choice to the agent")] = ""


class Detections(msgspec.Struct, frozen=True):
    """n boxes in the pixels of the Frame given; columns of one length, best score first."""

    xyxy: Floats
    """(n, 4) float32: left, top, right, bottom"""
    score: Floats
    """(n,) float32 in 0..1"""
    label: Ints
    """(n,) int32 class ids as reported (COCO-80 ids for COCO models)"""
    names: Mapping[int, str]
    """class id -> name"""
    sure: float = 0.0
    """score from which on a box counts by itself; fainter ones are there for a tracker alone"""
    looked: bool = True
    """false: nothing has moved since the frame that these were found in, so nobody looked; or it was"""
    skipped: bool = False  # to save processor time: there are no boxes, or (of objects) where they are believed to be

    def __post_init__(self) -> None:
        n = len(self.score)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,) or self.label.shape != (n,):
            raise ValueError(f"columns differ: {self.xyxy.shape} {self.score.shape} {self.label.shape}")

    def __len__(self) -> int:
        return len(self.score)


class Scores(msgspec.Struct, frozen=True):
    """One text's or picture's label; `label` is "unknown" when it fits none well enough."""

    label: str
    score: float
    """probability of `label` in 0..1 (of the likeliest label, where that is not sure enough); a text's is calibrated"""
    scores: Mapping[str, float]
    """label -> probability; sums to 1 for a text, holds the likeliest few for a picture"""


class Spans(msgspec.Struct, frozen=True):
    """Marked pieces of one text: start and end in characters, end exclusive."""

    start: Ints
    end: Ints
    label: tuple[str, ...]
    score: Floats

    def __post_init__(self) -> None:
        n = len(self.label)
        if self.start.shape != (n,) or self.end.shape != (n,) or self.score.shape != (n,):
            raise ValueError(f"columns differ: {self.start.shape} {self.end.shape} {n} {self.score.shape}")


class Embedding(msgspec.Struct, frozen=True):
    """One text as a vector: (d,) float32 of length 1."""

    vector: Floats


class Anomaly(msgspec.Struct, frozen=True):
    """How unlike what is usual one sample is."""

    error: float
    """the larger, the less usual: of an autoencoder the mean squared difference, in the units of what goes into the
    network; of a series once in how many points; else as the model's card says"""
    limit: float | None = None
    """error above which a sample is unusual; None: nobody said"""
    parts: Mapping[str, float] = msgspec.field(default_factory=dict)
    """what the error is made of, by name"""
    held: bool = False
    """the samples just before were unusual, and too few have been usual since"""
    value: float | None = None
    """the number itself, of a series"""
    heat: Floats | None = None
    """(rows, columns): how unusual each part of a picture, or each band and moment of a sound, is"""

    @property
    def unusual(self) -> bool | None:
        """None where there is no limit."""
        return None if self.limit is None else self.held or self.error > self.limit


class Noticed(msgspec.Struct, frozen=True):
    """What is found in several samples together, or understood of a text: its kinds have files of their own."""


class Finding(msgspec.Struct, frozen=True):
    """What was found in which sample, by which model, at what cost."""

    of: Sample
    what: Detections | Scores | Spans | Embedding | Anomaly | Noticed
    model: ModelRef
    spent_ms: Mapping[str, float] = msgspec.field(default_factory=dict)
    """stage -> milliseconds: decode, prepare, wait, infer, finish"""
    mono: float = msgspec.field(default_factory=time.monotonic)
    """when it was ready, seconds of the monotonic clock"""


# ── the seams: each is a single call, so a fake is a list or a lambda ────────────────────────────────────


class Source(Protocol):
    """Yields samples until it ends or `stop` is set; says how it fares in between; never sleeps past `stop`."""

    def __call__(self, uri: Uri, stop: threading.Event) -> Iterator[Sample | StreamState]: ...


Backend: TypeAlias = Callable[[Tensors], "dict[str, npt.NDArray[Any]]"]
"""Input tensors by name -> output tensors by name."""


class TensorSpec(msgspec.Struct, frozen=True):
    """One input or output of a network as its file declares it."""

    name: str
    shape: tuple[int | None, ...]
    """None where the axis is dynamic"""
    dtype: str
    """numpy's name, e.g. float32"""
    scale: float = 0.0
    """of a quantized tensor: real = (q - zero_point) * scale; 0 when it is not quantized"""
    zero_point: int = 0


class Net(msgspec.Struct, frozen=True):
    """A network that is loaded and warm."""

    run: Backend
    """takes and gives tensors of the declared dtypes, but float32 stands for every quantized one on the way out"""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine: str
    """e.g. onnxruntime 1.32.0 CPUExecutionProvider"""
    reasons: tuple[str, ...] = ()
    """why this engine and not another, in the order in which they were tried"""
    about: Mapping[str, str] = {}
    """what its file says of it beside the network, such as the characters that it knows"""


class Task(Protocol):
    """Takes samples (or findings) of the types it names and yields what becomes of each."""

    takes: tuple[type, ...]

    def __call__(self, item: Any) -> Iterable[Sample | Finding]: ...


Sink: TypeAlias = Callable[["Finding | Sample"], None]
"""Where a pipeline's findings go."""
