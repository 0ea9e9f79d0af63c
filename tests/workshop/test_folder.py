"""How a made model names what it was made from."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from edge_agent.errors import UsageError
from edge_agent.registry import add, catalogue
from edge_agent.workshop.report import folder
from edge_agent.workshop.report.folder import reference
from tests.tiny import tiny_detector


def test_a_parent_is_named_where_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    made = tiny_detector(tmp_path / "tiny")
    given = catalogue.locate(str(made))
    assert reference(given) == str(made), "nobody knows the name"
    add.add(made, "tiny", lambda path: pytest.fail("no bare file"))
    assert reference(given) == "tiny"
    # the catalogue knows the file, but has it not here
    absent = catalogue.locate("yolox-nano").manifest
    bare = msgspec.structs.replace(given, manifest=msgspec.structs.replace(absent, file=absent.file[:1]))
    assert reference(bare) == str(made)
    (made / "manifest.toml").unlink()
    assert reference(bare) == str(made / "yolox_nano.onnx")


def test_two_runs_never_make_a_model_in_one_folder(tmp_path: Path) -> None:
    with folder.work(tmp_path / "out") as place:
        (place / "measured").write_text("figures")
    other = os.open(tmp_path / "out" / ".work", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(UsageError, match="another run makes a model there"), folder.work(tmp_path / "out"):
        pass
    os.close(other)
    with folder.work(tmp_path / "out") as place:
        assert (place / "measured").is_file(), "and what the other one left is still there"
