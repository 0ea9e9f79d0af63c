"""Versions: current and previous, through kills at every step, rollback and garbage collection."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.errors import FetchError, ManifestError, UsageError
from edge_agent.manifest import load
from edge_agent.registry import add as registry_add
from edge_agent.registry import catalogue, files, store, versions
from edge_agent.registry.add import collect, remove, rollback
from tests.conftest import ROOT
from tests.registry import here
from tests.registry.test_registry import toy


def model(tmp_path: Path, body: str) -> Path:
    folder = toy(tmp_path / body, body.encode())
    text = (folder / "manifest.toml").read_text()
    (folder / "manifest.toml").write_text(text.replace('version = "1"', f'version = "{body}"'))
    return folder


def add(tmp_path: Path, body: str) -> files.Located:
    return registry_add.add(model(tmp_path, body), "mine", here.read)


def pair(home: Path) -> tuple[str, str]:
    """What serves and what served before, every file of both checked."""
    found = []
    for folder in (home / "models" / "mine", versions.previous(home, "mine")):
        assert folder is not None
        manifest = load(folder / "manifest.toml")
        for row in manifest.file:
            body = files.file_path(files.Located(manifest, folder, ""), row).read_text()
            assert body == manifest.version
        found.append(manifest.version)
    return found[0], found[1]


def test_current_previous_and_back(tmp_path: Path, own_home: Path) -> None:
    add(tmp_path, "one")
    with pytest.raises(UsageError, match="no previous version"):
        rollback("mine")
    add(tmp_path, "two")
    assert pair(own_home) == ("two", "one")
    assert catalogue.locate("mine").manifest.version == "two"
    assert add(tmp_path, "two").why.endswith("current version already")
    assert pair(own_home) == ("two", "one")
    assert rollback("mine").manifest.version == "one"
    assert pair(own_home) == ("one", "two")
    rollback("mine")
    add(tmp_path, "three")
    assert pair(own_home) == ("three", "two")
    assert len(list((own_home / "models" / ".versions" / "mine").iterdir())) == 2
    assert [row["name"] for row in catalogue.listing() if row["name"] == "mine"] == ["mine"]
    assert catalogue.verify() == []
    for name in ("nothing", "../mine", "yolox-nano"):
        with pytest.raises(UsageError, match="no previous version"):
            rollback(name)


def test_a_damaged_previous_version_is_not_gone_back_to(tmp_path: Path, own_home: Path) -> None:
    one = add(tmp_path, "one").manifest
    add(tmp_path, "two")
    store.blob(own_home, one.file[0].sha256).write_bytes(b"eno")
    with pytest.raises(FetchError, match="damaged"):
        rollback("mine")
    assert catalogue.locate("mine").manifest.version == "two"


def test_damage_of_the_previous_version_is_found_and_mended(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = add(tmp_path, "one").manifest
    add(tmp_path, "two")
    blob = store.blob(own_home, one.file[0].sha256)
    for name in ([], ["mine"]):
        blob.write_bytes(b"eno")
        assert main(["models", "verify", *name]) == 1
        said = capsys.readouterr().out
        assert said.startswith("the version before, one: mine: net.onnx is damaged: sha256")
        assert "; run `edge-agent models pull mine` (" in said and len(said.splitlines()) == 1
        assert main(["models", "pull", "mine"]) == 0 and main(["models", "verify", *name]) == 0
        capsys.readouterr()
    assert rollback("mine").manifest.version == "one"
    blob.write_bytes(b"eno")
    (tmp_path / "one" / "net.onnx").unlink()
    rollback("mine")
    assert main(["models", "pull", "mine"]) == 1
    assert "the version before, one: mine: net.onnx cannot be had: " in capsys.readouterr().err


def test_a_refused_version_changes_nothing(tmp_path: Path, own_home: Path) -> None:
    def refuse(located: files.Located) -> None:
        raise ManifestError("no")

    add(tmp_path, "one")
    add(tmp_path, "two")
    with pytest.raises(ManifestError, match="no"):
        registry_add.add(model(tmp_path, "three"), "mine", here.read, refuse)
    assert pair(own_home) == ("two", "one")


def test_a_folder_put_there_by_hand_and_another_task_are_not_switched(tmp_path: Path, own_home: Path) -> None:
    toy(own_home / "models" / "mine")
    with pytest.raises(UsageError, match="put there by hand"):
        add(tmp_path, "one")
    shutil.rmtree(own_home / "models" / "mine")
    add(tmp_path, "one")
    folder = model(tmp_path, "two")
    text = (folder / "manifest.toml").read_text().replace('"detect"', '"encode"')
    (folder / "manifest.toml").write_text(text.replace("input = {", 'text = { vocab = "v" }\ninput = {'))
    with pytest.raises(UsageError, match="is a model to detect, this is one to encode"):
        registry_add.add(folder, "mine", here.read)


def shelf(home: Path) -> Path:
    return home / "models" / ".versions" / "mine"


def damage(home: Path, *versions: str) -> None:
    """Break the manifests of these versions."""
    for version in versions:
        (shelf(home) / version / "manifest.toml").write_text('version = "1"')


def test_a_broken_manifest_says_how_to_be_rid_of_it(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path, "one")
    add(tmp_path, "two")
    damage(own_home, "1", "2")
    for verb in (["rollback", "mine"], ["gc"], ["verify"], ["pull", "mine"], ["list"]):
        assert main(["models", *verb]) == (0 if verb == ["list"] else 1)
        said = "".join(capsys.readouterr())
        assert 'manifest.toml: "name" is missing' in said
        assert "; mend it, or remove the model: `edge-agent models remove mine`" in said
    assert main(["models", "remove", "mine"]) == 0
    assert not shelf(own_home).exists() and catalogue.verify() == []
    assert main(["models", "gc"]) == 0
    assert list((own_home / "blobs" / "sha256").glob("??/*")) == []


@pytest.mark.parametrize(("broken", "after"), [(["2"], "one"), (["1"], "two"), (["1", "2"], None)])
def test_adding_replaces_what_cannot_be_read(
    tmp_path: Path, own_home: Path, broken: list[str], after: str | None
) -> None:
    add(tmp_path, "one")
    add(tmp_path, "two")
    damage(own_home, *broken)
    add(tmp_path, "three")
    assert catalogue.before("mine") == (f"{after} (net.onnx)" if after else "")
    assert catalogue.locate("mine").manifest.version == "three" and collect(0)[1] == (8 if after else 5)


def test_the_list_goes_on_behind_a_broken_previous_version(
    tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path, "one")
    add(tmp_path, "two")
    damage(own_home, "1")
    assert main(["models", "list"]) == 0
    assert "yolox-nano" in capsys.readouterr().out


@pytest.mark.parametrize("gone", ["2", ""])
def test_a_link_to_a_version_that_is_gone(tmp_path: Path, own_home: Path, gone: str) -> None:
    add(tmp_path, "one")
    add(tmp_path, "two")
    shutil.rmtree(shelf(own_home) / gone)
    assert [row["state"] for row in catalogue.listing() if row["name"] == "mine"] == ["corrupt"]
    with pytest.raises(ManifestError, match="no manifest there; mend it, or remove the model"):
        catalogue.locate("mine")
    with pytest.raises(ManifestError, match=r"nothing is deleted, .* `edge-agent models remove mine`"):
        collect(0)
    add(tmp_path, "three")
    assert catalogue.locate("mine").manifest.version == "three" and catalogue.before("mine") == ""
    shutil.rmtree(shelf(own_home))
    remove("mine")
    assert "mine" not in [row["name"] for row in catalogue.listing()]


def test_what_a_power_cut_left_of_a_switch_is_no_model(tmp_path: Path, own_home: Path) -> None:
    add(tmp_path, "one")
    names = [row["name"] for row in catalogue.listing()]
    (own_home / "models" / ".mine.new").symlink_to(Path(".versions", "mine", "1"))
    assert [row["name"] for row in catalogue.listing()] == names and ".mine.new" not in names


def test_collect_frees_the_oldest_that_nothing_uses(tmp_path: Path, own_home: Path) -> None:
    for body in ("one", "twoo", "three", "fourth"):
        sha256 = add(tmp_path, body).manifest.file[0].sha256
        os.utime(store.blob(own_home, sha256), (len(body), len(body)))
    assert collect(18) == (0, 18)
    assert collect(17) == (3, 15)
    assert collect(0) == (4, 11)
    assert pair(own_home) == ("fourth", "three")
    (own_home / "models" / "bad").mkdir()
    (own_home / "models" / "bad" / "manifest.toml").write_text("name = ")
    with pytest.raises(ManifestError, match="nothing is deleted"):
        collect(0)
    assert remove("mine") == 11
    assert not (own_home / "models" / "mine").is_symlink()


# one process a step, forked from one that has everything imported, killed as it is about to touch the disk
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from edge_agent import registry
from edge_agent.registry import add as adding
from tests.registry import here

home, folder, act = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
acts = {
    "add": lambda: adding.add(Path(folder), "mine", here.read),
    "rollback": lambda: adding.rollback("mine"),
    "remove": lambda: adding.remove("mine"),
}
step = 0
while True:
    there = home.with_name(f"{home.name}-{act}-{step}")
    shutil.copytree(home, there, symlinks=True)
    os.environ["EDGE_AGENT_HOME"] = str(there)
    child = os.fork()
    if child == 0:
        seen = 0
        def touch(event, arguments):
            global seen
            if event.split(".")[0] in ("open", "os", "shutil") and str(there) in str(arguments):
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)
        synced = os.fsync
        def fsync(handle):
            touch("os.fsync", os.readlink(f"/proc/self/fd/{handle}"))
            synced(handle)
        os.fsync = fsync
        sys.addaudithook(touch)
        acts[act]()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status):
        sys.exit(os.WEXITSTATUS(status))
    step += 1
"""


@pytest.mark.parametrize(("act", "after"), [("add", ("three", "two")), ("rollback", ("one", "two")), ("remove", None)])
def test_killed_at_every_step_a_model_still_serves(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, act: str, after: tuple[str, str] | None
) -> None:
    add(tmp_path, "one")
    add(tmp_path, "two")
    command = [sys.executable, "-c", KILLED, str(own_home), str(model(tmp_path, "three")), act]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    homes = sorted(tmp_path.glob(f"home-{act}-*"), key=lambda home: int(home.name.rpartition("-")[2]))
    assert len(homes) > 10
    seen = []
    for home in homes:
        monkeypatch.setenv("EDGE_AGENT_HOME", str(home))
        seen.append(pair(home) if (home / "models" / "mine").is_symlink() else None)
        assert seen[-1] in (("two", "one"), after)
        # whatever it left behind, the next one succeeds, and nothing stays that nothing uses
        add(tmp_path, "four")
        assert catalogue.locate("mine").manifest.version == "four"
        collect(0)
        kept = {path.read_text() for path in (home / "blobs" / "sha256").glob("??/*")}
        assert kept == {"four", *(seen[-1] or ())[:1]}
    # before the rename the old pair, from then on the new one
    turn = seen.index(after)
    assert turn > 0 and set(seen[:turn]) == {("two", "one")} and set(seen[turn:]) == {after}


def test_from_the_command_line(tmp_path: Path, own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "rollback", "mine"]) == 2
    for body in ("one", "two", "three"):
        add(tmp_path, body)
    assert main(["models", "rollback", "mine"]) == 0
    assert "mine: version two serves again (net.onnx)" in capsys.readouterr().out
    assert main(["models", "gc", "--budget", "1K"]) == 0
    assert main(["models", "gc"]) == 0
    assert "belongs to" not in capsys.readouterr().err
    assert main(["models", "gc", "--budget", "5"]) == 1
    said = capsys.readouterr()
    assert "0.0 MB freed, 0.0 MB left" in said.out and "belongs to current and previous versions" in said.err
    with pytest.raises(SystemExit):
        main(["models", "gc", "--budget", "much"])
    assert "is no number of bytes, such as 5000000, 500M or 2G" in capsys.readouterr().err
