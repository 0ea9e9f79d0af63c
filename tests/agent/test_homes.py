"""Where things are kept, for a service and for a person, and who may read and write them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import files, paths
from edge_agent.cli import doctor, main
from edge_agent.config import load
from tests.tiny import tiny_detector


def agent(umask: int, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "EDGE_AGENT_", "STATE_"))}
    return subprocess.run(
        [sys.executable, "-m", "edge_agent", *args],
        capture_output=True, text=True, env={**kept, **environment}, umask=umask,
    )  # fmt: skip


def modes(home: Path) -> dict[str, int]:
    """Of everything in a home, and of the two folders above it."""
    places = [home.parent.parent, home.parent, home, *home.rglob("*")]
    return {str(place): stat.S_IMODE(place.stat().st_mode) for place in places if not place.is_symlink()}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_has_no_say(tmp_path: Path, demo_pictures: Path, umask: int) -> None:
    home, model = tmp_path / "a" / "b" / "home", tiny_detector(tmp_path / "model")
    where = {"EDGE_AGENT_HOME": str(home)}
    assert agent(umask, "models", "add", str(model), "--name", "mine", **where).returncode == 0
    assert agent(umask, "bench", "mine", "--seconds", "0.1", **where).returncode == 0
    found = modes(home)
    assert {name for name in found if "/part" in name} == {str(home / "blobs" / "part"), *_locks(home)}
    for name, mode in found.items():
        private = "/part" in name
        wanted = (0o700 if private else 0o755) if Path(name).is_dir() else (0o600 if private else 0o644)
        assert mode == wanted, (name, oct(mode))


def _locks(home: Path) -> set[str]:
    return {str(path) for path in (home / "blobs" / "part").glob("*.lock")}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_events_are_their_owner_s_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    (tmp_path / "in").write_text("one\n")
    file = tmp_path / "agent.toml"
    file.write_text(
        f'[device]\nid = "porch"\n[store]\nbytes_per_day = 10000\n[[pipeline]]\nname = "a"\n'
        f'source = "lines:{tmp_path}/in?follow=false"\n'
    )
    done = agent(umask, "run", "-c", str(file), XDG_STATE_HOME=str(tmp_path / "x" / "state"))
    assert done.returncode == 0, done.stderr
    store = tmp_path / "x" / "state" / "edge-agent" / "porch"
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o077 for path in store.iterdir())
    assert not any(stat.S_IMODE(path.stat().st_mode) & 0o022 for path in list(store.parents)[:3])


@pytest.mark.skipif(os.getuid() != 0, reason="needs to be root, who adds for somebody else")
def test_what_root_adds_the_service_reads_and_replaces(tmp_path: Path) -> None:
    home = tmp_path / "service"
    home.mkdir()
    os.chown(home, 65534, 65534)
    model = tiny_detector(tmp_path / "model")
    assert agent(0o077, "--home", str(home), "models", "add", str(model), "--name", "mine").returncode == 0
    assert (home / "models" / "mine" / "manifest.toml").is_file()
    for place in home.rglob("*"):
        if not place.is_symlink():
            assert place.stat().st_uid == 65534, place


def test_whose_home_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_AGENT_HOME", "STATE_DIRECTORY", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.home() == Path("/home/me/.local/share/edge-agent")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert paths.home() == Path("/home/me/.local/share/edge-agent")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert paths.home() == Path("/data/edge-agent")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-agent:/var/lib/other")
    assert paths.home() == Path("/var/lib/edge-agent")
    monkeypatch.setenv("EDGE_AGENT_HOME", "~/models")
    assert paths.home() == Path("/home/me/models")


@pytest.mark.parametrize("place", ["--home {} models list --json", "models --home {} list", "models list --home={}"])
def test_home_on_either_side_of_a_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "other"))
    model = tiny_detector(tmp_path / "model")
    folder = tmp_path / "home" / "models" / "tiny"
    folder.parent.mkdir(parents=True)
    model.rename(folder)
    assert main(place.format(tmp_path / "home").split()) == 0
    assert "tiny" in capsys.readouterr().out


def test_a_home_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(tmp_path / "f"), "models", "list"])
    assert ended.value.code == 2 and "is no folder" in capsys.readouterr().err
    with pytest.raises(NotADirectoryError):
        files.folder(tmp_path / "f")


def test_doctor_names_what_the_owner_of_the_home_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    shelf = tmp_path / "home" / "models" / ".versions" / "mine"
    files.write(shelf / "manifest.toml", "")

    def row() -> tuple[bool, str]:
        (row,) = doctor._home()
        return row.level == "ok", f"{row.found}: {row.mend}"

    assert row()[0]
    if os.getuid() == 0:
        os.chown(tmp_path / "home", 65534, 65534)
        shelf.chmod(0o700)
        good, found = row()
        assert not good and str(shelf) in found and "chown" in found


CONFIG = '[device]\nid = "porch"\n[[pipeline]]\nname = "a"\nsource = "{}"\n'


@pytest.mark.parametrize(
    ("mode", "folder", "refused"),
    [
        (0o644, 0o755, ""),
        (0o600, 0o700, ""),
        (0o666, 0o755, "others may write it (mode 0666)"),
        (0o602, 0o700, "others may write it (mode 0602)"),
        (0o644, 0o777, "others may write its folder (mode 0777)"),
        (0o644, 0o1777, ""),
    ],
)
def test_a_config_that_others_may_write_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, folder: int, refused: str
) -> None:
    file = tmp_path / "etc" / "agent.toml"
    file.parent.mkdir()
    file.write_text(CONFIG.format("lines:x"))
    file.chmod(mode)
    file.parent.chmod(folder)
    assert main(["check", "-c", str(file)]) == (2 if refused else 0)
    said = capsys.readouterr().err
    assert (refused in said and "chmod go-w" in said) if refused else said == ""


def test_whose_group_is_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    file = tmp_path / "agent.toml"
    file.write_text("")
    file.chmod(0o664)
    me = "me"  # who runs the tests may have no name
    monkeypatch.setattr(pwd, "getpwuid", lambda user: pwd.struct_passwd((me, "x", user, user, "", "/", "")))
    for name, members, others in ((me, [], False), (me, [me], False), (me, [me, "bob"], True), ("staff", [], True)):
        group = grp.struct_group((name, "x", file.stat().st_gid, members))
        monkeypatch.setattr(grp, "getgrgid", lambda _, group=group: group)
        assert files.others_may(file) == (True, others), (name, members)


@pytest.mark.parametrize(("mode", "word"), [(0o600, ""), (0o640, ""), (0o644, "read"), (0o666, "written")])
def test_secrets_that_others_may_read_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, word: str
) -> None:
    file, password = tmp_path / "agent.toml", tmp_path / "password"
    password.write_text("hunter2\n")
    password.chmod(mode)
    mqtt = f'[mqtt]\nurl = "mqtt://127.0.0.1"\nusername = "u"\npassword_file = "{password}"\n'
    file.write_text(mqtt + CONFIG.format("rtsp://me:hunter2@127.0.0.1/x"))
    file.chmod(0o640)
    load(file)
    assert (f"mqtt.password_file can be {word} by others; chmod g-w,o-rwx {password}" in caplog.text) == bool(word)
    assert "source's password" not in caplog.text and "hunter2" not in caplog.text
    file.chmod(0o644)
    load(file)
    assert f"a source's password can be read by others; chmod g-w,o-rwx {file}" in caplog.text


def test_a_ca_that_others_may_replace_is_warned_of_and_one_that_they_read_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, ca = tmp_path / "agent.toml", tmp_path / "tls" / "ca.pem"
    ca.parent.mkdir()
    ca.write_text("")
    file.write_text(f'[mqtt]\nurl = "mqtts://127.0.0.1"\nca = "{ca}"\n' + CONFIG.format("lines:x"))
    for mode, folder, said in ((0o644, 0o755, ""), (0o646, 0o755, "ca can be written"), (0o644, 0o777, "be replaced")):
        ca.chmod(mode)
        ca.parent.chmod(folder)
        caplog.clear()
        load(file)
        assert said in caplog.text and bool(said) == bool(caplog.text)
