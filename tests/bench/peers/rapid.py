"""RapidOCR on the same two networks: `rapid.py default|best FOLDER-OF-NETWORKS`.

Paths of pictures come in on stdin; for each, a line of JSON goes out: its lines, the seconds of processor time, and the
peak of memory so far, MB. Run by the peers' own Python; nothing of this project is imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

BEST = {
    "Det.limit_type": "max",
    "Det.limit_side_len": 1600,
    "Det.use_dilation": False,
    "Rec.rec_batch_num": 1,
    "Cls.cls_thresh": 0.98,
    "Global.text_score": 0.0,
}
"""the best of eleven settings on the pages to tune on, each kind weighing the same"""


def main(settings: str, folder: Path) -> None:
    cv2: Any = importlib.import_module("cv2")
    rapid: Any = importlib.import_module("rapidocr")
    named: Any = importlib.import_module("rapidocr.utils.typings")
    cv2.setNumThreads(1)
    of_both = {"ocr_version": named.OCRVersion.PPOCRV6, "model_type": named.ModelType.TINY}
    given = {
        "Global.log_level": "error",
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        **{f"{part}.{key}": value for part in ("Det", "Rec") for key, value in of_both.items()},
        "Rec.lang_type": named.LangRec.EN,
        "Det.model_path": str(folder / "PP-OCRv6_det_tiny.onnx"),
        "Rec.model_path": str(folder / "PP-OCRv6_rec_tiny.onnx"),
        "Det.mean": [0.485, 0.456, 0.406],
        "Det.std": [0.229, 0.224, 0.225],
        **(BEST if settings == "best" else {}),
    }
    read = rapid.RapidOCR(params=given)
    for line in sys.stdin:
        picture = cv2.imread(line.strip())
        began = time.process_time()
        lines = list(read(picture).txts or ())
        peak = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
        spent = time.process_time() - began
        print(json.dumps({"lines": lines, "cpu": spent, "peak": int(peak.split()[1]) / 1024}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
