"""``files:PATH``: pictures and videos (pictures.py), or recordings (recordings.py).

A file is of sound by its name, or, where its name says nothing, by its first bytes. Beside pictures, sound is left out,
and that is said.
"""

from __future__ import annotations

import logging
from pathlib import Path

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened
from edge_agent.sources.listing import SOUNDS, is_sound, listed, matching
from edge_agent.uri import Uri

log = logging.getLogger("edge_agent")


def files(uri: Uri, here: Here) -> Opened:
    """Bind ``files:PATH?options``; yields Frames, or Audio.

    SourceError when nothing is there that can be read, ConfigError for an option.
    """
    if not uri.rest:
        raise ConfigError(f'"{uri}": give the path of a picture, a folder, a glob, a video or a recording')
    path = str(Path(uri.rest).expanduser())
    try:
        heard = is_sound(listed(path)[0])
    except SourceError:
        from edge_agent.sources.pictures import planned

        planned(uri, path)
        raise
    if heard:
        from edge_agent.sources.recordings import recordings

        return recordings(uri, path)
    if beside := [] if Path(path).is_file() else matching(path, SOUNDS):
        log.warning("%s: %d recordings beside the pictures are left out; for them write *.wav", path, len(beside))
    from edge_agent.sources.pictures import pictures  # it loads cv2, which a device that only hears does not need

    return pictures(uri, path)
