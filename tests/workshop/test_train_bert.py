"""The recipe of edge-bert on a tiny corpus: data, the paper's two tasks, training, checkpoints, export."""

from __future__ import annotations

import argparse
import lzma
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_agent.errors import EdgeAgentError, InputError, ModelError, UsageError
from edge_agent.workshop.train import options
from edge_agent.workshop.train.bert import data
from edge_agent.workshop.train.bert.vocab import bulk_tokenizer, train_vocabulary

ROOT = Path(__file__).resolve().parents[2]
TEACHER = ROOT / "models" / "edge-bert"

NOUNS = ["dog", "cat", "bird", "horse", "cow", "sheep", "fox", "wolf", "bear", "mouse"]
DEEDS = ["sees", "likes", "follows", "fears", "feeds", "hears"]
PLACES = ["barn", "house", "river", "field", "forest", "yard"]


def write_corpus(file: Path, documents: int = 160, seed: int = 1) -> Path:
    dice = random.Random(seed)
    text = []
    for _ in range(documents):
        noun, place = dice.choice(NOUNS), dice.choice(PLACES)
        lines = [f"The {noun} {dice.choice(DEEDS)} the {dice.choice(NOUNS)} in the {place}." for _ in range(6)]
        text.append("\n".join(lines))
    file.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "farm.txt")


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_documents_of_txt_and_xz(tmp_path: Path) -> None:
    text = "One.\nTwo  Éclairs\n\n\nThree.\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(text.encode()))
    expected = [["one.", "two eclairs"], ["three."]]
    assert data.read_documents(tmp_path / "a.txt") == expected
    assert data.read_documents(tmp_path / "a.txt.xz") == expected


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "holds no text"),
        ("blank.txt", b"\n \n\n", "holds no text"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text"),
        ("latin.txt", "gâteau\n".encode("latin-1"), "is not UTF-8 at byte 1"),
        ("cut.xz", lzma.compress(b"a line\n" * 1000)[:-20], "no whole xz file"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        data.read_documents(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_files_are_named_and_skipped_and_good_ones_read(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    said: list[str] = []
    sources = data.read_sources([tmp_path, tmp_path / "absent.txt"], said.append)
    assert [s.name for s in sources] == ["farm"]
    skipped = [line for line in said if line.startswith("skipped")]
    assert [any(n in line for line in skipped) for n in ("bad.txt", "absent.txt")] == [True, True]


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path / "short.txt", documents=3)
    with pytest.raises(UsageError, match=r"short\.txt: 18 usable sentences; 200"):
        data.read_sources([tmp_path / "short.txt"], lambda _: None)


def test_held_out_documents_are_whole_and_the_same_whatever_stands_around_them(tmp_path: Path) -> None:
    documents = data.read_documents(write_corpus(tmp_path / "many.txt", documents=1500))
    train, held = data.split([data.TextSource("many", documents)])
    kept = {tuple(d) for d in held[0].documents}
    assert len(train[0].documents) + len(held[0].documents) == 1500
    assert 10 <= len(held[0].documents) <= 60
    backwards = data.split([data.TextSource("x", documents[::-1])])[1]
    assert {tuple(d) for d in backwards[0].documents} == kept


def test_a_large_file_is_thinned_by_whole_documents(corpus: Path) -> None:
    said: list[str] = []
    (source,) = data.read_sources([corpus], said.append, most=12_000)
    size = sum(len(line) for d in source.documents for line in d)
    assert 12_000 < size < 12_500
    assert all(len(d) == 6 for d in source.documents)
    assert f"{len(source.documents)} of 160 documents" in said[0]


# ── the tasks of the paper ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def encoded(tmp_path: Path, corpus: Path) -> data.Corpus:
    sources = data.read_sources([corpus], lambda _: None)
    train_vocabulary(sources, 300, tmp_path / "vocab.txt")
    return data.encode(sources, bulk_tokenizer(tmp_path / "vocab.txt"))


def test_vocabulary_begins_with_the_special_pieces(tmp_path: Path, encoded: data.Corpus) -> None:
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(lines[:5]) == data.SPECIAL
    assert {"the", "dog", "forest"} <= set(lines)
    assert len(set(lines)) == len(lines)


def test_corpus_keeps_sentences_and_documents_apart(encoded: data.Corpus) -> None:
    assert len(encoded.sentence) == 160 * 6 + 1
    assert len(encoded.text) == 160 * 6
    assert np.bincount(encoded.document).tolist() == [6] * 160
    assert encoded.span.tolist() == encoded.sentence[::6].tolist()
    assert encoded.source.tolist() == [0, 960]


def test_masks_are_15_percent_and_80_10_10() -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 8000, (3000, 64), generator=g)
    ids[:, 0], ids[:, 40], ids[:, 63] = data.CLS, data.SEP, data.SEP
    ids[::2, 50:] = data.PAD
    masked, places, truth = data.mask(ids, 8000, g)
    real = truth >= 0
    ordinary = (ids > data.MASK).sum()
    assert float(real.sum() / ordinary) == pytest.approx(0.15, abs=0.005)
    now = masked.gather(1, places)[real]
    was = truth[real]
    assert bool((ids.gather(1, places)[real] == was).all())
    assert bool((was > data.MASK).all())
    assert float((now == data.MASK).float().mean()) == pytest.approx(0.8, abs=0.01)
    assert float((now == was).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(((now != was) & (now > data.MASK)).float().mean()) == pytest.approx(0.1, abs=0.01)
    touched = torch.zeros_like(ids, dtype=torch.bool)
    touched.scatter_(1, places, real)
    assert bool((masked == ids)[~touched].all())


def test_half_of_the_pairs_are_neighbours_and_strangers_are_of_other_documents(encoded: data.Corpus) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    d = data.deck(encoded, "cpu")
    a, b, label = data.pairs(d, 8000, torch.Generator().manual_seed(0))
    assert float(label.float().mean()) == pytest.approx(0.5, abs=0.03)
    true = label == 0
    assert bool((b[true] == a[true] + 1).all())
    assert bool((d.document[a[true]] == d.document[b[true]]).all())
    assert float((d.document[a[~true]] != d.document[b[~true]]).float().mean()) > 0.999


def test_pairs_are_laid_out_as_bert_reads_them(encoded: data.Corpus) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    d = data.deck(encoded, "cpu")
    a, b = torch.tensor([7, 9]), torch.tensor([8, 30])
    ids, types = data.lay(d, a, b, 64, torch.tensor([False, True]))
    first, second = (encoded.tokens[encoded.sentence[i] : encoded.sentence[i + 1]].tolist() for i in (7, 8))
    line = [data.CLS, *first, data.SEP, *second, data.SEP]
    assert ids[0].tolist() == line + [data.PAD] * (64 - len(line))
    assert types[0].tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1) + [0] * (64 - len(line))
    reach = ids[1].tolist()
    back = encoded.tokens[encoded.sentence[6] : encoded.sentence[10]].tolist()[-30:]
    assert reach[1 : reach.index(data.SEP)] == back
    on = encoded.tokens[encoded.sentence[30] : encoded.sentence[36]].tolist()
    assert reach[reach.index(data.SEP) + 1 : -1] == on[: 64 - 3 - len(back)]
    assert reach[-1] == data.SEP


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────


def arguments(tmp_path: Path, *extra: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_arguments(parser, "bert")
    given = ["--data", str(tmp_path / "farm.txt"), "--teacher", str(TEACHER), "--out", str(tmp_path / "out")]
    return parser.parse_args(
        [*given, "--vocabulary", "300", "--texts", "1000", "--rows", "2", "--device", "cpu", *extra]
    )


@pytest.fixture
def few_threads() -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    torch.set_num_threads(1)


@pytest.mark.usefixtures("few_threads", "corpus")
def test_train_resume_and_start_again_from_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.manifest import load
    from edge_agent.workshop.train.bert import export, fit, recipe
    from edge_agent.workshop.train.finish import read_curve

    write_corpus(tmp_path / "farm.txt", documents=600)
    monkeypatch.setattr(recipe, "HELD_TEXTS", 100)
    said: list[str] = []
    assert recipe.run(arguments(tmp_path, "--minutes", "0.04", "--texts", "200"), said.append) == 0
    out = tmp_path / "out"
    rows = read_curve(out / "training" / "curve.csv")
    steps = [row["step"] for row in rows]
    assert steps and steps[-1] > 0 and {*fit.TAUGHT, *fit.MEASURED} < rows[-1].keys()
    manifest = load(out / "manifest.toml")
    assert (manifest.family, manifest.task) == ("bert", "encode")
    assert manifest.made is not None and (manifest.made.verb, manifest.made.parent) == ("train", "")
    assert f"{steps[-1]:.0f} steps of " in manifest.made.method and "taught by " in manifest.made.method
    assert len(manifest.made.data_sha256) == 64 and manifest.made.figures["loss"] > 0
    assert {row.role for row in manifest.file} == {"encoder", "mlm", "nsp", "vocab"}
    assert all((out / row.name).stat().st_size == row.bytes for row in manifest.file)
    assert any("steps/s" in line for line in said) or any("held out" in line for line in said)

    assert recipe.run(arguments(tmp_path, "--minutes", "0.08", "--texts", "200", "--resume"), said.append) == 0
    again = [row["step"] for row in read_curve(out / "training" / "curve.csv")]
    assert again[: len(steps)] == steps
    assert again[-1] > steps[-1]

    assert "gate" in (out / "report.json").read_text() and (out / "report.html").is_file()
    (out / "training" / "best.pt").unlink()
    net = export.read_net(out)
    assert net.shape.vocabulary == len((out / "vocab.txt").read_text(encoding="utf-8").splitlines())


@pytest.mark.usefixtures("few_threads", "corpus")
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from edge_agent.workshop.train.bert import fit
    from edge_agent.workshop.train.bert.net import Bert, Shape
    from edge_agent.workshop.train.loop import Clock, Training

    sources = data.read_sources([tmp_path / "farm.txt"], lambda _: None)
    words = train_vocabulary(sources, 300, tmp_path / "vocab.txt")
    encoded = data.encode(sources, bulk_tokenizer(tmp_path / "vocab.txt"))
    deck = data.deck(encoded, "cpu")
    torch.manual_seed(0)
    net = Bert(Shape(words, layers=1, width=32, inner=32, token=16, embedding=8))
    held = fit.Held(deck, np.full((4, 64), 7, np.int32), np.ones((4, 8), np.float16))
    kept: list[bool] = []

    class Spoiled(Training):
        def _keep(self, *given: Any) -> None:
            super()._keep(*given)
            kept.append(all(bool(torch.isfinite(v).all()) for v in net.state_dict().values()))
            with torch.no_grad():
                net.token.weight[6] = float("nan")  # a cosmic ray after the first checkpoint

    args = argparse.Namespace(rows=1, half=False, seed=1, rate=1.5e-3)
    training = Spoiled(tmp_path, Clock(30), {"weights": net}, [fit.optimizer_of(net)])
    monkeypatch.setattr(training, "run", partial(training.run, save_s=0.0))
    with pytest.raises(ModelError, match=r"no finite number at step \d+: .*--resume"):
        fit.fit(training, net, deck, held, fit.Lessons(), args, lambda _: None)
    assert kept == [True]


@pytest.mark.usefixtures("few_threads", "corpus")
def test_a_teacher_that_fails_ends_the_run_in_one_line(tmp_path: Path) -> None:
    from edge_agent.workshop.train.bert import fit

    def broken(texts: list[str]) -> np.ndarray:
        raise RuntimeError("out of memory")

    lessons = fit.Lessons()
    sources = data.read_sources([tmp_path / "farm.txt"], lambda _: None)
    train_vocabulary(sources, 300, tmp_path / "vocab.txt")
    tokenizer = bulk_tokenizer(tmp_path / "vocab.txt")
    fit.teach(lessons, ["a dog"], tokenizer, broken)
    assert "out of memory" in str(lessons.asked.exception(timeout=60))


@pytest.mark.usefixtures("few_threads")
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--minutes", "0"], "--minutes must be above 0"),
        (["--minutes", "1", "--resume"], r"no checkpoint\.pt to resume from"),
        (["--minutes", "1", "--teacher", "nobody"], 'no model "nobody"'),
        (["--minutes", "1", "--device", "abacus"], "--device abacus"),
        (["--minutes", "1", "--start", "nobody"], 'no model "nobody"'),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path: Path, corpus: Path, extra: list[str], words: str) -> None:
    from edge_agent.workshop.train.bert import recipe

    write_corpus(tmp_path / "farm.txt", documents=600)
    with pytest.raises(EdgeAgentError, match=words) as error:
        recipe.run(arguments(tmp_path, *extra), lambda _: None)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("few_threads")
def test_text_of_one_document_is_refused(tmp_path: Path) -> None:
    from edge_agent.workshop.train.bert import recipe

    (tmp_path / "farm.txt").write_text("The dog sees the cat.\n" * 500, encoding="utf-8")
    with pytest.raises(UsageError, match="1 documents are too few"):
        recipe.run(arguments(tmp_path, "--minutes", "1"), lambda _: None)


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("few_threads")
def test_torch_onnx_and_tflite_agree(tmp_path: Path) -> None:
    import torch

    from edge_agent.backends.tflite import load as load_tflite
    from edge_agent.workshop.train.bert import export
    from edge_agent.workshop.train.bert.net import Bert, Shape

    torch.manual_seed(3)
    net = Bert(Shape(500)).eval()
    with torch.no_grad():
        net.mlm_bias.normal_()
    lines = (TEACHER / "vocab.txt").read_text(encoding="utf-8").splitlines()[:500]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "made").mkdir()
    export.write_model(net, tmp_path / "vocab.txt", tmp_path / "made")
    tmp_path = tmp_path / "made"
    ids = torch.randint(5, 500, (3, 20))
    ids[1, 12:] = 0
    types = torch.zeros_like(ids)
    types[:, 8:] = 1
    with torch.no_grad():
        hidden = net(ids, types)
        vector, words, order = net.embed(hidden, ids), net.fill(hidden).numpy(), net.follows(hidden).numpy()
    feed = {"input_ids": ids.numpy(), "attention_mask": (ids != 0).long().numpy(), "token_type_ids": types.numpy()}
    found = session(tmp_path / "encoder.onnx").run(None, feed)
    real = ids.numpy() != 0
    np.testing.assert_allclose(found[0][real], hidden.numpy()[real], atol=0.005)
    np.testing.assert_allclose(found[1], vector.numpy(), atol=0.001)
    small = session(tmp_path / "encoder.int8.onnx").run(None, feed)[1]
    assert float((small * vector.numpy()).sum(1).min()) > 0.999
    np.testing.assert_allclose(
        session(tmp_path / "nsp.onnx").run(None, {"hidden": hidden.numpy()})[0], order, atol=0.005
    )
    filled = session(tmp_path / "mlm.int8.onnx").run(None, {"hidden": hidden.numpy()})[0]
    assert float(np.corrcoef(filled.ravel(), words.ravel())[0, 1]) > 0.99
    lite = load_tflite(tmp_path / "encoder.int8.tflite", 1, tmp_path / "encoder.int8.tflite")
    for row in range(3):
        one = {k: v[row : row + 1].astype(np.int32) for k, v in feed.items()}
        got = lite.run(one)
        assert float((got["embedding"][0] * vector.numpy()[row]).sum()) > 0.999
        assert got["hidden"].shape == (1, 20, 256)
    short = lite.run({k: v[1:2, :12].astype(np.int32) for k, v in feed.items()})["embedding"][0]
    assert float((short * vector.numpy()[1]).sum()) > 0.999

    back = export.read_net(tmp_path)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(back.state_dict()[name].numpy(), value.numpy(), atol=0.005, err_msg=name)


def test_export_refuses_what_is_no_checkpoint(tmp_path: Path, few_threads: None) -> None:
    from edge_agent.workshop.train.bert import export

    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "best.pt").write_bytes(b"nonsense")
    with pytest.raises(EdgeAgentError, match=r"checkpoint .*best\.pt cannot be read"):
        export.read_net(tmp_path)
    (tmp_path / "training" / "best.pt").unlink()
    with pytest.raises(ModelError, match="no edge-bert to start from"):
        export.read_net(tmp_path)
    (tmp_path / "encoder.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="no edge-bert to start from"):
        export.read_net(tmp_path)
