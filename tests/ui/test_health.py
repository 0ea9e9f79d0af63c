"""Health, the log, the doctor, the bundle, and pictures that are kept."""

from __future__ import annotations

import io
import json
import logging
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.events import ObjectEvent, TextEvent, rfc3339
from edge_agent.walk import recording
from tests.conftest import ROOT
from tests.tiny import tiny_detector
from tests.ui.serving import ask, at_work, comes_true

from edge_agent.ui import health  # isort: skip
from edge_agent.ui.server import Page  # isort: skip

SECRET = "geheim123"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Page]]:
    tmp_path = tmp_path_factory.mktemp("health")
    model = tiny_detector(tmp_path / "model")
    (tmp_path / "texts").touch()
    text = (
        f'[mqtt]\nurl = "mqtt://127.0.0.1:1"\nusername = "{SECRET}"\npassword_file = "p"\n[samples]\nsnapshots = true\n'
        f'[[pipeline]]\nname = "said"\nsource = "lines:{tmp_path}/texts"\n'
        f'[[pipeline]]\nname = "cam"\nsource = "rtsp://me:{SECRET}@127.0.0.1:1/x"\ntasks = ["detect:{model}"]\n'
    )
    (tmp_path / "p").write_text(SECRET)
    (tmp_path / "p").chmod(0o600)
    with at_work(tmp_path, text) as made:
        yield made


def test_the_machine_the_log_and_the_bundle_hold_no_secret(work: tuple[Agent, Page]) -> None:
    _, made = work
    logging.getLogger("edge_agent").error("cannot reach rtsp://me:%s@cam/1, token=%s", SECRET, SECRET)
    now = ask(made, "GET", "/api/v1/machine").json
    assert now["connected"] is False and now["link"] and now["memory_bytes"] > now["rss_bytes"] > 0
    lines = ask(made, "GET", "/api/v1/log").json
    assert any("cannot reach rtsp://***@cam/1" in line["text"] for line in lines)
    assert all(line["at"] > lines[-1]["at"] for line in ask(made, "GET", f"/api/v1/log?after={lines[-1]['at']}").json)
    got = ask(made, "GET", "/api/v1/bundle")
    with zipfile.ZipFile(io.BytesIO(got.body)) as bundle:
        parts = {name: bundle.read(name).decode() for name in bundle.namelist()}
    assert set(parts) == {f"{name}.json" for name in ("machine", "state", "health", "models", "config", "versions")} | {
        "log.txt"
    }
    assert not [name for name, text in parts.items() if SECRET in text]
    config = json.loads(parts["config.json"])
    assert config["mqtt"]["username"] == "***" and config["pipeline"][1]["source"] == "rtsp://***@127.0.0.1:1/x"


def test_how_long_the_oldest_event_waits(work: tuple[Agent, Page]) -> None:
    agent, made = work
    assert ask(made, "GET", "/api/v1/machine").json["oldest_s"] is None
    for age in (3600.0, 60.0):
        agent.keep.put(TextEvent(pipeline="said", at=rfc3339(time.time() - age), text="two"))
    assert 3600 <= ask(made, "GET", "/api/v1/machine").json["oldest_s"] < 7200


def test_a_recording_is_in_the_bundle_only_where_it_is_named(work: tuple[Agent, Page]) -> None:
    _, made = work
    folder = recording.place() / "20260101-000000"
    (folder / "data").mkdir(parents=True)
    (folder / recording.HEAD).write_text("{}")
    (folder / "data" / "000001.png").write_bytes(b"picture")
    assert [one["name"] for one in ask(made, "GET", "/api/v1/recordings").json] == [folder.name]
    for query, holds in (("", False), (f"?recordings={folder.name}", True)):
        with zipfile.ZipFile(io.BytesIO(ask(made, "GET", f"/api/v1/bundle{query}").body)) as bundle:
            assert (f"recordings/{folder.name}/data/000001.png" in bundle.namelist()) is holds
    assert ask(made, "GET", "/api/v1/bundle?recordings=../../etc").status == 404


def test_the_doctor_looks_one_at_a_time(work: tuple[Agent, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = work
    monkeypatch.setattr(health, "DOCTOR_S", 0.01)
    assert "type: edge-agent doctor" in ask(made, "POST", "/api/v1/doctor").json["error"]


def test_pictures_are_given_while_they_are_kept(work: tuple[Agent, Page], tab: Any) -> None:
    agent, made = work
    assert agent.pictures is not None
    data, name = (ROOT / "docs" / "coffee.jpg").read_bytes(), agent.pictures.name()
    agent.pictures.keep(name, data)
    film = agent.pictures.name("mp4")
    agent.pictures.keep(film, bytes(range(256)) * 40_000)
    got = ask(made, "GET", f"/api/v1/snapshot/{name}")
    assert got.body == data and got.headers["content-type"] == "image/jpeg"
    part = ask(made, "GET", f"/api/v1/clip/{film}", Range="bytes=256-300")
    assert part.status == 206 and part.headers["content-range"] == "bytes 256-300/10240000" and part.body[0] == 0
    assert len(ask(made, "GET", f"/api/v1/clip/{film}", Range="bytes=5-").body) == 4_000_000
    assert ask(made, "GET", f"/api/v1/clip/{film}", Range="bytes=20000000-").status == 416
    hostile = '<img src=x onerror=alert(1)>/../../etc/passwd"'
    for wrong in ("..%2f..%2fagent.toml", "%3Cimg%20src%3Dx%3E", "a.jpg", "%2e%2e", "x" * 3000):
        assert ask(made, "GET", f"/api/v1/snapshot/{wrong}").status == 404
    box = (0.0, 0.0, 1.0, 1.0)
    at = "2026-05-01T10:00:00.000Z"
    told: dict[str, Any] = {"pipeline": "cam", "at": at, "since": at, "phase": "new", "object": "a-1", "label": "cup"}
    told |= {"class_id": 41, "score": 0.9, "box": box, "width": 2, "height": 2, "seconds": 1.0}
    for snapshot in (name, hostile):
        agent.keep.put(ObjectEvent(**told, snapshot=snapshot))
    tab.goto(f"{made.address}#events")
    comes_true(tab, "[...document.querySelectorAll('.event img')].some(img => img.naturalWidth > 100)")
    comes_true(tab, "document.querySelector('main').textContent.includes('Its picture is gone.')")
    assert agent.pictures.path(name) is not None
    agent.pictures.path(name).unlink()  # type: ignore[union-attr]
    assert ask(made, "GET", f"/api/v1/snapshot/{name}").status == 404, "it was removed under the page"
    # and the page of health
    tab.goto(f"{made.address}#health")
    comes_true(tab, "document.querySelector('main').textContent.includes('not connected')")
    comes_true(tab, "document.querySelector('pre.code').textContent.includes('cam')")
    assert SECRET not in tab.locator("main").inner_text()
    tab.get_by_role("textbox", name="Name").fill("ha")
    tab.get_by_role("button", name="Make a token").click()
    comes_true(tab, "document.querySelector('code')?.textContent.length > 30")
    tab.get_by_role("button", name="Take away").click()
    comes_true(tab, "![...document.querySelectorAll('button')].some(one => one.textContent === 'Take away')")
