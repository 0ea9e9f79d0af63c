from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edge_agent import paths
from edge_agent.errors import ConfigError, InputError, ManifestError
from edge_agent.manifest import Served
from edge_agent.registry import catalogue
from edge_agent.tasks import make_task
from edge_agent.tasks.text import head as head_module
from edge_agent.tasks.text import understand
from edge_agent.tasks.text.head import LabelHead
from edge_agent.tasks.text.understand import Classify, classify, embed
from edge_agent.types import Embedding, Finding, Scores, Text
from edge_agent.uri import Uri
from tests.tasks.text_models import EXAMPLES, bert, labels_file, registered


def said(text: str) -> Text:
    return Text(text, time.time(), time.monotonic())


def make(model: Served, labels: Path, home: Path) -> Classify:
    made = classify(Uri("classify", "toy", {"labels": str(labels)}), model, home)
    assert isinstance(made, Classify)
    return made


def scores(task: Classify, text: str) -> Scores:
    (found,) = task(said(text))
    assert isinstance(found, Finding)
    assert isinstance(found.what, Scores)
    assert abs(sum(found.what.scores.values()) - 1) < 1e-6
    assert found.what.score == found.what.scores[found.what.label] == max(found.what.scores.values())
    return found.what


def test_embed_yields_one_finding(tmp_path: Path) -> None:
    task = make_task(Uri("embed", "toy"), lambda name: bert(tmp_path), tmp_path)
    item = said("turn the light on")
    (found,) = task(item)
    assert isinstance(found, Finding)
    assert isinstance(found.what, Embedding)
    assert found.of is item
    assert found.model.name == "toy-bert"
    assert set(found.spent_ms) == {"prepare", "infer"}
    assert abs(np.linalg.norm(found.what.vector) - 1) < 1e-5
    assert task.takes == (Text,)
    long = "turn the light on " * 20 + "and play the band music loud " * 20
    (cut,), (mean,) = (
        make_task(Uri("embed", "toy", how), lambda name: bert(tmp_path), tmp_path)(said(long))
        for how in ({}, {"long": "mean"})
    )
    assert isinstance(cut, Finding) and isinstance(cut.what, Embedding)
    assert isinstance(mean, Finding) and isinstance(mean.what, Embedding)
    assert cut.what.vector @ mean.what.vector < 0.95 and abs(np.linalg.norm(mean.what.vector) - 1) < 1e-5
    with pytest.raises(ConfigError, match="long=best; write long=cut"):
        embed(Uri("embed", "toy", {"long": "best"}), bert(tmp_path), tmp_path)
    with pytest.raises(InputError, match="empty text; nothing to understand"):
        list(task(said(" ")))
    with pytest.raises(ConfigError, match='unknown option "label"'):
        embed(Uri("embed", "toy", {"label": "x"}), bert(tmp_path), tmp_path)


def test_classify_by_examples(tmp_path: Path) -> None:
    task = make(bert(tmp_path), labels_file(tmp_path / "l.toml", EXAMPLES), tmp_path / "home")
    assert scores(task, "Turn the lamp on!").label == "light"
    assert scores(task, "make the song loud").label == "music"
    assert scores(task, "storm and snow").label == "weather"
    assert set(scores(task, "rain").scores) == {"light", "music", "weather", "unknown"}
    for strange in ("cheese and film on the river", "hello world", "wake the goal"):
        assert scores(task, strange).label == "unknown"
    (found,) = task(said("rain"))
    assert isinstance(found, Finding)
    assert set(found.spent_ms) == {"prepare", "infer", "finish"}
    with pytest.raises(InputError):
        list(task(said("\u200b")))


def test_what_a_long_text_says_at_its_end_is_read(tmp_path: Path) -> None:
    task = make(bert(tmp_path), labels_file(tmp_path / "l.toml", EXAMPLES), tmp_path / "home")
    strange = "cheese and film on the river "
    for before, behind in ((0, 12), (12, 12), (12, 0), (20, 3)):
        assert (
            scores(task, strange * before + "switch the lamp on and make it bright " + strange * behind).label
            == "light"
        )
    assert scores(task, strange * 20).label == "unknown"


def test_what_the_encoder_cannot_read_is_unknown(tmp_path: Path) -> None:
    task = make(bert(tmp_path), labels_file(tmp_path / "l.toml", EXAMPLES), tmp_path / "home")
    for text in ("включи свет", "включи свет, lamp!", "👍👍", "ライトをつけて", "x" * 200, "включи свет " * 40):
        told = scores(task, text)
        assert (told.label, told.score, sum(told.scores.values())) == ("unknown", 1.0, 1.0)
        assert set(told.scores) == {*EXAMPLES, "unknown"}
    assert scores(task, "turn the lamp on 👍").label == "light"
    # a part that cannot be read hides none that can
    assert scores(task, "включи свет " * 40 + "turn the lamp on and make it bright " * 4).label == "light"


@pytest.mark.parametrize("sentence", ["включи свет", "👍", "turn ライトをつけてください"])
def test_labels_that_the_encoder_cannot_read_are_refused(tmp_path: Path, sentence: str) -> None:
    path = labels_file(tmp_path / "l.toml", {**EXAMPLES, "other": ["rain on the river", sentence]})
    with pytest.raises(ConfigError) as error:
        make(bert(tmp_path), path, tmp_path / "home")
    assert f'label "other": toy-bert knows hardly a word of "{sentence}"' in str(error.value)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_head_of_other_code_is_fitted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, model, home = labels_file(tmp_path / "l.toml", EXAMPLES), bert(tmp_path), tmp_path / "home"
    make(model, labels, home)
    other = tmp_path / "head.py"
    other.write_bytes(Path(str(head_module.__file__)).read_bytes() + b"# changed\n")
    monkeypatch.setattr(head_module, "__file__", str(other))
    make(model, labels, home)
    assert len(list((home / "heads").iterdir())) == 2


def test_head_is_stored_and_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, model, home = labels_file(tmp_path / "l.toml", EXAMPLES), bert(tmp_path), tmp_path / "home"
    first = make(model, labels, home)
    (path,) = (home / "heads").iterdir()
    fits = []

    def counted(*given: object) -> LabelHead:
        fits.append(given)
        return first.head

    monkeypatch.setattr(understand, "fit", counted)
    again = make(model, labels, home)
    assert fits == []
    for name in understand.COLUMNS:
        assert np.array_equal(getattr(again.head, name), getattr(first.head, name))
    labels_file(labels, {**EXAMPLES, "timer": ["wake me", "set a timer"]})
    make(model, labels, home)
    assert len(fits) == 1
    monkeypatch.undo()
    path.write_bytes(b"")
    labels_file(labels, EXAMPLES)
    mended = make(model, labels, home)
    assert np.array_equal(mended.head.weight, first.head.weight)
    assert path.stat().st_size > 1000


def test_a_head_is_fitted_anew_for_another_vocabulary(tmp_path: Path) -> None:
    labels, model, home = labels_file(tmp_path / "l.toml", EXAMPLES), bert(tmp_path), tmp_path / "home"
    make(model, labels, home)
    words = model.parts["vocab"].read_text(encoding="utf-8")
    model.parts["vocab"].write_text(words.replace("lamp\nlight\n", "light\nlamp\n"), encoding="utf-8")
    make(model, labels, home)
    assert len(list((home / "heads").iterdir())) == 2


def test_no_damage_of_a_stored_head_gets_through(tmp_path: Path) -> None:
    task = make(bert(tmp_path), labels_file(tmp_path / "l.toml", EXAMPLES), tmp_path / "home")
    (path,) = (tmp_path / "home" / "heads").iterdir()
    good, labels, rng = path.read_bytes(), (*EXAMPLES, "unknown"), np.random.default_rng(0)
    assert understand.load(path, labels, 48) is not None
    assert understand.load(path, labels[::-1], 48) is None
    assert understand.load(path, labels, 47) is None
    for _ in range(300):
        body = bytearray(good)
        body[rng.integers(len(body))] ^= 1 << rng.integers(8)
        path.write_bytes(body[: rng.integers(len(body))] if rng.random() < 0.2 else body)
        head = understand.load(path, labels, 48)
        # a bit that no reader looks at may differ, but no number
        assert head is None or np.array_equal(head.weight, task.head.weight)
    bad = type(task.head)(labels, task.head.weight * np.float32("nan"), *(getattr(task.head, n) for n in PARTS[1:]))
    understand.save(path, bad)
    assert understand.load(path, labels, 48) is None


PARTS = understand.COLUMNS


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    task = make(bert(tmp_path), labels_file(tmp_path / "l.toml", EXAMPLES), tmp_path / "home")
    assert scores(task, "turn the light on").label == "light"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "0 labels; [labels] needs two or more"),
        (b"[labels]\n", "0 labels"),
        (b'[labels]\na = ["x", "y"]\n', "1 labels"),
        (b'[labels]\na = ["x", "y"]\nb = ["z"]\n', 'label "b" has 1 examples; give at least 2'),
        (b'[labels]\na = ["x", "y"]\nb = []\n', 'label "b" has 0 examples'),
        (b'[labels]\na = ["x", "y"]\nb = ["z", " "]\n', 'label "b" has an empty example'),
        (b'[labels]\na = ["x", "y"]\nb = ["x", "z"]\n', '"x" is an example of "a" and of "b"'),
        (b'[labels]\na = ["x", "y"]\nb = ["\\u200b", "z"]\n', "an example cannot be used: no letter in the text"),
        (b'[labels]\na = "x"\nb = [1]\n', 'write name = ["sentence", "sentence"]'),
        (b"labels = 3\n", 'write name = ["sentence", "sentence"]'),
        (b"[labels\n", "not TOML"),
        (b"\xff\xfe", "is UTF-16, not UTF-8"),
    ],
)
def test_labels_file_that_is_wrong(tmp_path: Path, body: bytes | None, says: str) -> None:
    path = tmp_path / "l.toml"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(ConfigError) as error:
        make(bert(tmp_path), path, tmp_path / "home")
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_labels_and_unknown_options_and_wrong_models(tmp_path: Path) -> None:
    model = bert(tmp_path)
    with pytest.raises(ConfigError, match=r'write "classify:toy\?labels=FILE.toml"'):
        classify(Uri("classify", "toy"), model, tmp_path)
    with pytest.raises(ConfigError, match='did you mean "labels"'):
        classify(Uri("classify", "toy", {"label": "x"}), model, tmp_path)
    located = catalogue.locate("yolox-nano")
    other = Served(located.manifest, model.ref, model.net, {}, None, "")
    with pytest.raises(ManifestError, match="yolox-nano: no text encoder"):
        embed(Uri("embed", "yolox-nano"), other, tmp_path)


# ── real encoder, real lines ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def encoder_model(minilm: Path) -> Served:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(minilm))
        return registered("encoder")


def atis(data: Path, name: str) -> list[tuple[str, str]]:
    """(sentence, intent) pairs; of two intents the first."""
    pairs = []
    for line in (data / "text" / "atis" / name).read_text().splitlines():
        words, tags = line.split("\t")
        pairs.append((" ".join(words.split()[1:-1]), tags.split()[-1].removeprefix("atis_").split("#")[0]))
    return pairs


def sst2(data: Path) -> list[str]:
    return [line.split("\t")[1] for line in (data / "text" / "sst2" / "dev.tsv").read_text().splitlines()[1:]]


def auroc(above: list[float], below: list[float]) -> float:
    """Share of pairs in the right order (Mann and Whitney)."""
    a, b = np.array(above)[:, None], np.array(below)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


MEANT = "light 6, heating 6, music 7, timer 5, weather 5, door 5, machine 6, cleaning 5, unknown 14, music 1, unknown 1"
"""label and how many lines of the demo, in order"""


def demo_is_right(model: Served, home: Path) -> list[str]:
    """The labels that the demo's lines get, each checked to be what is meant or "unknown"."""
    task = make(model, paths.carried("deploy", "demo", "intents.toml"), home)
    lines = paths.carried("deploy", "demo", "lines.txt").read_text(encoding="utf-8").splitlines()
    meant = [label for label, many in map(str.split, MEANT.split(", ")) for _ in range(int(many))]
    told = [scores(task, line).label for line in lines]
    wrong = [
        (line, said) for line, said, label in zip(lines, told, meant, strict=True) if said not in (label, "unknown")
    ]
    assert not wrong
    return told


def test_demo_lines(encoder_model: Served, tmp_path: Path) -> None:
    told = demo_is_right(encoder_model, tmp_path)
    assert len(set(told)) == 9
    assert told.count("unknown") < 20


def test_few_examples_on_real_lines(data: Path, encoder_model: Served, tmp_path: Path) -> None:
    chosen: dict[str, list[str]] = {}
    for sentence, intent in atis(data, "atis-2.train.w-intent.iob"):
        if intent in ("abbreviation", "aircraft", "airfare", "airline", "ground_service", "flight"):
            own = chosen.setdefault(intent, [])
            if len(own) < 8 and sentence not in own:
                own.append(sentence)
    task = make(encoder_model, labels_file(tmp_path / "l.toml", chosen), tmp_path)
    test = [pair for pair in atis(data, "atis.test.w-intent.iob") if pair[1] in chosen][::8]
    known = [scores(task, sentence) for sentence, _ in test]
    strange = [scores(task, sentence) for sentence in sst2(data)[::12]]
    right = [s.label == intent for s, (_, intent) in zip(known, test, strict=True)]
    assert np.mean(right) > 0.6
    assert np.mean([s.label == "unknown" for s in strange]) > 0.9
    assert auroc([1 - s.scores["unknown"] for s in known], [1 - s.scores["unknown"] for s in strange]) > 0.98


@pytest.mark.slow
def test_full_head_on_atis(data: Path, encoder_model: Served, tmp_path: Path) -> None:
    table: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for sentence, intent in atis(data, "atis-2.train.w-intent.iob"):
        if seen.setdefault(sentence, intent) == intent:
            table.setdefault(intent, []).append(sentence)
    table = {intent: own for intent, own in table.items() if len(own) >= understand.LEAST}
    task = make(encoder_model, labels_file(tmp_path / "l.toml", table), tmp_path)
    test = atis(data, "atis.test.w-intent.iob")
    known = [scores(task, sentence) for sentence, _ in test]
    strange = [scores(task, sentence) for sentence in sst2(data)]
    best = [max(task.head.labels, key=s.scores.__getitem__) for s in known]
    accuracy = np.mean([label == intent for label, (_, intent) in zip(best, test, strict=True)])
    assert accuracy > 0.96
    assert np.mean([s.label == intent for s, (_, intent) in zip(known, test, strict=True)]) > 0.95
    assert auroc([1 - s.scores["unknown"] for s in known], [1 - s.scores["unknown"] for s in strange]) > 0.995


def test_own_encoder_on_the_demo_lines(tmp_path: Path) -> None:
    if not paths.carried("models", "edge-bert", "manifest.toml").is_file():
        pytest.skip("models/edge-bert is not here yet")
    model = registered("edge-bert")
    assert demo_is_right(model, tmp_path).count("unknown") < 20
    task = make(model, paths.carried("deploy", "demo", "intents.toml"), tmp_path)
    assert scores(task, "switch on the lamp in the kitchen").label == "light"
    assert scores(task, "what is the weather like tomorrow").label == "weather"
