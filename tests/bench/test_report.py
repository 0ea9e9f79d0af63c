"""How figures are judged and shown; nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench.measure import Row, in_turns, ratio
from tests.bench.report import BEGIN, END, dumped, margin, refresh, svg, undumped

MACHINE = {"cpu": "a processor", "cores": 2, "at": "2026-01-01 00:00", "load": [0.1, 0.2], "quick": False}
ROWS = [
    Row(1, "good", 0.9, target=0.96),
    Row(2, "bad <of> its kind", 1.0, target=1.1, better=">="),
    Row(4, "memory", 149.0, unit="MB", target=150),
    Row(9, "no aim", 3.0),
]


@pytest.mark.parametrize(
    ("better", "value", "reached"),
    [
        ("<=", 1.0, True),
        ("<=", 1.01, False),
        (">=", 1.0, True),
        (">=", 0.99, False),
        ("<", 1.0, False),
        ("<", 0.9, True),
    ],
)
def test_an_aim_is_reached_or_not(better: str, value: float, reached: bool) -> None:
    row = Row(1, "x", value, target=1.0, better=better)  # type: ignore[arg-type]
    assert row.reached is reached
    assert (margin(row) >= 1) is (reached or value == 1.0)


def test_sides_take_turns() -> None:
    order: list[str] = []

    def side(name: str) -> int:
        order.append(name)
        return 2

    took = in_turns({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3, warm=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert len(took["a"].wall) == len(took["b"].cpu) == 3


def test_a_ratio_is_of_pairs_and_not_of_medians() -> None:
    assert ratio([1.0, 10.0, 3.0], [2.0, 5.0, 3.0]) == 1.0
    assert ratio([1.0, 9.0], [1.0, 3.0]) == 2.0


def test_the_table_is_refreshed_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "speed.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        refresh(document, ROWS, MACHINE)
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}") and text.endswith(f"{END}\nafter\n")
    assert "old" not in text and text.count("| 1 | good | ≤ 0.96 | 0.90 | yes |") == 1
    assert "2 of 3 figures reach their aim" in text


def test_picture_and_json_hold_every_figure() -> None:
    drawn = ElementTree.fromstring(svg(ROWS))
    said = " ".join(node.text or "" for node in drawn.iter())
    assert "bad <of> its kind" in said and "149.0 MB" in said
    told = json.loads(dumped(ROWS, MACHINE))
    assert [row["reached"] for row in told["rows"]] == [True, False, True, None]
    assert undumped(dumped(ROWS, MACHINE)) == ROWS
