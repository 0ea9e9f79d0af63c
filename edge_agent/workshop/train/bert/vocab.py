"""The word pieces of edge-bert: trained on the text at hand, written as BERT's vocab.txt.

Training and encoding in bulk use the `tokenizers` package (extra `[train]`); a device reads vocab.txt by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_agent.workshop.train.bert.data import CLS, SEP, SPECIAL, TextSource

LETTERS = 110
"""characters that get a piece of their own, the commonest ones; others become [UNK]"""


def train_vocabulary(sources: Sequence[TextSource], size: int, file: Path) -> int:
    """Trains lower-case word pieces, writes one a line; returns how many there are (`size` or fewer).

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
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    file.write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")
    return len(pieces)


def bulk_tokenizer(file: Path) -> Any:
    """A `tokenizers` tokenizer of a vocab.txt, for many lines at once; without truncation or padding."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece.from_file(str(file), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
