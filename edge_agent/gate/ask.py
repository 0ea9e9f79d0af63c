"""Ask the child process about a model, or look up what it said before (gate/verdicts.py).

A hostile or broken file can take memory, time or the whole process with it, so the first process that loads it is not
the agent: it is a Python of its own (gate/child.py), which may do little but compute (device/sandbox.py). It reads a
question and writes a Result, one JSON each (gate/trial.py); it was taken over, for all one knows, so what it writes is
believed within bounds only.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from edge_agent import paths
from edge_agent.device.room import Room
from edge_agent.errors import RefusedError
from edge_agent.gate.trial import Agree, AnyQuestion, Derive, Race, Read, Result, Variant
from edge_agent.gate.verdicts import Verdict, digests, recall, remember, verdict_on
from edge_agent.held import held
from edge_agent.programs import environment, python

log = logging.getLogger("edge_agent")

CHILD = python("edge_agent.gate.child")
MOST_ANSWER = 16 << 20
"""bytes of a Result"""
MOST_NOTES, MOST_WORDS = 200, 2000
"""notes, and characters of each and of the reason, that are kept"""


def ask(question: AnyQuestion, *, again: bool = False) -> Verdict:
    """The verdict on a question: the remembered one, or that of the child, which is asked now (`again`: anyway)."""
    if not again and (known := recall(question)) is not None:
        return known
    shas = digests(question)
    began = time.monotonic()
    result, lasting = _hold(question, shas)
    verdict = verdict_on(question, result, time.monotonic() - began)
    if lasting:
        remember(question, verdict, shas)
    return verdict


OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
"""what a trial dies of when it is stopped from outside, as with the service, or by the kernel when memory runs out"""


def _hold(question: AnyQuestion, shas: Mapping[str, str]) -> tuple[Result, bool]:
    """Run the child. Whatever becomes of it, a Result comes back, and whether it says something about the model: what
    happened for want of memory or time, or because somebody stopped it, may go well the next time.
    """
    with contextlib.ExitStack() as stack:
        try:
            told, room, names = _handed(question, shas, stack)
            asked, answer, said = (_in_memory(stack) for _ in range(3))
        except RefusedError as error:
            return Result(False, str(error)), False
        except OSError as error:
            return Result(False, f"its trial could not be started ({error.strerror}); free memory and try again"), False
        # on the clock longer where the processors are shared by more than they can do at once
        shared = max(1.0, min(MOST_SHARED, os.getloadavg()[0] / len(os.sched_getaffinity(0))))
        limits = msgspec.structs.replace(question.limits, seconds=question.limits.seconds * shared)
        told, question = (msgspec.structs.replace(one, limits=limits) for one in (told, question))
        asked.write(msgspec.json.encode(told))
        asked.seek(0)
        result, lasting = _run(question, room, asked, answer, said)
        for handed, name in names.items():
            # of descriptors, 1 is also the beginning of 12
            result = _worded(result, re.compile(re.escape(handed) + ("" if handed.endswith("/") else r"(?!\d)")), name)
        return result, lasting


MOST_SHARED = 10.0
"""times as long as its limit a trial may take on the clock"""
SAID_S = 10.0
"""seconds between two lines about a trial that goes on"""


def _wait(child: subprocess.Popen[bytes], question: AnyQuestion) -> None:
    """Wait for the child and say from time to time what it does. TimeoutExpired after the question's limit."""
    first = question.variants[0]
    named = question.manifests[0].name if question.manifests else Path(first.path).parent.name
    doing = f"{named}: {first.file.title()} {question.doing}"
    log.info("%s, once", doing)
    began = time.monotonic()
    while (left := began + question.limits.seconds - time.monotonic()) > SAID_S:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(SAID_S)
            return
        log.info("%s: %.0f s so far", doing, time.monotonic() - began)
    child.wait(max(0.0, left))


def _run(
    question: AnyQuestion, room: Room, asked: IO[bytes], answer: IO[bytes], said: IO[bytes]
) -> tuple[Result, bool]:
    """The child's Result, and whether it is one about the model."""
    limit = f"{question.limits.seconds:.3g} s"
    told = {**environment(), "EDGE_AGENT_HOME": str(paths.home()), "MALLOC_ARENA_MAX": "2"}
    command = [*CHILD, msgspec.json.encode(room).decode()]
    try:
        child = subprocess.Popen(
            command, stdin=asked, stdout=answer, stderr=said, env=told, cwd="/", pass_fds=room.files
        )
    except OSError as error:
        mend = "free memory and try again" if error.errno in (errno.ENOMEM, errno.EAGAIN) else "check that Python runs"
        return Result(False, f"its trial could not be started ({error.strerror}); {mend}"), False
    try:
        _wait(child, question)
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
    return _believed(question, answer, child.returncode, said), True


def _believed(question: AnyQuestion, answer: IO[bytes], returned: int, said: IO[bytes]) -> Result:
    """What the child wrote, if that is of the kind and the size that was asked for; else a refusal."""
    out = os.pread(answer.fileno(), MOST_ANSWER + 1, 0)
    try:
        if len(out) > MOST_ANSWER:
            raise msgspec.ValidationError("too large")
        result = msgspec.json.decode(out, type=Result)
        if result.passed and question.figures is not None:
            figures = msgspec.to_builtins(msgspec.convert(result.figures, question.figures))
            result = msgspec.structs.replace(result, figures=figures)
    except msgspec.MsgspecError as error:
        size = os.fstat(said.fileno()).st_size
        last = os.pread(said.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").strip().splitlines()
        if out:
            return Result(False, f"what its trial process answered cannot be used ({str(error)[:200]})")
        return Result(False, f"its trial process ended with {returned}: {(last or ['it said nothing'])[-1][:200]}")
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


def _handed(
    question: AnyQuestion, shas: Mapping[str, str], stack: contextlib.ExitStack
) -> tuple[AnyQuestion, Room, dict[str, str]]:
    """The question about files that are held, the child's room, and the names of what it knows by others.

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

    variants = [Variant(each.file, each.path and hand(each.path, each.file.sha256)) for each in question.variants]
    parts = {role: hand(path, shas[path]) for role, path in question.parts.items()}
    told = msgspec.structs.replace(question, variants=variants, parts=parts)
    if isinstance(told, Agree):
        lent = {role: hand(path, shas[path]) for role, path in told.parent_parts.items()}
        told = msgspec.structs.replace(told, parent_parts=lent)
    if isinstance(told, Read):
        told = msgspec.structs.replace(told, variants=[_beside(question.variants[0], names, stack)])
    return told, _room(question, files, read), names


def _room(question: AnyQuestion, files: list[int], read: list[str]) -> Room:
    """What the child may use, beside the files that it is handed."""
    size = sum(each.file.bytes for each in question.variants if each.path)
    out = question.out if isinstance(question, Derive) else ""
    return Room(
        memory=question.limits.memory + 8 * size,
        cpu_seconds=math.ceil(question.limits.seconds),
        file_bytes=MOST_ANSWER + (8 * size if out else 0),
        files=files,
        read=[*read, str(paths.home() / "samples")] if question.sees_samples else read,
        write=[str(Path(out).parent)] if out else [],
        devices=bool((isinstance(question, Race) and question.bare) or os.environ.get("EDGE_AGENT_PROVIDERS")),
    )


def _beside(variant: Variant, names: dict[str, str], stack: contextlib.ExitStack) -> Variant:
    """The variant in a folder where what lies beside it is found by its name; the folder is added to `names`."""
    path = Path(variant.path)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for handed, name in [*names.items()]:
        beside = os.path.relpath(name, path.parent)
        if not beside.startswith(os.pardir):
            (folder / beside).parent.mkdir(exist_ok=True)
            (folder / beside).symlink_to(handed)
    names[f"{folder}/"] = variant.path.removesuffix(path.name)
    return Variant(variant.file, str(folder / path.name))
