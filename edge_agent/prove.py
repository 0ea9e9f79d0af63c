"""Before a model serves, it is tried in a child process with limits; the verdict is remembered.

A hostile or broken file can take memory, time or the whole process with it, so the first process that loads it is not
the agent: it is a Python of its own (proof.py), which reads a Trial and writes a Result, one JSON each. Verdicts lie
in HOME/proofs under what they depend on: the files, what the manifest says of them, the runtimes and the processor.
A normal start reads one of them and costs nothing; a refusal holds until one of these changes, or until it is asked
to be tried again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_agent import registry
from edge_agent.errors import FetchError, RefusedError
from edge_agent.manifest import File, Manifest, most_precise
from edge_agent.programs import python
from edge_agent.registry import store
from edge_agent.types import rfc3339

VERSION = 8
"""of what the trials look at: another one tries every model anew"""
CHILD = python("edge_agent.proof")
MOST_SAMPLES = 64
"""files in HOME/samples that are looked at"""
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "tflite-runtime")
"""distributions whose version a verdict depends on"""


class Limits(msgspec.Struct, frozen=True):
    """What a trial may use."""

    seconds: float = 60.0
    """on the clock; processor time may be as much on every core"""
    memory: int = 4 << 30
    """bytes of address space, beside eight times the files' size"""


LIMITS = Limits()


class Variant(msgspec.Struct, frozen=True):
    """One network file of a model."""

    file: File
    path: str


class Trial(msgspec.Struct, frozen=True):
    """What the child is asked."""

    what: Literal["load", "prove", "read", "agree", "heads", "race", "derive"]
    variants: list[Variant]
    threads: int
    limits: Limits
    manifest: Manifest | None = None
    parts: dict[str, str] = {}
    """role -> file, for vocabulary and tokenizer"""
    parent: Manifest | None = None
    """of the second variant, which the first is held against; None: the two are files of one model"""
    parent_parts: dict[str, str] = {}
    seconds: float = 3.0
    """of a race"""
    bare: bool = False
    """race: time a default session of the original as well"""
    skip: list[str] = []
    """race: keys of the variants that do not take part, as they were refused"""
    out: str = ""
    """derive: where the faster form is to be written"""


class Result(msgspec.Struct, frozen=True):
    """What the child found."""

    passed: bool
    reason: str = ""
    """why it is refused, one line"""
    notes: list[str] = []
    """what was seen, one line each"""
    figures: dict[str, Any] = {}


class Verdict(msgspec.Struct, frozen=True):
    """A Result as it is remembered."""

    model: str
    files: list[str]
    sha256: list[str]
    """of each file; behind it the size, where a row has its own (File.key)"""
    runtimes: dict[str, str]
    cpu: str
    at: str
    """RFC 3339 UTC"""
    seconds: float
    result: Result


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
    located: registry.Located, sound: set[str], parts: Mapping[str, Path], *, again: bool = False
) -> list[tuple[str, str, list[str]]]:
    """Hold each head beside an encoder (mlm, nsp), on the first network of `sound` (names of those that may serve),
    against its most precise form on the most precise of them (agree_heads.py); verdicts in HOME/reports.

    The name of each, why it is refused ("" when it is not), and notes.
    """
    manifest, tried = located.manifest, []
    networks = [row for row in manifest.networks() if row.title() in sound]
    given = {role: str(part.absolute()) for role, part in parts.items()}
    for role in ("mlm", "nsp"):
        rows = [row for row in manifest.file if row.role == role and registry.is_here(located, row)]
        for row in rows:
            held = networks[0], row, most_precise(networks), most_precise(rows)
            try:
                variants = [Variant(one, str(registry.file_path(located, one).absolute())) for one in held]
                result = ask("reports", Trial("heads", variants, 0, LIMITS, manifest, given), again=again).result
                tried.append(
                    (row.name, result.reason and f"{manifest.name}: {row.name}: {result.reason}", result.notes)
                )
            except FetchError as error:
                tried.append((row.name, str(error), []))
    return tried


def recall(folder: str, trial: Trial) -> Verdict | None:
    """The verdict of such a trial in HOME/`folder`; None when none is remembered."""
    return _read(registry.home() / folder / f"{_key(trial)}.json")


def ask(folder: str, trial: Trial, *, again: bool = False) -> Verdict:
    """The verdict of a trial: the remembered one, or that of the trial held now."""
    if not again and (known := recall(folder, trial)) is not None:
        return known
    place = registry.home() / folder / f"{_key(trial)}.json"
    began = time.monotonic()
    result, lasting = _hold(trial)
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
        # a disk that takes nothing means that it is tried again at the next start
        with contextlib.suppress(OSError):
            store.write(place, msgspec.json.format(msgspec.json.encode(verdict)).decode() + "\n")
    return verdict


def remembered(key: str, folder: str = "proofs") -> list[Verdict]:
    """All verdicts in HOME/`folder` on a variant (File.key), the latest first."""
    places = (registry.home() / folder).glob("*.json")
    found = [verdict for place in places if (verdict := _read(place)) is not None and key in verdict.sha256]
    return sorted(found, key=lambda verdict: verdict.at, reverse=True)


def _read(place: Path) -> Verdict | None:
    """None for what is not there or was not written by this version."""
    try:
        return msgspec.json.decode(place.read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None


# ── what a verdict depends on ────────────────────────────────────────────────────────────────────────────


def _key(trial: Trial) -> str:
    """Hex digest of all that could change the verdict, the limits among them."""
    files = [msgspec.structs.replace(variant.file, name="", sources=[]) for variant in trial.variants]
    # what is said about a model's origin does not change what it computes
    manifests = [
        one and msgspec.structs.replace(one, name="", version="", description="", card=None, made=None, file=files)
        for one in (trial.manifest, trial.parent)
    ]
    parts = [
        {role: store.digest(Path(path)) for role, path in given.items()} for given in (trial.parts, trial.parent_parts)
    ]
    providers = os.environ.get("EDGE_AGENT_PROVIDERS", "")
    told = (VERSION, trial.what, files, manifests, parts, trial.threads, trial.limits)
    told = (*told, runtimes(), cpu(), providers, _samples() if trial.what in ("agree", "heads") else "")  # type: ignore[assignment]
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]


def samples() -> list[Path]:
    """What this device recorded to hold variants against: HOME/samples/*.jpg, .png and .txt (a sentence a line)."""
    found = [path for path in (registry.home() / "samples").glob("*") if path.suffix in (".jpg", ".png", ".txt")]
    return sorted(found)[:MOST_SAMPLES]


def labels() -> Path | None:
    """The boxes that people drew in them: HOME/samples/instances.json, in COCO's format; None where there are none."""
    path = registry.home() / "samples" / "instances.json"
    return path if path.is_file() else None


def _samples() -> list[str]:
    # what was written into one since, of the same length too
    found = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in samples()]
    drawn = labels()
    return [*found, store.digest(drawn)] if drawn else found


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


def _hold(trial: Trial) -> tuple[Result, bool]:
    """Run the child. Whatever becomes of it, a Result comes back, and whether it says something about the model: what
    happened for want of memory or time, or because somebody stopped it, may go well the next time.
    """
    limit = f"{trial.limits.seconds:g} s"
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    try:
        child = subprocess.Popen(
            CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
    except OSError as error:
        mend = "free memory and try again" if error.errno in (errno.ENOMEM, errno.EAGAIN) else "check that Python runs"
        return Result(False, f"its trial could not be started ({error.strerror}); {mend}"), False
    try:
        out, said = child.communicate(msgspec.json.encode(trial), timeout=trial.limits.seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return Result(False, f"its trial run did not end within {limit}"), False
    if child.returncode in (-signal.SIGXCPU, -signal.SIGALRM):
        return Result(False, f"its trial run did not end within {limit}"), child.returncode == -signal.SIGXCPU
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        why = {"SIGILL": ", an instruction that this processor lacks", "SIGKILL": ", as when memory runs out"}
        dead = Result(False, f"its trial process died of {name}{why.get(name, '')}")
        return dead, -child.returncode not in OUTSIDE
    try:
        return msgspec.json.decode(out, type=Result), True
    except msgspec.MsgspecError:
        last = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        return Result(False, f"its trial process ended with {child.returncode}: {last[-1][:200]}"), True
