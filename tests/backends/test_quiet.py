"""One line of TFLite's is kept off stderr, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.backends import open_net
from edge_agent.backends.quiet import CHATTER, quiet
from edge_agent.manifest import File, Manifest
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.graph import tflite
from tests.nets import absolute_tflite


def test_only_that_line_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"first\n" + CHATTER[0] + b"\nERROR: second\n")
        os.write(2, b"third\n")
    os.write(2, b"fourth\n")
    assert capfd.readouterr().err == "first\nERROR: second\nthird\nfourth\n"


def test_what_was_said_before_an_error_comes_out(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), quiet():
        os.write(2, b"half a line")
        raise KeyError
    assert capfd.readouterr().err == "half a line"


def test_a_network_is_opened_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = absolute_tflite(tmp_path / "m.tflite", [1, 4])
    with quiet():
        open_net(path, "tflite", 1)
    assert capfd.readouterr().err == ""


def test_the_workshop_opens_candidates_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = absolute_tflite(tmp_path / "m.tflite", [1, 4])
    row = File("m.tflite", "tflite", "0" * 64, path.stat().st_size)
    score.open_file(Manifest("m", "1", "anomaly", "autoencoder", "", "", [row]), path, "tflite", {})
    model = tflite.Model(path.read_bytes(), [], frozenset("xy"))
    assert list(tflite.watch(model, [{"x": np.ones((1, 4), np.float32)}]))
    assert capfd.readouterr().err == ""


def test_without_a_stderr() -> None:
    code = "import os; from edge_agent.backends.quiet import quiet\nos.close(2)\nwith quiet(): print('ran')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ran\n"
