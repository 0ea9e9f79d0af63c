"""What the demo looks at, and where it is looked at: the carried clip or a camera of the user's, and the page."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from edge_agent import files, paths
from edge_agent.errors import UsageError
from edge_agent.sources import clip, open_source
from edge_agent.types import Frame
from edge_agent.uri import parse_uri

HEAD = """
[device]
id = "{device}"

[mqtt]
url = "mqtt://127.0.0.1:{port}"

[store]
path = "{folder}/store"

[[pipeline]]
name = "camera"
"""
"""of the demo's configs, up to its camera's source"""
SOURCE = f"""{HEAD}source = {{source}}
tasks = ["detect:detector", "track"]
"""
"""the same with a camera or film of the user's"""
PAGE = """
[page]
listen = "127.0.0.1:{port}"

[understand]
labels = "{labels}"
"""
PORT = 8484
"""that the page listens on where it is free"""


def clip_in(folder: Path) -> None:
    """Put the clip into a folder. It takes a second to make, so it is kept in the home for the next time."""
    made, code = folder / "clip.avi", hashlib.sha256(Path(clip.__file__).read_bytes()).hexdigest()[:12]
    kept = paths.home() / "demo" / f"clip-{code}.avi"
    with contextlib.suppress(OSError):
        shutil.copyfile(kept, made)
        return
    clip.make_clip(paths.carried("deploy", "demo"), made, clip.WALK)
    with contextlib.suppress(OSError):
        files.folder(kept.parent)
        for old in kept.parent.glob("clip-*.avi"):
            old.unlink()
        part = kept.with_name(f".{kept.name}.{os.getpid()}")
        shutil.copyfile(made, part)
        part.replace(kept)


def text_of(base: str, source: str | None, note: Callable[[str], None], **places: object) -> str:
    """The config of `base`, or of a source, with a page where its extra is here. UsageError for a source that gives no
    pictures.
    """
    text = base.format(**places)
    if source is not None:
        if (missing := _missing(source)) is None:
            given = f"files:{Path(source).absolute()}?pace=own&loop=true" if Path(source).is_file() else source
            if open_source(parse_uri(given)).yields is not Frame:
                raise UsageError(f"--source {source}: gives no pictures; give a camera, an address or a film")
            text = SOURCE.format(source=msgspec.json.encode(given).decode(), **places)
        else:
            note(f"{missing}; the carried clip plays instead")
    if not (find_spec("uvicorn") and find_spec("starlette")):
        note('without page: pip install "edge-agent-runtime[page]"')
        return text
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return text + PAGE.format(port=port, labels=places["labels"])


def _missing(source: str) -> str | None:
    """What is not there of a camera of this device; None for what is, and for all else."""
    uri = parse_uri(source) if ":" in source else None
    device = Path("/dev", f"video{uri.rest}") if uri is not None and uri.scheme == "camera" else None
    missing = device is not None and uri is not None and uri.rest.isdigit() and not device.exists()
    return f"--source {source}: there is no {device}" if missing else None
