"""Lines of text in pictures: found, made upright, read, in order; with the real network, on pictures made here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edge_agent.agent.line import make_line
from edge_agent.config import Pipeline
from edge_agent.errors import ConfigError, InputError, ManifestError, RefusedError
from edge_agent.figures.words import errors
from edge_agent.gate.admit import admit
from edge_agent.manifest import File, Input, Manifest, Served, load
from edge_agent.pictures.lines import regions, upright
from edge_agent.registry import catalogue
from edge_agent.registry.files import parts_of
from edge_agent.samples.carried import NOTICE, notice
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.read import read as reading
from edge_agent.tasks.read.finder import MOST, Finder, spans
from edge_agent.tasks.read.order import in_order
from edge_agent.tasks.read.recogniser import Recogniser, recogniser
from edge_agent.tasks.read.together import Together, voted
from edge_agent.types import Detections, Finding, Floats, Frame, ModelRef, Net, Pixels, Read, TensorSpec, Text
from edge_agent.uri import Uri, parse_uri
from edge_agent.walk.pipeline import walk
from tests.conftest import ROOT
from tests.pages import page

LINES = ("Please close the valve", "before the pump starts.", "Pressure 42 bar")


@pytest.fixture(scope="module")
def served(ocr: Path) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(ocr))
        yield Models(threads=1).serve("ocr")


def task(served: Served, options: str = "") -> Any:
    return make_task(parse_uri(f"read:ocr{options}"), lambda name: served, Path())


def texts(served: Served, image: Pixels, options: str = "", **more: Any) -> list[Text]:
    return list(task(served, options)(Frame(image, 1.0, 2.0, **more)))


def wrong(said: list[Text], lines: tuple[str, ...] = LINES) -> float:
    """Share of the characters that are wrong, spaces set aside."""
    truth, got = ("".join(some).replace(" ", "") for some in (lines, [text.text for text in said]))
    return errors(truth, got) / len(truth)


def read_of(text: Text) -> Read:
    assert isinstance(text.got, Read)
    return text.got


def test_the_carried_picture_is_read_line_by_line(served: Served) -> None:
    frame = notice()
    said = list(task(served)(frame))
    assert [text.text for text in said] == list(NOTICE)
    first = read_of(said[0])
    assert (first.engine, first.unsure, first.name) == ("ocr 6.0.0", False, "notice.jpg") and first.score > 0.9
    left, top, right, bottom = first.box
    assert abs(left - 52) < 12 and abs(right - 420) < 12 and 35 < top < 55 and 88 < bottom < 105
    assert all((text.at, text.mono) == (frame.at, frame.mono) for text in said)
    assert served.why.startswith("ocr: of the catalogue; PP-OCRv6_rec_tiny")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("as it is", lambda image: image),
        ("upside down", lambda image: image[::-1, ::-1]),
        ("a quarter turned", lambda image: np.rot90(image)),
        ("a quarter turned the other way", lambda image: np.rot90(image, 3)),
        ("light on dark", lambda image: 255 - image),
        ("faint", lambda image: (160 + image * 0.15).astype(np.uint8)),
        ("blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 1.2)),
        ("large", lambda image: cv2.resize(image, None, fx=6, fy=6)),
    ],
)
def test_text_is_read_however_it_lies(served: Served, what: str, change: Any) -> None:
    assert wrong(texts(served, np.ascontiguousarray(change(page(LINES))))) < 0.05


@pytest.mark.parametrize("angle", [-25, 12])
def test_text_that_is_turned_is_read_and_its_boxes_lie_in_the_picture(served: Served, angle: float) -> None:
    image = page(LINES, margin=120)
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    image = np.asarray(cv2.warpAffine(image, turn, (width, height), borderValue=(250, 250, 250)), np.uint8)
    said = texts(served, image)
    assert wrong(said) < 0.05
    for text in said:
        left, top, right, bottom = read_of(text).box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (40, 3000), (900, 33)])
def test_a_picture_without_text_gives_nothing(served: Served, shape: tuple[int, int]) -> None:
    assert texts(served, np.full((*shape, 3), 90, np.uint8)) == []


def test_what_is_unsure_is_marked_or_left_out(served: Served) -> None:
    blurred = [cv2.GaussianBlur(page(LINES, size=0.35), (0, 0), spread) for spread in (0.5, 1.4, 1.6, 1.8)]
    image = np.concatenate(blurred).astype(np.uint8)
    every = texts(served, image, "?score=0")
    unsure = [text for text in every if read_of(text).unsure]
    assert unsure and all((read_of(text).score < 0.8) == read_of(text).unsure for text in every)
    assert texts(served, image, "?unsure=no") == [text for text in every if text not in unsure]
    assert [text for text in every if text not in unsure], "and some are sure"
    assert texts(served, image, "?score=1") == []


def test_boxes_of_a_part_are_in_pixels_of_the_whole(served: Served) -> None:
    image = np.full((500, 900, 3), 250, np.uint8)
    sign = page(LINES[:1])
    image[200 : 200 + sign.shape[0], 300 : 300 + sign.shape[1]] = sign
    (whole,) = texts(served, image)
    corner, size = (290.0, 190.0), (sign.shape[1] + 20, sign.shape[0] + 20)
    box = np.array([[*corner, corner[0] + size[0], corner[1] + size[1]]], np.float32)
    found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), {0: "sign"})
    finding = Finding(Frame(image, 1.0, 2.0, "a.png"), found, ModelRef("m", "1", "0" * 64))
    crop = make_task(parse_uri("crop:"), lambda name: served, Path())
    (text,) = walk(finding, [crop, task(served)])
    assert isinstance(text, Text) and text.text == whole.text == LINES[0]
    assert np.abs(np.subtract(read_of(text).box, read_of(whole).box)).max() < 4
    assert read_of(text).name.startswith("a.png#sign 290,190,")


def test_letters_as_high_as_the_picture_are_read_at_a_smaller_size(served: Served) -> None:
    image = page(("STOP",), size=14.0)
    assert image.shape[0] > 450
    assert [text.text for text in texts(served, image)] == ["STOP"]


def test_a_single_letter_is_no_picture_of_something_else(served: Served, demo_pictures: Path) -> None:
    assert [text.text for text in texts(served, page(("P",), size=6.0, margin=60))] == ["P"]
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        image = np.asarray(cv2.imread(str(demo_pictures / name)), np.uint8)
        assert not [text for text in texts(served, image) if len(text.text) == 1 and not read_of(text).unsure]


def test_the_model_is_refused_where_its_input_is_prepared_wrongly(ocr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(ocr))
    located = catalogue.locate("ocr")
    assert located.manifest.input is not None
    wrong = msgspec.structs.replace(located.manifest.input, scale=0.0)
    broken = msgspec.structs.replace(located, manifest=msgspec.structs.replace(located.manifest, input=wrong))
    with pytest.raises(RefusedError, match="of the carried picture of English text it reads nothing: 100% of its"):
        admit(broken, located.manifest.networks()[0], parts_of(located))


def test_a_config_chains_it_and_says_what_is_wrong(ocr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(ocr))
    source, models = f"files:{ROOT / 'deploy' / 'demo' / 'read'}", Models(threads=1)
    line = make_line(Pipeline("sign", source, ["read:ocr"]), models, None)
    (team,) = line.teams
    assert [text.text for text in walk(notice(), team) if isinstance(text, Text)] == list(NOTICE)
    for options, says in (
        ("?score=2", "score=2: give a number from 0 to 1"),
        ("?unsure=perhaps", "unsure=perhaps: give true or false"),
        ("?scores=1", 'unknown option "scores"'),
    ):
        with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
            make_line(Pipeline("sign", source, [f"read:ocr{options}"]), models, None)


# ── without the network ──────────────────────────────────────────────────────────────────────────────────

SPEC = Input(320, 48, channels="BGR", scale=1 / 127.5, mean=(1.0, 1.0, 1.0), letterbox="stretch")
ROW = File("net.onnx", "onnx", "0" * 64, 1)


def net(run: Any, classes: int | None = None, about: Any = ()) -> Net:
    sink = TensorSpec("y", (None, None, classes), "float32")
    return Net(run, (TensorSpec("x", (None, 3, 48, None), "float32"),), (sink,), "a lambda", about=dict(about))


def test_letters_that_repeat_are_said_once_and_twice_with_a_blank_between() -> None:
    steps = [1, 1, 0, 1, 2, 0, 3, 3, 3]
    told = np.full((1, len(steps), 4), 0.1, np.float32)
    told[0, range(len(steps)), steps] = np.linspace(0.5, 0.9, len(steps))
    read = Recogniser(net(lambda tensors: {"y": told}), SPEC, ["", "a", "é", " "])
    text, score = read(np.zeros((48, 99, 3), np.uint8))
    assert text == "aaé", "a space at the end is none of the line"
    assert score == pytest.approx(np.linspace(0.5, 0.9, 9)[[0, 3, 4, 6]].mean())
    told[0, 3] = np.nan
    with pytest.raises(InputError, match="numbers that are no scores"):
        read(np.zeros((48, 99, 3), np.uint8))


def test_a_line_of_small_print_is_read_tighter_than_its_box() -> None:
    def box(thick: float) -> Floats:
        return np.array([[0, 0], [80, 0], [80, thick], [0, thick]], np.float32)

    small = reading._tight(box(12))
    assert np.allclose(small[:, 1], [0.9, 0.9, 11.1, 11.1]) and np.allclose(small[:, 0], [0, 80, 80, 0])
    assert np.array_equal(reading._tight(box(14)), box(14)), "boxes of larger print fit"


def test_a_line_goes_in_as_the_manifest_says() -> None:
    seen: list[Any] = []

    def run(tensors: Any) -> dict[str, Any]:
        seen.append(tensors["x"])
        return {"y": np.ones((1, 2, 3), np.float32)}

    read = Recogniser(net(run), SPEC, ["", "a", " "])
    line = np.zeros((48, 20, 3), np.uint8)
    line[:, :, 0], line[0, 0, 2] = 255, 51
    assert read(line) == ("", 0.0)
    (tensor,) = seen
    assert tensor.shape == (1, 3, 48, 20) and tensor.dtype == np.float32
    assert tensor[0, :, 5, 5].tolist() == pytest.approx([1, -1, -1]) and tensor[0, 2, 0, 0] == pytest.approx(-0.6)


@pytest.mark.parametrize(
    ("about", "classes", "says"),
    [
        ({}, None, 'no characters under "character" in its file'),
        ({"character": "a\nb"}, 9, "9 classes, but 4 characters, blank and space among them"),
    ],
)
def test_a_network_that_names_no_characters_is_refused(about: Any, classes: int | None, says: str) -> None:
    manifest = Manifest("m", "1", "read", "ppocr", "", "", [ROW], input=SPEC)
    model = Served(manifest, ModelRef("m", "1", "0" * 64), net(None, classes, about), {}, SPEC, "")
    with pytest.raises(ManifestError, match=says):
        recogniser(model)
    good = msgspec.structs.replace(model, net=net(None, None, {"character": "a\n\u2028\n\x1b\n"}))
    assert recogniser(good).characters == ["", "a", "\ufffd", "\ufffd", " "]


def test_a_manifest_needs_the_network_that_finds_lines(tmp_path: Path) -> None:
    text = (ROOT / "models" / "ocr" / "manifest.toml").read_text()
    for old, new, says in (
        ('role = "finder"', 'role = "mlm"', r'a reader of text needs a \[\[file\]\] of role "finder"'),
        ("height = 48", "", 'input: "height" is missing'),
    ):
        (tmp_path / "manifest.toml").write_text(text.replace(old, new))
        with pytest.raises(ManifestError, match=says):
            load(tmp_path / "manifest.toml")


def specks(count: int) -> Pixels:
    """A map of so many places of 3 by 3 pixels that are no line for sure."""
    heat = np.zeros((4 * 320, 4 * (count // 320 + 1)), np.uint8)
    for y in range(3):
        for x in range(3):
            heat[y::4, x::4] = 255
    return heat


def test_a_picture_of_specks_is_read_up_to_a_limit_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    heat = specks(100_000)
    found = regions(heat, 76, MOST)
    assert len(found.rects) == MOST and found.left_out > 99_000

    def finds(tensors: Any) -> dict[str, Any]:
        height, width = tensors["x"].shape[2:]
        return {"y": np.tile(specks(400)[:4, :4] / np.float32(255), (height // 4, width // 4))[None, None]}

    asked = []

    def reads(tensors: Any) -> dict[str, Any]:
        asked.append(tensors["x"].shape)
        return {"y": np.full((1, 1, 3), 0.9, np.float32)}

    task = reading.Reader(
        Served(None, ModelRef("m", "1", ""), None, {}, SPEC, ""),  # type: ignore[arg-type]
        Finder(net(finds)),
        Recogniser(net(reads), SPEC, ["", "a", " "]),
        0.5,
        True,
    )
    frame = Frame(np.zeros((900, 1200, 3), np.uint8), 0.0, 0.0)
    with caplog.at_level(logging.WARNING):
        assert list(task(frame)) == list(task(frame)) == []
    assert len(asked) <= 2 * 2 * MOST + 8
    (said,) = [record.message for record in caplog.records]
    assert re.fullmatch(r"read: a picture has \d+ places more that look like text than are read of one", said)


def test_a_map_that_is_none_is_refused() -> None:
    for told in (np.full((1, 1, 64, 64), np.nan, np.float32), np.zeros((1, 1, 4, 4), np.float32)):
        with pytest.raises(InputError, match="gave no map of the picture"):
            Finder(net(lambda tensors, told=told: {"y": told})).find(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("size", [1, 735, 736, 737, 1280, 4096])
def test_tiles_cover_a_side_with_a_strip_in_common(size: int) -> None:
    tiles = list(spans(size))
    assert tiles[0][0] == 0 and tiles[-1][1] == size and max(b - a for a, b in tiles) <= 736
    assert all(before[1] - behind[0] >= 127 for before, behind in pairwise(tiles))


def test_a_rectangle_is_cut_out_upright() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    cv2.putText(image, "F", (100, 150), cv2.FONT_HERSHEY_SIMPLEX, 4, (255, 255, 255), 8)
    corners = np.array([[90, 50], [190, 50], [190, 160], [90, 160]], np.float32)
    plain = upright(image, corners, 110, 1000)
    np.testing.assert_array_equal(plain, image[50:160, 90:190])
    turned = upright(
        np.rot90(image).copy(), np.array([[50, 210], [50, 110], [160, 110], [160, 210]], np.float32), 110, 99
    )
    assert turned.shape == (110, 99, 3), "no wider than is asked for"
    assert np.corrcoef(cv2.resize(plain, (99, 110)).ravel(), turned.ravel())[0, 1] > 0.95


HEADING, LEFT, RIGHT, FOOT = (0, 0, 400, 30), 0, 220, (0, 200, 400, 220)


def rows(*boxes: tuple[float, float, float, float]) -> Any:
    return np.array(boxes, np.float32)


def test_columns_are_read_one_by_one_and_tables_row_by_row() -> None:
    left = [(0, 40 + 30 * i, 180, 60 + 30 * i) for i in range(4)]
    right = [(220, 45 + 28 * i, 400, 65 + 28 * i) for i in range(5)]
    page = [HEADING, *left, *right, FOOT]
    order = np.random.default_rng(0).permutation(len(page))
    assert [int(order[i]) for i in in_order(rows(*(page[i] for i in order)))] == list(range(len(page)))
    table = [box for i in range(4) for box in ((0, 30 * i, 150, 30 * i + 20), (300, 30 * i, 340, 30 * i + 20))]
    assert in_order(rows(*table)) == list(range(8)), "prices are no column of text"
    assert in_order(np.zeros((0, 4), np.float32)) == []
    assert in_order(rows((0, 0, 9, 9))) == [0]
    words = [(120, 3, 200, 23), (0, 0, 100, 20), (10, 30, 90, 50)]
    assert in_order(rows(*words)) == [1, 0, 2]


def test_it_says_which_model_it_takes() -> None:
    manifest = Manifest("m", "1", "detect", "yolox", "", "", [ROW], input=SPEC)
    model = Served(manifest, ModelRef("m", "1", ""), net(None), {}, SPEC, "")
    with pytest.raises(ConfigError, match="m reads no text"):
        reading.read(Uri("read", "m"), model, Path())
    odd = msgspec.structs.replace(model, manifest=msgspec.structs.replace(manifest, task="read"))
    with pytest.raises(ManifestError, match='unknown family "yolox"; known are ppocr'):
        reading.read(Uri("read", "m"), odd, Path())


# ── small print over several pictures ────────────────────────────────────────────────────────────────────


def test_characters_are_voted_for_and_the_mean_weighs_more() -> None:
    assert voted([("Gate 17", 0.9), ("Gafe 17", 0.8), ("Gate 1", 0.7)], ("Gate 17", 0.9)) == ("Gate 17", 0.9)
    text, score = voted([("a8c", 0.5), ("a3c", 0.45)], ("a3c", 0.3))
    assert (text, score) == ("a3c", 0.45)
    text, score = voted([("abX", 0.6), ("Ybc", 0.55), ("Zbc", 0.5)], ("Qbc", 0.1))
    assert (text, score) == ("abc", 0.1)  # what none of them says is as sure as the least sure
    assert voted([("", 0.0)], ("", 0.0)) == ("", 0.0)


def test_small_print_that_stays_in_view_is_read_better_over_several_pictures(served: Served) -> None:
    large = page(LINES, 1.6)
    dice = np.random.default_rng(3)
    single, together = task(served), task(served, "?together=8")
    alone = joined = 0.0
    for number in range(10):
        across, down = (int(v) for v in dice.integers(0, 7, 2))
        moved = cv2.copyMakeBorder(large, 20 + down, 20, 20 + across, 20, cv2.BORDER_CONSTANT, value=(250,) * 3)
        size = round(moved.shape[1] / 9.3), round(moved.shape[0] / 9.3)
        small = np.asarray(cv2.resize(moved, size, interpolation=cv2.INTER_AREA), np.float32)
        frame = Frame(np.clip(small + dice.normal(0, 3, small.shape), 0, 255).astype(np.uint8), number, number)
        said, more = list(single(frame)), list(together(frame))
        if number >= 6:
            alone, joined = alone + wrong(said) / 4, joined + wrong(more) / 4
    assert joined < alone and joined < 0.5
    with pytest.raises(ConfigError, match="together=40: give a number from 1 to 16"):
        task(served, "?together=40")


def test_a_line_elsewhere_or_of_another_length_is_another_one() -> None:
    seen = Together(4)
    image = np.random.default_rng(0).integers(0, 256, (60, 200, 3), np.uint8)
    place = np.array([[10, 10], [90, 10], [90, 20], [10, 20]], np.float32)
    read = [("mean", 0.9)]

    def say(corners: Any, text: str) -> str:
        seen.next()
        return seen(image, corners, (text, 0.5), lambda _: read[0], 48, 3200)[0]

    assert say(place, "once") == "once"  # nothing to join yet
    assert say(place + 3, "mean") == "mean"
    assert say(place + np.float32(30), "far") == "far"
    assert say(place * np.array([2, 1], np.float32), "long") == "long"
    for _ in range(6):
        seen.next()
    assert say(place, "gone") == "gone"
