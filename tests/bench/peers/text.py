"""Sentences through transformers or sentence-transformers: `text.py pipeline|sentence-transformers WORDS SENTENCES`.

A child of turns.Peer, run by the peers' own Python. The network has MiniLM-L6's shape and random weights.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def hide_torchvision() -> None:
    """Text needs none, and a build for another torch stops transformers from being imported."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]


def build(folder: Path, words: Path) -> None:
    """Network and tokenizer in `folder`; `words`: vocab.txt or tokenizer.json."""
    transformers: Any = importlib.import_module("transformers")
    given = {"tokenizer_file": str(words)} if words.suffix == ".json" else {"vocab": str(words)}
    tokenizer = transformers.BertTokenizerFast(**given)
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    transformers.BertModel(config).save_pretrained(folder)


def reader(kind: str, folder: Path) -> Callable[[str], object]:
    if kind == "pipeline":
        transformers: Any = importlib.import_module("transformers")
        pipe: Callable[[str], object] = transformers.pipeline("feature-extraction", model=str(folder))
        return pipe
    library: Any = importlib.import_module("sentence_transformers")
    model = library.SentenceTransformer(str(folder))
    return lambda sentence: model.encode(sentence, show_progress_bar=False)


def main(kind: str, words: str, given: str) -> None:
    hide_torchvision()
    sentences = json.loads(Path(given).read_text())
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), Path(words))
        read = reader(kind, Path(folder))
        read(sentences[0])
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            for sentence in sentences:
                read(sentence)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(json.dumps({"wall": wall / len(sentences), "cpu": cpu / len(sentences)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
