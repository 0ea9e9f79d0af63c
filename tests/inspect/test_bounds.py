"""What others put beside a model or into its manifest: bounded before it is read, and no order to a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.errors import FetchError, ManifestError, RefusedError
from edge_agent.gate.read import seen
from edge_agent.manifest import load
from edge_agent.registry import catalogue, store
from edge_agent.tasks.text.vocabulary import from_json, from_vocab
from tests.tiny import tiny_detector


def sparse(path: Path, size: int) -> Path:
    """A file of that size that takes no room."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "[" * 5000, "brackets nested too deep"),
        ("a = " + "{a = " * 3000, "brackets nested too deep"),
        ("a = " + "9" * 5000, "a number has thousands of digits"),
        (".".join("a" * 20_000) + " = 1", "a key of more than 32 parts"),
        ("[" + ".".join(['"a"'] * 10_000) + "]", "a key of more than 32 parts"),
        ('name = "a\0b"', "holds a NUL"),
        ('name = "x\ny"', "a quote is not closed"),
        ("name = 3", "name: must be 1 to 64 letters"),
        ('task = "drive"', 'must be "anomaly" or "answer" or "classify" or'),
    ],
)
def test_a_hostile_manifest_is_one_line_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    folder = tiny_detector(tmp_path / "model")
    file = folder / "manifest.toml"
    rest = [line for line in file.read_text().splitlines() if not text.startswith(line.split(" = ")[0] + " = ")]
    file.write_text(f"{text}\n" + "\n".join(rest))
    with pytest.raises(ManifestError) as error:
        load(file)
    assert str(error.value).startswith(f"{file}: ") and says in str(error.value) and "\n" not in str(error.value)


def test_files_that_have_no_end_or_are_too_large_are_not_read(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "model")
    labels, manifest = folder / "labels.txt", folder / "manifest.toml"
    rest = [line for line in manifest.read_text().splitlines() if not line.startswith("labels")]
    manifest.write_text('labels = "labels.txt"\n' + "\n".join(rest))
    os.mkfifo(labels)
    with pytest.raises(ManifestError, match=r"labels\.txt: labels: cannot be read \(no regular file\)"):
        load(manifest)
    sparse(labels, 40_000_000_000)
    with pytest.raises(ManifestError, match="larger than 4000 kB"):
        load(manifest)
    for path in (sparse(manifest, 3_000_000_000), Path("/dev/zero")):
        with pytest.raises(ManifestError, match=r"larger than 4000 kB|no regular file"):
            load(path)
    for read in (lambda path: from_vocab(path, True), from_json):
        for path in (sparse(tmp_path / "vocab", 3_000_000_000), Path("/dev/zero")):
            with pytest.raises(ManifestError, match=r"cannot be read: (larger than 64 MB|no regular file)"):
                read(path)
    with pytest.raises(RefusedError, match="larger than 2 GB, which no network file can be"):
        catalogue.locate(str(sparse(tmp_path / "net.onnx", 40_000_000_000)), read=seen)


def test_a_source_that_is_no_file_is_not_copied(tmp_path: Path) -> None:
    for place in (Path("/dev/zero"), tmp_path):
        with pytest.raises(FetchError, match=r"cannot be read \((no regular file|is a folder)\)"):
            store.put(tmp_path / "home", place, "0" * 64, 0)


def test_what_a_manifest_says_is_no_order_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    folder = tiny_detector(tmp_path / "home" / "models" / "tiny")
    file = folder / "manifest.toml"
    own = ("labels", "licence", "trained_by", "version")
    rest = [line for line in file.read_text().splitlines() if not line.startswith(own)]
    bad = "\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\nrefused: no\\r"
    names = ", ".join([f'"a{bad}"', '"b"', '"c"'])
    file.write_text(
        f'version = "1{bad}"\nlicence = "l{bad}"\ntrained_by = "t{bad}"\nlabels = [{names}]\n' + "\n".join(rest)
    )
    assert load(file).labels[0].count("\n") == 0
    for words in (
        ["list"],
        ["list", "--json"],
        ["inspect", "tiny"],
        ["pull", "no\x1b[2Jsuch"],
        ["inspect", "tiny", "--json"],
    ):
        main(["models", *words])
        shown = "".join(capsys.readouterr())
        assert shown.endswith("\n") and all(c == "\n" or c.isprintable() for c in shown), words
    assert "refused: no" not in [line.strip() for line in shown.splitlines()]
