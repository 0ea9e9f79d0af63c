"""`edge-agent ask`: the archive searched, summed up and deleted from, by words and by options."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edge_agent.archive.archive import NAME, Archive
from tests.archive.made import event
from tests.cli.test_cli import run
from tests.conftest import lines_of

CONFIG = """
[store]
path = "store"
{more}
[[pipeline]]
name = "gate"
source = "lines:-"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A config whose archive has a car and two texts of a minute ago, and a dog of ten days ago."""
    path, now = tmp_path / "agent.toml", time.time() - 60
    path.write_text(CONFIG.format(more="[archive]"))
    archive = Archive(tmp_path / "store" / NAME)
    archive.add([event(1, "object", now, "gate", label="car", entered=["drive"], zones=["drive"])])
    archive.add([event(2, text="the baby has a fever", at=now), event(3, text="dinner is ready", at=now)])
    archive.add([event(4, "object", now - 864_000, "gate", label="dog")])
    archive.close()
    return str(path)


def test_a_question_is_answered_by_words_and_by_meaning(tmp_path: Path, config: str) -> None:
    out = run(tmp_path, "ask", "-c", config, "a car in the last hour", "--words")
    assert out.returncode == 0 and "car comes into view, enters drive" in out.stdout, out.stderr
    out = run(tmp_path, "ask", "-c", config, "child is ill", "--encoder", "edge-bert", "--json")
    told = json.loads(out.stdout)
    assert told["found"][0]["text"] == "the baby has a fever" and told["unread"] == 0
    assert told["found"][0]["events"][0]["id"] == "edge/1/2"
    assert "4 texts are read for their meaning, once" in out.stderr
    out = run(tmp_path, "ask", "-c", config, "a", "car", "--kind", "text", "--words")
    assert out.returncode == 1 and out.stdout == "nothing found\n"
    out = run(tmp_path, "ask", "-c", config, "dinner", "--encoder", "edge-yolo")
    assert out.returncode == 0 and "by words alone" in out.stderr and "dinner is ready" in out.stdout


def test_a_day_is_summed_up(tmp_path: Path, config: str) -> None:
    out = run(tmp_path, "ask", "-c", config, "--recap", "in the last 2 hours", "--json")
    told = json.loads(out.stdout)
    assert told["events"] == 3 and {row["label"] for row in told["rows"]} == {"car", ""}
    out = run(tmp_path, "ask", "-c", config, "--recap", "last hour")
    assert out.stdout.startswith("3 events from ") and "car" in out.stdout


def test_what_the_options_name_is_deleted(tmp_path: Path, config: str) -> None:
    out = run(tmp_path, "ask", "-c", config, "--delete", "--label", "car")
    assert out.returncode == 2 and "1 events would go; add --yes" in out.stderr
    out = run(tmp_path, "ask", "-c", config, "--delete", "--label", "car", "--yes")
    assert out.returncode == 0 and out.stdout == "1 events deleted\n"
    out = run(tmp_path, "ask", "-c", config, "--delete", "--until", "5 days ago", "--yes", "--json")
    assert json.loads(out.stdout) == {"deleted": 1}
    assert Archive(tmp_path / "store" / NAME).count() == 2


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "ask what?"),
        (["x", "--since", "nonsense"], '--since "nonsense": no time'),
        (["x", "--top", "0"], "--top 0: give a number"),
        (["--delete", "--yes"], "--delete: name what goes"),
        (["--recap", "the moon"], '--recap "the moon": of when?'),
    ],
)
def test_what_is_wrong_is_one_line(given: list[str], why: str, tmp_path: Path, config: str) -> None:
    out = run(tmp_path, "ask", "-c", config, *given)
    assert out.returncode == 2 and why in out.stderr and len(lines_of(out.stderr)) == 1 and not out.stdout


def test_without_an_archive_it_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(more=""))
    out = run(tmp_path, "ask", "-c", str(path), "x")
    assert out.returncode == 2 and "keeps no events; write [archive] into it" in out.stderr
    path.write_text(CONFIG.format(more="[archive]"))
    out = run(tmp_path, "ask", "-c", str(path), "x")
    assert out.returncode == 1 and "no archive there" in out.stderr and not (tmp_path / "store").exists()
