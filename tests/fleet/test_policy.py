"""Which models may serve: by licence, age, signature and hash."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.config import Policy
from edge_agent.errors import RefusedError
from edge_agent.fleet import policy
from edge_agent.registry import catalogue
from edge_agent.registry.files import Located
from edge_agent.serving.models import Models
from tests.fleet.made import a_model


@pytest.fixture
def located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Located:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path))
    folder = tmp_path / "models" / "people"
    folder.mkdir(parents=True)
    for path, data in a_model("people", b"network", licence="MIT").files.items():
        assert isinstance(data, bytes)
        (folder / path).write_bytes(data)
    return catalogue.locate("people")


def check(located: Located, **said: object) -> None:
    policy.check(Policy(**said), located, located.folder.parent.parent)  # type: ignore[arg-type]


def test_what_is_asked_for_is_asked(located: Located) -> None:
    sha256 = located.manifest.file[0].sha256
    check(located)
    check(located, licences=["mit", "Apache-2.0"], max_age="1d", refuse=["0" * 64])
    for said, why in (
        ({"licences": ["Apache-2.0"]}, "is under MIT; .* licences are Apache-2.0"),
        ({"refuse": [sha256]}, "stands in .policy. refuse"),
        ({"signed": True}, r"model\.onnx did not come signed"),
    ):
        with pytest.raises(RefusedError, match=why):
            check(located, **said)


def test_what_came_signed_counts_from_when_it_was_published(located: Located) -> None:
    home, sha256 = located.folder.parent.parent, located.manifest.file[0].sha256
    blob = home / "blobs" / "sha256" / sha256[:2] / sha256[2:]
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"network")
    policy.note_signed(home, [sha256], "model/people/1", time.time() - 40 * 86_400)
    check(located, signed=True, max_age="50d")
    with pytest.raises(RefusedError, match=r"is 40 days old; .policy. max_age is 30d"):
        check(located, signed=True, max_age="30d")
    blob.unlink()
    policy.note_signed(home, [], "model/other/1", 0.0)
    with pytest.raises(RefusedError, match="did not come signed"):  # what is no longer here is forgotten
        check(located, signed=True)


def test_what_was_added_by_hand_counts_from_then(located: Located) -> None:
    os.utime(located.folder / "manifest.toml", (time.time() - 9 * 86_400,) * 2)
    with pytest.raises(RefusedError, match="is 9 days old"):
        check(located, max_age="5d")


def test_one_that_grows_too_old_while_it_serves_is_said_within_the_hour(
    located: Located, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = SimpleNamespace(uses=[{"people": "", "edge-yolo": ""}, {}])
    rules = Policy(max_age="5d")
    ages = policy.Ages(rules, [line])
    assert ages.about() == "ok"
    os.utime(located.folder / "manifest.toml", (time.time() - 9 * 86_400,) * 2)
    assert ages.about() == "ok"  # looked at a moment ago
    monkeypatch.setattr(policy, "AGES_S", 0.0)
    later = policy.Ages(rules, [line])
    for _ in range(2):
        assert later.about() == "people: is 9 days old; [policy] max_age is 5d"
    assert sum("serves until the agent starts anew" in row.message for row in caplog.records) == 1
    models = Models()
    models.policy = rules
    with pytest.raises(RefusedError, match="is 9 days old"):
        models.open("people")


def test_the_program_s_own_are_named_by_hash_and_need_no_signature(tmp_path: Path) -> None:
    policy.check(Policy(signed=True, max_age="1d"), catalogue.locate("edge-yolo"), tmp_path)


def test_it_holds_where_models_are_opened(located: Located) -> None:
    models = Models()
    models.policy = Policy(licences=["Apache-2.0"])
    with pytest.raises(RefusedError, match=r"licences are Apache-2\.0"):
        models.open("people")
