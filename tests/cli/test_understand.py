"""The verb understand as a user types it, on the carried models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import main

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(home))

    def call(*args: str) -> tuple[int, list[str], str]:
        code = main(["understand", *args])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out.splitlines(), said.err

    return call


def only(out: list[str]) -> dict[str, Any]:
    (line,) = out
    found: dict[str, Any] = json.loads(line)
    return found


def test_each_task_of_text(run: Run, tmp_path: Path) -> None:
    found = only(run("edge-bert", "turn the [MASK] on", "--task", "fill", "--top", "2", "--json")[1])
    assert found["text"] == "turn the [MASK] on" and len(found["places"][0]["words"]) == 2
    assert run("edge-bert", "Pleese turn on the lights", "--repair")[1][0].startswith("Please turn on the lights  (")
    found = only(run("edge-bert", "Turn on the light.", "And dim it.", "--task", "follows", "--json")[1])
    assert found["label"] in ("follows", "apart") and found["text"] == "And dim it."
    (tmp_path / "manual.txt").write_text("The fuse is in the grey box. Oil is changed in May.")
    found = only(run("edge-bert", "where is the fuse", "--context", str(tmp_path), "--json")[1])
    assert found["passages"][0]["source"] == "manual.txt" and found["answer"] is None and not found["extracted"]
    lines = ["A storm is near. It will rain all day.", "Take an umbrella. A storm is near."]
    found = only(run("edge-bert", *lines, "--task", "summarize", "--top", "2", "--json")[1])
    assert found["of"] == 4 and len(found["sentences"]) == 2
    found = only(run("edge-bert", *lines, "--task", "topics", "--json")[1])
    assert found["lines"] == 2 and found["first"] == lines[0]
    code, out, _ = run("edge-tagger", "wake me at seven")
    assert code == 0 and '"seven"' in out[0] and "time" in out[0]
    assert len(only(run("edge-bert", "x", "--task", "embed", "--json")[1])["embedding"]) == 384


def test_a_store_is_filled_asked_listed_and_thinned(run: Run) -> None:
    assert run("edge-bert", "the cat sat", "prices rise", "--store", "s", "--add")[1] == [
        "s: 2 of 2 sentences new, 2 are stored"
    ]
    assert run("edge-bert", "the cat sat", "--store", "s", "--add", "--json")[1] == [
        '{"store":"s","added":0,"stored":2}'
    ]
    assert run("edge-bert", "a cat", "--store", "s", "--top", "1")[1][0].endswith("  the cat sat")
    assert run("edge-bert", "--store", "s", "--list")[1] == ["the cat sat", "prices rise"]
    code, out, _ = run("edge-bert", "prices rise", "no such", "--store", "s", "--remove")
    assert (code, out) == (1, ["s: 1 of 2 sentences taken away, 1 are stored"])
    code, _, error = run("edge-bert", "x", "--store", "../s")
    assert code == 2 and "a name has 1 to 64 letters" in error


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["edge-bert", "x", "--task", "similr"], 2, 'no such task; did you mean "similar"?'),
        (
            ["edge-bert", "x", "--task", "tag"],
            2,
            "not for edge-bert, whose task is encode; it can embed, classify",
        ),
        (["edge-bert", "x", "--task", "detect"], 1, "no text encoder"),
        (["edge-bert", "x", "--task", "answer"], 2, "in which text? give --context FILE"),
        (["edge-bert", "x", "--task", "similar"], 2, "give --store NAME"),
        (["edge-bert", "x", "--context", "/nowhere"], 2, "/nowhere: cannot be read"),
        (["edge-bert", "x", "--task", "fill"], 1, "no [MASK] in the text"),
        (["edge-bert", "x", "--task", "fill", "--labels", "l.toml"], 2, "--labels: for --task classify, not for fill"),
        (["edge-bert", "x", "--embed", "--task", "fill"], 2, "leave one of them out"),
        (
            ["edge-tagger", "x", "--top", "3"],
            2,
            "--top: for --task fill or answer or similar or summarize, not",
        ),
    ],
)
def test_wrong_use_is_one_line(run: Run, args: list[str], code: int, says: str) -> None:
    got, _, error = run(*args)
    assert got == code and says in error and len(error.splitlines()) == 1


def test_a_line_of_a_megabyte_and_lines_of_any_kind_are_answered_or_said(home: Path) -> None:
    odd = ["word " * 200_000, "\u200b", "", "مرحبا بالعالم", "👩‍👩‍👧‍👦 family", "e\u0301" * 1000]
    odd += ["[MASK]", "\x00\x07", "x" * 70_000]
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "understand", "edge-tagger", "--json"],
        input="\n".join(odd),
        capture_output=True,
        text=True,
        env={**os.environ, "EDGE_AGENT_HOME": str(home)},
    )
    assert "Traceback" not in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    told = done.stderr.count("nothing to understand")
    # an empty line is none, and so is one of control characters alone
    assert len(rows) + told == 7 and told == 1 and done.returncode == 1
    for row in rows:
        assert all(row["text"][span["start"] : span["end"]] == span["text"] for span in row["spans"])
