"""What was looked at is what is opened, whatever is done to the file in between."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files, held
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.gate import admit, ask
from edge_agent.gate.trial import Read, Variant
from edge_agent.registry import catalogue, store
from edge_agent.serving import forms
from edge_agent.serving.models import Models
from edge_agent.tasks.text.encoder import words_of
from tests.conftest import ROOT
from tests.gate.test_ask import manifest
from tests.nets import blob_finder_onnx
from tests.tiny import tiny_detector

EDGE_YOLO, EDGE_BERT = ROOT / "models" / "edge-yolo", ROOT / "models" / "edge-bert"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def replaced(path: Path, content: bytes) -> None:
    """Another file under the name."""
    path.with_name("other").write_bytes(content)
    path.with_name("other").replace(path)


def rewritten(path: Path, content: bytes) -> None:
    """Another content of the file."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


@pytest.mark.parametrize("proc", [True, False])
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_held_file_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, proc: bool) -> None:
    if not proc:
        monkeypatch.setattr(held, "_leads_to", lambda path, fd: False)
    path, before = tmp_path / "m.onnx", set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    path.write_bytes(b"right")
    path.chmod(mode)
    with held.held(path, sha(path)) as file:
        replaced(path, b"wrong")
        assert file.path.read_bytes() == b"right"
    with (
        pytest.raises(RefusedError, match=r"no longer the file that was looked at \(sha256 .*…, not .*…\)"),
        held.held(path, hashlib.sha256(b"right").hexdigest()),
    ):
        pass
    path.chmod(mode)
    with held.held(path, sha(path)) as file, path.open("r+b") as writer:
        mapped = mmap.mmap(writer.fileno(), 0)
        mapped[:1] = b"W"
        # where nobody but its owner can write, the owner is believed
        assert file.path.read_bytes() == (b"wrong" if mode == 0o666 or not proc else b"Wrong")
        mapped.close()
    assert set(os.listdir("/proc/self/fd")) == before, "a descriptor is left"  # noqa: PTH208


def test_only_a_regular_file_is_held(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(RefusedError, match=r"no regular file|is a folder"), held.held(path, ""):
            pass
    with pytest.raises(RefusedError, match="cannot be read"), held.held(tmp_path / "none", ""):
        pass


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, room: Any, name: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something each time that a function has done its work."""
    real = getattr(room, name)

    def then(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        act()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(room, name, then)
        yield


@pytest.mark.parametrize("swap", [replaced, rewritten])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_network_that_is_swapped_behind_its_proof_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, swap: Callable[[Path, bytes], None]
) -> None:
    (tmp_path / "m").mkdir()
    shutil.copy(EDGE_YOLO / "labels.txt", tmp_path / "m" / "labels.txt")
    path = tmp_path / "m" / f"m.{kind}"
    shutil.copy(EDGE_YOLO / f"model.int8.{kind}", path)
    good = path.read_bytes()
    evil = good[:-1] + bytes([good[-1] ^ 1])
    with (
        meanwhile(monkeypatch, admit, "prove", lambda: swap(path, evil)),
        pytest.raises(RefusedError, match="it is no longer the file that was looked at"),
    ):
        Models(threads=1).serve(str(path))
    swap(path, good)
    assert Models(threads=1).serve(str(path)).ref.sha256 == hashlib.sha256(good).hexdigest()


def test_a_network_that_is_swapped_before_its_trial_is_not_the_one_that_is_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    """Else the verdict on a good file would stand under the hash of a bad one."""
    path = blob_finder_onnx(tmp_path / "m.onnx")
    made = manifest(path)
    good = path.read_bytes()
    # in the child's time as well: what it reads is held
    for room, name, act in (
        (ask, "digests", lambda: replaced(path, b"bad")),
        (ask, "_handed", lambda: replaced(path, b"bad")),
    ):
        replaced(path, good)
        with meanwhile(monkeypatch, room, name, act):
            if name == "_handed":
                assert admit.prove(made, made.file[0], path, {}, 1).result.passed
            else:
                with pytest.raises(RefusedError, match="no longer the file that was looked at"):
                    admit.prove(made, made.file[0], path, {}, 1)
                assert not (own_home / "proofs").exists(), "it says nothing about the file of that hash"


def test_a_vocabulary_that_is_swapped_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(EDGE_BERT, folder)
    served = Models(threads=1).serve(str(folder))
    words = served.parts["vocab"].read_text().splitlines()
    replaced(served.parts["vocab"], "\n".join([*words[:1000:-1]]).encode())
    with pytest.raises(RefusedError, match=r"vocab\.txt: it is no longer the file"):
        words_of(served)


def test_what_lies_beside_a_bare_file_is_held_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, labels = blob_finder_onnx(tmp_path / "m.onnx"), tmp_path / "labels.txt"
    labels.write_text("blue\ngreen\nred\n")
    variants = [Variant(manifest(path).file[0], str(path))]
    question = Read(variants=variants, parts={"labels.txt": str(labels)})
    with meanwhile(monkeypatch, ask, "_handed", lambda: replaced(labels, b"a\nb\nc\n")):
        result = ask.ask(question).result
    assert result.figures["seen"]["labels"] == ["blue", "green", "red"]
    with (
        meanwhile(monkeypatch, ask, "digests", lambda: replaced(labels, b"x\ny\nz\n")),
        meanwhile(monkeypatch, files, "write", lambda: None),
    ):
        result = ask.ask(question, again=True).result
    assert "labels.txt: it is no longer the file" in result.reason


def test_the_faster_form_is_held_and_mapped(tmp_path: Path, own_home: Path) -> None:
    folder = tiny_detector(tmp_path / "model")
    located = catalogue.locate(str(folder))
    made = forms.with_derived(located, {}, 1, make=True)
    (form,) = [row for row in made.manifest.networks() if row.format == "ort"]
    blob = store.blob(own_home, form.sha256)
    from edge_agent.backends import open_net

    net = open_net(blob, "ort", 1, form.sha256)
    assert str(blob) in Path("/proc/self/maps").read_text()
    assert net.inputs[0].name == "images"
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(EdgeAgentError, match="no longer the file"):
        open_net(blob, "ort", 1, form.sha256)
