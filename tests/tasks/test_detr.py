"""The two heads of queries: a softmax with "no object", and a sigmoid."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.errors import InputError, RefusedError
from edge_agent.families.candidates import HeadLayout
from edge_agent.families.heads import heads
from edge_agent.families.table import FAMILIES
from edge_agent.inspect.names import labels
from edge_agent.types import TensorSpec

HEAD = HeadLayout(200, 100, 3)
BOXES = np.array([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1]]], np.float32)


def test_the_last_logit_is_no_object() -> None:
    logits = np.array([[[0, np.log(6), 0, np.log(2)], [0, 0, 0, 9]]], np.float32)
    found = FAMILIES["detr"].decode({"boxes": BOXES, "logits": logits}, HEAD, 0.5)
    np.testing.assert_allclose(found.xyxy, [[80, 30, 120, 70]], atol=1e-4)
    assert found.score == pytest.approx([0.6]) and found.label.tolist() == [1]


@pytest.mark.parametrize("names", [("dets", "labels"), ("logits", "pred_boxes"), ("b", "a")])
def test_each_logit_stands_for_itself(names: tuple[str, str]) -> None:
    logits = np.array([[[-9, -9, np.log(3)], [-9, -9, -9]]], np.float32)
    boxes_first = names[0] != "logits"
    pair = (BOXES, logits) if boxes_first else (logits, BOXES)
    found = FAMILIES["detr-sigmoid"].decode(dict(zip(names, pair, strict=True)), HEAD, 0.5)
    np.testing.assert_allclose(found.xyxy, [[80, 30, 120, 70]], atol=1e-4)
    assert found.score == pytest.approx([0.75]) and found.label.tolist() == [2]


def test_what_is_no_such_head() -> None:
    for family, classes in (("detr", 3), ("detr-sigmoid", 4)):
        with pytest.raises(RefusedError, match="correct family or labels"):
            FAMILIES[family].decode({"boxes": BOXES, "logits": np.zeros((1, 2, classes), np.float32)}, HEAD, 0.5)
    with pytest.raises(RefusedError, match="a DETR has boxes"):
        FAMILIES["detr"].decode({"boxes": BOXES}, HEAD, 0.5)
    with pytest.raises(RefusedError, match="as many boxes as rows of logits"):
        FAMILIES["detr-sigmoid"].decode(
            {"boxes": np.zeros((1, 4, 4), np.float32), "l": np.zeros((1, 2, 3), np.float32)}, HEAD, 0.5
        )
    with pytest.raises(InputError, match="not finite"):
        FAMILIES["detr"].decode({"boxes": BOXES, "l": np.full((1, 2, 4), np.nan, np.float32)}, HEAD, 0.5)


def test_a_head_that_could_be_either_is_given_as_both() -> None:
    def guesses(queries: int, columns: int) -> list[tuple[str, int]]:
        pair = TensorSpec("boxes", (1, queries, 4), "float32"), TensorSpec("logits", (1, queries, columns), "float32")
        return [(guess.family, guess.classes) for guess in heads(pair, 640, 640)]

    assert guesses(100, 92)[0] == ("detr", 91) and guesses(300, 80)[0] == ("detr-sigmoid", 80)
    assert guesses(300, 5)[:2] == [("detr-sigmoid", 5), ("detr", 4)]
    # one class is none and no object
    assert ("detr", 0) not in guesses(300, 1)


def test_coco_s_ids_are_the_classes_of_91() -> None:
    names, ids, why = labels("detr-sigmoid", 91, [], "")
    assert ids is not None and len(names) == len(ids) == len(set(ids)) == 91 and "COCO" in why
    assert (names[1], ids[1], names[17], ids[17], names[90], ids[90]) == ("person", 0, "cat", 15, "toothbrush", 79)
