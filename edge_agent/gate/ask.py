"""Before a model serves, it is tried in a child process with limits; the verdict is remembered.

A hostile or broken file can take memory, time or the whole process with it, so the first process that loads it is not
the agent: it is a Python of its own (gate/child.py), which may do little but compute (device/sandbox.py). It reads a
Trial and writes a Result, one JSON each; it was taken over, for all one knows, so what it writes is believed within
bounds only. Verdicts lie in HOME/proofs under what they depend on: the files, what the manifest says of them, the
runtimes and the processor. A normal start reads one of them and costs nothing; a refusal holds until one of these
changes, or until it is asked to be tried again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec

from edge_agent import paths
from edge_agent.device.sandbox import Room
from edge_agent.errors import FetchError, RefusedError
from edge_agent.events import rfc3339
from edge_agent.files import write
from edge_agent.gate.trial import LIMITS, Limits, Result, Trial, Variant, Verdict
from edge_agent.held import held
from edge_agent.manifest import File, Manifest, most_precise
from edge_agent.programs import environment, python
from edge_agent.registry import store
from edge_agent.registry.files import Located, file_path, is_here
from edge_agent.samples.recorded import _samples

log = logging.getLogger("edge_agent")

VERSION = 13
"""of what the trials look at: another one tries every model anew"""
CHILD = python("edge_agent.gate.child")
MOST_ANSWER = 16 << 20
"""bytes of a Result"""
MOST_NOTES, MOST_WORDS = 200, 2000
"""notes, and characters of each and of the reason, that are kept"""
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "tflite-runtime")
"""distributions whose version a verdict depends on"""


class Proved(msgspec.Struct, frozen=True):
    """Figures of "prove"."""

    engine: str
    peak_rss: int


class Agreed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Figures of "agree" and "heads"."""

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
    """Figures of "race", the one that is to serve first."""

    rows: Annotated[list[Lap], msgspec.Meta(min_length=1, max_length=1000)]
    abreast: Abreast | None = None
    one_thread: Lap | None = None
    bare: Bare | None = None
    providers: dict[str, str] = {}


class Derived(msgspec.Struct, frozen=True):
    """Figures of "derive", in the order of `Trial.places`."""

    files: Annotated[list[File], msgspec.Meta(min_length=1, max_length=2)]


FIGURES: dict[str, type[msgspec.Struct]] = {
    "prove": Proved, "agree": Agreed, "heads": Agreed, "race": Raced, "derive": Derived,
}  # fmt: skip
"""what a Result that has passed holds; of "read" and "load" see gate/read.py"""


def prove(
    manifest: Manifest,
    row: File,
    path: Path,
    parts: Mapping[str, Path],
    threads: int = 0,
    *,
    again: bool = False,
    limits: Limits = LIMITS,
) -> Verdict:
    """Let a file of a model prove that it answers sanely, or look up that it has.

    `again`: try it anew. Raises RefusedError with the reason, one line.
    """
    given = {role: str(part.absolute()) for role, part in parts.items()}
    trial = Trial("prove", [Variant(row, str(path.absolute()))], threads, limits, manifest, given)
    verdict = ask("proofs", trial, again=again)
    if not verdict.result.passed:
        raise RefusedError(f"{manifest.name}: {row.title()} is refused: {verdict.result.reason}")
    return verdict


def agree(
    manifest: Manifest,
    row: File,
    path: Path,
    parts: Mapping[str, Path],
    parent: tuple[Manifest, File, Path, Mapping[str, Path]],
    threads: int = 0,
    *,
    again: bool = False,
) -> Verdict:
    """Hold a variant's answers against its parent's on sealed samples, or look up how that went; kept in HOME/reports.

    Raises RefusedError with the figures when it agrees less than the manifest's max_drop allows.
    """
    theirs, their_row, their_path, their_parts = parent
    trial = Trial(
        "agree",
        [Variant(row, str(path.absolute())), Variant(their_row, str(their_path.absolute()))],
        threads,
        LIMITS,
        manifest,
        {role: str(part.absolute()) for role, part in parts.items()},
        # a model that was made from another one may bear its name
        theirs if manifest.parent is not None else None,
        {role: str(part.absolute()) for role, part in their_parts.items()},
    )
    verdict = ask("reports", trial, again=again)
    if not verdict.result.passed:
        raise RefusedError(f"{manifest.name}: {row.title()} is refused: {verdict.result.reason}")
    return verdict


def try_heads(
    located: Located, sound: set[str], parts: Mapping[str, Path], *, again: bool = False
) -> list[tuple[str, str, list[str]]]:
    """Hold each head beside an encoder (mlm, nsp), on the first network of `sound` (names of those that may serve),
    against its most precise form on the most precise of them (gate/heads.py); verdicts in HOME/reports.

    The name of each, why it is refused ("" when it is not), and notes.
    """
    manifest, tried = located.manifest, []
    networks = [row for row in manifest.networks() if row.title() in sound]
    given = {role: str(part.absolute()) for role, part in parts.items()}
    for role in ("mlm", "nsp"):
        rows = [row for row in manifest.file if row.role == role and is_here(located, row)]
        for row in rows:
            held = networks[0], row, most_precise(networks), most_precise(rows)
            try:
                variants = [Variant(one, str(file_path(located, one).absolute())) for one in held]
                result = ask("reports", Trial("heads", variants, 0, LIMITS, manifest, given), again=again).result
                tried.append(
                    (row.name, result.reason and f"{manifest.name}: {row.name}: {result.reason}", result.notes)
                )
            except FetchError as error:
                tried.append((row.name, str(error), []))
    return tried


def recall(folder: str, trial: Trial) -> Verdict | None:
    """The verdict of such a trial in HOME/`folder`; None when none is remembered."""
    return _read(_place(folder, trial))


def ask(folder: str, trial: Trial, *, again: bool = False) -> Verdict:
    """The verdict of a trial: the remembered one, or that of the trial held now."""
    if not again and (known := recall(folder, trial)) is not None:
        return known
    shas = _digests(trial)
    place = paths.home() / folder / f"{_key(trial, shas)}.json"
    began = time.monotonic()
    result, lasting = _hold(trial, shas)
    rows = [variant.file for variant in trial.variants]
    verdict = Verdict(
        model=trial.manifest.name if trial.manifest else trial.variants[0].path,
        files=[row.title() for row in rows],
        sha256=[row.key() for row in rows],
        runtimes=runtimes(),
        cpu=cpu(),
        at=rfc3339(time.time()),
        seconds=round(time.monotonic() - began, 3),
        result=result,
    )
    if lasting:
        _write(place, verdict)
    return verdict


def remember(folder: str, trial: Trial, verdict: Verdict) -> None:
    """Keep a verdict as that of such a trial."""
    _write(_place(folder, trial), verdict)


def used(folder: str, trial: Trial) -> None:
    """Note that what such a trial made is used now: `forms` deletes first what was not for the longest."""
    with contextlib.suppress(OSError):
        os.utime(_place(folder, trial))


def _place(folder: str, trial: Trial) -> Path:
    return paths.home() / folder / f"{_key(trial)}.json"


def _write(place: Path, verdict: Verdict) -> None:
    """A disk that takes nothing means that it is tried again at the next start."""
    with contextlib.suppress(OSError):
        write(place, msgspec.json.format(msgspec.json.encode(verdict)).decode() + "\n")


def remembered(key: str, folder: str = "proofs") -> list[Verdict]:
    """All verdicts in HOME/`folder` on a variant (File.key), the latest first.

    Those of another processor or runtime, as a home that was moved has them, do not count.
    """
    read = [_read(place) for place in (paths.home() / folder).glob("*.json")]
    found = [one for one in read if one is not None and key in one.sha256]
    return sorted(filter(_is_of_here, found), key=lambda verdict: verdict.at, reverse=True)


def _is_of_here(verdict: Verdict) -> bool:
    return (verdict.cpu, verdict.runtimes) == (cpu(), runtimes())


def _read(place: Path) -> Verdict | None:
    """None for what is not there or was not written by this version."""
    try:
        return msgspec.json.decode(place.read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None


# ── what a verdict depends on ────────────────────────────────────────────────────────────────────────────


def _digests(trial: Trial) -> dict[str, str]:
    """path -> SHA-256 of the parts, as they lie there now."""
    return {path: store.digest(Path(path)) for given in (trial.parts, trial.parent_parts) for path in given.values()}


def _key(trial: Trial, shas: Mapping[str, str] | None = None) -> str:
    """Hex digest of all that could change the verdict, the limits among them; `shas`: those of the parts, if known."""
    known = _digests(trial) if shas is None else shas
    files = [msgspec.structs.replace(variant.file, name="", sources=[]) for variant in trial.variants]
    # what is said about a model's origin does not change what it computes
    manifests = [
        one and msgspec.structs.replace(one, name="", version="", description="", card=None, made=None, file=files)
        for one in (trial.manifest, trial.parent)
    ]
    parts = [{role: known[path] for role, path in given.items()} for given in (trial.parts, trial.parent_parts)]
    providers = os.environ.get("EDGE_AGENT_PROVIDERS", "")
    told = (VERSION, trial.what, files, manifests, parts, trial.threads, trial.limits, trial.told)
    told = (*told, runtimes(), cpu(), providers, _samples() if trial.what in ("agree", "heads") else "")  # type: ignore[assignment]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]


@functools.cache
def runtimes() -> dict[str, str]:
    """Distribution -> version of the runtimes that are installed."""
    # by the names of their folders, as packaging does (PEP 376, 427): importlib.metadata costs more than all of this
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder or "."):  # noqa: PTH208, a Path for each is what this is to save
                match = entry.endswith("-info") and re.fullmatch(r"(.+?)-([^-]+)(-.+)?\.(dist|egg)-info", entry)
                if match and (name := match[1].replace("_", "-").lower()) in RUNTIMES:
                    found.setdefault(name, match[2])
    return {name: found[name] for name in RUNTIMES if name in found}


@functools.cache
def cpu() -> str:
    """The processor and a digest of its instruction sets, from /proc/cpuinfo: ``AMD EPYC x86_64 1f3a0c22``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    names = [value for key, value in pairs if key in ("model name", "Model", "CPU part")]
    features = sorted({value for key, value in pairs if key in ("flags", "Features")})
    digest = hashlib.sha256(" ".join(features).encode()).hexdigest()[:8]
    return f"{names[0] if names else 'unknown'} {platform.machine()} {digest}"


# ── the child ────────────────────────────────────────────────────────────────────────────────────────────


OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
"""what a trial dies of when it is stopped from outside, as with the service, or by the kernel when memory runs out"""


def _hold(trial: Trial, shas: Mapping[str, str]) -> tuple[Result, bool]:
    """Run the child. Whatever becomes of it, a Result comes back, and whether it says something about the model: what
    happened for want of memory or time, or because somebody stopped it, may go well the next time.
    """
    with contextlib.ExitStack() as stack:
        try:
            told, room, names = _handed(trial, shas, stack)
            question, answer, said = (_in_memory(stack) for _ in range(3))
        except RefusedError as error:
            return Result(False, str(error)), False
        except OSError as error:
            return Result(False, f"its trial could not be started ({error.strerror}); free memory and try again"), False
        # on the clock longer where the processors are shared by more than they can do at once
        shared = max(1.0, min(MOST_SHARED, os.getloadavg()[0] / len(os.sched_getaffinity(0))))
        limits = msgspec.structs.replace(trial.limits, seconds=trial.limits.seconds * shared)
        told, trial = (msgspec.structs.replace(one, limits=limits) for one in (told, trial))
        question.write(msgspec.json.encode(told))
        question.seek(0)
        result, lasting = _run(trial, room, question, answer, said)
        for handed, name in names.items():
            # of descriptors, 1 is also the beginning of 12
            result = _worded(result, re.compile(re.escape(handed) + ("" if handed.endswith("/") else r"(?!\d)")), name)
        return result, lasting


MOST_SHARED = 10.0
"""times as long as its limit a trial may take on the clock"""
SAID_S = 10.0
"""seconds between two lines about a trial that goes on"""
DOING = {
    "load": "is opened",
    "read": "is looked at",
    "prove": "is tried on carried samples",
    "agree": "is held against its parent",
    "heads": "and its heads are tried",
    "race": "and the other variants are raced",
    "derive": "is rewritten to run faster",
}
"""what is done to the first variant, for people"""


def _wait(child: subprocess.Popen[bytes], trial: Trial) -> None:
    """Wait for the child and say from time to time what it does. TimeoutExpired after the trial's limit."""
    named = trial.manifest.name if trial.manifest else Path(trial.variants[0].path).parent.name
    doing = f"{named}: {trial.variants[0].file.title()} {DOING[trial.what]}"
    log.info("%s, once", doing)
    began = time.monotonic()
    while (left := began + trial.limits.seconds - time.monotonic()) > SAID_S:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SAID_S)
            return
        log.info("%s: %.0f s so far", doing, time.monotonic() - began)
    child.wait(max(0.0, left))


def _run(trial: Trial, room: Room, question: IO[bytes], answer: IO[bytes], said: IO[bytes]) -> tuple[Result, bool]:
    limit = f"{trial.limits.seconds:.3g} s"
    told = {**environment(), "EDGE_AGENT_HOME": str(paths.home()), "MALLOC_ARENA_MAX": "2"}
    command = [*CHILD, msgspec.json.encode(room).decode()]
    try:
        child = subprocess.Popen(
            command, stdin=question, stdout=answer, stderr=said, env=told, cwd="/", pass_fds=room.files
        )
    except OSError as error:
        mend = "free memory and try again" if error.errno in (errno.ENOMEM, errno.EAGAIN) else "check that Python runs"
        return Result(False, f"its trial could not be started ({error.strerror}); {mend}"), False
    try:
        _wait(child, trial)
    except subprocess.TimeoutExpired:
        return Result(False, f"its trial run did not end within {limit}"), False
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    if child.returncode == -signal.SIGXCPU:
        used = room.cpu_seconds * len(os.sched_getaffinity(0))
        return Result(False, f"its trial run did not end within {used} s of processor time"), True
    if child.returncode == -signal.SIGALRM:
        return Result(False, f"its trial run did not end within {limit}"), False
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        why = {"SIGILL": ", an instruction that this processor lacks", "SIGKILL": ", as when memory runs out"}
        dead = Result(False, f"its trial process died of {name}{why.get(name, '')}")
        return dead, -child.returncode not in OUTSIDE
    return _believed(trial, answer, child.returncode, said), True


def _believed(trial: Trial, answer: IO[bytes], code: int, said: IO[bytes]) -> Result:
    """What the child wrote, if that is of the kind and the size that was asked for; else a refusal."""
    out = os.pread(answer.fileno(), MOST_ANSWER + 1, 0)
    try:
        if len(out) > MOST_ANSWER:
            raise msgspec.ValidationError("too large")
        result = msgspec.json.decode(out, type=Result)
        if result.passed and trial.what in FIGURES:
            kind = FIGURES[trial.what]
            figures = msgspec.to_builtins(msgspec.convert(result.figures, kind))
            result = msgspec.structs.replace(result, figures=figures)
    except msgspec.MsgspecError as error:
        size = os.fstat(said.fileno()).st_size
        last = os.pread(said.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").strip().splitlines()
        if out:
            return Result(False, f"what its trial process answered cannot be used ({str(error)[:200]})")
        return Result(False, f"its trial process ended with {code}: {(last or ['it said nothing'])[-1][:200]}")
    notes = [note[:MOST_WORDS] for note in result.notes[:MOST_NOTES]]
    return msgspec.structs.replace(result, reason=result.reason[:MOST_WORDS], notes=notes)


def _worded(result: Result, handed: re.Pattern[str], name: str) -> Result:
    """The same with another name for a file, in words and in what was read of it."""

    def named(value: Any) -> Any:
        if isinstance(value, str):
            return handed.sub(lambda _: name, value)
        if isinstance(value, list):
            return [named(one) for one in value]
        return {key: named(one) for key, one in value.items()} if isinstance(value, dict) else value

    return msgspec.structs.replace(
        result, reason=named(result.reason), notes=named(result.notes), figures=named(result.figures)
    )


def _in_memory(stack: contextlib.ExitStack) -> IO[bytes]:
    """A file that lies nowhere: it is not more than the child may write, and blocks nobody."""
    return stack.enter_context(os.fdopen(os.memfd_create("trial"), "w+b"))


def _handed(trial: Trial, shas: Mapping[str, str], stack: contextlib.ExitStack) -> tuple[Trial, Room, dict[str, str]]:
    """The trial of files that are held, the child's room, and the names of what it knows by others.

    RefusedError for a file that is no longer the one that was looked at.
    """
    files: list[int] = []
    read: list[str] = []
    names: dict[str, str] = {}

    def hand(path: str, sha256: str) -> str:
        file = stack.enter_context(held(Path(path), sha256))
        files.append(file.fd)
        read.append(str(file.path))
        names[str(file.path)] = path
        return str(file.path)

    variants = [Variant(each.file, hand(each.path, each.file.sha256)) for each in trial.variants]
    parts = {role: hand(path, shas[path]) for role, path in trial.parts.items()}
    parent_parts = {role: hand(path, shas[path]) for role, path in trial.parent_parts.items()}
    if trial.what == "read":
        # what lies beside it is found by its name
        path = Path(trial.variants[0].path)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for handed, name in [*names.items()]:
            beside = os.path.relpath(name, path.parent)
            if not beside.startswith(os.pardir):
                (folder / beside).parent.mkdir(exist_ok=True)
                (folder / beside).symlink_to(handed)
        names[f"{folder}/"] = str(trial.variants[0].path).removesuffix(path.name)
        variants = [Variant(trial.variants[0].file, str(folder / path.name))]
    if trial.what in ("agree", "heads", "race", "derive"):
        read.append(str(paths.home() / "samples"))
    size = sum(variant.file.bytes for variant in trial.variants)
    room = Room(
        memory=trial.limits.memory + 8 * size,
        cpu_seconds=math.ceil(trial.limits.seconds),
        file_bytes=MOST_ANSWER + (8 * size if trial.out else 0),
        files=files,
        read=read,
        write=[str(Path(trial.out).parent)] if trial.out else [],
        devices=trial.bare or bool(os.environ.get("EDGE_AGENT_PROVIDERS")),
    )
    told = msgspec.structs.replace(trial, variants=variants, parts=parts, parent_parts=parent_parts)
    return told, room, names


FOLDERS = ("proofs", "reports")
"""a file on its own, and held against its parent"""


def refusals(manifest: Manifest) -> list[str]:
    """Each variant that was refused when it was last tried, and why, one line each."""
    return [
        f"refused: {row.title()}: {result.reason}"
        for row in manifest.networks()
        for result in [next((one for one in _latest(row.key()) if not one.passed), Result(True))]
        if not result.passed
    ]


def notes(manifest: Manifest) -> list[str]:
    """What the last trials of each variant said, one line each."""
    return [
        f"{row.title()}: {result.reason or '; '.join(result.notes)}"
        for row in manifest.networks()
        for result in _latest(row.key())
        if result.notes or not result.passed
    ]


def _latest(key: str) -> list[Result]:
    """The latest result of a variant on its own, and of it against a parent, as far as there are any."""
    found = []
    for folder in FOLDERS:
        own = [verdict.result for verdict in remembered(key, folder) if verdict.sha256[0] == key]
        tried = [result for result in own if result.notes or not result.passed]
        found += tried[:1]
    return found
