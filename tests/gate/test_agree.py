"""A variant serves only while it answers as its parent does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import RefusedError
from edge_agent.figures.coco_map import FoundBoxes, average_precision
from edge_agent.figures.scores import pearson
from edge_agent.registry import catalogue, store
from edge_agent.samples.carried import pictures
from edge_agent.serving.models import Models, try_all
from edge_agent.tasks.detect.compare import _faint, _kept, boxes, truth_of
from edge_agent.tasks.proofs import correlation, follows
from edge_agent.types import Floats
from tests.nets import Ends, write_onnx
from tests.tasks.test_recognise import colours
from tests.tasks.text_models import WORDS
from tests.tiny import tiny_detector


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def row(path: Path, precision: str, role: str = "model") -> str:
    size, digest = path.stat().st_size, store.digest(path)
    format = {".onnx": "onnx", ".tflite": "tflite"}.get(path.suffix, "text")
    return (
        f'[[file]]\nname = "{path.name}"\nformat = "{format}"\nrole = "{role}"\n'
        f'precision = "{precision}"\nsha256 = "{digest}"\nbytes = {size}\n'
    )


def with_variant(tmp_path: Path, box: tuple[int, int, int, int], more: str = "") -> Path:
    """The tiny detector, and before it an int8 variant that sees the person in `box`."""
    folder = tiny_detector(tmp_path / "model")
    shutil.copy(tiny_detector(tmp_path / "other", box=box) / "model.onnx", folder / "model.int8.onnx")
    head, _, _ = (folder / "manifest.toml").read_text().partition("[input]")
    size = "[input]\nwidth = 64\nheight = 64\n"
    rows = row(folder / "model.int8.onnx", "int8") + row(folder / "model.onnx", "fp32")
    (folder / "manifest.toml").write_text(f"{head}{more}\n{size}{rows}")
    return folder


def test_a_variant_that_agrees_serves_and_says_so(tmp_path: Path) -> None:
    served = Models(threads=1).serve(str(with_variant(tmp_path, (16, 16, 47, 48))))
    assert "model.int8.onnx (int8) on " in served.why
    assert "model.int8.onnx: mAP50 1.000 against model.onnx on 12 samples" in served.why


def test_one_that_does_not_is_refused_with_the_figures_and_the_parent_serves(tmp_path: Path, own_home: Path) -> None:
    folder = with_variant(tmp_path, (0, 0, 20, 20))
    served = Models(threads=1).serve(str(folder))
    assert "; model.onnx (fp32) on " in served.why
    why = "tiny: model.int8.onnx is refused: it does not agree with its parent: mAP50 0.000 against model.onnx on 12"
    assert why in served.why
    (report,) = (own_home / "reports").iterdir()
    figures = json.loads(report.read_text())["result"]["figures"]
    assert (figures["agreement"], figures["measure"], figures["max_drop"]) == (0.0, "mAP50", 0.03)
    tried = try_all(catalogue.locate(str(folder)))
    assert [(one.name, bool(one.refused)) for one in tried] == [
        ("model.int8.onnx", True),
        ("model.onnx", False),
        ("model.optimised", False),
    ], "of what is refused no faster form is made"


def scored(path: Path, times: float, other: float = 0.0) -> None:
    """Rewrite a tiny detector: its scores are so many times what they were; `other`: and the same box at that score
    as another class.
    """
    model = onnx.load(path)
    parts = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    parts["weight"][4] *= times
    if other:
        parts["box"] = np.concatenate([parts["box"]] * 2, axis=1)
        parts["box"][0, 1, 4:] = other, 1
        parts["weight"] = np.stack([parts["weight"], np.zeros(6, np.float32)])
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(parts[tensor.name], tensor.name))
    onnx.save(model, path)


def with_score(folder: Path, score: float, names: str = '["kettle", "lamp"]') -> Path:
    """The folder that with_variant makes, with another threshold and other classes."""
    text = (folder / "manifest.toml").read_text().partition("[[file]]")[0]
    text = text.replace("score = 0.05", f"score = {score}").replace('["person"]', names)
    rows = row(folder / "model.int8.onnx", "int8") + row(folder / "model.onnx", "fp32")
    (folder / "manifest.toml").write_text(text + rows)
    return folder


@pytest.mark.parametrize(
    ("times", "other", "says"),
    [
        (0.9, 0.0, ""),
        (0.5, 0.0, "sure boxes of its parent that it reports (0 of "),
        (1.0, 0.5, "boxes of its own that its parent sees (1"),
        (1.0, 0.27, "boxes in number ("),
    ],
    ids=["alike", "faint", "another class too", "another class at the threshold"],
)
def test_what_is_reported_counts_not_the_order_of_the_scores_alone(
    tmp_path: Path, times: float, other: float, says: str
) -> None:
    """Each has the parent's boxes in the parent's order, which is all that mAP50 looks at."""
    folder = with_variant(tmp_path, (16, 16, 48, 48))
    # the pictures' scores are 0.23 to 0.46
    scored(folder / "model.int8.onnx", times, other)
    why = Models(threads=1).serve(str(with_score(folder, 0.25))).why
    refused = f"model.int8.onnx is refused: it does not agree with its parent: {says}"
    assert (refused if says else "model.int8.onnx: mAP50 1.000 against model.onnx") in why
    assert ("model.int8.onnx (int8) on" in why) == (not says)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (0.01, "classes in faint boxes of its parent that it sees (0 of 1) 0.000"),
        (0.9, "boxes in number (0 where its parent may see 2) 1.000"),
    ],
    ids=["dead", "alive"],
)
def test_what_the_parent_would_never_report_tells_a_dead_variant(tmp_path: Path, times: float, says: str) -> None:
    folder = with_variant(tmp_path, (16, 16, 48, 48))
    scored(folder / "model.int8.onnx", times)
    why = Models(threads=1).serve(str(with_score(folder, 1.0, '["person"]'))).why
    assert says in why and ("is refused" in why) == (times < 0.5), why


@pytest.mark.parametrize("other", [0.0, 0.05], ids=["blind", "not blind"])
def test_a_variant_that_is_blind_to_a_class(tmp_path: Path, other: float) -> None:
    """Which its parent gives 0.1 in all pictures, and would report from 0.25 on."""
    folder = with_variant(tmp_path, (16, 16, 48, 48))
    scored(folder / "model.onnx", 1.0, 0.1)
    scored(folder / "model.int8.onnx", 1.0, other)
    why = Models(threads=1).serve(str(with_score(folder, 0.25))).why
    assert ("classes in faint boxes of its parent that it sees (1 of 2) 0.500" in why) == (not other), why
    assert ("is refused" in why) == (not other)


def test_half_of_the_faint_boxes_fainter_still() -> None:
    zeros, score = np.zeros(20, np.int64), np.full(20, 0.1)
    theirs = FoundBoxes(np.arange(20, dtype=np.int64), zeros, np.tile([0.0, 0.0, 9.0, 9.0], (20, 1)), score)
    mine = FoundBoxes(theirs.image, zeros, theirs.xywh, np.where(np.arange(20) < 10, score, 0.4 * score))
    (share, told), classes = _faint(theirs, mine, 1.0)
    assert (round(share, 6), told) == (0.8, "faint boxes of its parent that it sees (10 of 20)")
    assert classes == (1.0, "classes in faint boxes of its parent that it sees (1 of 1)")
    assert _faint(theirs, mine, 0.75)[0][0] == 1.0, "at another size less is asked for"


def test_boxes_that_lie_worse_than_their_parents(tmp_path: Path) -> None:
    """A quarter smaller each side they still meet it at an IoU of 0.56."""
    why = Models(threads=1).serve(str(with_variant(tmp_path, (20, 20, 44, 44)))).why
    assert "model.int8.onnx is refused: it does not agree with its parent: overlap with sure boxes of its parent" in why


def test_a_box_or_two_decide_nothing() -> None:
    assert _kept(np.arange(19) > 1, "boxes") == (1.0, "boxes (17 of 19)")
    assert _kept(np.arange(20) > 4, "boxes") == (0.85, "boxes (15 of 20)")
    assert np.isnan(_kept(np.zeros(0, bool), "boxes")[0])


def test_how_much_is_asked_for_stands_in_the_manifest(tmp_path: Path) -> None:
    folder = with_variant(tmp_path, (0, 0, 20, 20), more="max_drop = 1.0")
    assert "mAP50 0.000 against" in Models(threads=1).serve(str(folder)).why


def test_what_the_device_recorded_counts_too(tmp_path: Path, own_home: Path, demo_pictures: Path) -> None:
    (own_home / "samples").mkdir(parents=True)
    shutil.copy(demo_pictures / "coffee.png", own_home / "samples")
    (own_home / "samples" / "broken.jpg").write_bytes(b"no picture")
    assert "on 13 samples" in Models(threads=1).serve(str(with_variant(tmp_path, (16, 16, 48, 47)))).why


@pytest.mark.parametrize(("left", "says"), [(17, "mAP50 1.000 against"), (15, "labelled boxes (0.000 of 1.000) 0.000")])
def test_boxes_that_people_drew_in_what_was_recorded_count_too(
    tmp_path: Path, own_home: Path, demo_pictures: Path, left: int, says: str
) -> None:
    """Both lie well over the parent's box, but only one well enough over the label, which lies far to its right."""
    samples = own_home / "samples"
    samples.mkdir(parents=True)
    shutil.copy(demo_pictures / "coffee.png", samples)
    # of 600x400 pixels, 9.375 of them in one of the canvas: 25.6 to 57.6, 16 to 48 there
    box = {"image_id": 7, "category_id": 3, "bbox": [240, 50, 300, 300]}
    lost = {"image_id": 8, "category_id": 3, "bbox": [0, 0, 9, 9]}
    images = [{"id": 7, "file_name": "coffee.png"}, {"id": 8, "file_name": "gone.png"}]
    labels = {"images": images, "annotations": [box, lost], "categories": [{"id": 3, "name": "Person"}]}
    (samples / "instances.json").write_text(json.dumps(labels))
    folder = with_variant(tmp_path, (left, 16, left + 32, 48))
    why = Models(threads=1).serve(str(folder)).why
    assert says in why and ("is refused" in why) == (left == 15)
    labels["categories"] = [{"id": 3, "name": "submarine"}]
    (samples / "instances.json").write_text(json.dumps(labels))
    assert "mAP50 1.000 against" in Models(threads=1).serve(str(folder)).why, "of a class that nobody knows"
    (samples / "instances.json").write_text("{")
    assert "instances.json: no COCO JSON of boxes" in Models(threads=1).serve(str(folder)).why


def test_a_parent_of_another_name(tmp_path: Path, own_home: Path) -> None:
    child = tiny_detector(tmp_path / "child", box=(0, 0, 20, 20))
    text = (child / "manifest.toml").read_text().replace('name = "tiny"', 'name = "pruned"\nparent = "whole"')
    (child / "manifest.toml").write_text(text)
    assert 'is not held against its parent: no model "whole"' in Models(threads=1).serve(str(child)).why
    whole = tiny_detector(own_home / "models" / "whole")
    (whole / "manifest.toml").write_text((whole / "manifest.toml").read_text().replace('"tiny"', '"whole"'))
    with pytest.raises(RefusedError, match=r"pruned: model\.onnx is refused: it does not agree with its parent"):
        Models(threads=1).serve(str(child))


WRONG = ("[input]", "[input]\nscale = 0.05")
"""what makes a tiny detector see next to nothing"""


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "manifest.toml").read_text()
    assert old in text
    (folder / "manifest.toml").write_text(text.replace(old, new))


def test_a_verdict_ends_with_what_the_parent_was_when_it_was_given(tmp_path: Path, own_home: Path) -> None:
    child, whole = tiny_detector(tmp_path / "child", box=(16, 16, 48, 47)), tiny_detector(own_home / "models" / "whole")
    edit(child, 'name = "tiny"', 'name = "pruned"\nparent = "whole"')
    edit(whole, 'name = "tiny"', 'name = "whole"')
    assert "mAP50 1.000 against" in Models(threads=1).serve(str(child)).why
    edit(whole, *WRONG)
    with pytest.raises(RefusedError, match="it does not agree with its parent"):
        Models(threads=1).serve(str(child))
    edit(whole, *reversed(WRONG))
    edit(whole, "licence", 'description = "of its origin"\nlicence')
    (report,) = (one for one in (own_home / "reports").iterdir() if json.loads(one.read_text())["result"]["passed"])
    report.write_text(report.read_text().replace("mAP50 1.000 against", "as remembered, against"))
    assert "as remembered, against" in Models(threads=1).serve(str(child)).why


def test_a_parent_of_the_same_name_is_read_as_its_own_manifest_says(tmp_path: Path) -> None:
    child, whole = tiny_detector(tmp_path / "child", box=(16, 16, 48, 47)), tiny_detector(tmp_path / "whole")
    edit(child, 'name = "tiny"', f'name = "tiny"\nparent = "{whole}"')
    edit(child, *WRONG)
    with pytest.raises(RefusedError, match="it does not agree with its parent"):
        Models(threads=1).serve(str(child))


def sentence_encoder(
    path: Path,
    seed: int = 1,
    *,
    noise: float = 0.0,
    last: str = "",
    known: int = 256,
    ruined: int = 256,
    fixed: int = 0,
) -> None:
    """A vector a word, and one a place: nothing up to `ruined`, of `known`. `last`: a node at the end."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((len(WORDS), 16)) * (1 + noise)
    place = 20 * rng.standard_normal((known, 16)) * (np.arange(known) >= ruined)[:, None]
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["length"], start=1),
        helper.make_node("Slice", ["place", "zero", "length"], ["places"]),
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Add", ["words", "places"], ["sum"]),
        helper.make_node(last or "Identity", ["sum"], ["hidden"]),
    ]
    weights = {"table": table.astype(np.float32), "place": place.astype(np.float32)}
    ends: tuple[Ends, Ends] = (
        {"input_ids": (TensorProto.INT64, [1, fixed or "L"])},
        {"hidden": (TensorProto.FLOAT, [1, fixed or "L", 16])},
    )
    write_onnx(path, nodes, *ends, {**weights, "zero": np.zeros(1, np.int64)})


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ({"noise": 1e-3}, "model.int8.onnx: correlation 1.000 against"),
        ({"seed": 2}, "does not agree with its parent: "),
        ({"last": "Neg"}, "does not agree with its parent: nearness of sentences (cosine -1.000) 0.000"),
        ({"ruined": 120}, "does not agree with its parent: nearness of long texts (cosine "),
        ({"fixed": 120}, "is refused: it reads 120 word pieces of a text, its parent 256; convert it with as many, or"),
    ],
    ids=["alike", "another", "negated", "ruined from the 120th place on", "of 120 places"],
)
def test_encoders_by_the_likeness_of_sentences_and_of_vectors(
    tmp_path: Path, variant: dict[str, Any], says: str
) -> None:
    why = Models(threads=1).serve(str(encoders(tmp_path, {}, variant))).why
    assert says in why and ("model.int8.onnx (int8) on" in why) == ("noise" in variant)


def test_a_network_that_takes_less_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    """The manifest says 256 places; one network has 120, the other takes 120 and is given no more."""
    why = Models(threads=1).serve(str(encoders(tmp_path, {"known": 120}, {"fixed": 120}))).why
    assert "model.onnx is refused: it takes 120 word pieces of a text, and max_length under [text] says 256" in why
    assert "model.int8.onnx (int8) on" in why


def encoders(folder: Path, parent: dict[str, Any], variant: dict[str, Any]) -> Path:
    """A model folder of a sentence_encoder and its variant, made as these say."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    sentence_encoder(folder / "model.onnx", **parent)
    sentence_encoder(folder / "model.int8.onnx", **{**parent, **variant})
    rows = row(folder / "model.int8.onnx", "int8") + row(folder / "model.onnx", "fp32")
    (folder / "manifest.toml").write_text(
        'name = "words"\nversion = "1"\ntask = "encode"\nfamily = "bert"\nlicence = "CC0-1.0"\ntrained_by = "nobody"\n'
        f'[text]\nvocab = "vocab.txt"\nmax_length = 256\n{rows}{row(folder / "vocab.txt", "fp32", "vocab")}'
    )
    return folder


def test_heads_beside_an_encoder_are_held_against_their_most_precise_form(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    rng = np.random.default_rng(3)
    table = rng.standard_normal((len(WORDS), 16)).astype(np.float32)
    hidden: Ends = {"hidden": (TensorProto.FLOAT, ["B", "L", 16])}
    look = helper.make_node("Gather", ["table", "input_ids"], ["hidden"])
    write_onnx(
        tmp_path / "encoder.onnx", [look], {"input_ids": (TensorProto.INT64, ["B", "L"])}, hidden, {"table": table}
    )
    # a word is likeliest where it stands itself
    for name, noise in (("mlm.onnx", 0.0), ("mlm.int8.onnx", 1e-3), ("mlm.int4.onnx", 5.0)):
        weight = (table.T + noise * rng.standard_normal((16, len(WORDS)))).astype(np.float32)
        said: Ends = {"logits": (TensorProto.FLOAT, ["B", "L", len(WORDS)])}
        write_onnx(
            tmp_path / name, [helper.make_node("MatMul", ["hidden", "w"], ["logits"])], hidden, said, {"w": weight}
        )
    nodes = [
        helper.make_node("ReduceMean", ["hidden"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooled", "w"], ["logits"]),
    ]
    for name, sign in (("nsp.onnx", 1), ("nsp.int8.onnx", -1), ("nsp.nan.onnx", np.nan)):
        weight = (sign * np.random.default_rng(4).standard_normal((16, 2))).astype(np.float32)
        write_onnx(tmp_path / name, nodes, hidden, {"logits": (TensorProto.FLOAT, ["B", 2])}, {"w": weight})
    heads = {"mlm.int8.onnx": "int8", "mlm.int4.onnx": "int4", "mlm.onnx": "fp32", "nsp.int8.onnx": "int8"}
    heads |= {"nsp.nan.onnx": "int8", "nsp.onnx": "fp32"}
    rows = [row(tmp_path / "encoder.onnx", "fp32", "encoder"), row(tmp_path / "vocab.txt", "fp32", "vocab")]
    rows += [row(tmp_path / name, how, name[:3]) for name, how in heads.items()]
    (tmp_path / "manifest.toml").write_text(
        'name = "words"\nversion = "1"\ntask = "encode"\nfamily = "bert"\nlicence = "CC0-1.0"\ntrained_by = "nobody"\n'
        f'[text]\nvocab = "vocab.txt"\nmax_length = 64\n{"".join(rows)}'
    )
    tried = {one.name: one for one in try_all(catalogue.locate(str(tmp_path)), 1)}
    assert tried["mlm.onnx"].notes[0].startswith("first words agree 1.000 against mlm.onnx on encoder.onnx, ")
    assert tried["mlm.int8.onnx"].notes[0].startswith("first words agree 1.000 against mlm.onnx")
    assert "mlm.int4.onnx: it does not agree: first words agree 0." in tried["mlm.int4.onnx"].refused
    assert "it does not agree: answers agree 0.000" in tried["nsp.int8.onnx"].refused
    assert "its head gives no finite number" in tried["nsp.nan.onnx"].refused
    assert not tried["encoder.onnx"].refused, "the encoder serves, whatever its heads are worth"


def variants(folder: Path, head: str, files: dict[str, str]) -> Path:
    """A model folder whose networks (name -> precision) lie there already."""
    rows = [row(folder / name, precision) for name, precision in files.items()]
    (folder / "manifest.toml").write_text(
        f'name = "m"\nversion = "1"\nlicence = "CC0-1.0"\ntrained_by = "nobody"\n{head}\n{"".join(rows)}'
    )
    return folder


@pytest.mark.parametrize(
    ("gain", "says", "serves"),
    [
        (11.0, "agreement of the first label 1.000 against a.onnx on 12 samples", "b.onnx"),
        (1.0, "it does not agree with its parent: share of its parent's sure labels 0.000", "a.onnx"),
        (-11.0, "it does not agree with its parent: agreement of the first label 0.", "a.onnx"),
    ],
)
def test_classifiers_of_pictures_by_their_first_label(tmp_path: Path, gain: float, says: str, serves: str) -> None:
    colours(tmp_path / "a.onnx")
    colours(tmp_path / "b.onnx", gain=gain)
    head = 'task = "recognise"\nfamily = "image-classifier"\nlabels = ["blue", "green", "red"]\n[input]\nwidth = 8\n'
    head += 'height = 8\nchannels = "BGR"\nscale = 0.00392156862745098\nletterbox = "stretch"'
    head = f"score = 0.5\n{head}"
    why = Models(threads=1).serve(str(variants(tmp_path, head, {"b.onnx": "int8", "a.onnx": "fp32"}))).why
    assert says in why and f"{serves} (" in why


def shares(logits: Floats) -> Floats:
    power = np.exp(logits)
    return np.asarray(power / power.sum(axis=1, keepdims=True), np.float32)


FIRST = np.array([6, 0, 0], np.float32)
LOGITS = np.random.default_rng(0).normal(0, 1, (40, 3)).astype(np.float32) + FIRST


@pytest.mark.parametrize(
    ("mine", "least", "most"),
    [
        (shares(1.1 * LOGITS), 1.0, 1.0),
        (shares(LOGITS + np.random.default_rng(1).normal(0, 0.5, LOGITS.shape).astype(np.float32)), 1.0, 1.0),
        (np.rint(256 * shares(LOGITS)) / np.float32(256), 1.0, 1.0),
        (shares(0.4 * LOGITS), 0.6, 0.7),
        (shares(3 * LOGITS), 0.5, 0.6),
        (shares(0.01 * LOGITS), 0.0, 0.05),
        (shares(LOGITS * 0 + FIRST), 0.0, 0.01),
        (shares(-LOGITS + 2 * FIRST), 0.0, 0.0),
    ],
    ids=["alike", "noisy", "int8", "fainter", "louder", "faint", "constant", "negated"],
)
def test_how_far_shares_follow_those_of_a_parent_that_says_the_same_of_everything(
    mine: Floats, least: float, most: float
) -> None:
    theirs = shares(LOGITS)
    assert len(set(theirs.argmax(axis=1))) == 1
    assert least <= follows(mine, theirs)[0] <= most
    assert follows(shares(LOGITS * 0), shares(0.001 * LOGITS))[0] == 1.0, "a parent that says nothing asks for nothing"


def test_a_classifier_of_pictures_that_says_the_same_of_everything(tmp_path: Path) -> None:
    """As its parent does of all the sealed pictures, in which no green is that strong."""
    for name, gain in (("a.onnx", 10.0), ("b.onnx", 0.01)):
        gains = numpy_helper.from_array(np.array([1, gain, 1], np.float32).reshape(1, 3, 1, 1), "gain")
        model = onnx.load(colours(tmp_path / name))
        (old,) = model.graph.initializer
        old.CopyFrom(gains)
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 20], np.float32), "most"))
        model.graph.node.insert(2, helper.make_node("Add", ["means", "most"], ["sums"]))
        model.graph.node[3].input[0] = "sums"
        onnx.save(model, tmp_path / name)
    head = 'task = "recognise"\nfamily = "image-classifier"\nlabels = ["blue", "green", "red"]\n[input]\nwidth = 8\n'
    head += 'height = 8\nchannels = "BGR"\nscale = 0.00392156862745098\nletterbox = "stretch"'
    why = Models(threads=1).serve(str(variants(tmp_path, head, {"b.onnx": "int8", "a.onnx": "fp32"}))).why
    assert "b.onnx is refused: it does not agree with its parent: following of the shares (slope " in why


def compressor(path: Path, seed: int, noise: float, keep: int = 8) -> Path:
    """A linear autoencoder of 32 numbers: the projection onto `keep` directions, and noise on its weights."""
    directions = np.linalg.qr(np.random.default_rng(seed).standard_normal((32, keep)))[0]
    weight = directions @ directions.T + noise * np.random.default_rng(9).standard_normal((32, 32))
    ends: tuple[Ends, Ends] = {"x": (TensorProto.FLOAT, ["n", 32])}, {"y": (TensorProto.FLOAT, ["n", 32])}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return write_onnx(path, [node], *ends, {"w": weight.astype(np.float32)})


@pytest.mark.parametrize(
    ("seed", "noise", "says"),
    [
        (1, 1e-3, "b.onnx (int8) on"),
        (2, 0.0, "b.onnx is refused: it does not agree with its parent: share of errors of its parent's size 0.0"),
    ],
)
def test_autoencoders_by_the_order_of_their_errors(tmp_path: Path, seed: int, noise: float, says: str) -> None:
    compressor(tmp_path / "a.onnx", 1, 0.0)
    compressor(tmp_path / "b.onnx", seed, noise)
    head = 'task = "anomaly"\nfamily = "autoencoder"'
    why = Models(threads=1).serve(str(variants(tmp_path, head, {"b.onnx": "int8", "a.onnx": "fp32"}))).why
    assert says in why and "against a.onnx on 120 samples" in why


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (3.0, "share of errors of its parent's size 0."),
        (1.05, ""),
    ],
)
def test_errors_of_another_size(tmp_path: Path, scale: float, says: str) -> None:
    """What comes back is x + scale * (what the parent gets wrong)."""
    directions = np.linalg.qr(np.random.default_rng(1).standard_normal((32, 8)))[0]
    wrong = np.eye(32) - directions @ directions.T
    ends: tuple[Ends, Ends] = {"x": (TensorProto.FLOAT, ["n", 32])}, {"y": (TensorProto.FLOAT, ["n", 32])}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    for name, by in (("a.onnx", 1.0), ("b.onnx", scale)):
        weights = {"w": (np.eye(32) - by * wrong).astype(np.float32)}
        write_onnx(tmp_path / name, nodes, *ends, weights)
    head = 'task = "anomaly"\nfamily = "autoencoder"'
    why = Models(threads=1).serve(str(variants(tmp_path, head, {"b.onnx": "int8", "a.onnx": "fp32"}))).why
    assert (says or "b.onnx (int8) on") in why and ("refused" in why) == bool(says), why


def test_answers_that_never_vary_are_no_reason_not_to_compare() -> None:
    same, vary = np.full(3, 0.5), np.array([1.0, 2.0, 3.0])
    assert correlation(pearson, same, vary) == 0.0
    assert correlation(pearson, vary, vary) == pytest.approx(1.0)
    assert np.isnan(correlation(pearson, vary, same)), "the parent says nothing"


def test_lines_of_numbers_that_the_device_recorded_are_what_autoencoders_are_held_to(
    tmp_path: Path, own_home: Path
) -> None:
    compressor(tmp_path / "a.onnx", 1, 0.0)
    compressor(tmp_path / "b.onnx", 1, 1e-3)
    (own_home / "samples").mkdir(parents=True)
    lines = [" ".join(map(str, row)) for row in np.random.default_rng(0).standard_normal((20, 32)).round(3)]
    (own_home / "samples" / "pump.txt").write_text("\n".join(["not a number", "1 2 3", *lines]))
    head = 'task = "anomaly"\nfamily = "autoencoder"'
    why = Models(threads=1).serve(str(variants(tmp_path, head, {"b.onnx": "int8", "a.onnx": "fp32"}))).why
    assert "against a.onnx on 100 samples" in why


def test_the_published_int8_files_agree_with_their_float_ones(tmp_path: Path, data: Path) -> None:
    pairs = {
        "vww_96": 'task = "recognise"\nfamily = "image-classifier"\nlabels = ["nobody", "person"]\n[input]\n'
        'width = 96\nheight = 96\nlayout = "NHWC"\nscale = 0.00392156862745098\nletterbox = "stretch"',
        "ad01": 'task = "anomaly"\nfamily = "autoencoder"',
    }
    for name, head in pairs.items():
        files = {}
        (tmp_path / name).mkdir()
        for tail in ("int8", "fp32" if name == "ad01" else "float"):
            shutil.copy(data / "models" / f"{name}_{tail}.tflite", tmp_path / name)
            files[f"{name}_{tail}.tflite"] = "int8" if tail == "int8" else "fp32"
        why = Models(threads=1).serve(str(variants(tmp_path / name, head, files))).why
        assert f"{name}_int8.tflite (int8) on" in why and "refused" not in why, why


@pytest.mark.parametrize(("share", "counts"), [(0.9, [True]), (1.1, [False]), (1.9, [False]), (2.1, [])])
def test_what_the_parent_nearly_says_is_neither_right_nor_wrong(
    share: float, counts: list[bool], tmp_path: Path
) -> None:
    """`share`: of the score that it gives its one box, the threshold."""
    model, shown = Models(threads=1).serve(str(tiny_detector(tmp_path / "model"))), list(pictures())[:1]
    (score,) = boxes(model, shown, 0.0, {0: 0}).score
    found = boxes(model, shown, float(share * score) / 2, {0: 0})
    truth = truth_of(found, float(share * score))
    assert np.isfinite(truth.area).tolist() == counts and not truth.crowd.any()
    met = average_precision(truth, found, [0]).figures()["map50"]
    assert met == pytest.approx(1.0) if any(counts) else np.isnan(met)
