"""A fork of the test's own process, which never comes back into pytest."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def forked(act: Callable[[], object]) -> int:
    """Do it in a fork: 0 where it returned, 1 where it raised, less than 0 (-signal) where it was killed."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
