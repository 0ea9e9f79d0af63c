"""Files of a bundle over HTTP: within a day's bytes and a time of day, going on where they broke off."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_agent.fleet import child, verify
from edge_agent.fleet.fetch import Allowance
from tests.fleet.made import Device, publish, repository, some_files

pytest.importorskip("tuf", reason="the extra [update] is not installed")

SIZE = 300_000


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Device, list[int]]]:
    """A device of a repository behind a server that knows ranges, and the bytes of blobs that were sent."""
    monkeypatch.setattr(verify, "_answer", child.answered)
    data = random.Random(1).randbytes(SIZE)
    publish(repository(tmp_path / "repo", tmp_path / "keys"), some_files(a_bin=data), "a")
    sent: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / "repo" / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            whole, span = path.read_bytes(), re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            first = int(span[1]) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(whole) - first))
            if span:
                self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
            self.end_headers()
            if "blobs" in self.path:
                sent.append(len(whole) - first)
            try:
                self.wfile.write(whole[first:])
            except OSError:  # who has spent the day's bytes hangs up
                return

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    yield Device(tmp_path / "home", address, tmp_path / "repo" / "metadata" / "1.root.json"), sent
    server.shutdown()
    server.server_close()


def test_a_day_s_bytes_are_kept_and_the_next_day_goes_on(served: tuple[Device, list[int]]) -> None:
    device, sent = served
    spent = device.home / "fleet" / "spent.json"
    device.allowance = Allowance(spent, 100_000)
    today = device.update.take("files/a")
    assert today.state == "IN_PROGRESS" and today.later and "100000 bytes of today are spent" in today.reason
    device.allowance = Allowance(spent, 100_000)  # a restart forgets nothing
    assert device.update.take("files/a").later and len(sent) == 1
    spent.write_text('["2026-01-01",100000]')  # another day
    device.allowance = Allowance(spent, 1_000_000)
    tomorrow = device.update.take("files/a")
    assert tomorrow.state == "SUCCEEDED" and len(device.holds("a")["a.bin"]) == SIZE
    assert sent[0] == SIZE and sent[1] <= SIZE - 100_000, "it went on where it broke off"


def test_outside_of_its_time_no_file_comes(served: tuple[Device, list[int]]) -> None:
    device, sent = served
    closed = ["files come between 02:00-05:00 only"]
    device.allowance = Allowance(device.home / "fleet" / "spent.json", None, lambda: closed[0])
    waits = device.update.take("files/a")
    assert waits.later and waits.step == "download" and waits.reason == closed[0] and not sent
    closed[0] = ""
    assert device.update.take("files/a").state == "SUCCEEDED"


def test_a_blob_that_is_not_there_yet_is_waited_for(served: tuple[Device, list[int]], tmp_path: Path) -> None:
    device, _ = served
    blob = next(path for path in (tmp_path / "repo" / "blobs").rglob("*") if path.is_file())
    blob.rename(tmp_path / "later")
    waits = device.update.take("files/a")
    assert waits.later and "cannot be had now: HTTP 404" in waits.reason
    (tmp_path / "later").rename(blob)
    assert device.update.take("files/a").state == "SUCCEEDED"
