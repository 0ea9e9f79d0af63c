"""Models on two nodes of Ray: replicas come with the load and go with it, and each answer is right."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra [page] is not installed")
pytest.importorskip("ray.serve", reason="the extra [ray] is not installed")

from tests.broker import until
from tests.cluster.replicas import alone, ask, load, on_ray, request

pytestmark = pytest.mark.slow


def test_replicas_follow_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    with on_ray(tmp_path, upscale_delay_s=1.0, downscale_delay_s=5.0) as (port, replicas):
        assert ask(port, b"{}")[0] == 400, "whose token it is may ask"
        assert ask(port, request())[0] == 200 and replicas() == 1
        _texts_in_one_batch(port)
        whole, most = alone(port, 5.0), 1
        for _ in range(6):
            part = load(port, 10, max(1.0, whole), replicas)
            # one that is too busy says that it is
            assert all(one.startswith("503") for one in part.wrong), part.wrong[:3]
            most = max(most, part.replicas)
            if most > 1:
                break
        assert most > 1, "more of them under load"
        until(lambda: replicas() == 1, "fewer without", 120)
        assert ask(port, request())[0] == 200


def _texts_in_one_batch(port: int) -> None:
    """Eight at once, of two lengths: each gets the vectors that it gets alone."""
    bodies = [tensors(number, 6 + number % 2) for number in range(8)]
    apart = [outputs(ask(port, body, "floats")) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: outputs(ask(port, body, "floats")), bodies))
    for one, other in zip(together, apart, strict=True):
        assert all(np.allclose(one[name], other[name], atol=1e-3) for name in other)
    assert not np.allclose(apart[0]["embedding"], apart[2]["embedding"], atol=1e-3)


def tensors(number: int, length: int) -> bytes:
    ids = [101, *((number * 37 + at * 11) % 900 + 100 for at in range(length)), 102]
    given = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
    inputs = [{"name": name, "datatype": "INT64", "shape": [1, len(ids)], "data": data} for name, data in given.items()]
    return json.dumps({"inputs": inputs}).encode()


def outputs(answer: tuple[int, bytes]) -> dict[str, Any]:
    assert answer[0] == 200, answer[1][:300]
    return {one["name"]: np.array(one["data"]) for one in json.loads(answer[1])["outputs"]}
