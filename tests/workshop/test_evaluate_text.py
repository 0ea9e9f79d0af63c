"""`evaluate` on text: a toy encoder whose sentences are bags of words, and the real one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.errors import InputError, UsageError
from edge_agent.manifest import Served
from edge_agent.workshop.data.texts import numbers_of, read_texts, spread
from tests.tasks.text_models import EXAMPLES, bert, labels_file, registered
from tests.workshop.test_evaluate import run


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Served]:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    for name in ("toy", "cls"):
        (tmp_path / name).mkdir()
    other = bert(tmp_path / "cls", pooling="cls")
    return {
        "toy": bert(tmp_path / "toy"),
        "cls": msgspec.structs.replace(other, ref=msgspec.structs.replace(other.ref, name="cls")),
    }


ROWS = [
    ("turn the lamp on", "light"),
    ("make the light bright", "light"),
    ("play music", "music"),
    ("the band play loud", "music"),
    ("is it storm or rain", "weather"),
    ("will it snow", "weather"),
]


def table(path: Path, rows: list[tuple[str, str]] = ROWS, head: bool = True) -> str:
    lines = [f"{label}\t{text}" for text, label in rows]
    path.write_text("\n".join([*(["label\ttext"] if head else []), *lines]) + "\n")
    return str(path)


def test_few_examples_are_scored(toy: dict[str, Served], tmp_path: Path) -> None:
    labels = str(labels_file(tmp_path / "l.toml", EXAMPLES))
    rows = [*ROWS, ("play the song", "weather"), ("\u200b", "music"), ("hello", "greeting")]
    (tmp_path / "strange.txt").write_text("minister\ngoal river cheese\nhello world cafe\n")
    data = table(tmp_path / "d.tsv", rows)
    unknown = ["--unknown", str(tmp_path / "strange.txt")]
    result = run(toy, "toy", data, "--labels", labels, *unknown, "--save", str(tmp_path / "out"))
    assert result["texts"] == 8 and result["accuracy"] == pytest.approx(6 / 8, abs=1e-6)
    wrong = [line.split("\t") for line in (tmp_path / "out" / "errors.tsv").read_text().splitlines()]
    assert wrong[0] == ["text", "label", "said", "score", "unknown"]
    assert {row[0] for row in wrong[1:]} == {"play the song", "hello"}
    assert next(row for row in wrong if row[0] == "play the song")[1:3] == ["weather", "music"]
    hello = next(row[2] for row in wrong if row[0] == "hello")
    # 2 right of each of the three; weather is true once more, music said once more, and hello is something wrong
    extra = {"weather": 1, "music": 1}
    expected = {k: 4 / (4 + extra.get(k, 0) + (k == hello)) for k in EXAMPLES} | {"greeting": 0}
    assert {label: row["f1"] for label, row in result["labels"].items()} == pytest.approx(expected, abs=1e-5)
    assert result["f1"] == pytest.approx(np.mean(list(expected.values())), abs=1e-5)
    assert result["auroc"] > 0.9 and result["unknown"]["texts"] == 3 and 0 <= result["doubted"] < 0.5
    told = "\n".join(result["notes"])
    assert "1 samples have a label that the model cannot say, and count as wrong: greeting" in told
    assert "1 samples cannot be taken and are left out: text 8: " in told


def test_a_whole_table_trains_the_head(toy: dict[str, Served], tmp_path: Path) -> None:
    train = [(text, label) for label, texts in EXAMPLES.items() for text in texts]
    file = table(tmp_path / "train.tsv", [*train, ("hello world", "greeting"), ("\u200b", "light")])
    result = run(toy, "toy", table(tmp_path / "d.tsv"), "--train", file, "--against", "toy")
    assert result["accuracy"] == result["f1"] == 1
    assert result["against"]["agreement"] == result["against"]["on_labels"]["accuracy"] == 1
    assert "1 labels have fewer than 2 rows" in "\n".join(result["notes"])
    none_rare = run(toy, "toy", table(tmp_path / "d.tsv"), "--train", table(tmp_path / "all.tsv", train))
    assert none_rare["accuracy"] == 1 and "fewer than" not in "\n".join(none_rare["notes"])


def test_similarities_against_a_parent(toy: dict[str, Served], tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\n".join(text for text, _ in ROWS) + "\n\u200b\n")
    data = str(tmp_path / "lines.txt")
    same = run(toy, "toy", data, "--against", "toy")
    assert same["against"]["pearson"] == same["against"]["spearman"] == 1
    assert same["against"]["pairs"] == 15 and "accuracy" not in same
    other = run(toy, "cls", data, "--against", "toy")["against"]
    assert other["model"] == "toy-bert"
    # the vector of [CLS] is the same for every text: all its cosines are 1, rounding aside
    assert not other["pearson"] > 0.9


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["toy", "{d}"], "an encoder has no labels; give --labels FILE, --train FILE or --against PARENT"),
        (["toy", "{d}", "--labels", "{l}", "--train", "{d}"], "give one"),
        (["toy", "{d}", "--against", "cls", "--unknown", "{d}"], "--unknown: without labels there is nothing to show"),
        (["toy", "{d}", "--against", "cls", "--save", "{out}"], "--save: without labels there is nothing to show"),
        (["toy", "{lines}", "--labels", "{l}"], "texts without labels"),
        (["toy", "{d}", "--train", "{lines}"], "--train .*texts without labels"),
        (["toy", "{d}", "--train", "{one}"], "1 labels with 2 rows or more"),
        (["toy", "{none}", "--labels", "{l}"], "none.tsv: cannot be read"),
        (["toy", "{empty}", "--labels", "{l}"], "no text in it"),
        (["toy", "{heads}", "--labels", "{l}"], "a header and no row"),
        (["toy", "{binary}", "--labels", "{l}"], "no UTF-8 text"),
        (["toy", "{odd}", "--labels", "{l}"], "row 2 has 3 columns, the first has 2"),
        (["toy", "{wide}", "--labels", "{l}"], "3 columns and no header"),
        (["toy", "{numbered}", "--labels", "{l}"], "no label in common: the data has 0, 1, the examples "),
        (["toy", "{foreign}", "--labels", "{l}"], "no label in common: the data has x, y, the examples "),
        (["toy", "{marks}", "--labels", "{l}"], "none of 1 samples can be taken; the first, text 1: "),
        (["toy", "{d}", "--labels", "{l}", "--score", "0.5"], "--score: not for toy, whose task is encode"),
        (["toy", "{two}", "--against", "cls"], "2 texts have no pairs"),
    ],
)
def test_each_wrong_use_with_text_is_one_line(
    toy: dict[str, Served], tmp_path: Path, argv: list[str], said: str
) -> None:
    files = {
        "lines": "switch the lamp\nplay music\nrain\n",
        "one": "label\ttext\na\tlamp\na\tlight\nb\train\n",
        "empty": " \n\n",
        "heads": "label\ttext\n",
        "odd": "a\tlamp\nb\train\tsnow\n",
        "wide": "1\ta\tlamp\n2\tb\train\n",
        "foreign": "x\tlamp bright\ny\tcold storm\n",
        "numbered": "0\tlamp bright\n1\tcold storm\n",
        "marks": "label\ttext\nlight\t\u200b\n",
        "two": "light\tlamp\nmusic\tsong\n",
    }
    for name, content in files.items():
        (tmp_path / f"{name}.tsv").write_text(content)
    (tmp_path / "lines.txt").write_text(files["lines"])
    (tmp_path / "binary.tsv").write_bytes(b"a\xff\xfe\t1\n")
    places = {name: tmp_path / f"{name}.tsv" for name in (*files, "binary", "none")}
    places |= {"lines": tmp_path / "lines.txt", "l": labels_file(tmp_path / "l.toml", EXAMPLES)}
    places |= {"d": Path(table(tmp_path / "d.tsv")), "out": tmp_path / "out"}
    with pytest.raises(UsageError, match=said) as caught:
        run(toy, *(arg.format(**places) for arg in argv))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "texts", "labels"),
    [
        (
            "a.tsv",
            "0\tfine , long text\n1\tbad text here\n0\tgood\n",
            ["fine , long text", "bad text here", "good"],
            "010",
        ),
        ("a.tsv", 'label\tsentence\n1\ta "quoted\n', ['a "quoted'], "1"),
        ("a.csv", 'id,Text,Intent\r\n1,"a, b\nc",x\r\n2,d,y\r\n', ["a, b\nc", "d"], "xy"),
        ("a.csv", "\ufeffutterance,kind\nhello there,x\nbye,y\n", ["hello there", "bye"], "xy"),
        ("a.txt", "hello\tx\nbye now\tx\n", ["hello", "bye now"], "xx"),
        ("a.iob", "BOS show fares EOS\tO O O i\nBOS st. louis EOS\tO B I j#k\n", ["show fares", "st. louis"], "ij"),
        ("a.txt", "hello, you\nbye\n\n", ["hello, you", "bye"], None),
        ("a.tsv", "text\nhello\n", ["hello"], None),
        ("a.tsv", "x\thello\ny\t\ny\tyou\n", ["hello", "you"], "xy"),
    ],
)
def test_tables_are_read_as_they_are_shaped(
    tmp_path: Path, name: str, content: str, texts: list[str], labels: str | None
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    read = read_texts(tmp_path / name)
    assert read.texts == texts and read.labels == (None if labels is None else list(labels))


def test_limit_is_spread_evenly(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(str(i) for i in range(101)))
    assert read_texts(tmp_path / "a.txt", 5).texts == ["0", "25", "50", "75", "100"]
    assert spread(3, 9) == spread(3, 0) == [0, 1, 2] and spread(5, 1) == [0]
    (tmp_path / "b.iob").write_text("BOS no end\tO O\n")
    with pytest.raises(UsageError, match="is no line BOS words EOS<tab>tags intent"):
        read_texts(tmp_path / "b.iob")
    (tmp_path / "c.csv").write_text("ab,cd\nef,gh\n")
    with pytest.raises(UsageError, match="which column is the text"):
        read_texts(tmp_path / "c.csv")


def test_what_is_too_large_or_no_file_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(40_000_000_000)
    os.mkfifo(tmp_path / "pipe.bin")
    for path in (tmp_path / "a.bin", tmp_path / "pipe.bin", tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError, match=r"(larger than 256 MB|no regular file|is a folder)\); give a \.tsv"):
            read_texts(path)
        with pytest.raises(InputError, match=r"float32 numbers \((larger than 256 MB|no regular file|is a folder)\)$"):
            numbers_of(path)


def test_minilm_tells_atis_intents(data: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(minilm))
    atis = data / "text" / "atis"
    result = run(
        {"m": registered("minilm-l6-int8")},
        "m",
        str(atis / "atis.test.w-intent.iob"),
        "--limit=120",
        "--train",
        str(atis / "atis-2.dev.w-intent.iob"),
    )
    assert result["accuracy"] > 0.85 and result["texts"] == 120
