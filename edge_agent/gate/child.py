"""The child process in which a model is tried (see gate/ask.py): what it may do is bounded before it knows the model.

A Room comes in as JSON in the arguments, a Trial on stdin; a Result goes out as JSON on stdout.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from edge_agent.device import sandbox


def main() -> None:
    """Answer the Trial on stdin."""
    # what native libraries print must not stand in the answer
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sandbox.enter(msgspec.json.decode(sys.argv[-1], type=sandbox.Room))
    # not before: numpy starts threads, which would stay outside
    from edge_agent.gate.questions import asked
    from edge_agent.gate.trial import Trial

    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
    # should the parent die, nobody else would end this
    signal.setitimer(signal.ITIMER_REAL, trial.limits.seconds + 1)
    answer.write(msgspec.json.encode(asked(trial)))
    answer.flush()
    # not through the runtimes' destructors: the answer is known
    os._exit(0)
