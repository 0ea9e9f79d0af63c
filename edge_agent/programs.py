"""How other programs are started: from where they are installed, never from the folder that one stands in.

That folder may be one that a stranger's model was unpacked in, with a ``numpy.py`` or a ``pip3`` of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

_OURS = """\
import sys
from importlib import import_module, util
sys.path[:] = {path}
spec = util.spec_from_file_location("edge_agent", {init}, submodule_search_locations=[{package}])
sys.modules["edge_agent"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["edge_agent"])
import_module({module}).main()
"""
"""this very package, wherever it lies, whatever else of its name is installed"""
_THEIRS = """\
import runpy, sys
sys.path[:] = {path}
runpy.run_module({module}, run_name="__main__", alter_sys=True)
"""


ENVIRONMENT = re.compile(
    "(EDGE_AGENT_(HOME|PROVIDERS)|(OMP|GOMP|KMP|OPENBLAS|MKL|ORT|CUDA|NVIDIA|TF|XNNPACK|LC|LD|MALLOC|OPENCV|SSL_CERT)_.*"
    "|LANG|TZ|PATH|HOME)"
)
"""names of what a child that handles a stranger's bytes is given of the environment, which may hold secrets"""


def environment() -> dict[str, str]:
    """What of the environment such a child is given."""
    return {name: value for name, value in os.environ.items() if ENVIRONMENT.fullmatch(name)}


def which(name: str) -> str | None:
    """Absolute path of a program, as `shutil.which` finds it in the absolute folders of PATH; None for none."""
    # an empty entry, or a relative one, means the folder that one stands in
    folders = os.pathsep.join(folder for folder in os.get_exec_path() if Path(folder).is_absolute())
    found = shutil.which(name) if os.sep in name else shutil.which(name, path=folders)
    return str(Path(found).absolute()) if found else None


def python(module: str) -> list[str]:
    """The command line of another Python that runs a module: `main()` of one of ours, else as ``python -m`` does.

    It imports from where this process does, but for the folder that one stands in (``-I``; ``-P`` is of Python 3.11).
    """
    told = {"path": import_path(), "module": module, "package": str(PACKAGE), "init": str(PACKAGE / "__init__.py")}
    code = _OURS if module.startswith("edge_agent.") else _THEIRS
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
    return [sys.executable, "-I", *utf8, "-c", code.format(**{key: ascii(value) for key, value in told.items()})]


def import_path() -> list[str]:
    """The absolute folders of sys.path without the current one, which stays only where Python is installed in it."""
    installed = {str(Path(os.__file__).parent), *site.getsitepackages(), site.getusersitepackages()}
    return [each for each in sys.path if Path(each).is_absolute() and (each in installed or not _is_here(each))]


def _is_here(folder: str) -> bool:
    try:
        return Path(folder).samefile(".")
    except OSError:
        return False
