"""Keeps one line off a user's terminal that TFLite prints whatever its log level: that it made its CPU delegate."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = (b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",)
"""beginnings of lines that say nothing to a user"""
_ALONE = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Leave those lines out of what is written to stderr (the descriptor) meanwhile; all else follows afterwards.

    For the moment in which a network is opened that a child process has opened before: what is written as the
    process dies would be lost.
    """
    with _ALONE:
        try:
            before = os.dup(2)
        except OSError:  # a service may have none
            yield
            return
        with os.fdopen(os.memfd_create("stderr"), "w+b") as said:
            sys.stderr.flush()
            os.dup2(said.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(before, 2)
                os.close(before)
                said.seek(0)
                rest = b"".join(line for line in said if not line.startswith(CHATTER))
                if rest:
                    os.write(2, rest)
