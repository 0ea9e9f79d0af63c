"""``make fuzz MINUTES=10``: mutants of everything that a stranger can send, until the time is up; what broke is kept.

Each kind runs in a process of its own, so that one that dies is seen. A case that raised or killed lies under
build/fuzz/KIND; ``python -m tests.fuzz --again FILE`` runs it once more.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.conftest import ROOT
from tests.fuzz.mutate import mutants

OUT = ROOT / "build" / "fuzz"
IN_ACCESS, IN_MODIFY, IN_OPEN = 1, 2, 0x20


def main() -> int:
    """1 when anything broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each kind")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="mutants of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kind", action="append", help="only these")
    parser.add_argument("--again", type=Path, help="a case that broke, in build/fuzz/KIND/NUMBER-of-its-seed-…")
    args = parser.parse_args()
    from tests.fuzz.targets import KINDS

    if args.again:
        with KINDS[args.again.parent.name][1]() as target:
            print(target(int(args.again.name.partition("-")[0]), args.again.read_bytes()))
        return 0
    broken = 0
    for kind in args.kind or KINDS:
        broken += _storm(kind, args.seed, args.minutes * 60, args.most)
    return 1 if broken else 0


def _storm(kind: str, seed: int, seconds: float, most: int) -> int:
    """Run one kind; how many mutants broke something. A process that dies is followed by another one."""
    began, done, broken, told = time.monotonic(), 0, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        canaries, watch = _canaries(Path(name))
        while done < most and time.monotonic() - began < seconds:
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                os.environ["EDGE_AGENT_HOME"] = f"{name}/home"
                # so that the models among them lie where tests.fuzz.targets.CANARY leads to a canary
                tempfile.tempdir = name
                _work(kind, seed + done, seconds - (time.monotonic() - began), most - done, writing)
            os.close(writing)
            last = b""
            with os.fdopen(reading, "rb") as pipe:
                for line in pipe:
                    last = line
                    what, case = json.loads(line)
                    if what == "trying":
                        continue
                    done += 1
                    told[what] += 1
                    broken += what.startswith("BROKE")
                    if what.startswith("BROKE"):
                        print(f"{kind}: {what}: {case}", flush=True)
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                broken += 1
                done += 1
                print(f"{kind}: the process died of signal {os.WTERMSIG(status)}: {json.loads(last)[1]}", flush=True)
            elif os.WEXITSTATUS(status):
                print(f"{kind}: the process ended with {os.WEXITSTATUS(status)}", flush=True)
                broken += 1
                break
        touched = _touched(*watch)
        touched += [path.name for path in canaries.iterdir() if path.read_bytes() != b"canary"]
    took = time.monotonic() - began
    outside = f"TOUCHED: {', '.join(touched)}" if touched else "untouched"
    print(
        f"{kind}: {done} mutants in {took:.0f} s (seed {seed}), {broken} broke something, files outside "
        f"{outside}; {', '.join(f'{n} {what}' for what, n in told.most_common())}",
        flush=True,
    )
    return broken + len(touched)


def _work(kind: str, seed: int, seconds: float, most: int, out: int) -> None:
    """In a process of its own: try mutants, and say what became of each."""
    from tests.fuzz.targets import KINDS

    seeds, target_of = KINDS[kind]
    until = time.monotonic() + seconds
    current = OUT / kind / "current"
    current.parent.mkdir(parents=True, exist_ok=True)
    code = 0

    def say(what: str, case: str = "") -> None:
        os.write(out, json.dumps([what[:200], case]).encode() + b"\n")

    try:
        with target_of() as target:
            for number, data in itertools.islice(mutants(seeds(), seed), most):
                if time.monotonic() > until:
                    break
                current = current.with_name(f"{number}-{os.getpid()}")
                current.write_bytes(data)
                say("trying", str(current))
                try:
                    say(target(number, data))
                except Exception as error:
                    kept = current.with_name(f"{number}-{hash(data) & 0xFFFFFFFF:08x}")
                    current.replace(kept)
                    kept.with_suffix(".txt").write_text(traceback.format_exc())
                    say(f"BROKE {type(error).__name__} {str(error)[:120]!r}", str(kept))
                current.unlink(missing_ok=True)
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


def _canaries(folder: Path) -> tuple[Path, tuple[int, dict[int, str]]]:
    """Files that nobody has a reason to open, near where the mutants lie, and what tells of it: a descriptor, and the
    name of each of its watches. Only these: others use the rest of this machine too.
    """
    place = folder / "canaries"
    place.mkdir()
    for name in ("canary", "passwd", "weights"):
        (place / name).write_text("canary")
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    seen = IN_ACCESS | IN_MODIFY | IN_OPEN
    names = {libc.inotify_add_watch(watch, os.fsencode(path), seen): path.name for path in place.iterdir()}
    return place, (watch, names)


def _touched(watch: int, names: dict[int, str]) -> list[str]:
    """What was opened, read or written since; inotify(7)."""
    found, at = set(), 0
    try:
        events = os.read(watch, 1 << 16)
    except BlockingIOError:
        return []
    while at < len(events):
        number, _, _, size = struct.unpack_from("iIII", events, at)
        found.add(names.get(number, "more than was kept"))
        at += 16 + size
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
