"""A camera that is read in a process of its own: the same frames, and nothing else gets out of that process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.device import sandbox
from edge_agent.errors import ConfigError
from edge_agent.sources import Opened, isolated, open_source
from edge_agent.types import Frame
from edge_agent.uri import parse_uri
from tests.sources.servers import Camera, Server, certificate, mjpeg_server, rtsp_server, running, served_with

CHILD = isolated.CHILD


@pytest.fixture()
def camera() -> Camera:
    return Camera()


def opened(text: str) -> Opened:
    return isolated.isolated(parse_uri(text), open_source(parse_uri(text)))


def at(server: Server, path: str = "video", options: str = "stall=0.6&frozen=0.3") -> str:
    return f"http://127.0.0.1:{server.port}/{path}#{options}"


def children() -> Iterator[int]:
    """Processes of ours that decode."""
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"decoder" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield int(pid)


def test_the_same_frames_and_states_and_a_process_that_is_killed(camera: Camera) -> None:
    with mjpeg_server(camera) as server, running(opened(at(server))) as seen:
        seen.until_frames(5)
        assert seen.states[0] == "ok"
        frame = seen.frames[0]
        assert (frame.width, frame.height) == (160, 96) and frame.decode_ms > 0 and frame.image.flags.owndata
        assert abs(time.monotonic() - frame.mono) < 60 and frame.mono <= time.monotonic()
        assert len({frame.image.tobytes() for frame in seen.frames}) > 1, "each frame is its own"
        (child,) = children()
        marked = len(seen.states)
        os.kill(child, signal.SIGKILL)
        seen.until_state("reconnecting", marked)
        assert "its process ended (-9)" in seen.whys[seen.states.index("reconnecting", marked)]
        seen.until_state("ok", marked)
        assert child not in children()
        camera.mode = "hang"
        seen.until_state("stalled", marked)
    assert not list(children()), "nothing is left of it"


def test_rtsp_and_https(camera: Camera, tmp_path: Path) -> None:
    with rtsp_server(camera) as server, running(opened(f"rtsp://127.0.0.1:{server.port}/x")) as seen:
        for _ in range(2):
            seen.until_frames(3)
            server.stop()
            seen.until(lambda: seen.states[-1] != "ok", "the end")
            server.start()
    cert, key = certificate(tmp_path, "IP:127.0.0.1")
    with mjpeg_server(camera, served_with(cert, key)) as server:
        address = f"https://127.0.0.1:{server.port}/video#ca={cert}"
        with running(opened(address)) as seen:
            seen.until_frames(3)
        with running(opened(address.partition("#")[0])) as seen:
            seen.until_state("reconnecting")
            assert any("certificate" in why for why in seen.whys)
    with (
        rtsp_server(camera, served_with(cert, key)) as server,
        running(opened(f"rtsps://127.0.0.1:{server.port}/x#ca={cert}")) as seen,
    ):
        seen.until_frames(3)


def test_what_it_logs_is_logged_here(camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    camera.mode = "corrupt"
    with mjpeg_server(camera) as server, caplog.at_level(logging.WARNING), running(opened(at(server))) as seen:
        seen.until(lambda: any("was left out" in record.message for record in caplog.records), "the warning")


def test_only_what_is_of_the_network() -> None:
    for text in ("camera:0", "files:.", "pipe:true?width=8&height=8", "lines:-"):
        with pytest.raises(ConfigError, match=r"isolate: .* is not of the network"):
            isolated.isolated(parse_uri(text), Opened(lambda stop: iter(()), Frame, True))


HEAD = "import msgspec, os, struct, sys, time\nfrom edge_agent.sources.isolated import *\n"
SAY = (
    "def say(data): os.write(1, struct.pack('<I', len(data)) + data)\n"
    "def tell(kind, **of): say(msgspec.msgpack.encode({'type': kind, **of}))\n"
)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("os.write(1, struct.pack('<I', 1 << 31))", "says what cannot be (2147483648 bytes)"),
        ("say(b'\\xc1')", "says what cannot be"),
        ("tell('State', condition='fine', why='')", "says what cannot be"),
        ("tell('State', condition='dark', why='x' * 501)", "says what cannot be"),
        ("tell('Picture', width=0, height=1, at=0., mono=0., name='', decode_ms=0.)", "says what cannot be"),
        ("tell('Picture', width=9**5, height=9**5, at=0., mono=0., name='', decode_ms=0.)", "says what cannot be"),
        ("tell('Picture', width=4, height=4, at=0., mono=float('nan'), name='', decode_ms=0.)", "says what cannot be"),
        ("os._exit(7)", "its process ended (7)"),
        ("sys.exit('no \\x1b[2J luck')", "its process ended (1): no  [2J luck"),
        ("os.close(1); time.sleep(600)", "its process ended"),
        ("tell('Over', why='\\x1b[2J gone')", " [2J gone"),
        ("time.sleep(600)", "gives no sign of life"),
        ("[tell('Alive') for _ in range(200)]; time.sleep(600)", "gives no sign of life"),
    ],
)
def test_a_process_that_was_taken_over_is_believed_nothing(
    monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    monkeypatch.setattr(isolated, "CHILD", [sys.executable, "-c", f"{HEAD}{SAY}{code}"])
    if "sign of life" in says:
        monkeypatch.setattr(isolated, "SILENCE", 1.5)
    with running(opened("http://127.0.0.1:9/")) as seen:
        seen.until_state("reconnecting")
        why = seen.whys[seen.states.index("reconnecting")]
        assert says in why and why.isprintable()
    assert not seen.frames


@pytest.mark.skipif(bool(sandbox.missing()), reason=f"this kernel has no {', '.join(sandbox.missing())}")
def test_what_it_may_do(camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real process in its real room; what a decoder that was taken over would run stands in for the source."""
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("A_TOKEN", "hunter2")
    with mjpeg_server(camera) as server, mjpeg_server(Camera()) as other:
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "taken.py").write_text(f"""
import os, socket, subprocess
from edge_agent import sources
from edge_agent.types import StreamState
def over(uri):
    acts = dict(
        read=lambda: open({str(tmp_path / "secret")!r}).read(), write=lambda: open({str(tmp_path / "new")!r}, "w"),
        run=lambda: subprocess.run(["/bin/true"]), parent=lambda: open(f"/proc/{{os.getppid()}}/environ").read(),
        signal=lambda: os.kill(os.getppid(), 0), token=lambda: os.environ["A_TOKEN"],
        other=lambda: socket.create_connection(("127.0.0.1", {other.port})),
        listen=lambda: socket.create_server(("127.0.0.1", 0)),
        local=lambda: socket.socket(socket.AF_UNIX), raw=lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        camera=lambda: socket.create_connection(("127.0.0.1", {server.port})),
    )
    done = []
    for name, act in acts.items():
        try: act()
        except (OSError, KeyError): continue
        done.append(name)
    return sources.Opened(lambda stop: iter([StreamState("dark", " ".join(done))]), object, True)
sources.open_source = over
""")
        path = f"import sys; sys.path.insert(0, {str(tmp_path / 'modules')!r})"
        late = "import edge_agent.device.sandbox as s; e = s.enter; s.enter = lambda r: (e(r), __import__('taken'))"
        code = f"{path}\n{late}\nfrom edge_agent.sources.decoder import main; main()"
        monkeypatch.setattr(isolated, "CHILD", [sys.executable, "-c", code])
        with running(opened(at(server))) as seen:
            seen.until_state("dark")
            assert seen.whys[seen.states.index("dark")] == "camera"
    assert not (tmp_path / "new").exists()
