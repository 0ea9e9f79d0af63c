"""The workshop's report: valid HTML that needs nothing else, JSON that comes back, hostile names, a full disk."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.errors import EdgeAgentError
from edge_agent.workshop.report import plot, report
from edge_agent.workshop.report.plot import Plot, front
from edge_agent.workshop.report.report import LayerRow, MakingReport, TableRow

VOID = {"meta"}
EVIL = "</td><script>alert(1)</script>\x1b[2J\"'&\x00\u202e"


class Page(HTMLParser):
    """Every element closed in its turn; the tags, attributes and text that were met."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.values: list[str] = []
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.values += [value for _, value in attrs if value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert not page.open
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        ElementTree.fromstring(svg)
    return page


def full(name: str = "conv1") -> MakingReport:
    return MakingReport(
        verb="quantize",
        model=name,
        measure="mAP50 against the parent",
        settings={
            "method": "max",
            "bits": 8,
            "folder": Path("a/b"),
            "sizes": np.array([1, 2]),
            "share": np.float32(0.5),
        },
        rows=[
            TableRow(name, 3_660_092, 1.0, 32.25, "parent"),
            TableRow(f"{name} int8", 1_221_424, 0.98, 20.5, "per channel", True),
            TableRow(f"{name} bad", 1_000_000, math.nan, None),
        ],
        layers=[LayerRow(f"{name}.{i}", "Conv", 0.001 * i, i > 47, "p99" if i == 49 else "") for i in range(50)]
        + [LayerRow("odd", "Softmax", math.nan, True)],
        plots=[Plot("Loss", "step", name, {"train": [(0, 1.0), (1, 0.5), (2, math.inf)], name: [(0, 2.0), (2, 1.0)]})],
        notes=[f"one output of {name} is constant"],
        parent_sha256="a" * 64,
    )


def test_the_table_shows_every_file_and_the_chosen_one() -> None:
    told = report.lines(full())
    assert [line.split()[:4] for line in told[1:3]] == [
        ["conv1", "3.66", "1.000", "32.25"],
        ["*", "conv1", "int8", "1.22"],
    ]
    assert told[3].split() == ["conv1", "bad", "1.00", "-", "-"]
    assert told[4:] == [
        "accuracy: mAP50 against the parent",
        "layers: 51, of which 3 left as they were",
        "one output of conv1 is constant",
    ]


def test_json_comes_back(tmp_path: Path) -> None:
    report.save(full(), tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["report.html", "report.json"]
    raw = msgspec.json.decode((tmp_path / "new" / "folder" / "report.json").read_bytes())
    assert raw["settings"] == {"method": "max", "bits": 8, "folder": "a/b", "sizes": [1, 2], "share": 0.5}
    assert raw["rows"][2]["accuracy"] is None and raw["layers"][50]["error"] is None
    raw["layers"].pop()
    raw["plots"] = []
    back = msgspec.convert(raw, MakingReport)
    assert back.rows[:2] == full().rows[:2] and back.layers == full().layers[:50]


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    report.save(full(), tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    page = parsed(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.findall(r"url\(|@import|src=|href=", html)
    assert [value for value in page.values if "://" in value] == ["http://www.w3.org/2000/svg"] * page.tags.count("svg")
    assert "prefers-color-scheme: dark" in html
    # the curves, accuracy over time and over size
    assert page.tags.count("svg") == 3
    for shown in ("conv1 int8", "mAP50 against the parent", "p99", "a" * 64, "nan"):
        assert shown in html
    assert "the 40 costliest are shown" in html and 'class="kept"' in html


def test_hostile_names_are_text(tmp_path: Path) -> None:
    bad = full(EVIL)
    report.save(bad, tmp_path)
    page = parsed((tmp_path / "report.html").read_text("utf-8"))
    assert "script" not in page.tags and not [name for name in page.names if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text, "it is shown as it is"
    shown = "\n".join([*report.lines(bad), page.text])
    assert not set(shown) & {"\x1b", "\x00", "\u202e"}
    assert not any("\n" in line for line in report.lines(bad))


TEXT = st.text(max_size=60)
NUMBER = st.floats(allow_nan=True, allow_infinity=True, width=64)


@example("", {}, [], [("", 1.7e308, False, "")])
@settings(max_examples=40)
@given(
    TEXT,
    st.dictionaries(TEXT, st.lists(st.tuples(NUMBER, NUMBER), max_size=5), max_size=9),
    st.lists(st.tuples(NUMBER, NUMBER, TEXT), max_size=8),
    st.lists(st.tuples(TEXT, NUMBER, st.booleans(), TEXT), max_size=5),
)
def test_any_plot_can_be_drawn(
    name: str,
    series: dict[str, list[tuple[float, float]]],
    named: list[tuple[float, float, str]],
    bars: list[tuple[str, float, bool, str]],
) -> None:
    layers = [LayerRow(one, one, error, kept, note) for one, error, kept, note in bars]
    for drawn in (plot.draw(Plot(name, name, name, series, named)), "".join(report._layers(layers))):
        parsed(drawn)
        assert not re.search(r'="[^"]*(nan|inf)', re.sub(r'aria-label="[^"]*"', "", drawn))


def test_a_plot_of_nothing_says_so() -> None:
    assert "nothing to show" in plot.draw(Plot("t", "x", "y", {"a": [(math.nan, 1.0)]}))


def test_points_stand_where_they_should() -> None:
    drawn = plot.draw(Plot("t", "x", "y", {}, [(0, 0, "low"), (10, 1, "high"), (5, 0.5, "half")]))
    spots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.6"', drawn)]
    (left, bottom), (right, top), middle = spots
    assert left < right and top < bottom
    assert middle == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.1)
    texts = [float(y) for y in re.findall(r'class="halo" x="[\d.]+" y="([\d.]+)"', drawn)]
    assert len(texts) == 3


def test_names_of_points_that_touch_do_not_lie_on_each_other() -> None:
    drawn = plot.draw(Plot("t", "x", "y", {}, [(0, 0, "a"), *((1, 1, f"name {i}") for i in range(6))]))
    heights = sorted(float(y) for y in re.findall(r'class="halo" x="[\d.]+" y="([\d.]+)"><title>name', drawn))
    assert all(b - a >= 12 for a, b in itertools.pairwise(heights))


def test_names_lie_upon_no_point() -> None:
    points = [(1.0 + k / 50, 1.0 - k / 50, f"int8 onnx {k}, per channel") for k in range(9)]
    drawn = plot.draw(Plot("a", "x", "y", {}, points))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    names = re.findall(r'<text class="halo" x="([\d.]+)" y="([\d.]+)"><title>([^<]+)', drawn)
    assert len(dots) == len(names) == 9
    for x, y, name in names:
        left, low = float(x), float(y)
        inside = [dot for dot in dots if left < dot[0] < left + 6.2 * len(name) and low - 10 < dot[1] < low + 3]
        assert not inside, name


def test_a_plot_of_one_point_is_not_drawn() -> None:
    page_of = report.page(MakingReport("tune", "m", "x", {}, [], plots=[Plot("alone", "x", "y", {"a": [(1.0, 2.0)]})]))
    assert "alone" not in page_of and "<figure>" not in page_of


def test_the_front_is_what_nothing_beats() -> None:
    points = [(3, 0.9, "c"), (1, 0.5, "a"), (2, 0.4, "worse"), (2, 0.8, "b"), (4, 0.9, "later"), (math.nan, 2, "odd")]
    assert front(points) == [(1, 0.5), (2, 0.8), (3, 0.9)]


def test_a_report_of_almost_nothing() -> None:
    bare = MakingReport("prune", "m", "top-1", {}, [])
    assert report.lines(bare)[0].split() == ["MB", "accuracy", "ms"]
    assert parsed(report.page(bare)).tags.count("svg") == 0


def test_no_folder_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeAgentError, match="the report cannot be written there"):
        report.save(full(), tmp_path / "file" / "out")


def test_a_name_that_is_no_utf_8_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgeAgentError, match="the name is no UTF-8"):
        report.save(full("caf\udce9.onnx"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails in the middle of the page."""
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from edge_agent.errors import EdgeAgentError\nfrom edge_agent.workshop.report import report\n"
        "from tests.workshop.test_report import full\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "size = len(report.page(full()))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, size - 100))\n"
        "try: report.save(full(), Path(sys.argv[1]))\n"
        "except EdgeAgentError as error: print(error)\n"
    )
    (tmp_path / "report.json").write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}: the report cannot be written there (File too large)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "old"
