"""The child process in which a model is tried (see gate/ask.py): what it may do is bounded before it knows the model.

A Room comes in as JSON in the arguments, a question (gate/trial.py) on stdin; a Result goes out as JSON on stdout.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import msgspec

from edge_agent.device import sandbox
from edge_agent.device.room import Room
from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.gate.trial import AnyQuestion, Result

ANSWERED_BY = {
    "load": "edge_agent.gate.read:load",
    "read": "edge_agent.gate.read:look",
    "prove": "edge_agent.gate.prove:prove",
    "agree": "edge_agent.gate.agree:agree",
    "heads": "edge_agent.gate.heads:agree_heads",
    "race": "edge_agent.gate.race:race",
    "derive": "edge_agent.gate.derive:derive",
}
"""tag of a question -> "module:function" of it -> Result"""


def main() -> None:
    """Answer the question on stdin."""
    # what native libraries print must not stand in the answer
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sandbox.enter(msgspec.json.decode(sys.argv[-1], type=Room))
    # not before: numpy starts threads, which would stay outside
    from edge_agent.gate.trial import AnyQuestion

    question = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyQuestion)
    # should the parent die, nobody else would end this
    signal.setitimer(signal.ITIMER_REAL, question.limits.seconds + 1)
    out.write(msgspec.json.encode(answer(question)))
    out.flush()
    # not through the runtimes' destructors: the answer is known
    os._exit(0)


def answer(question: AnyQuestion) -> Result:
    """What is found; what is wrong with the model stands in the Result."""
    from edge_agent.gate.trial import Result

    module, _, function = ANSWERED_BY[str(question.__struct_config__.tag)].partition(":")
    try:
        result: Result = getattr(importlib.import_module(module), function)(question)
        return result
    except EdgeAgentError as error:
        return Result(False, " ".join(str(error).split()))
    except MemoryError:
        return Result(False, f"it needs more than {question.limits.memory >> 20} MB of memory")
