"""Draws the curves of a record. Needs matplotlib."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shargain.demo.bench.record import Record

WIDTH, HEIGHT = 7.0, 3.6
# The same figures make the same file: no date in it, no random names, and text that stays text.
STYLE = {
    "svg.hashsalt": "bench",
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def draw(record: Record, folder: Path) -> list[Path]:
    """Draw each curve of each case into the folder as `bench-NAME.svg`."""
    curves = [curve for found in record["cases"].values() for curve in found["curves"]]
    return _draw_all(curves, folder) if curves else []


def _draw_all(curves: Iterable[Mapping[str, Any]], folder: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("svg")
    with mpl.rc_context(STYLE):
        return [_draw(curve, folder / f"bench-{curve['name']}.svg") for curve in curves]


def _draw(curve: Mapping[str, Any], file: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for name, values in curve["series"].items():
        points = [(x, y) for x, y in zip(curve["x"], values, strict=True) if y is not None]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title=curve["title"], xlabel=curve["x_label"], ylabel=curve["y_label"])
    if curve["log_x"]:
        axes.set_xscale("log")
    if curve["log_y"]:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return file
