"""Models on the page: what serves, dropped in, proved or refused, swapped, rolled back."""

from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.samples import evaluated
from tests.broker import until
from tests.conftest import ROOT
from tests.tiny import tiny_detector
from tests.ui.serving import ask, at_work, comes_true, scene_of

from edge_agent.ui import models  # isort: skip
from edge_agent.ui.server import Page  # isort: skip

CALL = "/api/v1/models"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Page]]:
    tmp_path = tmp_path_factory.mktemp("models")
    shutil.rmtree(tmp_path.parent / "home" / "models", ignore_errors=True)
    with at_work(tmp_path, scene_of(tmp_path)) as made:
        yield made


def test_what_is_here_and_how_good_it_is(work: tuple[Agent, Page]) -> None:
    _, made = work
    found = {row["name"]: row for row in ask(made, "GET", CALL).json}
    assert found["edge-yolo"]["state"] == "carried" and not found["edge-yolo"]["added"]
    assert found["whisper-tiny"]["state"] == "absent" and not found["whisper-tiny"]["added"]
    card = ask(made, "GET", f"{CALL}/edge-yolo").json
    assert card["licence"] == "Apache-2.0" and len(card["labels"]) == 20 and "A small detector" in card["card"]
    assert {row["precision"] for row in card["variants"]} == {"fp32", "fp16", "int8"}
    for name in ("nothing", "..%2f..%2fagent.toml", "%2fetc%2fpasswd"):
        assert ask(made, "GET", f"{CALL}/{name}").status == 404
    got = ask(made, "DELETE", f"{CALL}/edge-yolo")
    assert got.json["error"] == "edge-yolo came with the program; there is nothing to remove"


def test_the_pictures_that_a_model_did_worst_on(work: tuple[Agent, Page]) -> None:
    _, made = work
    assert ask(made, "GET", f"{CALL}/edge-yolo").json["evaluated"] is None
    (evaluated.fresh("edge-yolo") / "01_f1-0.20_street.jpg").write_bytes(b"\xff\xd8picture")
    folder = evaluated.keep("edge-yolo", evaluated.Evaluated("2", "0" * 64, 1.0, ["mAP50  0.457"]))
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()} == {0o600}
    known = ask(made, "GET", f"{CALL}/edge-yolo").json["evaluated"]
    assert known["lines"] == ["mAP50  0.457"] and known["pictures"] == ["01_f1-0.20_street.jpg"]
    got = ask(made, "GET", f"{CALL}/edge-yolo/worst/01_f1-0.20_street.jpg")
    assert got.body == b"\xff\xd8picture" and got.headers["content-type"] == "image/jpeg"
    for name in ("other.jpg", "evaluated.json", "..%2f..%2fkey.jpg"):
        assert ask(made, "GET", f"{CALL}/edge-yolo/worst/{name}").status == 404


def test_a_file_that_makes_no_sense_is_refused_with_the_reason(work: tuple[Agent, Page], tmp_path: Path) -> None:
    _, made = work
    broken = (ROOT / "models" / "edge-yolo" / "model.int8.onnx").read_bytes()[:5000]
    got = ask(made, "POST", f"{CALL}?file=broken.onnx", broken)
    assert got.status == 400 and got.json["error"].startswith("broken.onnx: not a readable ONNX model")
    for name in ("model.py", "../model.onnx", ".onnx", ""):
        got = ask(made, "POST", f"{CALL}?file={name}", broken)
        assert got.status == 400 and str(tmp_path) not in got.json["error"]
    assert not list((tmp_path.parent / "home").glob(".dropped*"))


@pytest.mark.slow
def test_a_file_is_dropped_in_read_and_proved(work: tuple[Agent, Page], tab: Any) -> None:
    _, made = work
    tab.goto(f"{made.address}#models")
    comes_true(tab, "document.querySelectorAll('article').length > 4")
    tab.get_by_label("File").set_input_files(ROOT / "models" / "edge-yolo" / "model.int8.onnx")
    tab.get_by_label("Name").fill("mine")
    tab.get_by_role("button", name="Add").click()
    comes_true(tab, "document.querySelector('main').textContent.includes('mine: detect, edge-yolo')")
    comes_true(tab, "[...document.querySelectorAll('article')].some(one => one.ariaLabel === 'mine')")
    mine = tab.get_by_role("article", name="mine")
    mine.get_by_text("Report card").click()
    comes_true(tab, "document.querySelector('details[open]').textContent.includes('int8')")
    mine.get_by_role("button", name="Remove").click()
    comes_true(tab, "![...document.querySelectorAll('article')].some(one => one.ariaLabel === 'mine')")


def test_another_version_is_swapped_in_and_rolled_back(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path.parent / "home" / "models", ignore_errors=True)
    from edge_agent.gate.read import seen
    from edge_agent.registry.add import add

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(tmp_path.parent / "home"))
        add(tiny_detector(tmp_path / "one", "1", least=0.6), "tiny", seen)
    text = scene_of(tmp_path).replace(f"detect:{tmp_path}/model", "detect:tiny")
    with at_work(tmp_path, text) as (agent, made):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGE_AGENT_HOME", str(tmp_path.parent / "home"))
            add(tiny_detector(tmp_path / "two", "2", box=(8, 8, 40, 40), least=0.6), "tiny", seen)
        until(lambda: "tiny 2" in agent.lines[0].models[0], "the new one serves")
        row = next(row for row in ask(made, "GET", CALL).json if row["name"] == "tiny")
        assert row["before"].startswith("1 ") and row["serves"][0].startswith("cam: tiny 2")
        assert "it serves: cam" in ask(made, "DELETE", f"{CALL}/tiny").json["error"]
        assert ask(made, "POST", f"{CALL}/tiny/rollback").json["done"] == "version 1 serves again"
        until(lambda: "tiny 1" in agent.lines[0].models[0], "the former one serves again")


def test_an_upload_of_two_gigabytes_and_a_disk_without_room(
    work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = work
    with socket.create_connection(("127.0.0.1", made.port), timeout=120) as wire:
        wire.sendall(
            f"POST {CALL}?file=large.onnx HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000000\r\n\r\n".encode()
        )
        assert b"413" in wire.recv(1000)
    with socket.create_connection(("127.0.0.1", made.port), timeout=120) as wire:
        # without a length: what is too much is noticed on the way
        monkeypatch.setattr(models, "MOST_FILE", 1_000_000)
        wire.sendall(
            f"POST {CALL}?file=a.onnx HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        # a connection that is ended while more is on its way may be cut before the answer is read
        with suppress(ConnectionError):
            for _ in range(40):
                wire.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            assert b"413" in wire.recv(1000)
    monkeypatch.setattr(models, "SPARE", 10**18)
    got = ask(made, "POST", f"{CALL}?file=large.onnx", b"x" * 1000)
    assert got.status == 413 and got.json["error"] == "the disk has room for 0 MB"
    monkeypatch.setattr(models, "SILENT_S", 0.3)
    monkeypatch.setattr(models, "SPARE", 0)
    with socket.create_connection(("127.0.0.1", made.port), timeout=120) as wire:
        wire.sendall(
            f"POST {CALL}?file=slow.onnx HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx".encode()
        )
        assert b"408" in wire.recv(1000)
    assert ask(made, "GET", CALL).status == 200
