"""Pictures that were kept are looked through, and a state is taught."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.pictures.draw import jpeg
from edge_agent.pictures.read import read_picture
from edge_agent.samples import coco, collected
from edge_agent.samples.collected import About, Box
from tests.conftest import ROOT
from tests.ui.serving import ask, at_work, comes_true, scene_of

from edge_agent.ui.server import Page  # isort: skip

EVIL = "<img src=x onerror=alert(1)>"
NAMES = [f"0123abcd-{number}.jpg" for number in range(3)]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[tuple[Agent, Page]]:
    home = tmp_path.parent / "home"
    for part in ("samples", "teach"):
        shutil.rmtree(home / part, ignore_errors=True)
    with at_work(tmp_path, scene_of(tmp_path)) as made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGE_AGENT_HOME", str(home))
            cup = read_picture(ROOT / "deploy" / "demo" / "coffee.png").image
            boxes = [Box("cup", 41, 0.4, (160.0, 10.0, 420.0, 340.0)), Box(EVIL, 60, 0.3, (0.0, 4.0, 550.0, 390.0))]
            note = f"not sure of {EVIL}"
            about = About("2026-05-01T10:00:00Z", "cam", "uncertain", note, "tiny 1", 600, 400, boxes)
            for name in NAMES:
                collected.keep(name, jpeg(cup), about, 10, 14)
        yield made


def test_pictures_are_taken_corrected_rejected_and_exported(work: tuple[Agent, Page], tmp_path: Path, tab: Any) -> None:
    _, made = work
    assert ask(made, "GET", "/api/v1/samples.zip").status == 404
    tab.goto(f"{made.address}#training")
    comes_true(tab, "document.querySelectorAll('article').length === 3")
    comes_true(tab, "document.querySelector('article img').naturalWidth === 600")
    assert tab.locator("main script, article p img").count() == 0 and EVIL in tab.locator("main").inner_text()
    first = tab.locator("article").first
    first.get_by_role("button", name="take box 2 away").click()
    first.get_by_label("label of box 1").fill("mug")
    first.get_by_label("label of box 1").blur()
    draw = first.locator("svg.draw")
    draw.scroll_into_view_if_needed()
    box = draw.bounding_box()
    tab.mouse.move(box["x"] + 20, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.up()
    first.get_by_role("button", name="It is so").click()
    comes_true(tab, "document.querySelectorAll('article').length === 2")
    tab.locator("article").first.get_by_role("button", name="Of no use").click()
    comes_true(tab, "document.querySelector('main').textContent.includes('1 wait, 1 taken.')")
    got = ask(made, "GET", "/api/v1/samples.zip")
    with zipfile.ZipFile(io.BytesIO(got.body)) as file:
        file.extractall(tmp_path / "out")
    found = coco.read(tmp_path / "out" / "instances.json")
    assert [row.file_name for row in found.images] == [NAMES[2]] and (tmp_path / "out" / NAMES[2]).is_file()
    assert [found.names()[one.category_id] for one in found.annotations] == ["mug", "mug"]
    assert found.annotations[0].bbox == (160, 10, 260, 330)
    left, top, wide, high = found.annotations[1].bbox
    assert left + wide == pytest.approx(300, abs=4) and top + high == pytest.approx(200, abs=4)
    for wrong in ([5, 5, 5, 9], [-1, 0, 1, 1]):
        body = {"boxes": [{"label": "cup", "box": wrong}]}
        assert ask(made, "POST", f"/api/v1/samples/{NAMES[0]}", body).status == 400
    assert ask(made, "DELETE", "/api/v1/samples/..%2finstances.json").status == 404


def test_a_state_is_taught(work: tuple[Agent, Page], tmp_path: Path, tab: Any) -> None:
    _, made = work
    shot = {"pipeline": "cam", "state": "open"}
    assert ask(made, "POST", "/api/v1/states/gate/examples", shot).json["done"] == "1 of open"
    for name, state in (("..", "open"), ("gate", "../x"), ("gate", ".x"), ("gate", "")):
        body = {"pipeline": "cam", "state": state}
        assert ask(made, "POST", f"/api/v1/states/{name}/examples", body).status in (400, 404), (name, state)
    assert "alone" in ask(made, "POST", "/api/v1/states/gate", {}).json["error"]
    assert ask(made, "DELETE", "/api/v1/states/gate").json["done"] == "1 examples deleted"
    noise = np.random.default_rng(0)
    for state, name in (("open", "coffee"), ("shut", "chelsea")):
        image = read_picture(ROOT / "deploy" / "demo" / f"{name}.png").image
        folder = tmp_path.parent / "home" / "teach" / "gate" / state
        folder.mkdir(parents=True)
        for number in range(5):
            grain = np.clip(image + noise.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
            (folder / f"{number}.jpg").write_bytes(jpeg(grain))
    tab.goto(f"{made.address}#training")
    comes_true(tab, "document.querySelector('main').textContent.includes('shut: 5')")
    comes_true(tab, "document.querySelector('img.shot').naturalWidth === 640")
    tab.get_by_role("button", name="Teach").click()
    comes_true(tab, "document.querySelector('main').textContent.includes('of 10 examples it names 10 right')")
    models = msgspec.json.decode(ask(made, "GET", "/api/v1/models").body)
    assert next(row for row in models if row["name"] == "gate")["family"] == "state"
