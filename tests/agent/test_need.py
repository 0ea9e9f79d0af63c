"""Whether there is processor enough for a config, said before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.agent.need import Load, weighed
from tests.tiny import tiny_detector

DOOR = Load("door", 30, 30.0, 30.0)
WORDS = Load("words", 100, 8.0, 8.0)
HALL = Load("hall", 0, 800.0, 780.0, sound=True)


@pytest.mark.parametrize(
    ("loads", "cores", "told", "good"),
    [
        ([], 2, [], True),
        ([DOOR], 1, ["needs 0.9 cores, 1 is there: door 0.90 (30/s of 30.0 ms)"], True),
        (
            [DOOR, WORDS],
            1,
            ["needs 1.7 cores, 1 is there: door 0.90 (30/s of 30.0 ms), words 0.80 (100/s of 8.0 ms)", "so samples of"],
            True,
        ),
        (
            [DOOR._replace(deadline_ms=100), HALL],
            2,
            ["needs 0.9 cores, 2 are there: door 0.90 (30/s of 30.0 ms), hall as much as is said (780.0 ms each)"],
            True,
        ),
        (
            [DOOR._replace(deadline_ms=100), HALL],
            1,
            ["needs 0.9", "door: may miss its deadline behind a run of hall (800 ms), on one core"],
            True,
        ),
        ([DOOR._replace(per_second=0)], 1, ["needs 0.00 cores, 1 is there: door what is left (30.0 ms each)"], True),
        (
            [DOOR._replace(deadline_ms=20)],
            4,
            ["needs 0.9", "door: deadline_ms = 20, but an answer takes 30 ms here: none is in time"],
            False,
        ),
        (
            [DOOR._replace(deadline_ms=200), WORDS._replace(share=3)],
            1,
            ["needs 1.7", "so samples of", "door: needs 0.90 cores, and its share is 0.25: deadlines will be missed"],
            False,
        ),
        ([DOOR._replace(deadline_ms=200, share=20), WORDS], 1, ["needs 1.7", "so samples of"], True),
    ],
)
def test_what_is_said(loads: list[Load], cores: int, told: list[str], good: bool) -> None:
    found, in_time = weighed(loads, cores)
    assert in_time == good and len(found) == len(told)
    assert all(said.startswith(begin) for said, begin in zip(found, told, strict=True)), found


CONFIG = """
[device]
threads = 1

[store]
path = "{folder}/store"

[[pipeline]]
name = "yard"
source = "files:{pictures}?fps={fps}"
tasks = ["detect:{model}"]
{more}
"""


@pytest.mark.parametrize(
    ("fps", "more", "code", "told"),
    [
        (0.001, "", 0, ("needs 0.00 cores, 1 is there: yard 0.00 (0.001/s of",)),
        (0.001, "deadline_ms = 60000", 0, ("needs 0.00 cores",)),
        (0.001, "deadline_ms = 0.0001", 1, ("yard: deadline_ms = 0.0001, but an answer takes",)),
        (
            1000,
            "deadline_ms = 60000",
            1,
            ("so samples of cameras are dropped and texts wait", "yard: needs", "and its share is 1.00"),
        ),
    ],
)
def test_check_says_it_and_ends_with_1_where_a_deadline_cannot_be_met(
    fps: float, more: str, code: int, told: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    demo_pictures: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What a run takes is measured, but for the last row: no machine is to be too fast for it."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    if fps == 1000:
        monkeypatch.setattr("edge_agent.agent.need._cost", lambda served: (1.1, 1.1))
    model = tiny_detector(tmp_path / "model")
    text = CONFIG.format(folder=tmp_path, pictures=demo_pictures, fps=fps, model=model, more=more)
    (tmp_path / "agent.toml").write_text(text)
    (tmp_path / "agent.toml").chmod(0o600)
    assert cli.main(["check", "-c", str(tmp_path / "agent.toml")]) == code
    shown = capsys.readouterr().out
    assert all(line in shown for line in told), shown
