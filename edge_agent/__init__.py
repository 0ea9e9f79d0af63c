"""edge-agent: models as a dependable service on small devices.

A Sample comes from a source, goes through a chain of tasks, and what is left at the end goes out.

The map of the house; imports run one way, top to bottom::

    cli/            argv -> one function per verb; the only place that prints
    agent.py        Config -> sources, tasks, threads; supervises, swaps models, stops in order (commands.py, demo.py);
                    line.py makes one pipeline ready
    serving.py      a model's name -> a model that answers; before it serves it has proved itself in a child process
                    (prove.py, child.py, proof.py), agreed with its parent (agree.py) and been raced (race.py,
                    bench.py); derive.py makes the faster form of an ONNX file;
                    trial.py tries on pictures what a bare file leaves open
    sources/        "camera:0", "files:photos", "lines:-", ... -> Frame, Text
    backends/       a model file -> a function from tensors to tensors (ONNX Runtime, LiteRT)
    tasks/          a sample -> what was found in it (detect, embed, classify)
    registry/       what a model is, where its files come from, what a bare file says of itself
    figures/        how good is it: mAP, accuracy, F1, correlation, from arrays alone
    workshop/       train, evaluate and the like: for a workstation, never imported by the running agent
    pipeline.py     one sample through its tasks: the one loop
    mailbox.py      between two threads: newest-only for frames, lossless for words
    lane.py         whose turn on the processor it is
    outbox.py       every Event waits on disk until it is acknowledged; below it journal.py (the store),
                    entries.py, segments.py (the files), marks.py (where sources resume)
    link.py         the one MQTT connection; wire.py (the client library), budget.py (a day's bytes);
                    listen.py and audit.py are the consumer's side
    sandbox.py      what a process that handles a stranger's bytes may still do; programs.py starts others,
                    held.py holds a file as it was when it was hashed
    types.py errors.py config.py manifest.py    the floor: import nothing of the floors above
"""

import os

__version__ = "0.1.0"

# ONNX Runtime looks up its maker's host and writes an id of this device under the cache folder, unless this stands in
# the environment when it is loaded; what we start inherits it
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
