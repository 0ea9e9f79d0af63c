"""Pages of text to read, drawn with Pillow: `pages.py FOLDER tune|report TEXTS`.

FOLDER gets the pictures and truth.json: of each its file, kind and lines, in reading order. TEXTS: the folder
train/text of the data. What thresholds are chosen on (tune) has other fonts and sentences than what is reported. Run by
the peers' own Python; nothing of this project is imported here.
"""

from __future__ import annotations

import importlib
import json
import lzma
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FONTS = {
    "tune": (
        *("DejaVuSans.ttf", "DejaVuSerif.ttf", "LiberationSans-Regular.ttf", "LiberationMono-Regular.ttf"),
        *("FreeSerif.ttf", "OpenSans-Regular.ttf", "Lato-Bold.ttf", "URWGothic-Book.otf"),
    ),
    "report": (
        *("LiberationSerif-Regular.ttf", "DejaVuSansMono-Bold.ttf", "FreeSans.ttf", "Inconsolata.otf"),
        *("Roboto-Regular.ttf", "C059-Roman.otf", "Cantarell-Bold.otf", "P052-Roman.otf"),
    ),
}
PACKAGES = (
    "fonts-dejavu-core fonts-dejavu-extra fonts-liberation fonts-freefont-ttf fonts-open-sans fonts-lato "
    "fonts-roboto-unhinted fonts-inconsolata fonts-cantarell fonts-urw-base35"
)
SENTENCES = {"tune": "world_factbook.txt.xz", "report": "masc.txt.xz"}
SEEDS = {"tune": 1, "report": 2}
LETTERS = {5: 70, 6: 70, 8: 70, 10: 70, 12: 64, 16: 56, 24: 40, 40: 26}
"""pixels of a letter's em -> characters of a line"""
INK, PAPER = (20, 20, 20), (245, 245, 240)


class Pages:
    """The pages of one set."""

    def __init__(self, folder: Path, kind: str, texts: Path) -> None:
        self.folder, self.truth = folder, list[dict[str, Any]]()
        self.np: Any = importlib.import_module("numpy")
        self.image: Any = importlib.import_module("PIL.Image")
        self.pen: Any = importlib.import_module("PIL.ImageDraw")
        self.filter: Any = importlib.import_module("PIL.ImageFilter")
        self.rng, self.noise = random.Random(SEEDS[kind]), self.np.random.default_rng(SEEDS[kind])
        with lzma.open(texts / SENTENCES[kind], "rt") as file:
            self.sentences = [line.strip() for line in file if 20 < len(line) < 200 and line.isascii()]

    def lines(self, count: int, longest: int) -> list[str]:
        """So many lines of sentences."""
        found: list[str] = []
        while len(found) < count:
            line = ""
            for word in self.rng.choice(self.sentences).split():
                if line and len(line) + 1 + len(word) > longest:
                    found.append(line)
                    line = ""
                line = f"{line} {word}".strip()
            found.append(line)
        return found[:count]

    def page(self, font: Any, lines: list[str], ink: Any = INK, paper: Any = PAPER) -> Any:
        """The lines below each other."""
        step = round(font.size * 1.5)
        size = round(max(map(font.getlength, lines))) + 40, len(lines) * step + 40
        image = self.image.new("RGB", size, paper)
        pen = self.pen.Draw(image)
        for number, line in enumerate(lines):
            pen.text((20, 20 + number * step), line, font=font, fill=ink)
        return image

    def noisy(self, image: Any) -> Any:
        """With a sensor's noise."""
        pixels = self.np.asarray(image) + self.noise.normal(0, 3, (image.size[1], image.size[0], 3))
        return self.image.fromarray(pixels.clip(0, 255).astype("uint8"))

    def save(self, kind: str, image: Any, lines: list[str]) -> None:
        """Keep a page and what stands on it."""
        name = f"{kind.replace(' ', '-')}-{len(self.truth):03d}.png"
        image.save(self.folder / name)
        self.truth.append({"file": name, "kind": kind, "lines": lines})

    def trapezoid(self, image: Any) -> Any:
        """As seen from the side."""
        wide, high = image.size
        less = self.rng.uniform(0.15, 0.3) * high
        corners = [(0, 0), (wide, 0), (wide, high), (0, high)]
        target = [(0, 0), (wide * 0.9, less), (wide * 0.9, high - less), (0, high)]
        rows: list[list[float]] = []
        for (x, y), (u, v) in zip(target, corners, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        turn = self.np.linalg.solve(self.np.array(rows, float), self.np.array(corners, float).reshape(8))
        return image.transform(image.size, self.image.Transform.PERSPECTIVE, turn, 3, fillcolor=PAPER)

    def columns(self, font: Callable[[int], Any]) -> tuple[Any, list[str]]:
        """A heading over two columns."""
        head, left, right = self.lines(1, 40), self.lines(8, 26), self.lines(8, 26)
        parts = self.page(font(26), head), self.page(font(16), left), self.page(font(16), right)
        (_, top), (middle, high), (wide, other) = (part.size for part in parts)
        image = self.image.new("RGB", (max(middle + wide, parts[0].size[0]), top + max(high, other)), PAPER)
        for part, place in zip(parts, ((0, 0), (0, top), (middle, top)), strict=True):
            image.paste(part, place)
        return image, head + left + right

    def large(self, font: Callable[[int], Any], size: int) -> tuple[Any, list[str]]:
        """7 megapixels with a heading of huge letters and a paragraph of small ones."""
        head, lines = self.lines(1, 24), self.lines(12, 60)
        image = self.image.new("RGB", (3200, 2200), (235, 235, 230))
        self.pen.Draw(image).text((200, 150), head[0], font=font(size), fill=(10, 10, 60))
        image.paste(self.page(font(26), lines, paper=(235, 235, 230)), (900, 900))
        return image, head + lines

    def all_of(self, font: Callable[[int], Any], number: int) -> None:
        """The pages of one font."""
        for pixels, longest in LETTERS.items():
            lines = self.lines(6, longest)
            self.save(f"{pixels} px", self.page(font(pixels), lines), lines)

        def five(kind: str, change: Callable[[Any], Any], **colours: Any) -> None:
            lines = self.lines(5, 40)
            self.save(kind, change(self.page(font(20), lines, **colours)), lines)

        angle = self.rng.uniform(-25, 25)
        five("turned", lambda page: page.rotate(angle, expand=True, fillcolor=PAPER, resample=3))
        five("quarter turned", lambda page: page.rotate(self.rng.choice([90, 270]), expand=True))
        five("upside down", lambda page: page.rotate(180))
        five("blurred", lambda page: self.noisy(page.filter(self.filter.GaussianBlur(1.6))))
        five("faint", self.noisy, ink=(128, 128, 128), paper=(158, 158, 158))
        five("light on dark", lambda page: page, ink=(235, 235, 235), paper=(30, 40, 60))
        five("from the side", self.trapezoid)
        self.save("two columns", *self.columns(font))
        if number < 3:
            self.save("7 megapixels", *self.large(font, (330, 170, 90)[number]))


def main(folder: Path, kind: str, texts: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    font_of: Any = importlib.import_module("PIL.ImageFont").truetype
    here = subprocess.run(["fc-list", ":", "file"], capture_output=True, text=True, check=True).stdout.splitlines()
    pages = Pages(folder, kind, texts)
    for number, name in enumerate(FONTS[kind]):
        paths = [line.strip().removesuffix(":") for line in here if line.strip().removesuffix(":").endswith(f"/{name}")]
        if not paths:
            raise SystemExit(f"no font {name} here: apt install {PACKAGES}")
        pages.all_of(lambda size, path=paths[0]: font_of(path, size), number)  # type: ignore[misc]
    (folder / "truth.json").write_text(json.dumps(pages.truth, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
