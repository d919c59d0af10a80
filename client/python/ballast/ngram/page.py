"""The report as one HTML page with its plots drawn in it. Pure functions."""

from __future__ import annotations

import html
import math
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #dde2e9; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; } .note { color: #5b6675; } .plots { display: flex; flex-wrap: wrap; gap: 1rem; }
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 300, 200, 40, 34


def page(doc: dict[str, Any]) -> str:
    totals = doc["totals"]
    body = [
        "<h1>N-gram language models</h1>",
        f"<p>{_text(doc['configuration'])}, finished {_text(doc['finished'])}, {doc['cores']} cores: {totals['latency_s']:.1f} s, "
        f"{totals['cpu_s']:.1f} CPU s of {totals['reserved_cpu_s']:.1f} reserved.</p>",
        "<h2>Stages</h2>",
        _stages(doc["stages"]),
        '<p class="note">CPU time: the JVM\'s, Python\'s and the estimator\'s. Reserved: cores held for as long as the stage took. '
        "Memory: the largest of a task's estimator.</p>",
    ]
    for model in doc["models"]:
        body += _model(model)
    if doc["mix"]:
        body += ["<h2>Mixture</h2>", _table(["model", "weight"], [[name, f"{weight:.6f}"] for name, weight in doc["mix"]["weights"].items()])]
    style = f"<style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>N-gram training</title>{style}<body>{"".join(body)}</body></html>\n'


def _stages(stages: list[dict[str, Any]]) -> str:
    header = ["stage", "latency s", "CPU s", "JVM", "Python", "estimator", "reserved s", "tasks", "shuffled MB", "peak MB"]
    rows = []
    for s in stages:
        name = f"{s['model']}: {s['stage']}" + (" (finished before)" if s["resumed"] else "")
        seconds = [f"{s[key]:.1f}" if s[key] is not None else "-" for key in ("latency_s", "cpu_s", "jvm_cpu_s", "python_cpu_s", "estimator_cpu_s")]
        shuffled = "-" if s["shuffle_write_bytes"] is None else f"{s['shuffle_write_bytes'] / 1e6:.1f}"
        rows.append([name, *seconds, f"{s['reserved_cpu_s']:.1f}", str(s["tasks"]), shuffled, f"{s['estimator_rss_peak_bytes'] / 1e6:.0f}"])
    return _table(header, rows)


def _model(model: dict[str, Any]) -> list[str]:
    counts = " / ".join(f"{n:,}" for n in model["ngrams"])
    levels = [
        [
            str(level["level"]),
            f"{level['shards']:,}",
            str(level["opened"]),
            f"{level['ngrams']:,}",
            f"{level['largest']:.2f}",
            f"{level['largest_kept']:.2f}",
            f"{zero:,}",
        ]
        for level, zero in zip(model["levels"], model["zero_rows"])
    ]
    plots = "".join(_plot(level) for level in model["levels"])
    return [
        f"<h2>{_text(model['name'])}: order {model['order']}</h2>",
        f"<p>{model['tuples']:,} tuples; n-grams {counts or 'not written'}. {model['iterations']} iterations.</p>",
        _table(["level", "shards", "opened", "n-grams", "largest / mean before", "after", "0-shard rows"], levels),
        f'<div class="plots">{plots}</div>',
    ]


def _plot(level: dict[str, Any]) -> str:
    """Sizes of shards from the largest on, both axes logarithmic."""
    before, after = level["sizes_before"], level["sizes_after"]
    top = max([2.0, *before])
    low = 0.01
    span = math.log10(max(level["shards"], 2))

    def points(sizes: list[float], shards: int) -> str:
        found = []
        for i, size in enumerate(sizes):
            rank = (shards ** (i / max(len(sizes) - 1, 1))) if len(sizes) < shards else i + 1
            x = _LEFT + (_WIDTH - _LEFT - 8) * (math.log10(max(rank, 1)) / span)
            found.append(f"{x:.1f},{_y(size, low, top):.1f}")
        return " ".join(found)

    mean = _y(1.0, low, top)
    lines = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{mean:.1f}" y2="{mean:.1f}" stroke="#9aa5b4" stroke-dasharray="3 3"/>',
        f'<text x="{_WIDTH - 10}" y="{mean - 4:.1f}" text-anchor="end">mean</text>',
        f'<polyline points="{points(before, level["shards"])}" fill="none" stroke="#d1495b" stroke-width="2"/>',
        f'<polyline points="{points(after, level["shards"] - level["opened"])}" fill="none" stroke="#2a6f97" stroke-width="2"/>',
        f'<text x="{_LEFT - 4}" y="{_y(top, low, top) + 4:.1f}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{_LEFT - 4}" y="{_y(low, low, top):.1f}" text-anchor="end">{low:g}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">shards of level {level["level"]}, largest first (1 to {level["shards"]:,})</text>',
        f'<text x="{_WIDTH - 8}" y="14" text-anchor="end"><tspan fill="#d1495b">before</tspan> <tspan fill="#2a6f97">after opening</tspan></text>',
    ]
    frame = f'<rect x="{_LEFT}" y="18" width="{_WIDTH - _LEFT - 8}" height="{_HEIGHT - _BOTTOM - 18}" fill="none" stroke="#dde2e9"/>'
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" font-size="11" role="img">{frame}{"".join(lines)}</svg>'


def _y(size: float, low: float, top: float) -> float:
    share = (math.log10(max(size, low)) - math.log10(low)) / (math.log10(top) - math.log10(low))
    return 18 + (_HEIGHT - _BOTTOM - 18) * (1 - share)


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: str) -> str:
    return html.escape(str(value))
