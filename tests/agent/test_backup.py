"""`edge-agent backup` and `restore`: of a device that runs, onto another one, and of hostile files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest

from edge_agent.agent import backup
from edge_agent.agent.backup import Manifest, Places
from edge_agent.errors import InputError, UsageError
from edge_agent.events import TextEvent
from edge_agent.outbox.outbox import Outbox
from tests.conftest import ROOT, lines_of


def device(folder: Path, name: str = "porch") -> Places:
    """A device's config with a secret beside it, and a home with a model behind a link."""
    places = Places(folder / "etc" / "agent.toml", folder / "home", folder / "home" / "outbox")
    for path, text, mode in (
        (
            places.config,
            f'[device]\nid = "{name}"\n[mqtt]\nurl = "mqtt://h"\nusername = "u"\npassword_file = "secret"\n',
            0o640,
        ),
        (places.config.parent / "secret", "xyzzy", 0o600),
        (places.config.parent / "not-ours", "private", 0o600),
        (places.config.parent / "credentials" / "mqtt", "pass", 0o600),
        (places.home / "models" / ".versions" / "m-1" / "manifest.toml", "x", 0o644),
        (places.home / "blobs" / "part" / "half", "half", 0o600),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    (places.home / "models" / "m").symlink_to(".versions/m-1")
    return places


def said(number: int) -> TextEvent:
    return TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", age_ms=0.0, text=f"text {number}")


def test_a_device_that_runs_is_saved_and_put_back_elsewhere(tmp_path: Path) -> None:
    old, new = (
        device(tmp_path / "old"),
        Places(tmp_path / "n/etc/agent.toml", tmp_path / "n/home", tmp_path / "n/home/outbox"),
    )
    outbox = Outbox(old.store, "porch")
    for number in range(50):
        outbox.put(said(number), "alert" if number % 2 else "telemetry", number)
    outbox.done(*outbox.take(10))
    out = tmp_path / "porch.tar.gz"
    assert backup.backup(old, out) > 5 and out.stat().st_mode & 0o777 == 0o600
    outbox.put(said(50))  # it goes on
    outbox.close()
    told = backup.restore(out, new)
    assert len(told) == 3
    modes = {path.name: path.stat().st_mode & 0o777 for path in new.config.parent.rglob("*") if path.is_file()}
    assert modes == {"agent.toml": 0o640, "secret": 0o600, "mqtt": 0o600}
    assert (new.home / "models/m/manifest.toml").read_text() == "x" and not (new.home / "blobs").exists()
    again = Outbox(new.store, "porch")
    records = again.take(1000)
    texts = {event.text for r in records if isinstance(event := again.encoding.decode(r.payload), TextEvent)}
    # a copy of a running store may hold a few that were just acknowledged: they come twice, none is lost
    assert {f"text {n}" for n in range(20, 50)} <= texts <= {f"text {n}" for n in range(50)}
    assert again.epoch != outbox.epoch, "no number is given out twice"
    assert again.marks == {"p": 49}
    again.close()
    with pytest.raises(UsageError, match="is there; stop the service, and move it away"):
        backup.restore(out, new)


def test_another_device_s_backup_is_taken_only_where_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = device(tmp_path / "old")
    old.config.write_text('[mqtt]\nurl = "mqtt://h"\n')  # it is called as its host is
    out, new = tmp_path / "b.tar.gz", Places(tmp_path / "n/a.toml", tmp_path / "n/home", tmp_path / "n/home/outbox")
    backup.backup(old, out)
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with pytest.raises(UsageError, match='this one is "another"; --other-device'):
        backup.restore(out, new)
    assert not new.config.exists()
    assert backup.restore(out, new, other_device=True) and new.config.is_file()


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes], manifest: bytes | None = None) -> Path:
    told = Manifest(1, "porch", "0.1.0", "2026-01-01T00:00:00Z", "agent.toml")
    raw = msgspec.json.encode(told) if manifest is None else manifest
    head = tarfile.TarInfo("manifest.json")
    config = b'[device]\nid = "porch"\n'
    with tarfile.open(path, "w:gz") as tar:
        for info, data in ((head, raw), (tarfile.TarInfo("config/agent.toml"), config), *members):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


HOSTILE = {
    "up": [(tarfile.TarInfo("home/../../evil"), b"x")],
    "absolute": [(tarfile.TarInfo("/tmp/evil"), b"x")],
    "elsewhere": [(tarfile.TarInfo("other/evil"), b"x")],
    "link out": [(link("home/out", "../../.."), b"")],
    "link to root": [(link("home/out", "/etc"), b"")],
    "behind a link": [(link("home/in", "models"), b""), (tarfile.TarInfo("home/in/x"), b"x")],
    "link out by a link": [(link("home/p/q/b", "../.."), b""), (link("home/a", "p/q/b/../.."), b"")],
    "link in the config": [(link("config/in", "agent.toml"), b"")],
    "hard link": [(link("home/hard", "config/agent.toml", tarfile.LNKTYPE), b"")],
    "device": [(link("home/null", "", tarfile.CHRTYPE), b"")],
    "fifo": [(link("home/fifo", "", tarfile.FIFOTYPE), b"")],
    "twice": [(tarfile.TarInfo("home/x"), b"1"), (tarfile.TarInfo("home/x"), b"2")],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_archive_that_reaches_out_is_refused_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    places = Places(tmp_path / "to/agent.toml", tmp_path / "to/home", tmp_path / "to/home/outbox")
    with pytest.raises(InputError, match=r"a\.tar\.gz: .*(no backup of ours|unpacked \(File exists\))"):
        backup.restore(archive(tmp_path / "a.tar.gz", *HOSTILE[what]), places)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "a.tar.gz"]
    assert not left and not Path("/tmp/evil").exists()


@pytest.mark.parametrize("how", ["cut", "text", "manifest", "name", "empty", "missing", "modes"])
def test_a_damaged_archive_is_one_line(how: str, tmp_path: Path) -> None:
    path, places = (
        tmp_path / "a.tar.gz",
        Places(tmp_path / "to/agent.toml", tmp_path / "to/home", tmp_path / "to/outbox"),
    )
    big = tarfile.TarInfo("home/big")
    big.mode = 0o6777
    archive(path, (big, os.urandom(100_000)))
    if how == "modes":
        backup.restore(path, places)
        assert (places.home / "big").stat().st_mode & 0o7777 == 0o755
        return
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-50_000])
    elif how == "text":
        path.write_text("hello")
    elif how == "manifest":
        archive(path, manifest=b"{")
    elif how == "name":
        archive(path, manifest=msgspec.json.encode(Manifest(1, "porch", "", "", "../agent.toml")))
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(InputError) as raised:
        backup.restore(path, places)
    assert "\n" not in str(raised.value) and "a.tar.gz" in str(raised.value)
    assert not places.config.exists()


def test_the_verbs(tmp_path: Path) -> None:
    old = device(tmp_path / "old")
    out = tmp_path / "porch.tar.gz"

    def run(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
        told = {**os.environ, "EDGE_AGENT_HOME": str(home), "XDG_STATE_HOME": str(tmp_path / "state")}
        return subprocess.run(
            [sys.executable, "-m", "edge_agent", *args], capture_output=True, text=True, env=told, cwd=ROOT
        )

    saved = run(old.home, "backup", str(out), "-c", str(old.config))
    assert saved.returncode == 0 and "it holds passwords and keys" in saved.stdout, saved.stderr
    put = run(tmp_path / "new", "restore", str(out), "-c", str(tmp_path / "etc" / "agent.toml"))
    assert put.returncode == 0 and (tmp_path / "etc" / "secret").read_text() == "xyzzy", put.stderr
    assert not (tmp_path / "etc" / "not-ours").exists()
    wrong = run(tmp_path / "other", "restore", str(tmp_path / "none"), "-c", str(tmp_path / "x.toml"))
    assert wrong.returncode == 1 and len(lines_of(wrong.stderr)) == 1
