"""What a config will cost, before it runs: measured where it can be, and what is assumed is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge_agent.cli import main
from tests.tiny import tiny_detector

CONFIG = """
[device]
id = "porch"
[mqtt]
url = "mqtt://127.0.0.1:9"
[store]
path = "store"
{store}
[[pipeline]]
name = "door"
source = "http://127.0.0.1:9/x#fps=5"
tasks = ["detect:{place}/model", "track"]
[[pipeline]]
name = "photos"
source = "files:photos?fps=2&loop=yes"
tasks = ["detect:{place}/model"]
report = "every"
[[pipeline]]
name = "words"
source = "lines:said.txt"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, demo_pictures: Path) -> Path:
    folder = tmp_path_factory.mktemp("described")
    (folder / "photos").mkdir()
    shutil.copy(demo_pictures / "coffee.png", folder / "photos")
    tiny_detector(folder / "model")
    (folder / "said.txt").write_text("")
    return folder


def described(place: Path, capsys: pytest.CaptureFixture[str], *more: str, store: str = "") -> dict:  # type: ignore[type-arg]
    (place / "a.toml").write_text(CONFIG.format(store=store, place=place))
    assert main(["describe", "-c", str(place / "a.toml"), "--json", *more]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_it_is_measured_and_follows_what_is_assumed(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(place / "home"))
    quiet, busy = described(place, capsys, "--events", "6"), described(place, capsys, "--events", "600")
    door, photos, words = quiet["pipelines"]
    assert (door["per_second"], photos["per_second"]) == (5, 2) and door["ms"] > 0
    assert door["events_a_day"] == 6 * 24 and photos["events_a_day"] == 2 * 86_400, "each result is told"
    assert words["events_a_day"] == pytest.approx(6 * 24)
    assert quiet["bytes_a_day"] == pytest.approx(sum(quiet["bytes_by"].values()), abs=3)
    assert busy["bytes_by"]["states"] > quiet["bytes_by"]["states"], "that of the words is said as words come"
    assert busy["bytes_by"]["counts"] == pytest.approx(100 * quiet["bytes_by"]["counts"], rel=0.01)
    assert busy["bytes_a_day"] > quiet["bytes_a_day"] and 30 < quiet["memory_mb"] < 2000
    assert len(quiet["assumed"]) == 4 and "6 events an hour" in quiet["assumed"][0]
    metered = described(place, capsys, store="bytes_per_day = 100000")
    assert metered["bytes_a_day"] == 100_000 and metered["bytes_by"]["states"] < quiet["bytes_by"]["states"] / 100


def test_people_read_it_and_wrong_numbers_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(place / "home"))
    (place / "a.toml").write_text(CONFIG.format(store="", place=place))
    assert main(["describe", "-c", str(place / "a.toml")]) == 0
    out = capsys.readouterr().out
    assert "MB a day in" in out and "assumed: " in out and "cores" in out
    assert main(["describe", "-c", str(place / "a.toml"), "--fps", "0"]) == 2
    assert "above 0" in capsys.readouterr().err
