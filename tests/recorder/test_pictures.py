"""The folder of pictures: bounded, in order, and a disk that refuses costs pictures alone."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from edge_agent import files
from edge_agent.recorder import pictures as module
from edge_agent.recorder.pictures import NAME, Pictures

DAY = 86400.0
NOW = 1_800_000_000.0


class Clock:
    """One that may be set, and one that never is."""

    def __init__(self) -> None:
        self.wall, self.mono = NOW, 5000.0

    def __call__(self) -> tuple[float, float]:
        return self.wall, self.mono

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def put(pictures: Pictures, size: int = 1000, kind: str = "jpg") -> str:
    name = pictures.name(kind)
    assert NAME.fullmatch(name) and pictures.keep(name, b"x" * size)
    return name


def here(pictures: Pictures) -> list[str]:
    return sorted(path.name for path in pictures.folder.iterdir())


def test_what_is_kept_is_its_owner_s_alone_and_found_by_its_name_only(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "store" / "pictures", 10_000, 1)
    name = put(pictures, 7)
    path = pictures.path(name)
    assert path is not None and path.read_bytes() == b"x" * 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert pictures.keep(name, b"better") and path.read_bytes() == b"better" and pictures.size == 6
    (pictures.folder / "aaaaaaaa-1.jpg").symlink_to(path)
    for odd in ("", "../mark", "aaaaaaaa-1.jpg", name.upper(), f"{name}\n", f"./{name}", "person.jpg", "/etc/passwd"):
        assert pictures.path(odd) is None
    assert not list(pictures.folder.glob(".*"))


def test_the_oldest_go_first_and_those_that_unsent_events_name_last(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, 5000, 1, all_sent=lambda: False)
    a, b, _, d, e = (put(pictures) for _ in range(5))
    pictures.named(1, a)
    pictures.named(2, b, "")
    pictures.named(3, b)
    pictures.arrived(2)
    f = put(pictures)
    assert here(pictures) == sorted([a, b, d, e, f]), "the third was the oldest that no unsent event names"
    pictures.arrived(1)
    pictures.arrived(99)
    g = put(pictures, 3000)
    assert here(pictures) == sorted([b, f, g]) and pictures.size == 5000
    h = put(pictures, 5000)
    assert here(pictures) == [h], "but the bound holds for all"
    assert not pictures.keep(pictures.name(), b"x" * 5001), "and one that never fits is not kept"


def test_what_is_too_old_goes_and_what_is_unsent_at_twice_the_age(tmp_path: Path) -> None:
    clock, waiting = Clock(), [True]
    pictures = Pictures(tmp_path, 10**6, 2, lambda: not waiting[0], clock)
    old, unsent = put(pictures), put(pictures)
    pictures.named(7, unsent)
    clock.passes(DAY)
    fresh = put(pictures)
    clock.passes(1.5 * DAY)
    pictures.tidy()
    assert here(pictures) == sorted([unsent, fresh])
    clock.passes(DAY)
    pictures.tidy()
    assert here(pictures) == [unsent]
    clock.passes(DAY)
    pictures.tidy()
    assert here(pictures) == [] and pictures.size == 0, old


def test_a_clock_that_is_set_makes_nothing_old(tmp_path: Path) -> None:
    clock = Clock()
    clock.wall = 1000.0
    pictures = Pictures(tmp_path, 10**6, 2, clock=clock)
    name = put(pictures)
    clock.passes(100)
    clock.wall = NOW
    pictures.tidy()
    assert pictures.path(name) and (tmp_path / name).stat().st_mtime == NOW - 100, "it is as old as it was"
    for jump in (10 * DAY, -20 * DAY):
        clock.passes(100)
        clock.wall += jump
        pictures.tidy()
        assert pictures.path(name)
    clock.passes(2.1 * DAY)
    pictures.tidy()
    assert pictures.path(name) is None


def test_another_run_goes_on_with_what_it_finds(tmp_path: Path) -> None:
    clock = Clock()
    first = Pictures(tmp_path, 10**6, 2, clock=clock)
    names = [put(first) for _ in range(4)]
    (tmp_path / f".{names[0]}").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("somebody's")
    for name, at in zip(names, (NOW - 3 * DAY, NOW - DAY, 100.0, NOW + 9 * DAY), strict=True):
        os.utime(tmp_path / name, (at, at))
    waiting = [True]
    second = Pictures(tmp_path, 10**6, 2, lambda: not waiting[0], clock)
    assert second.size == 4000 and not (tmp_path / f".{names[0]}").exists()
    second.tidy()
    assert all(map(second.path, names)), "an event that waits may name the old one"
    assert (tmp_path / names[2]).stat().st_mtime == (tmp_path / names[3]).stat().st_mtime == NOW
    waiting[0] = False
    clock.passes(100)
    second.tidy()
    assert [bool(second.path(name)) for name in names] == [False, True, True, True]
    assert (tmp_path / "notes.txt").exists()
    assert not {put(second) for _ in range(3)} & set(names), "names are never given out again"


def test_a_folder_that_somebody_takes_away_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = Pictures(tmp_path / "pictures", 10**6, 1)
    name = put(pictures)
    shutil.rmtree(pictures.folder)
    assert pictures.path(name) is None
    assert pictures.path(put(pictures))
    shutil.rmtree(pictures.folder)
    (tmp_path / "pictures").write_text("a file in the way")
    assert not pictures.keep(pictures.name(), b"x") and not pictures.keep(pictures.name(), b"x")
    assert len(caplog.records) == 1 and "events go without pictures" in caplog.text
    (tmp_path / "pictures").unlink()
    put(pictures)
    assert pictures.trouble == ""


def test_a_full_disk_costs_pictures_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Pictures(tmp_path, 10**9, 1)
    first, second = put(pictures), put(pictures)
    free = os.statvfs(tmp_path)
    monkeypatch.setattr(module, "SPARE_BYTES", free.f_bavail * free.f_frsize - 500)
    third = put(pictures, 900)
    assert here(pictures) == sorted([second, third]), f"{first} makes room"
    monkeypatch.setattr(module, "SPARE_BYTES", free.f_bavail * free.f_frsize + 10**9)
    assert not pictures.keep(pictures.name(), b"x" * 900) and "MB are free" in pictures.trouble
    assert here(pictures) == sorted([second, third]), "where nothing helps nothing is deleted"


def test_a_disk_that_refuses_leaves_no_halves(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path / "full", 10**9, 1)
    name = put(pictures)

    def refuses(path: Path, data: bytes, **_: bool) -> None:
        path.write_bytes(data[:3])
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write_private", refuses)
        assert not pictures.keep(name, b"y" * 9)
    assert [path.name for path in pictures.folder.iterdir()] == [name]
    assert pictures.path(name) == pictures.folder / name and (pictures.folder / name).read_bytes() == b"x" * 1000
