"""[update], and a shared config: it stands in place of the device's own sections, and says nothing of who it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.config import load
from edge_agent.errors import ConfigError, UsageError
from edge_agent.fleet.pack import pack
from edge_agent.manifest import Input, Seen

OWN = """
[device]
id = "shop-1"
[update]
repository = "repo"
config = "shop"
[[pipeline]]
name = "own"
source = "lines:-"
"""
SHARED = """
[[pipeline]]
name = "door"
source = "camera:0"
tasks = ["detect:detector", "track"]
[[zone]]
name = "entry"
pipeline = "door"
points = [[0, 0], [1, 0], [1, 1]]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "agent.toml").write_text(OWN)
    return tmp_path


def lay(place: Path, text: str, number: int = 1) -> None:
    shelf = place / "home" / "fleet" / "laid" / "config.shop"
    (shelf / str(number)).mkdir(parents=True)
    (shelf / str(number) / "agent.toml").write_text(text)
    (shelf / "current").unlink(missing_ok=True)
    (shelf / "current").symlink_to(str(number))


def test_the_shared_sections_stand_in_place_of_the_own_ones(place: Path) -> None:
    assert [pipe.name for pipe in load(place / "agent.toml").pipeline] == ["own"]  # none is here yet
    lay(place, SHARED)
    loaded = load(place / "agent.toml")
    assert loaded.device.id == "shop-1" and loaded.update is not None
    assert loaded.update.address == f"file://{place}/repo/" and loaded.update.root == str(place / "root.json")
    assert [pipe.name for pipe in loaded.pipeline] == ["door"] and [zone.name for zone in loaded.zone] == ["entry"]
    lay(place, '[[pipeline]]\nname = "other"\nsource = "lines:in.txt"\ntasks = ["classify:encoder?labels=l.toml"]\n', 2)
    loaded = load(place / "agent.toml")
    folder = place / "home" / "fleet" / "laid" / "config.shop" / "2"
    assert loaded.zone == [] and loaded.pipeline[0].source == f"lines:{folder / 'in.txt'}"
    assert str(folder / "l.toml") in loaded.pipeline[0].tasks[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[mqtt]\nurl = "mqtt://evil"\n', "[mqtt] is each device's own"),
        ('[update]\nrepository = "x"\n', "[update] is each device's own"),
        ("[policy]\nsigned = false\n", "[policy] is each device's own"),
        ("[samples]\nclips = 7\n", "samples.clips"),
        ("no toml", "line 1"),
    ],
)
def test_a_shared_config_that_is_wrong_is_one_line_that_names_it(place: Path, text: str, why: str) -> None:
    lay(place, text)
    with pytest.raises(ConfigError) as wrong:
        load(place / "agent.toml")
    assert why in str(wrong.value) and "config.shop" in str(wrong.value) and "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('repository = "ftp://host/x"', "is no address"),
        ('repository = "https://"', "is no address"),
        ('repository = "https://h/x?y=1"', "a query or a # stands in no such address"),
        ('repository = "r"\nbetween = "03:00-03:00"', "is no time at all"),
        ('repository = "r"\ngroup = "7"', "group"),
        ('repository = "r"\nca = "ca.pem"', "is for https:// only"),
        ('repository = "r"\nmodel = ["a"]', 'did you mean "models"?'),
    ],
)
def test_what_is_wrong_in_update_is_said(place: Path, line: str, why: str) -> None:
    (place / "agent.toml").write_text(f'[update]\n{line}\n[[pipeline]]\nname = "a"\nsource = "lines:-"\n')
    with pytest.raises(ConfigError) as wrong:
        load(place / "agent.toml")
    assert why in str(wrong.value)


def test_a_config_is_packed_with_what_it_names(place: Path) -> None:
    shared = place / "shared"
    shared.mkdir()
    (shared / "labels.toml").write_text('[labels]\nhello = ["hi"]\n')
    (shared / "shop.toml").write_text(
        '[[pipeline]]\nname = "a"\nsource = "lines:-"\ntasks = ["classify:encoder?labels=labels.toml"]\n'
    )
    packed = pack(str(shared / "shop.toml"), "shop", lambda path: pytest.fail("no model"))
    assert packed.kind == "config" and set(packed.files) == {"agent.toml", "labels.toml"}
    (shared / "own.toml").write_text('[mqtt]\nurl = "mqtt://h"\n')
    with pytest.raises(UsageError, match=r"\[mqtt\] is each device's own"):
        pack(str(shared / "own.toml"), "shop", lambda path: pytest.fail("no model"))
    for given, kind in ((shared / "labels.toml", "files"), (shared, "files")):
        assert pack(str(given), "x", lambda path: pytest.fail("no model")).kind == kind
    os.mkdir(place / "wheels")  # noqa: PTH102
    for name in ("edge_agent_runtime-0.2.0-py3-none-any.whl", "numpy-2.0-cp311-cp311-linux_x86_64.whl"):
        (place / "wheels" / name).write_bytes(b"zip")
    packed = pack(str(place / "wheels"), "edge-agent", lambda path: pytest.fail("no model"))
    assert (packed.kind, packed.version, len(packed.files)) == ("agent", "0.2.0", 2)
    (place / "m.onnx").write_bytes(b"network")
    with pytest.raises(UsageError, match="--licence"):
        pack(str(place / "m.onnx"), "m", lambda path: Seen("detect", "yolox", [], Input(32, 32)))
