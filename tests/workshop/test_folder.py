"""How a made model names what it was made from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.registry import add, catalogue
from edge_agent.workshop.report.folder import reference
from tests.tiny import tiny_detector


def test_a_parent_is_named_where_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    folder = tiny_detector(tmp_path / "tiny")
    given = catalogue.locate(str(folder))
    assert reference(given) == str(folder), "nobody knows the name"
    add.add(folder, "tiny", lambda path: pytest.fail("no bare file"))
    assert reference(given) == "tiny"
    # the catalogue knows the file, but has it not here
    absent = catalogue.locate("yolox-nano").manifest
    bare = msgspec.structs.replace(given, manifest=msgspec.structs.replace(absent, file=absent.file[:1]))
    assert reference(bare) == str(folder)
    (folder / "manifest.toml").unlink()
    assert reference(bare) == str(folder / "yolox_nano.onnx")
