"""Stored sentences: what is nearest, what is on disk, and what becomes of a store that is not what it should be."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.errors import ConfigError, InputError
from edge_agent.events import SimilarEvent
from edge_agent.events.understood import Similar
from edge_agent.manifest import Served
from edge_agent.tasks import make_task
from edge_agent.tasks.text import store as store_module
from edge_agent.tasks.text.similar import Finder
from edge_agent.tasks.text.store import Store, quantized, store_of
from edge_agent.types import Floats, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event
from tests.tasks.text_models import bert

SHA = "a" * 64


def vectors(count: int, dims: int = 32, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def filled(home: Path, count: int = 3000) -> tuple[Store, Floats]:
    store, rows = store_of(home, "s", "toy 1", SHA), vectors(count)
    assert store.add([f"sentence {n}" for n in range(count)], rows) == count
    return store, rows


def test_the_nearest_are_those_of_the_whole_arithmetic(tmp_path: Path) -> None:
    store, rows = filled(tmp_path)
    asked = vectors(20, seed=1)
    for vector in asked:
        true = rows @ vector
        found = store.nearest(vector, 5)
        assert found[0][1] == f"sentence {true.argmax()}"
        np.testing.assert_allclose([score for score, _ in found], np.sort(true)[-1:-6:-1], atol=0.01)
    back = quantized(rows)
    np.testing.assert_allclose(back["scale"][:, None] * back["vector"], rows, atol=0.004)


def test_what_is_stored_is_there_for_others_and_private(tmp_path: Path) -> None:
    store, rows = filled(tmp_path, 100)
    other = store_of(tmp_path, "s", "toy 1", SHA)
    assert other.count == 100 and other.texts() == [f"sentence {n}" for n in range(100)]
    odd = ['a "quoted"\nline', "東京 é 🚲", "sentence 7"]
    assert store.add(odd, vectors(3, seed=2)) == 2, "one was there"
    assert other.count == 102 and other.texts()[-2:] == odd[:2]
    assert other.remove(["sentence 3", "no such"]) == 1
    assert store.count == 101 and "sentence 3" not in store.texts()
    assert store.nearest(rows[3], 1)[0][0] < 0.95 and store.nearest(rows[4], 1)[0][1] == "sentence 4"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()}
    assert modes == {0o600} and stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in store.folder.iterdir()) == ["index.json", "lock", "rows.2", "texts.2"]


def test_a_write_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    store, rows = filled(tmp_path, 10)
    for name in ("rows.1", "texts.1"):
        with (store.folder / name).open("ab") as file:
            file.write(b"half of a \n row")
    other = store_of(tmp_path, "s", "toy 1", SHA)
    assert other.count == 10 and other.nearest(rows[9], 1)[0][1] == "sentence 9"
    assert other.add(["one more"], vectors(1, seed=3)) == 1
    assert store.texts() == [*(f"sentence {n}" for n in range(10)), "one more"]


def test_another_model_another_version_and_damage_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = filled(tmp_path, 10)
    with pytest.raises(ConfigError, match="are of toy 1 aaaaaaaaaaaa, which is not the bert 2 bbbbbbbbbbbb"):
        store_of(tmp_path, "s", "bert 2", "b" * 64).count  # noqa: B018
    index = store.folder / "index.json"
    told = msgspec.json.decode(index.read_bytes())

    def damaged(**changed: object) -> Store:
        index.write_bytes(msgspec.json.encode({**told, **changed}))
        return store_of(tmp_path, "s", "toy 1", SHA)

    for changed, said in (
        ({"version": 9}, "a store of version 9; this program reads 1"),
        ({"count": 11}, "cut short"),
        ({"count": -1}, "numbers that no store has"),
        ({"count": 9}, "damaged"),
        ({"bytes": told["bytes"] - 3}, "damaged"),
        ({"more": 1}, "no index of a store"),
    ):
        with pytest.raises(ConfigError, match=said):
            damaged(**changed).count  # noqa: B018
    monkeypatch.setattr(store_module, "MOST", 12)
    with pytest.raises(InputError, match="at most 12 sentences"):
        damaged().add(["a", "b", "c"], vectors(3, seed=4))
    with pytest.raises(ConfigError, match="have 32 numbers, not 8"):
        damaged().add(["a"], vectors(1, 8))
    for name in ("", "a/b", "..", "x" * 65):
        with pytest.raises(ConfigError, match="a name has 1 to 64 letters"):
            store_of(tmp_path, name, "toy 1", SHA)


def _add(home: str, first: int) -> None:
    store = store_of(Path(home), "s", "toy 1", SHA)
    for n in range(first, first + 20):
        store.add([f"sentence {n}"], vectors(1, seed=n))


def test_two_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_add, args=(str(tmp_path), first)) for first in (0, 1000)]
    for one in both:
        one.start()
    for one in both:
        one.join()
        assert one.exitcode == os.EX_OK
    store = store_of(tmp_path, "s", "toy 1", SHA)
    assert sorted(store.texts()) == sorted(f"sentence {n}" for first in (0, 1000) for n in range(first, first + 20))
    assert store.nearest(vectors(1, seed=1007)[0], 1)[0][1] == "sentence 1007"


def test_the_task_finds_and_adds(tmp_path: Path) -> None:
    model = bert(tmp_path)
    task = make_task(parse_uri("similar:m?store=notes&top=2&add=yes"), lambda _: model, tmp_path)
    assert isinstance(task, Finder)
    found = [next(iter(list(task(Text(text, 0.0, 0.0))))) for text in ("the river", "rain and storm", "storm and rain")]
    told = [one.what for one in found]
    assert all(isinstance(one, Similar) for one in told)
    assert [[near.text for near in one.near] for one in told if isinstance(one, Similar)] == [
        [],
        ["the river"],
        ["rain and storm", "the river"],
    ]
    event = to_event(found[2], "p")
    assert isinstance(event, SimilarEvent) and event.store == "notes" and event.near[0].score > 0.99
    assert task.store.count == 3


def test_options_are_checked(edge_bert: Served, tmp_path: Path) -> None:
    for options, said in (
        ("", "which store"),
        ("?store=a.b", "a name has"),
        ("?store=a&add=1", "add=1; write add=yes"),
        ("?store=a&top=0", "top=0"),
        ("?stor=a", 'did you mean "store"'),
    ):
        with pytest.raises(ConfigError, match=said):
            make_task(parse_uri(f"similar:m{options}"), lambda _: edge_bert, tmp_path)
