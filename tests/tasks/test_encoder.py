from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from edge_agent import paths
from edge_agent.errors import InputError, ManifestError, ModelError
from edge_agent.manifest import Served
from edge_agent.tasks.text.encoder import encoder
from tests.tasks.text_models import WORDS, bert, registered

LINES = [
    "turn the light on",
    "Play a song, and make it LOUD!",
    "rain",
    "will it rain or snow in the dark",
    "hello world " * 40,
    "東京 is cold",
]


def by_hand(text: str, table: np.ndarray, pooling: str) -> np.ndarray:
    """Mean (or first) of the token vectors, as the toy network has them; words here are whole pieces."""
    ids = [WORDS.index(w) for w in ["[CLS]", *text.split(), "[SEP]"]]
    vector = table[ids].mean(0) if pooling == "mean" else table[ids[0]]
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("pooling", ["mean", "cls", "output:first"])
def test_vector_is_what_the_arithmetic_says(tmp_path: Path, pooling: str) -> None:
    model = bert(tmp_path, pooling=pooling)
    made = encoder(model)
    ids = np.arange(len(WORDS))[None]
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    table = model.net.run(feed)["hidden"][0]
    got = made.embed(made.read("turn the light on"))
    assert got.shape == (48,)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_hand("turn the light on", table, pooling), atol=1e-5)
    plain = encoder(bert(tmp_path, pooling=pooling, normalize=False))
    longer = plain.embed(plain.read("turn the light on"))
    assert np.linalg.norm(longer) > 1.01
    np.testing.assert_allclose(longer / np.linalg.norm(longer), got, atol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [{}, {"batch": 1}, {"length": 32}, {"batch": 1, "length": 24}, {"types": False}, {"dtype": TensorProto.INT32}],
)
def test_many_at_once_are_as_one_by_one_whatever_the_network_takes(tmp_path: Path, shape: dict[str, int]) -> None:
    reference = encoder(bert(tmp_path, max_length=shape.get("length", 32)))
    singles = np.stack([reference.embed(reference.read(line)) for line in LINES])
    made = encoder(bert(tmp_path, **shape))  # type: ignore[arg-type]
    many = made.embed_many(LINES * 3)
    np.testing.assert_allclose(many, np.concatenate([singles] * 3), atol=1e-5)


def test_one_text_goes_in_at_its_own_length_and_many_sorted_by_length(tmp_path: Path) -> None:
    model = bert(tmp_path)
    seen: list[tuple[int, ...]] = []

    def run(tensors):  # type: ignore[no-untyped-def]
        seen.append(tensors["input_ids"].shape)
        return model.net.run(tensors)

    net = type(model.net)(run, model.net.inputs, model.net.outputs, "spied on")
    made = encoder(Served(model.manifest, model.ref, net, model.parts, None, ""))
    seen.clear()
    made.embed(made.read("turn the light on"))
    made.embed_many(["rain " * (n + 1) for n in range(10)])
    assert seen == [(1, 6), (8, 10), (2, 12)]


@pytest.mark.parametrize("text", ["", "  \t ", "\n", "\u200b\u200d", "\x00\x07"])
def test_nothing_to_read(tmp_path: Path, text: str) -> None:
    made = encoder(bert(tmp_path))
    with pytest.raises(InputError, match="nothing to understand"):
        made.read(text)
    with pytest.raises(InputError):
        made.embed_many(["fine", text])


def test_no_number_that_is_none_gets_out(tmp_path: Path) -> None:
    made = encoder(bert(tmp_path, poison=True))
    assert np.isfinite(made.embed(made.read("snow"))).all()
    with pytest.raises(ModelError, match="no finite vector"):
        made.embed(made.read("rain"))


def test_model_and_manifest_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r'pooling = "output:absent" finds no output among hidden'):
        encoder(bert(tmp_path, pooling="output:absent"))
    model = bert(tmp_path)
    with pytest.raises(ManifestError, match='role "vocab" or "tokenizer"'):
        encoder(Served(model.manifest, model.ref, model.net, {}, None, ""))
    net = type(model.net)(model.net.run, model.net.inputs[1:], model.net.outputs, "")
    with pytest.raises(ManifestError, match="no input takes token ids among attention_mask"):
        encoder(Served(model.manifest, model.ref, net, model.parts, None, ""))


def test_own_encoder_follows_its_teacher() -> None:
    if not paths.carried("models", "edge-bert", "manifest.toml").is_file():
        pytest.skip("models/edge-bert is not here yet")
    made = encoder(registered("edge-bert"))
    a, b, c = made.embed_many(["turn on the lamp", "switch the light on", "the treaty was signed in spring"])
    assert a @ b > max(a @ c, b @ c)


def test_minilm_knows_what_is_alike(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(minilm))
    made = encoder(registered("encoder"))
    vectors = made.embed_many(["a man plays the guitar", "someone is making music", "the stock market fell"])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.4 > vectors[0] @ vectors[2]
    # the int8 network scales each batch anew: near, not equal
    single = made.embed(made.read("a man plays the guitar"))
    assert single @ vectors[0] > 0.99
