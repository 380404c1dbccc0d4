"""Draws the figures of results.json into docs/benchmarks/, each as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent.parent / "docs" / "benchmarks"
OURS, OTHER, BAR = "#c0392b", "#95a5a6", "#2c3e50"


def draw(results: dict[str, Any]) -> None:
    """Draw each plot whose figures are there."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    plots: list[tuple[str, str, Callable[[Any, Any], None]]] = [
        ("drain", "drain", _drain),
        ("latency", "latency", _latency),
        ("memory", "memory", _memory),
        ("growth", "growth", _growth),
        ("workers", "growth", _workers),
        ("options", "options", _options),
        ("peers", "peers", _peers),
    ]
    matplotlib.rcParams.update({"svg.hashsalt": "streamq", "font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False})  # fmt: skip
    for name, source, plot in plots:
        if source not in results:
            continue
        figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
        plot(axes, results[source])
        for kind in ("png", "svg"):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            figure.savefig(FOLDER / f"{name}.{kind}", dpi=150, metadata=metadata)
        plt.close(figure)


def _bars(axes: Any, labels: list[str], values: list[float], colours: list[str], unit: str) -> None:
    places = range(len(labels))
    axes.barh(places, values, color=colours)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    for place, value in zip(places, values, strict=True):
        text = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
        axes.text(value, place, f" {text}", va="center", fontsize=8)


def _drain(axes: Any, report: Any) -> None:
    figures = [figure for figure in report["figures"] if figure["unit"] == "jobs/s"]
    _bars(axes, [f["what"] for f in figures], [f["streamq"] for f in figures], [OURS] * len(figures), "jobs per second")
    axes.set_title("Draining a full queue of no-op jobs")


def _latency(axes: Any, report: Any) -> None:
    figures = [figure for figure in report["figures"] if figure["raw"] is not None]
    places = range(len(figures))
    axes.bar([p - 0.2 for p in places], [f["streamq"] for f in figures], 0.4, color=OURS, label="streamq")
    axes.bar([p + 0.2 for p in places], [f["raw"] for f in figures], 0.4, color=OTHER, label="XADD, XREADGROUP BLOCK")
    axes.set_xticks(places, [f["what"] for f in figures])
    axes.set_ylabel("ms")
    axes.legend(frameon=False)
    axes.set_title("From add to the handler's start, idle worker")


def _memory(axes: Any, report: Any) -> None:
    figures = [figure for figure in report["figures"] if figure["unit"] == "B/job"]
    colours = [OURS if "redis" in f["what"] else OTHER for f in figures]
    _bars(axes, [f["what"] for f in figures], [f["streamq"] for f in figures], colours, "bytes per job")
    axes.set_title("Memory of a job with a payload of 93 bytes, by state")


def _growth(axes: Any, report: Any) -> None:
    by_size = {int(size): costs for size, costs in report["by_size"].items()}
    for what, colour in (("add", OURS), ("claim and settle", BAR), ("count", OTHER)):
        axes.plot(list(by_size), [costs[what] for costs in by_size.values()], "o-", color=colour, label=what)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("waiting jobs")
    axes.set_ylabel("the server's µs")
    axes.legend(frameon=False)
    axes.set_title("Cost per job (per call for count) as the queue grows")


def _workers(axes: Any, report: Any) -> None:
    rates = {int(count): rate for count, rate in report["by_workers"].items()}
    axes.plot(list(rates), list(rates.values()), "o-", color=OURS)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(rates), [str(count) for count in rates])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("worker processes, concurrency 20 each")
    axes.set_ylabel("jobs per second")
    axes.set_title(f"Draining with more workers ({report['machine'].split(', ')[1]}, the server among them)")


def _options(axes: Any, report: Any) -> None:
    figures = [figure for figure in report["figures"] if figure["what"].startswith("the server's CPU")]
    labels = [f["what"].partition(": ")[2] for f in figures]
    _bars(axes, labels, [f["ratio"] for f in figures], [OURS] * len(figures), "the server's CPU per job, defaults = 1")
    axes.axvline(1, color=BAR, linewidth=1)
    axes.set_title("What each option costs the server")


def _peers(axes: Any, report: Any) -> None:
    rates = {peer["name"]: peer["drain"] for peer in report["peers"] if peer.get("drain")}
    rates = dict(sorted(rates.items(), key=lambda item: -item[1]))
    colours = [OURS if name.startswith("streamq") else OTHER for name in rates]
    _bars(axes, list(rates), list(rates.values()), colours, "jobs per second")
    axes.set_title("Draining no-op jobs, one worker")
