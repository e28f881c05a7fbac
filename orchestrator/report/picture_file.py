"""Pictures side by side in one PNG file, drawn with matplotlib: the same runs give the same bytes.

Import this module only where something is drawn: matplotlib takes half a second.
"""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from orchestrator.report.pictures import Box, Picture, PictureGrid
from orchestrator.report.plots import STYLE

_WIDTH = 2.1  # inches of a picture
_HEAD, _WORDS = 0.8, 0.24  # inches: above all pictures with the legend below them; below each row
_DPI = 160
_LEGEND_LETTERS = 100  # that fit side by side


def picture_png(grid: PictureGrid) -> bytes:
    """A row for each image: input, truth, baseline, new; with mIoU and a legend of the classes."""
    with mpl.rc_context(STYLE):
        out = io.BytesIO()
        _figure(grid).savefig(out, format="png", dpi=_DPI)
    return out.getvalue()


def _figure(grid: PictureGrid) -> Figure:
    rows, columns = len(grid.rows), len(grid.rows[0])
    parts = [max(p.image.height / p.image.width for p in row) for row in grid.rows]
    longest = max(len(name) for name, _ in grid.colours)
    across = max(1, min(len(grid.colours), _LEGEND_LETTERS // (longest + 6)))
    height = _HEAD + 0.2 * -(-len(grid.colours) // across) + sum(_WIDTH * p + _WORDS for p in parts)
    figure = Figure(figsize=(_WIDTH * columns, height), layout="constrained")
    table = figure.subplots(rows, columns, squeeze=False, height_ratios=parts)
    for number, pictures in enumerate(grid.rows):
        for axes, picture in zip(table[number], pictures, strict=True):
            _draw(axes, picture)
    scores = (None, None, grid.runs.base.best_miou_percent, grid.runs.new.best_miou_percent)
    for axes, picture, score in zip(table[0], grid.rows[0], scores, strict=True):
        more = "" if score is None else f"\nmIoU of all images {score:.1f}"
        axes.set_title(f"{picture.label}{more}", fontsize=10)
    runs, boxes = grid.runs, any(picture.boxes for row in grid.rows for picture in row)
    more = "; dashed boxes: where the two differ most" if boxes else ""
    figure.suptitle(f"{runs.table}, {runs.column}, seed {runs.new.seed}{more}", fontsize=10)
    figure.legend(
        [Patch(fc=[part / 255 for part in c], ec="#545d68", lw=0.5) for _, c in grid.colours],
        [name for name, _ in grid.colours],
        loc="outside lower center",
        ncols=across,
        handlelength=1.2,
    )
    return figure


def _draw(axes: Axes, picture: Picture) -> None:
    is_input = picture.image.mode == "RGB"
    axes.imshow(picture.image.convert("RGB"), interpolation="auto" if is_input else "nearest")
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)
    if picture.miou_percent is not None:
        axes.set_xlabel(f"mIoU {picture.miou_percent:.1f}", labelpad=3)
    for box in picture.boxes:
        for colour, width, dashes in (("black", 2.2, "-"), ("white", 1.2, (0, (4, 3)))):
            axes.add_patch(_outline(box, ec=colour, lw=width, ls=dashes))


def _outline(box: Box, **look: Any) -> Rectangle:
    """The edge of a window; a pixel reaches half a unit to each side of its index."""
    return Rectangle((box.left - 0.5, box.top - 0.5), box.width, box.height, fill=False, **look)
