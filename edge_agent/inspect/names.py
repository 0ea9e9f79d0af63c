"""The names of a model's classes, from wherever the file or its exporter left them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from edge_agent.errors import RefusedError
from edge_agent.files import read_regular
from edge_agent.graphs.graph import MAX_WORDS, FileGraph, clean
from edge_agent.paths import carried

BESIDE = "labels.txt"
KEYS = ("names", "id2label", "labels", "classes", "class_names", "label_names")
"""metadata keys of Ultralytics, transformers and others"""
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Of the ids 1..90 in COCO's annotations, those that no object has; models of the SSD family count with them."""
NOTHING = ("???", "background", "__background__")
"""a first name that no object has"""
MOST = 100_000
UNNAMED = [f"class_{i}" for i in range(1000)]
"""of a head that does not say how many classes it has, nor what they are"""

Naming = tuple[list[str], list[int] | None, str]
"""names, reported ids (None: 0, 1, 2, ...), and why"""


def coco80() -> list[str]:
    """COCO's 80 names in the order of the classes, from the catalogue."""
    return carried("models", "yolox-nano", "labels.txt").read_text().splitlines()


def stated(graph: FileGraph, path: Path, nothing: bool = True) -> tuple[list[str], str]:
    """The names that the file states, in the order of the classes, and where; [] when it states none.

    `nothing`: a first line ??? or background is no class, as in the labels of networks for pictures.
    """
    return _inside(graph, nothing) or _beside(path, nothing)


def _inside(graph: FileGraph, nothing: bool) -> tuple[list[str], str] | None:
    """Of the file's metadata, or of a text that is packed into it."""
    for key in KEYS:
        found = table(graph.meta.get(key, ""))
        if found:
            return found, f'{len(found)} names in the file\'s metadata ("{key}")'
    for name, text in graph.files.items():
        if name.lower().endswith(".txt") and re.search(r"label|class|names", name.lower()):
            found = _lines(text, nothing)
            if found:
                return found, f"{len(found)} names in {clean(name)}, which is packed into the file"
    return None


def _beside(path: Path, nothing: bool) -> tuple[list[str], str]:
    """Of labels.txt or config.json in its folder. RefusedError for an encoding that cannot be told."""
    beside, config = path.with_name(BESIDE), path.with_name("config.json")
    try:
        if _is_small(beside):
            found = _lines(_decoded(read_regular(beside, MAX_WORDS)), nothing)
            return found, f"{len(found)} names in {BESIDE} beside the file"
        if _is_small(config):
            found = _of_config(config.read_text(encoding="utf-8", errors="replace"))
            return found, f"{len(found)} names in config.json beside the file (id2label)" if found else ""
    except UnicodeDecodeError:
        raise RefusedError(f"{beside}: its encoding cannot be told; save it as UTF-8, one name a line") from None
    except OSError:
        return [], ""
    return [], ""


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= MAX_WORDS


def _decoded(data: bytes) -> str:
    """The text of a labels file: UTF-8, or UTF-16 as some editors on Windows write it; a mark at its beginning is left
    out. UnicodeDecodeError for any other encoding: nobody can tell which one it is.
    """
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if not marked and b"\0" not in data[:64]:
        return data.decode("utf-8-sig")
    # without the mark, the zeros of Latin letters stand behind them, or before
    return data.decode("utf-16" if marked else "utf-16-be" if data[:1] == b"\0" else "utf-16-le")


def unfit(where: str, classes: int) -> str:
    """Why the names that the user put beside the file are not those of a head of so many classes; "" for others'."""
    if BESIDE not in where:
        return ""
    return f"there are {where}, and its output has {classes} classes; correct {BESIDE}, or take it away"


def _of_config(text: str) -> list[str]:
    """`id2label` of transformers' config.json; [] where it has none, or only LABEL_0, LABEL_1, ..."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return []
    found = table(json.dumps(read.get("id2label", ""))) if isinstance(read, dict) else []
    return [] if all(re.fullmatch(r"LABEL_\d+", name) for name in found) else found


def table(text: str) -> list[str]:
    """Names out of one metadata value: a JSON or Python dict or list, or words with commas; [] when it is none."""
    found = _parsed(text)
    if isinstance(found, list | tuple):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or len(found) > MOST:
        return []
    names = {int(k): clean(str(v)) for k, v in found.items() if re.fullmatch(r"\d{1,5}", str(k))}
    if set(names) != set(range(len(found))):
        return []
    return [names[i] or f"class_{i}" for i in range(len(names))]


def _parsed(text: str) -> Any:
    """The value that a text writes in JSON or Python, or a list of words with commas; None for any other text, and for
    one that is too long.
    """
    if not text or len(text) > MAX_WORDS:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return text.split(",") if re.fullmatch(r"[\w .\-]+(,[\w .\-]+)+", text) else None


def _lines(text: str, nothing: bool) -> list[str]:
    """One name a line, with or without its number before it; with `nothing` a first line ??? or background, which no
    head counts, is left out.
    """
    lines = [clean(line) for line in text.splitlines()[:MOST]]
    while lines and not lines[-1]:
        lines.pop()
    lines = _numbered(lines) or lines
    if nothing and lines and lines[0].lower() in NOTHING:
        lines = lines[1:]
    return [line or f"class_{i}" for i, line in enumerate(lines)]


def _numbered(lines: list[str]) -> list[str]:
    """The names of lines as ``15: cat`` or ``15 cat``, each at its number, the first at 0 or 1; [] for other lines."""
    parts = [re.fullmatch(r"(\d{1,5})\s*([:;,=.)]|\s)\s*(\S.*)", line) for line in lines if line]
    found = {int(part[1]): part[3] for part in parts if part}
    numbers = list(found)
    if len(found) != len(parts) or not _are_numbers(numbers):
        return []
    return [found.get(number, "") for number in range(numbers[0], numbers[-1] + 1)]


def _are_numbers(numbers: list[int]) -> bool:
    """Whether they number lines: they rise from 0 or 1; only among many some may be left out."""
    if not numbers or numbers != sorted(numbers) or numbers[0] > 1:
        return False
    whole = numbers[-1] - numbers[0] == len(numbers) - 1
    # a few names may begin with a number themselves
    return whole or (len(numbers) >= 10 and numbers[-1] <= 4 * len(numbers))


def labels(family: str, classes: int, found: list[str], where: str, first: int = 0) -> Naming:
    """Names, reported ids (None: 0, 1, 2, ...) and why. `classes` 0: the head does not say how many; `first`: the
    number that it gives the first class, where that is 1 nothing has the 0.
    """
    if first == 1 and not (found and found[0].lower() in NOTHING):
        names, ids, why = labels(family, classes, found, where)
        ids = ids or list(range(len(names)))
        return ["unused 0", *names], [max(ids) + 1, *ids], f"{why}, which detection_classes counts from 1"
    return _fitting(family, classes, found, where) or _usual(family, classes, found, where)


def _fitting(family: str, classes: int, found: list[str], where: str) -> Naming | None:
    """The names that the file states; None where they do not fit the head."""
    if family == "ssd" and _gaps(found):
        _, ids = _ninety()
        names = [f"unused {i}" if i in COCO_GAPS else name for i, name in enumerate(found, 1)]
        return names, ids, f"{where}, counted with COCO's gaps"
    if found and classes in (0, len(found)):
        return found, None, where
    return None


def _usual(family: str, classes: int, found: list[str], where: str) -> Naming:
    """The names that public models of a family have; those `found` do not fit."""
    wrong = f"the head has {classes} classes, {where}" if found else ""
    if family == "ssd":
        names, ids = _ninety()
        return names, ids, "the 90 of COCO, which this family's public models have"
    if family.startswith("detr") and classes == 91:
        names, ids = _ninety()
        return ["unused 0", *names], [80, *ids], "91 classes, taken for COCO's ids from 0 to 90"
    if classes == 80:
        return coco80(), None, "80 classes, taken for COCO's" + (f" ({wrong})" if wrong else "")
    if not classes:
        return coco80(), None, "the outputs do not say how many, taken for COCO's 80"
    return [f"class_{i}" for i in range(classes)], None, wrong or f"{classes} classes, no names in the file"


def namings(family: str, classes: int, found: list[str], where: str, first: int = 0) -> list[Naming]:
    """All that the names of the classes may be, the likeliest first: `labels`, and where neither the head nor a name
    says how many there are, COCO's, which are counted in three ways.
    """
    likeliest = labels(family, classes, found, where, first)
    if classes or found or first:
        return [likeliest]
    names, ids = _ninety()
    counted = [
        (coco80(), None, "the outputs do not say how many, taken for COCO's 80"),
        (names, ids, "the outputs do not say how many, taken for COCO's 90, counted from 0 with gaps"),
        (["unused 0", *names], [80, *ids], "the outputs do not say how many, taken for COCO's 90, counted from 1"),
    ]
    return [likeliest, *(row for row in counted if row[0] != likeliest[0]), (UNNAMED, None, "nothing names them")]


def of_classes(classes: int, found: list[str], where: str) -> tuple[list[str], str]:
    """The names of a classifier's classes, and why; those that the file does not name are class_0, class_1, ..."""
    if len(found) == classes:
        return found, where
    if found and len(found) == classes - 1:
        return ["background", *found], f"{where}, and before them the background"
    wrong = f"the network has {classes} classes, {where}" if found else f"{classes} classes, no names in the file"
    return [f"class_{i}" for i in range(classes)], f"{wrong}, labels.txt beside it would name them"


def _gaps(found: list[str]) -> bool:
    return len(found) == 90 and (found[0], found[89]) == ("person", "toothbrush")


def _ninety() -> tuple[list[str], list[int]]:
    used = iter(enumerate(coco80()))
    rows = [(80 + i, f"unused {i}") if i in COCO_GAPS else next(used) for i in range(1, 91)]
    return [name for _, name in rows], [i for i, _ in rows]
