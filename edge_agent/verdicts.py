"""What the trials of a model's files said, as it is remembered (see prove.py)."""

from __future__ import annotations

from edge_agent.manifest import Manifest
from edge_agent.prove import Result, remembered

FOLDERS = ("proofs", "reports")
"""a file on its own, and held against its parent"""


def refusals(manifest: Manifest) -> list[str]:
    """Each variant that was refused when it was last tried, and why, one line each."""
    return [
        f"refused: {row.title()}: {result.reason}"
        for row in manifest.networks()
        for result in [next((one for one in _latest(row.key()) if not one.passed), Result(True))]
        if not result.passed
    ]


def notes(manifest: Manifest) -> list[str]:
    """What the last trials of each variant said, one line each."""
    return [
        f"{row.title()}: {result.reason or '; '.join(result.notes)}"
        for row in manifest.networks()
        for result in _latest(row.key())
        if result.notes or not result.passed
    ]


def _latest(key: str) -> list[Result]:
    """The latest result of a variant on its own, and of it against a parent, as far as there are any."""
    found = []
    for folder in FOLDERS:
        own = [verdict.result for verdict in remembered(key, folder) if verdict.sha256[0] == key]
        tried = [result for result in own if result.notes or not result.passed]
        found += tried[:1]
    return found
