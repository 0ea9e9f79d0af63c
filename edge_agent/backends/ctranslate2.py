"""Speech models through CTranslate2 (extra `speech`); the only file of the agent that imports it.

A Whisper is several networks in one file, so the Net takes the tensors of each, in a run of its own, between which
others take their turn. `features` (1, bands, frames) float32 -> `encoded` (1, frames / 2, d) float32. `encoded` and
`prompt` (n,) int32, token ids, with `beam` and `longest` (1,) int32, its width and the most tokens -> `tokens` (m,)
int32; `score` (1,) float32, the mean log probability of a token; `silence` (1,) float32, the probability of no speech.
`encoded`, `tokens` and `start` (k,) int32, the commands before them, with `frames` (1,) int32 that are no padding ->
`begins` (m + 1,) int32, the place in `encoded` at which each begins, and at which the last one ends.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.device.sandbox import may_compile
from edge_agent.errors import ModelError, RefusedError
from edge_agent.types import Net, Tensors, TensorSpec

MODEL = "model.bin"
BESIDE = {"config": "config.json", "vocab": "vocabulary.txt"}
"""role of a part -> its name beside the model, by which the library looks for it"""
FORBIDDEN = "its unit forbids it to compile: type sudo edge-agent install once more, or set MemoryDenyWriteExecute=no"
FAILURES = (RuntimeError, ValueError, TypeError, OSError)
"""what the library raises"""


def load(path: Path, threads: int, source: Path, parts: Mapping[str, Path]) -> Net:
    """Open the Whisper in `path`, its bytes read from `source`, with its `parts` (see BESIDE). RefusedError, one line.

    Weights become int8, and what is computed float32. Runs that come at once are done one after the other.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise RefusedError(f'CTranslate2 is missing ({error}); pip install "edge-agent-runtime[speech]"') from None
    missing = [role for role in BESIDE if role not in parts]
    if missing:
        raise RefusedError(f"{path}: no part of role {missing[0]} ({BESIDE[missing[0]]}); name it in the manifest")
    ctranslate2.set_log_level(40)  # as in logging: errors
    files = {MODEL: source, **{BESIDE[role]: parts[role] for role in BESIDE}}
    try:
        whisper = _opened(ctranslate2, files, threads)
        bands = int(whisper.n_mels)
    except FAILURES as error:
        raise RefusedError(f"{path}: not a readable Whisper of CTranslate2 ({_first_sentence(error)})") from None

    def run(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        try:
            part = _encode if "features" in tensors else _align if "tokens" in tensors else _say
            return part(ctranslate2, whisper, tensors)
        except KeyError as error:
            raise ModelError(f"{path}: input {error} is missing") from None
        except FAILURES as error:
            forbidden = "" if may_compile() else f"; {FORBIDDEN}"
            raise ModelError(f"{path}: the run failed ({_first_sentence(error)}){forbidden}") from None

    features = TensorSpec("features", (1, bands, None), "float32")
    return Net(
        run,
        (features,),
        (TensorSpec("encoded", (1, None, None), "float32"),),
        f"ctranslate2 {ctranslate2.__version__} CPU",
        (f"ctranslate2: weights int8, threads={threads}",),
    )


def _opened(library: Any, files: Mapping[str, Path], threads: int) -> Any:
    """The model of these files, through a folder of links; where none can be made (in a trial), from memory, which
    takes three times the file for a moment.
    """
    how = {"device": "cpu", "compute_type": "int8_float32", "inter_threads": 1, "intra_threads": threads}
    try:
        with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
            for name, place in files.items():
                Path(folder, name).symlink_to(place.absolute())
            return library.models.Whisper(folder, **how)
    except OSError:
        return library.models.Whisper("", files={name: place.read_bytes() for name, place in files.items()}, **how)


def _encode(library: Any, whisper: Any, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    features = np.ascontiguousarray(tensors["features"], np.float32)
    encoded = whisper.encode(library.StorageView.from_array(features), to_cpu=True)
    return {"encoded": np.array(encoded)}


def _say(library: Any, whisper: Any, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    encoded = library.StorageView.from_array(np.ascontiguousarray(tensors["encoded"], np.float32))
    (found,) = whisper.generate(
        encoded,
        [tensors["prompt"].tolist()],
        beam_size=int(tensors["beam"].item()),
        max_length=2 * int(tensors["longest"].item()),  # half of it is for the prompt, however short that is
        return_scores=True,
        return_no_speech_prob=True,
    )
    return {
        "tokens": np.array(found.sequences_ids[0], np.int32),
        "score": np.array(found.scores[:1], np.float32),
        "silence": np.array([found.no_speech_prob], np.float32),
    }


def _align(library: Any, whisper: Any, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
    encoded = library.StorageView.from_array(np.ascontiguousarray(tensors["encoded"], np.float32))
    given = tensors["start"].tolist(), [tensors["tokens"].tolist()], int(tensors["frames"].item())
    (found,) = whisper.align(encoded, *given)
    path = np.array(found.alignments, np.int32).reshape(-1, 2)
    # one row a step: a token begins where its number comes first
    return {"begins": path[np.diff(path[:, 0], prepend=-1) > 0, 1]}


def _first_sentence(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip().rstrip(".")
    return text if len(text) <= 200 else text[:197] + "..."
