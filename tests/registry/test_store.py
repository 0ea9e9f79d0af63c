from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

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
    assert place.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "home" / "blobs" / "part").iterdir()) == []


def test_another_hash_is_refused_and_the_part_deleted(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(FetchError, match=f"has sha256 {SHA[:12]}…, promised was {other[:12]}…"):
        store.put(tmp_path / "home", tmp_path / "f", other, len(BODY))
    assert list((tmp_path / "home" / "blobs" / "part").iterdir()) == []
    assert not store.blob(tmp_path / "home", other).exists()


def test_write_replaces_whole(tmp_path: Path) -> None:
    store.write(tmp_path / "a" / "b.toml", "one")
    store.write(tmp_path / "a" / "b.toml", "two")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.toml"]
    assert (tmp_path / "a" / "b.toml").read_text() == "two"
