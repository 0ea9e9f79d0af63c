"""The word pieces of edge-bert: trained on the text at hand, written as BERT's vocab.txt.

Training and encoding in bulk use the `tokenizers` package (extra `[train]`); a device reads vocab.txt by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_agent.workshop.train.bert.data import SPECIAL, TextSource

LETTERS = 110
"""characters that get a piece of their own, the commonest ones; others become [UNK]"""


def train_vocabulary(sources: Sequence[TextSource], size: int, file: Path) -> int:
    """Trains lower-case word pieces, one a line in `file`, a vocab.txt; returns how many there are (`size` or fewer).

    A source n times smaller than the largest is read n ** 0.75 times, twenty times at most.
    """
    from tokenizers import BertWordPieceTokenizer

    letters = [sum(len(line) for d in s.documents for line in d) for s in sources]

    def lines() -> Iterator[str]:
        for source, count in zip(sources, letters, strict=True):
            for _ in range(min(20, round((max(letters) / count) ** 0.75))):
                for document in source.documents:
                    yield from document

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(
        lines(), size, 5, limit_alphabet=LETTERS, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.save_model(str(file.parent))
    return int(tokenizer.get_vocab_size())


def bulk_tokenizer(file: Path) -> Any:
    """A `tokenizers` tokenizer of a vocab.txt, for many lines at once; without truncation or padding."""
    from tokenizers import BertWordPieceTokenizer

    return BertWordPieceTokenizer(str(file), lowercase=True)
