"""The charts of the report, as SVG elements whose colours follow the page's light or dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from entrypoint.engines.engine import LOSS
from entrypoint.results.analysis.document import Calibration, CurvePoint
from entrypoint.results.report_runs import RunRow
from entrypoint.training.metrics import Metrics

MOST_POINTS = 1000  # of a line; more cannot be seen, and would make the page large
INK = "#010203"  # stands for the colour of text until `draw` replaces it
SERIES = 7  # colours of the page's style sheet, --series-0 to --series-6
BLUE, ORANGE, AMBER, SKY = 0, 1, 4, 5


def series(number: int) -> str:
    """Returns a colour that stands for a colour of the style sheet until `draw` replaces it."""
    return f"#0a0b{number % SERIES:02x}"


def draw_loss(history: Sequence[dict[str, float]], best: int | None) -> str:
    """Returns the loss by step, with its running mean and the step of the best evaluation, as SVG."""
    if not history:
        return ""
    steps, losses = [point["step"] for point in history], [point[LOSS] for point in history]

    def plot(axes: Any) -> None:
        axes.plot(thinned(steps), thinned(losses), color=series(SKY), linewidth=0.8, alpha=0.7, label="each step")
        means = thinned(running_mean(losses))
        axes.plot(thinned(steps), means, color=series(BLUE), linewidth=1.8, label="running mean")
        mark_best(axes, best)
        axes.set(xlabel="step", ylabel="total loss", ylim=(0, None))
        axes.legend(frameon=False)

    return draw("Loss by step", plot)


def draw_learning_rate(history: Sequence[dict[str, float]], best: int | None) -> str:
    """Returns the learning rate by step as SVG."""
    points = [point for point in history if "learning_rate" in point]
    if not points:
        return ""

    def plot(axes: Any) -> None:
        steps, rates = ([point[name] for point in points] for name in ("step", "learning_rate"))
        axes.plot(thinned(steps), thinned(rates), color=series(BLUE), linewidth=1.8, label="learning rate")
        mark_best(axes, best)
        axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
        axes.legend(frameon=False)

    return draw("Learning rate by step", plot)


def draw_evaluations(metrics: Metrics) -> str:
    """Returns mAP by step, with the best evaluation marked, as SVG."""
    points = [row for row in metrics.evaluations.rows if row.map is not None]
    best = metrics.evaluations.best
    if len(points) < 2 or best is None:
        return ""

    def plot(axes: Any) -> None:
        steps = [row.step for row in points]
        axes.plot(steps, [row.map for row in points], color=series(ORANGE), marker="o", linewidth=1.8, label="mAP")
        half = [row.map50 for row in points]
        axes.plot(steps, half, color=series(AMBER), marker="s", linewidth=1.2, label="mAP@0.5")
        mark_best(axes, best.step)
        axes.set(xlabel="step", ylabel="mAP", ylim=(0, 1.02))
        axes.legend(frameon=False)

    return draw("mAP by step", plot)


def draw_runs(runs: Sequence[RunRow]) -> str:
    """Returns mAP by run as SVG, or nothing for fewer than two runs. A line joins those that can be compared."""
    measured = sorted((row for row in runs if row.run.map is not None), key=lambda row: row.number)
    if len(measured) < 2:
        return ""

    def plot(axes: Any) -> None:
        for is_comparable, style, label in (
            (True, {"linestyle": "-", "marker": "o"}, "the same validation photos"),
            (False, {"linestyle": "", "marker": "x"}, "other validation photos"),
        ):
            points = [(row.number, row.run.map) for row in measured if row.is_comparable == is_comparable]
            if points:
                color = series(ORANGE if is_comparable else SKY)
                axes.plot(*zip(*points, strict=True), color=color, linewidth=1.8, label=label, **style)
        now = [(row.number, row.run.map) for row in measured if row.is_now]
        for number, value in now:
            axes.plot(number, value, color=INK, marker="o", markersize=11, fillstyle="none", linestyle="")
            axes.annotate("this run", (number, value), (0, 9), textcoords="offset points", ha="right", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="run", ylabel="mAP", ylim=(0, 1.02))
        axes.legend(frameon=False)

    return draw("mAP by run", plot)


def mark_best(axes: Any, step: int | None) -> None:
    """Marks the step of the best evaluation with a vertical line."""
    if step is not None:
        axes.axvline(step, color=INK, linewidth=1, linestyle="--", alpha=0.6, label="best mAP")


def draw_map(metrics: Metrics) -> str:
    """Returns mAP at each IoU threshold of COCO, as SVG. The later the curve falls, the tighter the boxes fit."""
    points = [(threshold, value) for threshold, value in metrics.per_iou if value is not None]
    if not points:
        return ""

    def plot(axes: Any) -> None:
        axes.plot(*zip(*points, strict=True), color=series(ORANGE), marker="o", linewidth=1.8)
        axes.set(xlabel="IoU threshold", ylabel="mAP", ylim=(0, 1.02))

    return draw("mAP by IoU threshold", plot)


def draw_precision(curves: Mapping[int, Sequence[CurvePoint]]) -> str:
    """Returns precision by recall as SVG, a line for each label by its number; from the eighth on, lines are dashed."""
    if not curves:
        return ""

    def plot(axes: Any) -> None:
        for index, points in curves.items():
            recalls, precisions = [each.recall for each in points], [each.precision for each in points]
            style = "-" if index < SERIES else "--"
            axes.plot(recalls, precisions, color=series(index), linewidth=1.6, linestyle=style)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))

    return draw("Precision by recall at IoU 0.5", plot)


def draw_calibration(calibration: Calibration) -> str:
    """Returns the share of right detections by score as SVG. On the diagonal, scores are probabilities."""
    points = [(each.mean_score, each.right) for each in calibration.bins if each.count]
    if not points:
        return ""

    def plot(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", alpha=0.6, label="score = share")
        axes.plot(*zip(*points, strict=True), color=series(BLUE), marker="o", linewidth=1.8, label="this model")
        axes.set(xlabel="mean score", ylabel="share of right detections", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(frameon=False)

    return draw("Share of right detections by score", plot)


def thinned(values: Sequence[float]) -> Sequence[float]:
    """Returns at most so many values as a line shows, evenly spaced, the last one among them."""
    every = -(-len(values) // MOST_POINTS)
    return values[(len(values) - 1) % every :: every] if values else values


def running_mean(values: Sequence[float], weight: float = 0.1) -> list[float]:
    """Returns the exponential running mean, which starts at the first value."""
    means: list[float] = []
    for value in values:
        means.append(value if not means else means[-1] + weight * (value - means[-1]))
    return means


def draw(title: str, plot: Callable[[Any], None]) -> str:
    """Returns a small chart as an SVG element, without the XML header, which HTML does not allow."""
    import matplotlib

    matplotlib.use("Agg")
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    # Otherwise the ids of elements and the date change from run to run. The titles keep ids of two charts apart.
    style = {"svg.hashsalt": title, "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(dict.fromkeys(names, INK) | style):
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(5.6, 3.0), layout="constrained")
        plot(axes)
        axes.grid(visible=True, alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
        pyplot.close(figure)
    return for_page(buffer.getvalue(), title)


def for_page(document: str, title: str) -> str:
    """Returns matplotlib's SVG with a name for screen readers and the page's colours, without unused ids."""
    element = document[document.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", element)
    element = element.replace(INK, "currentColor")
    element = re.sub(r"#0a0b0(\d)", r"var(--series-\1)", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
