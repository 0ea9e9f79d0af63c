"""A short, fixed part of the storm: the same mutants each time. `make fuzz` goes on from there."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edge_agent.device import sandbox
from tests.fuzz.__main__ import _canaries, _touched
from tests.fuzz.mutate import mutants
from tests.fuzz.targets import KINDS

MANY = {"model": 10, "packet": 400, "manifest": 300, "config": 300, "sound": 200}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_mutants_do_nothing_unplanned(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    if kind == "model" and sandbox.missing():
        pytest.skip(f"this kernel has no {', '.join(sandbox.missing())}: a model is not let loose outside its room")
    seeds, target_of = KINDS[kind]
    made = seeds()
    with target_of() as target:
        # what they are made of is right, or the mutants would try nothing
        sound = {target(number, data) for number, data in enumerate(made[:2] if kind == "model" else made)}
        told = {target(number, data) for number, data in itertools.islice(mutants(made, 1), MANY.get(kind, 1000))}
    assert sound and told
    assert kind in ("packet", "multipart") or "refused" in told | sound or "unreadable" in told


def test_a_canary_tells_that_it_was_read_and_which(tmp_path: Path) -> None:
    place, watch = _canaries(tmp_path)
    assert _touched(*watch) == []
    assert (place / "weights").read_text() == "canary"
    assert _touched(*watch) == ["weights"]
    assert _touched(*watch) == []


def test_the_same_seed_makes_the_same_mutants() -> None:
    first, again, other = (list(itertools.islice(mutants([b"abc" * 50, b"xyz"], n), 200)) for n in (1, 1, 2))
    assert first == again != other
