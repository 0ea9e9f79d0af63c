"""Boxes by Ultralytics, published with paho at QoS 1: the same job as the agent's, in Ultralytics' own ways.

`detect.py file MODEL VIDEO PORT`: every frame, by `predict(source=VIDEO, stream=True)`; ends when all is acknowledged.
`detect.py camera MODEL VIDEO PORT FPS`: a thread reads the video in a loop at FPS and keeps the newest frame; runs
until it is killed.
`detect.py once MODEL PICTURE 0`: prints the boxes of one picture.
Run by the peers' own Python; nothing of this project is imported here.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any


def torchvision() -> None:
    """Ultralytics wants it for NMS alone. PyPI's build is for a CUDA torch: beside another one OpenCV stands in."""
    try:
        importlib.import_module("torchvision")
        return
    except (ImportError, RuntimeError, OSError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    cv2: Any = importlib.import_module("cv2")
    torch: Any = importlib.import_module("torch")

    def nms(boxes: Any, scores: Any, iou: float) -> Any:
        rows = boxes.numpy().astype("float64")
        rows[:, 2:] -= rows[:, :2]
        kept = cv2.dnn.NMSBoxes(rows.tolist(), scores.tolist(), 0.0, iou)
        return torch.as_tensor(kept, dtype=torch.int64).reshape(-1)

    made, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
    ops.nms = nms  # type: ignore[attr-defined]
    made.ops = ops  # type: ignore[attr-defined]
    made.__version__ = "0"  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": made, "torchvision.ops": ops}


class Newest:
    """A camera: the newest frame wins."""

    def __init__(self, video: str, fps: float) -> None:
        self.video, self.fps = video, fps
        self.state = threading.Condition()
        self.frame: tuple[Any, float] | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        cv2: Any = importlib.import_module("cv2")
        due = time.monotonic()
        while True:
            capture = cv2.VideoCapture(self.video)
            while True:
                now = time.monotonic()
                time.sleep(max(0.0, due - now))
                due = max(due, now) + 1 / self.fps
                at = time.time()
                good, image = capture.read()
                if not good:
                    break
                with self.state:
                    self.frame = image, at
                    self.state.notify()

    def __iter__(self) -> Iterator[tuple[Any, float]]:
        while True:
            with self.state:
                self.state.wait_for(lambda: self.frame is not None)
                frame, self.frame = self.frame, None
            assert frame is not None
            yield frame


def body(result: Any, number: int, at: float) -> str:
    """One JSON a frame, with what an event of the agent holds of the boxes."""
    boxes = result.boxes
    found = zip(boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True)
    rows = [
        {
            "label": result.names[int(c)],
            "class_id": int(c),
            "score": round(s, 4),
            "box": [round(x, 2) for x in b],
        }
        for b, s, c in found
    ]
    return json.dumps({"seq": number, "at": at, "detections": rows})


def main(mode: str, model: str, video: str, port: str, fps: str = "0") -> None:
    torchvision()
    how = {"verbose": False, "imgsz": 640, "conf": 0.25, "iou": 0.45, "device": "cpu"}
    if mode == "once":
        (result,) = importlib.import_module("ultralytics").YOLO(model, task="detect").predict(video, **how)
        print(body(result, 0, 0.0), flush=True)
        return
    paho: Any = importlib.import_module("paho.mqtt.client")
    client = paho.Client(importlib.import_module("paho.mqtt.enums").CallbackAPIVersion.VERSION2)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    yolo = importlib.import_module("ultralytics").YOLO(model, task="detect")
    waiting = []
    if mode == "file":
        for number, result in enumerate(yolo.predict(source=video, stream=True, **how)):
            waiting.append(client.publish("bench/peer", body(result, number, 0.0), qos=1))
    else:
        for number, (image, at) in enumerate(Newest(video, float(fps))):
            (result,) = yolo.predict(image, **how)
            client.publish("bench/peer", body(result, number, at), qos=1)
    for message in waiting:
        message.wait_for_publish(30)
    client.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
