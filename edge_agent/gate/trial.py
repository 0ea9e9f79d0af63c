"""What may be asked of the child process about network files (a struct for each question), and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from edge_agent.manifest import File, Manifest

GAIN = 0.95
"""of what a file takes is what another one may take to be clearly faster"""


class Limits(msgspec.Struct, frozen=True):
    """What a trial may use."""

    seconds: float = 60.0
    """on the clock, and more where other work has the processors; processor time may be as much on every core"""
    memory: int = 4 << 30
    """bytes of address space, beside eight times the files' size"""


LIMITS = Limits()


class Variant(msgspec.Struct, frozen=True):
    """One network file of a model."""

    file: File
    path: str


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────


class Result(msgspec.Struct, frozen=True):
    """What the child found."""

    passed: bool
    reason: str = ""
    """why it is refused, one line"""
    notes: list[str] = []
    """what was seen, one line each"""
    figures: dict[str, Any] = {}
    """as `Question.figures` says, where it has passed"""


class Proved(msgspec.Struct, frozen=True):
    """Figures of `Prove`."""

    engine: str
    peak_rss: int


class Agreed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Figures of `Agree` and `Heads`."""

    agreement: float | None
    measure: str
    samples: int
    parent: str
    max_drop: float = -1.0


Positive = Annotated[float, msgspec.Meta(gt=0)]
Few = Annotated[int, msgspec.Meta(ge=1, le=4096)]


class Lap(msgspec.Struct, frozen=True):
    """One variant with one number of threads in a race; milliseconds a sample."""

    file: str
    key: str
    sha256: str
    format: str
    precision: str
    bytes: int
    threads: Few
    runs: int
    median_ms: Positive
    p95_ms: float
    cpu_ms: float


class Abreast(msgspec.Struct, frozen=True):
    """Samples a second, answered at once and one after another."""

    file: str
    key: str
    sha256: str
    workers: Few
    per_second: float
    alone_per_second: float


class Bare(msgspec.Struct, frozen=True):
    """The original in a default session; milliseconds a sample."""

    file: str
    runs: int
    median_ms: float
    cpu_ms: float


class Raced(msgspec.Struct, frozen=True):
    """Figures of `Race`, the one that is to serve first."""

    rows: Annotated[list[Lap], msgspec.Meta(min_length=1, max_length=1000)]
    abreast: Abreast | None = None
    one_thread: Lap | None = None
    bare: Bare | None = None
    providers: dict[str, str] = {}


class Derived(msgspec.Struct, frozen=True):
    """Figures of `Derive`, in the order of `Derive.places`."""

    files: Annotated[list[File], msgspec.Meta(min_length=1, max_length=2)]


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────


class Question(msgspec.Struct, frozen=True, kw_only=True, tag_field="what", tag=str.lower):
    """What every question says."""

    doing: ClassVar[str]
    """what is done to the first variant meanwhile, for people"""
    folder: ClassVar[str] = "proofs"
    """below HOME, where the verdicts on it lie"""
    figures: ClassVar[type[msgspec.Struct] | None] = None
    """what a Result that has passed holds; None: gate/read.py checks it"""
    sees_samples: ClassVar[bool] = False
    """whether the child may read HOME/samples"""

    variants: list[Variant]
    threads: int = 0
    limits: Limits = LIMITS
    parts: dict[str, str] = {}
    """role -> file, for vocabulary and tokenizer"""

    @property
    def manifests(self) -> list[Manifest]:
        """Those of the models that it is about, the asked one first."""
        return []

    @property
    def lent_parts(self) -> dict[str, str]:
        """`parts` of the model that the first one is held against."""
        return {}


class Load(Question, frozen=True, kw_only=True):
    """Open a file of which nothing is known, and say what it declares: figures are an `Ends` of gate/read.py."""

    doing = "is opened"


class Read(Question, frozen=True, kw_only=True):
    """Say what a bare file is, too: figures are a `Reading` of gate/read.py. `parts`: name -> file beside it, and
    pictures of what it is for.
    """

    doing = "is looked at"

    told: dict[str, str] = {}
    """what the user says of the input: scale, mean, std, channels"""


class OfModel(Question, frozen=True, kw_only=True):
    """A question about files of a model whose manifest is known."""

    manifest: Manifest

    @property
    def manifests(self) -> list[Manifest]:
        """As of every question."""
        return [self.manifest]


class Prove(OfModel, frozen=True, kw_only=True):
    """Does it answer sanely?"""

    doing = "is tried on carried samples"
    figures = Proved


class Agree(OfModel, frozen=True, kw_only=True):
    """Does the first variant answer as the second one does, which it was made from?"""

    doing = "is held against its parent"
    folder = "reports"
    figures = Agreed
    sees_samples = True

    parent: Manifest | None = None
    """of the second variant; None: both are files of one model"""
    parent_parts: dict[str, str] = {}

    @property
    def manifests(self) -> list[Manifest]:
        """As of every question."""
        return [self.manifest] if self.parent is None else [self.manifest, self.parent]

    @property
    def lent_parts(self) -> dict[str, str]:
        """As of every question."""
        return self.parent_parts


class Heads(OfModel, frozen=True, kw_only=True):
    """Does a head beside an encoder say what it says on its parent? Variants: an encoder and the head, the most precise
    encoder and the most precise form of the head.
    """

    doing = "and its heads are tried"
    folder = "reports"
    figures = Agreed
    sees_samples = True


class Race(OfModel, frozen=True, kw_only=True):
    """Which variant is the fastest? One without a path may not serve, and takes no part."""

    doing = "and the other variants are raced"
    folder = "races"
    figures = Raced
    sees_samples = True

    seconds: float = 3.0
    """how long"""
    bare: bool = False
    """time a default session of the original as well"""


class Derive(OfModel, frozen=True, kw_only=True):
    """Write the faster form of a file."""

    doing = "is rewritten to run faster"
    folder = "derived"
    figures = Derived
    sees_samples = True

    out: str = ""
    """where it is to be written"""

    @property
    def places(self) -> tuple[Path, Path]:
        """`out`, and where the same form goes whose products of int8 may saturate."""
        return Path(self.out), Path(f"{self.out}.saturating")


AnyQuestion = Load | Read | Prove | Agree | Heads | Race | Derive
