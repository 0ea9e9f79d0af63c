"""Verdicts are remembered: HOME/proofs, reports, races and derived hold a file for each, named by what it depends on.

That is the files, what the manifest says of them, the runtimes, the processor, and the code that gave it. A normal
start reads one of them and costs nothing; a refusal holds until one of these changes, or until it is asked to be tried
again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_agent import paths
from edge_agent.device.sandbox import may_compile
from edge_agent.events import rfc3339
from edge_agent.files import write
from edge_agent.gate.trial import Agree, AnyQuestion, Derive, Heads, Read, Result
from edge_agent.manifest import Manifest
from edge_agent.registry import store
from edge_agent.samples import recorded

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "tflite-runtime", "ctranslate2")
"""distributions whose version a verdict depends on"""
DECIDE = (
    *("gate", "tasks", "inspect", "samples", "backends", "families"),
    *("graphs", "pictures", "figures", "registry", "events"),
    *("device/sandbox.py", "device/landlock.py", "device/seccomp.py", "device/room.py"),
)
"""rooms and files whose code a verdict depends on, beside the files at the top: all that the child imports"""
FOLDERS = ("proofs", "reports")
"""a file on its own, and held against its parent"""


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
    code: str = ""
    """digest of the code that gave it"""


def verdict_on(question: AnyQuestion, result: Result, seconds: float) -> Verdict:
    """The Result as a verdict of here and now."""
    rows = [variant.file for variant in question.variants]
    return Verdict(
        model=question.manifests[0].name if question.manifests else question.variants[0].path,
        files=[row.title() for row in rows],
        sha256=[row.key() for row in rows],
        runtimes=runtimes(),
        cpu=cpu(),
        at=rfc3339(time.time()),
        seconds=round(seconds, 3),
        result=result,
        code=code(),
    )


def recall(question: AnyQuestion) -> Verdict | None:
    """The verdict on such a question; None when none is remembered."""
    return _read(_place(question))


def remember(question: AnyQuestion, verdict: Verdict, shas: Mapping[str, str] | None = None) -> None:
    """Keep a verdict as that on such a question; `shas`: those of the parts, if known.

    On a disk that takes nothing it is not kept: the model is tried again at the next start.
    """
    place = _place(question, shas)
    with contextlib.suppress(OSError):
        write(place, msgspec.json.format(msgspec.json.encode(verdict)).decode() + "\n")
    # of what was made, the files have to go as well (serving/forms.py)
    if not isinstance(question, Derive):
        _forget(place.parent, verdict)


def _forget(folder: Path, verdict: Verdict) -> None:
    """Delete what other code said of the same files: nobody finds it any more."""
    for place in folder.glob("*.json"):
        other = _read(place)
        if other is not None and other.sha256 == verdict.sha256 and other.code != verdict.code:
            with contextlib.suppress(OSError):
                place.unlink()


def used(question: AnyQuestion) -> None:
    """Note that what was made for such a question is used now: what was not for the longest is deleted first."""
    with contextlib.suppress(OSError):
        os.utime(_place(question))


def remembered(key: str, folder: str = "proofs") -> list[Verdict]:
    """All verdicts in HOME/`folder` on a variant (File.key), the latest first.

    Those of another processor or runtime, as a home that was moved has them, and of other code do not count.
    """
    read = [_read(place) for place in (paths.home() / folder).glob("*.json")]
    found = [one for one in read if one is not None and key in one.sha256]
    return sorted(filter(_is_of_here, found), key=lambda verdict: verdict.at, reverse=True)


def _is_of_here(verdict: Verdict) -> bool:
    return (verdict.cpu, verdict.runtimes, verdict.code) == (cpu(), runtimes(), code())


def _place(question: AnyQuestion, shas: Mapping[str, str] | None = None) -> Path:
    return paths.home() / question.folder / f"{key(question, shas)}.json"


def _read(place: Path) -> Verdict | None:
    """None for what is not there or was not written by this version."""
    try:
        return msgspec.json.decode(place.read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None


# ── what a verdict depends on ────────────────────────────────────────────────────────────────────────────


def digests(question: AnyQuestion) -> dict[str, str]:
    """path -> SHA-256 of the parts, as they lie there now."""
    every = (question.parts, question.lent_parts)
    return {path: store.digest(Path(path)) for given in every for path in given.values()}


def key(question: AnyQuestion, shas: Mapping[str, str] | None = None) -> str:
    """Hex digest of all that could change the verdict, the limits among them; `shas`: those of the parts, if known."""
    known = digests(question) if shas is None else shas
    files = [msgspec.structs.replace(variant.file, name="", sources=[]) for variant in question.variants]
    # what is said about a model's origin does not change what it computes
    origin = {"name": "", "version": "", "description": "", "card": None, "made": None}
    manifests = [msgspec.structs.replace(one, **origin, file=files) for one in question.manifests]
    parts = [{role: known[path] for role, path in given.items()} for given in (question.parts, question.lent_parts)]
    asked = (type(question).__name__, files, manifests, parts, question.threads, question.limits)
    told = question.told if isinstance(question, Read) else {}
    shown = recorded.fingerprint() if isinstance(question, (Agree, Heads)) else []
    here = (code(), runtimes(), cpu(), os.environ.get("EDGE_AGENT_PROVIDERS", ""), may_compile())
    return hashlib.sha256(msgspec.json.encode((asked, told, shown, here), order="deterministic")).hexdigest()[:32]


@functools.cache
def code() -> str:
    """Digest of our own code that decides what a verdict says; that of a package that is installed anew is the same."""
    # plain strings: paths cost more than all of the reading, and each start waits for this
    root, digest = str(paths.PACKAGE), hashlib.blake2b(digest_size=16)
    files = [f"{root}/{name}" for name in os.listdir(root)]  # noqa: PTH208
    for room in DECIDE:
        inside = [f"{folder}/{name}" for folder, _, names in os.walk(f"{root}/{room}") for name in names]
        files += inside or [f"{root}/{room}"]
    for file in sorted(file for file in files if file.endswith(".py")):
        with open(file, "rb", buffering=0) as source:  # noqa: PTH123
            data = source.read()
        digest.update(f"{file.removeprefix(root)} {len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


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


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────


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
