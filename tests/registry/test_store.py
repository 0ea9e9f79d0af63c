from __future__ import annotations

import hashlib
import mmap
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_agent import files
from edge_agent.errors import FetchError
from edge_agent.registry import store

BODY = b"weights" * 1000
SHA = hashlib.sha256(BODY).hexdigest()


def test_digest_and_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    assert store.digest(tmp_path / "f") == SHA
    assert store.blob(tmp_path, SHA) == tmp_path / "blobs" / "sha256" / SHA[:2] / SHA[2:]


def test_put_copies_and_leaves_the_source(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    place = store.put(tmp_path / "home", tmp_path / "f", SHA, len(BODY))
    assert place.read_bytes() == (tmp_path / "f").read_bytes() == BODY
    assert place.stat().st_mode & 0o777 == 0o644
    assert list((tmp_path / "home" / "blobs" / "part").iterdir()) == []


def test_another_hash_is_refused_and_the_part_deleted(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(FetchError, match=f"has sha256 {SHA[:12]}…, promised was {other[:12]}…"):
        store.put(tmp_path / "home", tmp_path / "f", other, len(BODY))
    assert list((tmp_path / "home" / "blobs" / "part").iterdir()) == []
    assert not store.blob(tmp_path / "home", other).exists()


def test_write_replaces_whole(tmp_path: Path) -> None:
    files.write(tmp_path / "a" / "b.toml", "one")
    files.write(tmp_path / "a" / "b.toml", "two")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.toml"]
    assert (tmp_path / "a" / "b.toml").read_text() == "two"


def test_what_was_read_lately_is_read_again_once_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(BODY)
    read: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self.real = hashlib.sha256()

        def update(self, piece: bytes) -> None:
            read.append(len(piece))
            self.real.update(piece)

        def hexdigest(self) -> str:
            return self.real.hexdigest()

    monkeypatch.setattr(store, "TICK", -1)
    monkeypatch.setattr(store, "hashlib", types.SimpleNamespace(sha256=Counting))
    assert [store.digest(tmp_path / "f") for _ in range(3)] == [SHA] * 3 and read == [len(BODY)]
    time.sleep(0.05)  # a file system's clock may tick in hundredths of a second
    with (tmp_path / "f").open("r+b") as file:
        file.write(b"W")
    assert store.digest(tmp_path / "f") != SHA and read == [len(BODY)] * 2
    monkeypatch.setattr(store, "LATELY", 0.0)
    store.digest(tmp_path / "f")
    assert read == [len(BODY)] * 3, "not for long"


def test_a_file_that_took_long_to_read_had_just_been_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written within the clock's tick may be written again within it, while the old bytes are being read."""
    (tmp_path / "f").write_bytes(BODY)
    clock = [(tmp_path / "f").stat().st_ctime_ns]

    class Slow:
        def __init__(self) -> None:
            self.real = hashlib.sha256()
            self.hexdigest = self.real.hexdigest

        def update(self, piece: bytes) -> None:
            clock[0] += 10 * store.TICK
            self.real.update(piece)

    fake = types.SimpleNamespace(monotonic=time.monotonic, time_ns=lambda: clock[0])
    monkeypatch.setattr(store, "hashlib", types.SimpleNamespace(sha256=Slow))
    monkeypatch.setattr(store, "time", fake)
    known = dict(store._read_lately)
    assert store.digest(tmp_path / "f") == SHA and store._read_lately == known
    assert store.digest(tmp_path / "f") == SHA and store._read_lately != known, "by now it has been left alone"


def test_many_threads_ask_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TICK", -1)
    monkeypatch.setattr(store, "LATELY", 1e-4)
    bodies = [bytes([n]) * 100 for n in range(40)]
    for n, body in enumerate(bodies):
        (tmp_path / str(n)).write_bytes(body)
    right = [hashlib.sha256(body).hexdigest() for body in bodies]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            said = pool.map(lambda _: [store.digest(tmp_path / str(n)) for n in range(40)], range(40))
            assert all(one == right for one in said)
    finally:
        sys.setswitchinterval(before)


def test_what_has_just_been_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TICK", 10**12)  # however long it takes until it is read
    (tmp_path / "f").write_bytes(BODY)
    known = len(store._read_lately)
    store.digest(tmp_path / "f")
    assert len(store._read_lately) == known


def test_what_others_can_write_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(8192))
    path.chmod(0o666)
    monkeypatch.setattr(store, "TICK", -1)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
        found = {store.digest(path)}
        # no time stamp tells of it: the page has not been written back since
        mapped[0] = 2
        found.add(store.digest(path))
    assert len(found) == 2
