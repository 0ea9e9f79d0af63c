"""Aim 7: sentences a second, tokenizing included, over bare runs of exact length and over transformers.pipeline.

The bare run takes the ids that our own word pieces gave, one sentence at a time, in a session on one thread. The peer
is a `feature-extraction` pipeline on a BERT of MiniLM-L6's shape (random weights: no hub is reached), in a process of
its own that takes its turns on a word from this one; ours is the published MiniLM-L6, as `encoder` serves it.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_agent.agent.line import make_teams
from edge_agent.config import Pipeline
from edge_agent.errors import FetchError
from edge_agent.paths import home
from edge_agent.registry import catalogue
from edge_agent.serving.models import Models
from edge_agent.serving.order import Pace
from edge_agent.tasks import make_task
from edge_agent.tasks.text.encoder import encoder
from edge_agent.tasks.text.understand import Embed
from edge_agent.toml import toml
from edge_agent.types import Sample, Task, Text
from edge_agent.uri import Uri
from edge_agent.walk.pipeline import Stats, run, run_abreast
from edge_agent.walk.report import reporter
from tests.bench.measure import Row, in_turns, ms, ratio
from tests.bench.peers.turns import Peer
from tests.bench.setup import Place
from tests.conftest import ROOT

ONE = "encoder.int8.onnx"
"""the file of edge-bert that both sides run"""
MINILM = "minilm-l6-int8"


def rows(place: Place, quick: bool) -> Iterator[Row]:
    sentences = place.sentences(100 if quick else 400)
    yield _bare(place, sentences, 5 if quick else 15)
    if place.peers is not None:
        yield from _peers(place, sentences[:100], 3 if quick else 9)


def same_file() -> Path:
    """A model folder with one encoder in it, so that both sides run the same file."""
    folder, source = home() / "edge-bert-alone", ROOT / "models" / "edge-bert"
    if not folder.is_dir():
        located = catalogue.locate("edge-bert")
        kept = [row for row in located.manifest.file if row.name in (ONE, "vocab.txt")]
        folder.mkdir(parents=True)
        for row in kept:
            shutil.copy(source / row.name, folder)
        import msgspec

        made = msgspec.structs.replace(located.manifest, file=kept, card=None, name="edge-bert-alone")
        (folder / "manifest.toml").write_text(toml(msgspec.to_builtins(made)))
    return folder


def exact(session: ort.InferenceSession, sentences: list[str]) -> list[dict[str, Any]]:
    """What the session takes for each sentence, nothing padded."""
    read = encoder(Models(threads=1).serve(str(same_file())))
    feeds = []
    for sentence in sentences:
        ids = np.array([read.read(sentence)], np.int64)
        roles = {"ids": ids, "mask": np.ones_like(ids), "types": np.zeros_like(ids)}
        feeds.append({spec.name: roles[role].astype(spec.dtype) for role, spec in read.inputs.items()})
    known = {given.name for given in session.get_inputs()}
    return [{name: array for name, array in feed.items() if name in known} for feed in feeds]


def _embed(name: str, threads: int) -> Embed:
    task = make_task(Uri("embed", name), Models(threads=threads).serve, home())
    assert isinstance(task, Embed)
    return task


def _one_by_one(task: Task, sentences: list[str]) -> int:
    for sentence in sentences:
        for _ in task(Text(sentence, time.time(), time.monotonic())):
            pass
    return len(sentences)


def teams_of(models: Models, task: str, of: type) -> list[list[Task]]:
    """The task as a pipeline has it whose samples wait: once for each that is answered at once."""
    pipe = Pipeline("waiting", "files:", [task])
    return make_teams(pipe, of, lambda asked: models.serve(asked, Pace(math.inf)))[0]


def answer_all(teams: list[list[Task]], samples: Sequence[Sample]) -> int:
    """Every sample through the tasks, as a pipeline does it that reads a file."""
    stats = Stats()
    if len(teams) > 1:
        run_abreast(iter(samples), teams, reporter("every"), lambda found: None, stats, lambda: None)
    else:
        run(samples, teams[0], reporter("every"), lambda found: None, stats)
    assert stats.findings == len(samples) and not stats.bad
    return stats.findings


def _bare(place: Place, sentences: list[str], rounds: int) -> Row:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(same_file() / ONE), options, providers=["CPUExecutionProvider"])
    feeds = exact(session, sentences)
    # as `run` opens it: with the form that this device made of the file, if that is faster
    Models(race=True, threads=1).serve(str(same_file()))
    task = _embed(str(same_file()), 1)

    def bare() -> int:
        for feed in feeds:
            session.run(None, feed)
        return len(feeds)

    took = in_turns({"ours": lambda: _one_by_one(task, sentences), "bare": bare}, rounds)
    return Row(
        7,
        "edge-bert: sentences a second / bare exact-length run, CPU, one thread",
        1 / ratio(took["ours"].cpu, took["bare"].cpu),
        target=0.97,
        better=">=",
        ours=ms(took["ours"].cpu),
        theirs=ms(took["bare"].cpu),
        note=f"{statistics.fmean(feed[next(iter(feed))].size for feed in feeds):.0f} pieces a sentence",
    )


def _peers(place: Place, sentences: list[str], rounds: int) -> Iterator[Row]:
    name = MINILM
    try:
        catalogue.pull(name)
    except FetchError:
        name = "edge-bert"
    # as `run` opens it: with the forms that this device made of its files, as many at once as was measured to be best
    models = Models(race=True)
    teams = teams_of(models, f"embed:{name}", Text)
    parts = models.serve(name).parts
    words = place.folder / ("tokenizer.json" if "tokenizer" in parts else "vocab.txt")
    shutil.copy(parts.get("tokenizer") or parts["vocab"], words)
    given = place.folder / "sentences.json"
    given.write_text(json.dumps(sentences))
    assert place.peers is not None
    for peer in ("pipeline", "sentence-transformers"):
        with Peer(place.peers, "text", [peer, str(words), str(given)]) as other:
            pairs = []
            for _ in range(rounds + 1):
                began, used = time.perf_counter(), time.process_time()
                count = answer_all(teams, [Text(one, time.time(), time.monotonic()) for one in sentences])
                mine = (time.perf_counter() - began) / count, (time.process_time() - used) / count
                pairs.append((mine, other.turn()))
        ours, theirs = zip(*pairs[1:], strict=True)
        yield Row(
            7,
            f"{name}: sentences a second / {'transformers.pipeline' if peer == 'pipeline' else peer}",
            statistics.median(b[0] / a[0] for a, b in pairs[1:]),
            target=8.0 if peer == "pipeline" else None,
            better=">=",
            ours=ms([wall for wall, _ in ours]),
            theirs=ms([wall for wall, _ in theirs]),
            note=f"{len(teams)} at once; CPU {statistics.median(a[1] / b[1] for a, b in pairs[1:]):.2f}",
        )
