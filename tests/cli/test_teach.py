"""`edge-agent teach`: pictures and films of each state in, a model out; what is wrong with them in one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.cli.test_cli import run
from tests.conftest import lines_of
from tests.serving.scene import REGION, gate

WHERE = ",".join(map(str, REGION))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of an open gate, a film of a shut one, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "open").mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / "open" / f"{number}.png"), gate("open", number))
    film = cv2.VideoWriter(str(folder / "shut.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for number in range(6):
        film.write(gate("shut", number))
    film.release()
    (folder / "note.jpg").write_text("no picture")
    return folder


def test_a_state_is_taught_tried_and_measured(tmp_path: Path, pictures: Path) -> None:
    given = ["--examples", f"open={pictures}/open/*.png", f"shut={pictures}/shut.avi", "--region", WHERE]
    out = run(tmp_path, "teach", "gate", *given)
    assert out.returncode == 0, out.stderr
    assert "gate: 12 pictures (open 6, shut 6)" in out.stdout and "held out: 1" in out.stdout
    assert 'write tasks = ["state:gate"]' in out.stdout
    asked = tmp_path / "asked"
    for state in ("open", "shut"):
        (asked / state).mkdir(parents=True)
        for number in (90, 91):
            cv2.imwrite(str(asked / state / f"{number}.png"), gate(state, number))
    out = run(tmp_path, "detect", "gate", str(asked / "shut"), "--json")
    assert [json.loads(line)["label"] for line in out.stdout.splitlines()] == ["shut", "shut"]
    out = run(tmp_path, "evaluate", "gate", str(asked), "--json")
    assert json.loads(out.stdout)["accuracy"] == 1
    assert "taught here, on edge-yolo" in run(tmp_path, "models", "list").stdout
    out = run(tmp_path, "detect", "gate", str(asked / "shut" / "90.png"), "--save", str(tmp_path / "x.jpg"))
    assert out.returncode == 2 and "labels whole pictures" in out.stderr


def test_a_picture_that_cannot_be_read_is_said_and_the_others_count(tmp_path: Path, pictures: Path) -> None:
    given = [f"open={pictures}/open", f"open={pictures}/note.jpg", f"shut={pictures}/shut.avi", "shut=nowhere"]
    out = run(tmp_path, "teach", "gate", "--examples", *given, "--region", WHERE, "--json")
    told = json.loads(out.stdout)
    assert out.returncode == 1 and told["pictures"] == {"open": 6, "shut": 6} and told["task"] == "state:gate"
    assert len(told["unreadable"]) == 2 and "no picture that can be decoded" in out.stderr and "nowhere" in out.stderr


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--examples", "open={}/open"], 'there are pictures of "open" alone'),
        (["--examples", "open"], "write STATE=PICTURES"),
        (["--examples", "=x", "b=y"], "write STATE=PICTURES"),
        (["--examples", "open={}/open", "shut=camera:0"], "of a camera keep some first"),
        (["--examples", "a={}/open", "b={}/shut.avi", "--region", "1,2,3"], "give four numbers"),
        (["--examples", "a={}/open", "b={}/shut.avi", "--region", "0.5,0,0.2,1"], "left lies before right"),
        (["--examples", "a={}/open", "b={}/shut.avi", "--region", "nan,0,1,1"], "give four numbers"),
        (["--examples", "a={}/open", "b={}/shut.avi", "--model", "edge-bert"], "taught on a detector in ONNX"),
    ],
)
def test_what_is_wrong_is_one_line(given: list[str], why: str, tmp_path: Path, pictures: Path) -> None:
    out = run(tmp_path, "teach", "gate", *[part.replace("{}", str(pictures)) for part in given])
    assert out.returncode == 2 and why in out.stderr and len(lines_of(out.stderr)) == 1 and not out.stdout
