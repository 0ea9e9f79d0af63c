"""What an index may say, and how a bundle is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_agent.errors import RefusedError, UsageError
from edge_agent.fleet.bundle import MOST_BYTES, Wanted, read, wanted

PEOPLE: dict[str, Any] = {
    "kind": "model",
    "name": "people",
    "number": 3,
    "version": "1.2",
    "at": 1.8e9,
    "files": [{"path": "manifest.toml", "sha256": "a" * 64, "bytes": 12}],
}


def raw(**changed: Any) -> bytes:
    return msgspec.json.encode({**PEOPLE, **changed})


def test_a_bundle_is_named_by_kind_name_and_number() -> None:
    assert wanted("model/people/3") == Wanted("model", "people", 3)
    assert wanted("config/shop.a") == Wanted("config", "shop.a")
    assert [str(wanted(one)) for one in ("model/people/3", "agent/edge-agent")] == [
        "model/people/3",
        "agent/edge-agent",
    ]
    for wrong in ("people", "model/", "model/../x", "model/a/0", "model/a/b", "thing/a", "model/a/3/4", "model/a..b"):
        with pytest.raises(UsageError, match="is no bundle"):
            wanted(wrong)


def test_an_index_is_read_and_is_of_what_was_asked_for() -> None:
    asked = wanted("model/people")
    assert read(raw(), asked).number == 3
    assert read(raw(), wanted("model/people/3")).bytes == 12
    for other in ("model/people/4", "model/cars", "config/people"):
        with pytest.raises(RefusedError, match="its index is that of model/people/3"):
            read(raw(), wanted(other))


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a//b", "a\\b", "", ".hidden", "a/.", "a\n", "x/..", "a/b ", "-r"]
)
def test_a_file_outside_of_its_folder_is_refused(path: str) -> None:
    file = {"path": path, "sha256": "a" * 64, "bytes": 1}
    with pytest.raises(RefusedError, match="does not lie in its folder"):
        read(raw(files=[file]), wanted("model/people"))


def test_what_is_too_large_or_no_index_is_refused_in_one_line() -> None:
    huge = {"path": "a", "sha256": "a" * 64, "bytes": MOST_BYTES + 1}
    twice = [{"path": name, "sha256": "a" * 64, "bytes": 1} for name in ("a", "A")]
    for wrong, why in (
        (raw(files=[huge]), "has 2.1 GB; a device takes"),
        (raw(files=twice), "twice"),
        (raw(files=[]), "cannot be read"),
        (raw(unknown=1), "cannot be read"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ):
        with pytest.raises(RefusedError, match=why) as refused:
            read(wrong, wanted("model/people"))
        assert "\n" not in str(refused.value)
