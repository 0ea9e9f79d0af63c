"""What a process in a room may not do, tried by one that does its worst; and a real trial of a model that does."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.cli import doctor
from edge_agent.device import landlock, sandbox, seccomp
from edge_agent.device.room import Room
from edge_agent.errors import RefusedError
from edge_agent.gate import admit, ask
from tests.gate.test_ask import manifest
from tests.nets import blob_finder_onnx

LACKS = sandbox.missing()
needs_landlock = pytest.mark.skipif(
    any("Landlock" in one for one in LACKS), reason=f"this kernel has no {', '.join(LACKS)}"
)
needs_seccomp = pytest.mark.skipif(
    any("seccomp" in one for one in LACKS), reason=f"this kernel has no {', '.join(LACKS)}"
)

ENTER = """
import ctypes, errno, json, os, resource, signal, socket, sys, threading
import msgspec
from edge_agent.cli import doctor
from edge_agent.device import sandbox
from edge_agent.device.room import Room
given = json.loads(sys.argv[2])
sandbox.enter(msgspec.json.decode(sys.argv[1], type=Room))
libc = ctypes.CDLL(None, use_errno=True)
def raw(number, *arguments):
    ctypes.set_errno(0)
    # those that do not return are not to be tried with arguments that work
    if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), "")
def attempt(act):
    try: act()
    except OSError as error: return errno.errorcode.get(error.errno, str(error.errno))
    except BaseException as error: return type(error).__name__
    return "done"
"""


def tried(room: Room, code: str, **given: Any) -> dict[str, str]:
    """What became of each attempt: done, or the name of the error."""
    words = [sys.executable, "-c", f"{ENTER}\n{code}", msgspec.json.encode(room).decode(), json.dumps(given)]
    done = subprocess.run(words, capture_output=True, text=True, pass_fds=room.files, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def small(**more: Any) -> Room:
    return Room(memory=1 << 30, cpu_seconds=20, file_bytes=1 << 20, **more)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "canary"
    path.parent.mkdir()
    path.write_text("secret")
    return path


FILES = """
def opened(path, mode="r"):
    with open(path, mode) as file: file.read() if mode == "r" else file.write("x")
own, other, fd = given["own"], given["canary"], given["fd"]
print(json.dumps({
    "its file": attempt(lambda: opened(f"/proc/self/fd/{fd}")),
    "its file, to write": attempt(lambda: opened(f"/proc/self/fd/{fd}", "r+")),
    "make": attempt(lambda: opened(f"{own}/new", "w")),
    "rename": attempt(lambda: os.rename(f"{own}/new", f"{own}/newer")),
    "remove": attempt(lambda: os.unlink(f"{own}/newer")),
    "module": attempt(lambda: __import__("decimal")),
    "read": attempt(lambda: opened(other)),
    "read from a thread": (lambda found: (lambda t: (t.start(), t.join(), found[0])[2])(
        threading.Thread(target=lambda: found.append(attempt(lambda: opened(other))))))([]),
    "passwords": attempt(lambda: opened("/etc/passwd")),
    "the parent's secrets": attempt(lambda: opened(f"/proc/{os.getppid()}/environ")),
    "look around": attempt(lambda: os.listdir(os.path.dirname(other))),
    "write": attempt(lambda: opened(other, "w")),
    "append": attempt(lambda: opened(other, "a")),
    "make elsewhere": attempt(lambda: opened(other + "2", "w")),
    "temporary": attempt(lambda: opened("/tmp/edge-agent-test", "w")),
    "out of it": attempt(lambda: (opened(f"{own}/n", "w"), os.rename(f"{own}/n", other + "3"))),
    "into it": attempt(lambda: os.rename(other, f"{own}/mine")),
    "remove elsewhere": attempt(lambda: os.unlink(other)),
    "folder elsewhere": attempt(lambda: os.mkdir(other + "4")),
}))
"""


@needs_landlock
def test_files_but_those_of_the_room(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "model").write_text("weights")
    with (tmp_path / "model").open() as model:
        room = small(files=[model.fileno()], write=[str(tmp_path / "own")])
        found = tried(room, FILES, own=str(tmp_path / "own"), canary=str(canary), fd=model.fileno())
    allowed = {"its file", "make", "rename", "remove", "module"}
    assert {name for name, how in found.items() if how == "done"} == allowed, found
    assert all(how in ("EACCES", "EXDEV") for name, how in found.items() if name not in allowed), found
    assert canary.read_text() == "secret" and (tmp_path / "model").read_text() == "weights"
    assert sorted(path.name for path in canary.parent.iterdir()) == ["canary"]


@needs_seccomp
def test_owners_modes_and_links(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "own").mkdir()
    code = """
own, other = given["own"], given["canary"]
open(own + "/x", "w").close()
print(json.dumps({
    "mode": attempt(lambda: os.chmod(own + "/x", 0o777)), "mode elsewhere": attempt(lambda: os.chmod(other, 0o777)),
    "owner": attempt(lambda: os.chown(other, 1, 1)), "time": attempt(lambda: os.utime(other)),
    "link": attempt(lambda: os.link(other, own + "/y")), "symlink": attempt(lambda: os.symlink(other, own + "/z")),
    "attribute": attempt(lambda: os.setxattr(other, "user.x", b"1")), "cut": attempt(lambda: os.truncate(other, 0)),
    "device": attempt(lambda: os.mknod(own + "/d", 0o20600, os.makedev(1, 5))),
    "pipe": attempt(lambda: os.mkfifo(own + "/p")),
}))
"""
    before = canary.stat()
    found = tried(small(write=[str(tmp_path / "own")]), code, own=str(tmp_path / "own"), canary=str(canary))
    assert set(found.values()) == {"EPERM"}, found
    assert canary.stat() == before and canary.read_text() == "secret"


PROCESSES = """
parent = os.getppid()
print(json.dumps({
    "thread": attempt(lambda: (lambda t: (t.start(), t.join()))(threading.Thread(target=lambda: None))),
    "itself": attempt(lambda: os.kill(os.getpid(), 0)),
    "limits, read": attempt(lambda: resource.getrlimit(resource.RLIMIT_AS)),
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "execveat": attempt(lambda: os.execve(os.open("/bin/sh", os.O_RDONLY), ["x"], {})),
    "fork": attempt(os.fork), "spawn": attempt(lambda: os.posix_spawn("/bin/true", ["true"], {})),
    "signal": attempt(lambda: os.kill(parent, 0)), "group": attempt(lambda: os.killpg(0, 0)),
    "every process": attempt(lambda: os.kill(-1, 0)),
    "trace": attempt(lambda: raw(given["ptrace"], 16, parent, 0, 0)),
    "limits": attempt(lambda: resource.prlimit(0, resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))),
    "limits of the parent": attempt(lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1))),
    "a call of later": attempt(lambda: raw(5000)),
}))
"""


@needs_seccomp
def test_other_programs_and_processes(tmp_path: Path) -> None:
    column = seccomp.ARCHITECTURES[platform.machine()][1]
    found = tried(small(), PROCESSES, ptrace=seccomp.CALLS["ptrace"][column])
    allowed = {"thread", "itself", "limits, read"}
    assert {name for name, how in found.items() if how == "done"} == allowed, found
    assert found.pop("a call of later") == "ENOSYS"
    assert all(how in ("EPERM", "EACCES") for name, how in found.items() if name not in allowed), found


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


TALK = """
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s: s.sendto(b"x", ("127.0.0.1", 9))
print(json.dumps({
    "TCP": attempt(lambda: socket.create_connection(("127.0.0.1", given["port"]))), "UDP": attempt(datagram),
    "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0))),
    "local": attempt(lambda: socket.socket(socket.AF_UNIX)), "pair": attempt(socket.socketpair),
    "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "a ring past the filter": attempt(lambda: raw(425, 4, 0)),
}))
"""


@needs_seccomp
def test_the_network(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert set(tried(small(), TALK, port=port).values()) == {"EPERM"}
    with pytest.raises(TimeoutError):
        listener.accept()
    camera = tried(small(network=True, ports=[port]), TALK, port=port)
    assert {name for name, how in camera.items() if how == "done"} == {"TCP", "UDP"}, camera
    listener.accept()[0].close()
    other = tried(small(network=True, ports=[1]), TALK, port=port)
    assert other["TCP"] == "EACCES" or any("TCP" in one for one in LACKS)
    open_ = tried(small(network=True), TALK, port=port)
    assert {name for name, how in open_.items() if how == "done"} == {"TCP", "UDP", "listen"}, open_
    drivers = tried(small(devices=True), TALK, port=port)
    assert {name for name, how in drivers.items() if how == "done"} == {"netlink"}, drivers


@needs_landlock
def test_the_network_by_landlock_alone(listener: socket.socket) -> None:
    alone = ENTER.replace("sandbox.enter(", "sandbox.seccomp.refuse_calls = lambda *_: None\nsandbox.enter(")
    words = [sys.executable, "-c", f"{alone}\n{TALK}", msgspec.json.encode(small()).decode()]
    words.append(json.dumps({"port": listener.getsockname()[1]}))
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert (found["TCP"], found["listen"]) == ("EACCES", "EACCES"), found


@needs_seccomp
def test_each_call_of_the_table_is_refused() -> None:
    column = seccomp.ARCHITECTURES[platform.machine()][1]
    numbers = {name: both[column] for name, both in seccomp.CALLS.items() if both[column] is not None}
    code = (
        'print(json.dumps({name: attempt(lambda: raw(n, -1, -1, -1, -1, -1, -1)) for name, n in given["n"].items()}))'
    )
    found = tried(small(), code, n=numbers)
    assert found == dict.fromkeys(numbers, "EPERM")


@pytest.mark.parametrize(
    ("machine", "file", "name"),
    [("x86_64", "asm/unistd_64.h", r"__NR_(\w+)"), ("aarch64", "asm-generic/unistd.h", r"__NR(?:3264)?_(\w+)")],
)
def test_the_numbers_are_those_of_the_kernel_s_headers(machine: str, file: str, name: str) -> None:
    places = [folder / file for folder in (Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu"))]
    header = next((place for place in places if place.is_file()), None)
    if header is None:
        pytest.skip(f"no {file} here: it is of linux-libc-dev")
    known = {m[1]: int(m[2]) for m in re.finditer(rf"#define {name}\s+(\d+)", header.read_text())}
    column = seccomp.ARCHITECTURES[machine][1]
    others = {"socket": seccomp.SOCKET, "socketpair": seccomp.SOCKETPAIR, "clone": seccomp.CLONE, "kill": seccomp.KILL}
    others |= {"tgkill": seccomp.TGKILL, "prlimit64": seccomp.PRLIMIT, "clone3": (seccomp.CLONE3,) * 2}
    ours = {name: both[column] for name, both in {**seccomp.CALLS, **others}.items()}
    assert {name: known.get(name) for name in ours if name in known or known.get("fchmodat2")} == {
        name: number for name, number in ours.items() if name in known or known.get("fchmodat2")
    }


def test_the_filter_of_the_other_processor_has_its_own_numbers() -> None:
    for machine, (audit, column) in seccomp.ARCHITECTURES.items():
        program = seccomp.program(machine, 7, small())
        steps = [program[at : at + 8] for at in range(0, len(program), 8)]
        values = [int.from_bytes(step[4:], "little") for step in steps]
        assert values[1] == audit and len(steps) < 4096
        assert {both[column] for both in seccomp.CALLS.values()} - {None} <= set(values)


def test_limits() -> None:
    code = """
own = given["own"]
def grow():
    with open(own, "wb") as file:
        for _ in range(64): file.write(bytes(1 << 16)); file.flush()
print(json.dumps({"memory": attempt(lambda: bytearray(3 << 30)), "file": attempt(grow),
    "core": "done" if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else "no",
    "descriptors": attempt(lambda: [os.dup(0) for _ in range(300)])}))
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = tried(small(write=[folder]), code, own=f"{folder}/x")
        assert found == {"memory": "MemoryError", "file": "EFBIG", "core": "done", "descriptors": "EMFILE"}
        assert os.stat(f"{folder}/x").st_size == 1 << 20  # noqa: PTH116


@needs_landlock
@needs_seccomp
def test_a_model_that_takes_over_the_runtime_gets_nowhere(
    tmp_path: Path, canary: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child on a real file; the code that such a model would run stands in for the runtime."""
    home = tmp_path / "home"
    monkeypatch.setenv("EDGE_AGENT_HOME", str(home))
    monkeypatch.setenv("A_TOKEN", "hunter2")
    (home / "models").mkdir(parents=True)
    (home / "models" / "other").write_text("another model")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "crash.py").write_text(f"""
import os, socket, subprocess
from edge_agent.errors import RefusedError
def load(path, threads, source=None):
    acts = dict(
        read=lambda: open({str(canary)!r}).read(), model=lambda: open({str(home / "models" / "other")!r}).read(),
        write=lambda: open({str(canary)!r}, "w"), blob=lambda: open({str(home / "new")!r}, "w"),
        over=lambda: open({str(tmp_path / "m.onnx")!r}, "r+"), run=lambda: subprocess.run(["/bin/true"]),
        call=lambda: socket.create_connection(("127.0.0.1", {listener.getsockname()[1]})),
        parent=lambda: open(f"/proc/{{os.getppid()}}/environ").read(), token=lambda: os.environ["A_TOKEN"],
    )
    done = []
    for name, act in acts.items():
        try: act()
        except (OSError, KeyError): continue
        done.append(name)
    raise RefusedError(f"done: {{done}}, own file of {{os.stat(path).st_size}} bytes")
""")
    code = (
        f"import sys; sys.path += [{str(tmp_path / 'modules')!r}, {str(tmp_path)!r}]\n"
        "from edge_agent import backends; from edge_agent.gate import child\n"
        "backends.FORMATS['onnx'] = 'crash:load'; child.main()"
    )
    monkeypatch.setattr(ask, "CHILD", [sys.executable, "-c", code])
    path = blob_finder_onnx(tmp_path / "m.onnx")
    made = manifest(path)
    with pytest.raises(RefusedError, match=rf"done: \[\], own file of {path.stat().st_size} bytes"):
        admit.prove(made, made.file[0], path, {}, 1)
    assert canary.read_text() == "secret" and not (home / "new").exists()
    with pytest.raises(TimeoutError):
        listener.accept()


def test_an_answer_is_believed_within_its_kind_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    path = blob_finder_onnx(tmp_path / "m.onnx")
    made = manifest(path)
    good = {"engine": "x", "peak_rss": 1}
    long = "json.dumps({'passed': False, 'reason': 'r' * 10**6, 'notes': ['n' * 9000] * 1000})"
    for answer, says in (
        (
            f"{json.dumps(json.dumps({'passed': True, 'figures': good}))} + ' ' * (17 << 20)",
            "cannot be used .too large",
        ),
        ("json.dumps({'passed': True})", "cannot be used .Object missing required field `engine`"),
        ("'[' * 100000", "cannot be used"),
        ("'\\0' * 100", "cannot be used"),
        (long, "r" * 2000 + "$"),
    ):
        monkeypatch.setattr(ask, "CHILD", [sys.executable, "-c", f"import json; print({answer})"])
        with pytest.raises(RefusedError, match=says) as error:
            admit.prove(made, made.file[0], path, {}, 1, again=True)
        assert len(str(error.value)) < 3000
    for code, says in (("raise SystemExit('no luck')", "ended with 1: no luck"), ("", "ended with 0: it said nothing")):
        monkeypatch.setattr(ask, "CHILD", [sys.executable, "-c", code])
        with pytest.raises(RefusedError, match=says):
            admit.prove(made, made.file[0], path, {}, 1, again=True)


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5, 6])
def test_an_older_kernel_gives_what_it_has(canary: Path, version: int) -> None:
    if version > landlock.version(ctypes.CDLL(None)):
        pytest.skip("this kernel is older still")
    code = f"sandbox.landlock.version = lambda libc: {version}\nsandbox.enter("
    words = [
        sys.executable,
        "-c",
        f"{ENTER.replace('sandbox.enter(', code)}\nprint(attempt(lambda: open(given).read()))",
    ]
    done = subprocess.run([*words, msgspec.json.encode(small()).decode(), json.dumps(str(canary))], capture_output=True)
    assert done.stdout.decode().strip() == ("EACCES" if version else "done"), done.stderr


def test_doctor_says_what_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, says in ((0, "no Landlock:"), (3, "no Landlock for TCP:"), (7, "can read no other file")):
        monkeypatch.setattr(landlock, "version", lambda libc, version=version: version)
        assert says in next(iter(doctor._sandbox())).found or LACKS
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "no seccomp for riscv64" in next(iter(doctor._sandbox())).found


def test_a_process_that_may_not_compile_has_verdicts_of_its_own() -> None:
    """A runtime that compiles is refused there, and served where it may; prctl(2), PR_SET_MDWE, Linux 6.3."""
    program = (
        "import ctypes, sys; from edge_agent.device.sandbox import may_compile\n"
        "before = may_compile(); refused = ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
        "print(before, 'unknown' if refused else may_compile())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    if said != ["True", "False"]:
        assert said[1] == "unknown" or said == ["False", "False"], said
        pytest.skip(f"this kernel lets no process forbid it to itself: {said}")
