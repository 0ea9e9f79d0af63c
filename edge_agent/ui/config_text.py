"""The text of a config as the page shows and changes it: comments kept, secrets hidden, differences shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edge_agent import toml
from edge_agent.errors import ConfigError
from edge_agent.redact import redact
from edge_agent.ui.calls import Refused

if TYPE_CHECKING:
    import tomlkit

LISTS = ("pipeline", "zone", "rule", "profile", "notify")
"""sections that may stand several times, each with a name"""


class Edit(msgspec.Struct, frozen=True):
    """One change: of keys of a section, or of the section as a whole."""

    section: Annotated[str, msgspec.Meta(description="pipeline, zone, rule, ... or mqtt, privacy, ...")]
    name: Annotated[str, msgspec.Meta(description="of one that may stand several times")] = ""
    pipeline: Annotated[str, msgspec.Meta(description="of a zone: whose picture")] = ""
    set: dict[str, Any] = {}
    drop: list[str] = []
    remove: bool = False


def edited(text: str, edits: list[Edit]) -> str:
    """The text with these changes, all else as it was. Refused."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        for edit in edits:
            _edit(document, edit)
        return str(tomlkit.dumps(document))
    except TOMLKitError as error:
        raise Refused(400, f"this is no TOML: {error}") from None
    except (TypeError, AttributeError, KeyError):
        raise Refused(409, "this is written in a form that is not changed here; edit the text") from None


def _edit(document: tomlkit.TOMLDocument, edit: Edit) -> None:
    import tomlkit

    if edit.section in LISTS:
        found = _of_several(document, edit)
    elif edit.remove:
        document.remove(edit.section)
        return
    else:
        found = document.setdefault(edit.section, tomlkit.table())
    for key in edit.drop:
        found.pop(key, None)
    found.update(edit.set)


def _of_several(document: tomlkit.TOMLDocument, edit: Edit) -> Any:
    """The entry that is meant, made where there is none; one that is to go goes, and takes what is set along."""
    import tomlkit

    some = document.get(edit.section)
    found = next((one for one in some or [] if _is(one, edit)), None)
    if edit.remove:
        if found is None:
            raise Refused(409, f"there is no {edit.section} {edit.name!r} any more")
        some.remove(found)
        if not some:
            document.remove(edit.section)
        return {}
    if found is None:
        found = tomlkit.table()
        found.update({"name": edit.name, **({"pipeline": edit.pipeline} if edit.pipeline else {})})
        if some is None:
            some = document[edit.section] = tomlkit.aot()
        some.append(found)
    return found


def _is(one: Any, edit: Edit) -> bool:
    """Whether an entry is the one that is meant; a zone may leave its pipeline out where there is only one."""
    return one.get("name") == edit.name and one.get("pipeline") in (edit.pipeline or None, None)


def difference(before: str, after: str) -> str:
    """What changes, as a unified diff; empty where nothing does."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "as it is", "as it will be", lineterm="", n=2)
    return "\n".join(lines)


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def _secrets(text: str) -> dict[str, str]:
    """What is shown of each string that holds a secret -> the string. Refused where two are shown alike, ConfigError
    where it is no TOML.
    """
    found: dict[str, str] = {}
    for string in dict.fromkeys(_strings(toml.parse(text))):
        if (shown := redact(string)) != string:
            if shown in found or string not in text:
                raise Refused(409, "two addresses differ in their passwords only; edit the file by hand")
            found[shown] = string
    return found


def hidden(text: str) -> str:
    """The text with users and passwords of addresses hidden, in comments, too."""
    with suppress(ConfigError, Refused):  # then each line is looked at for itself
        for shown, string in _secrets(text).items():
            text = text.replace(string, shown)
    return "\n".join(redact(line) for line in text.split("\n"))


def with_secrets(text: str, before: str) -> str:
    """A text that was shown hidden, with what `before` has in those places. Refused, ConfigError."""
    lines = dict(zip(hidden(before).split("\n"), before.split("\n"), strict=True))
    text = "\n".join(lines.get(line, line) for line in text.split("\n"))
    for shown, string in _secrets(before).items():
        text = text.replace(shown, string)
    return text
