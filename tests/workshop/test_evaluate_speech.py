"""evaluate on recordings: the verb on real speech."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.samples.carried import SPOKEN
from tests.conftest import ROOT

SPEECH = ROOT / "deploy" / "demo" / "speech"


@pytest.fixture(autouse=True)
def home(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))


def table(folder: Path, rows: dict[str, str]) -> str:
    path = folder / "said.tsv"
    path.write_text("file\tlabel\n" + "".join(f"{SPEECH / name}\t{said}\n" for name, said in rows.items()))
    return str(path)


def test_words_are_counted_against_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {**SPOKEN, "rain.wav": "was it going to rain this afternoon"}
    save = tmp_path / "worst"
    given = ["evaluate", "whisper-tiny", table(tmp_path, rows), "--json", "--save", str(save)]
    assert main([*given, "--against", "whisper-tiny"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["errors"], found["words"], found["right"]) == (1, 14, 0.5)
    assert found["wer"] == pytest.approx(1 / 14, abs=1e-6) and found["seconds"] == pytest.approx(4.52, abs=0.01)
    assert found["against"]["wer"] == 0 and found["against"]["on_labels"]["errors"] == 1
    said, heard = (save / "errors.tsv").read_text().splitlines()[1].split("\t")
    assert said == rows["rain.wav"] and heard.startswith("Is it going")
    assert main(["evaluate", "whisper-tiny", table(tmp_path, rows)]) == 0
    assert "word errors     0.0714 (0.0000 to 1.0000)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"gone.wav": "nothing"}, "a file that is not there, or no words; give a .csv or .tsv of file and label"),
        ({"../coffee.png": "a cup"}, "none of 1 samples can be taken; the first, coffee.png: no recording"),
    ],
)
def test_what_is_no_speech_is_one_line(
    rows: dict[str, str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "whisper-tiny", table(tmp_path, rows)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
