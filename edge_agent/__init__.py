"""edge-agent: models as a dependable service on small devices.

A Sample comes from a source, goes through a chain of tasks, and what is left at the end goes out.

The storeys of the house; imports run down only (tests/test_house.py)::

    8 doors     cli/ workshop/
    7 service   agent/ consumer/
    6 serving   serving/
    5 gate      gate/
    4 rooms     sources/ tasks/ inspect/ link/
    3 walk      walk/ outbox/ registry/ samples/ backends/
    2 craft     families/ graphs/ pictures/ device/ figures/
    1 floor     got types envelope objects understood events errors config manifest toml uri paths files held programs
                redact personal

What each room is for stands at the head of its ``__init__.py``.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime looks up its maker's host and writes an id of this device under the cache folder, unless this stands in
# the environment when it is loaded; what we start inherits it
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
