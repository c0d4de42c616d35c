"""The README's pictures, from a cache that `make demo` left: `python -m tests.gallery CACHE FOLDER`.

All are of synthetic videos. The report page is pictured by Chromium; without it that one is left out.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from PIL import Image

from lus_cli.cache.layout import Cache, Run
from lus_cli.errors import LusError
from lus_cli.files import read_json, replacing
from lus_cli.model.checkpoint import weights_digest
from tests.browser import CHROMIUM, browser

WIDTH = 900  # pixels, at most
# Of the page only the confusion matrix and one video.
SHOWN = """<style>
nav, footer, .controls, #videos .note, main > section:not(#matrix):not(#videos),
#list tr[data-id]:not([data-id="{video}"]) {{ display: none; }}
</style></head>"""
WINDOW = "--window-size=1180,1300"
# The player starts at the first frame, whose mask is drawn when its picture is there.
PLAYED = """
const video = document.querySelector(".player video");
while (video.readyState < 2 || video.seeking) await new Promise((r) => setTimeout(r, 50));
await new Promise((r) => setTimeout(r, 500));
"""


def main(cache: Path, folder: Path) -> None:
    run = Cache(cache).run(None)
    refuse_others(run)
    [card, *_] = sorted(run.attention.glob("*-*.png"))
    save(Image.open(card), folder / "phantom.png")
    save(Image.open(run.root / "curves.png"), folder / "curves.png")
    if CHROMIUM is None:
        print("no Chromium: the picture of the report page is left out")  # noqa: T201
    else:
        save(screenshot(run), folder / "report.png")
    print(*sorted(folder.glob("*.png")), sep="\n")  # noqa: T201


def refuse_others(run: Run) -> None:
    """Raises LusError for maps or an evaluation of other weights than the run has."""
    weights = weights_digest(run.best)
    made = {
        "attention": run.attention / "made-by.json",
        "evaluate": run.evaluation("test") / "scores.json",
    }
    for command, path in made.items():
        remedy = f"run `lus {command} --run {run.name}` again"
        if read_json(path, remedy).get("weights") != weights:
            raise LusError(f"{path} is of other weights than {run.best}", remedy)


def save(picture: Image.Image, path: Path) -> None:
    """As a PNG of few colours: small, and without a visible difference."""
    picture = picture.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)))
    with replacing(path) as part:
        palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3)
        picture.quantize(palette=palette).save(part, format="PNG", optimize=True)


def screenshot(run: Run) -> Image.Image:
    """The player of the video with the highest score that was predicted correctly."""
    evaluation = run.evaluation("test")
    with (evaluation / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == row["predicted"]]
    best = max(rows, key=lambda row: (row["score"], row[f"p{row['score']}"]))
    video = f"{best['patient']}/{best['exam']}/{best['area']}"
    text = (evaluation / "report.html").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="lus-") as scratch, browser(WINDOW) as tab:
        page, path = Path(scratch) / "report.html", Path(scratch) / "report.png"
        page.write_text(text.replace("</head>", SHOWN.format(video=video)), encoding="utf-8")
        tab.open(f"{page.as_uri()}#video={video}")
        tab.run(PLAYED)
        tab.picture(path, whole=True)
        with Image.open(path) as image:
            return image.convert("RGB")


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m tests.gallery", description=__doc__)
    options.add_argument("cache", type=Path, metavar="CACHE")
    options.add_argument("folder", type=Path, metavar="FOLDER")
    paths = options.parse_args()
    main(paths.cache, paths.folder)
