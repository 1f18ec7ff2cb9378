"""Charts as SVG, written by hand: bars with the figure at their ends, and lines on logarithmic scales.

The card behind the bars is part of the picture, light or dark as the reader's system is, so it is legible
on any page; a viewer that knows no media queries shows it light.
"""

import math
from dataclasses import dataclass
from html import escape

WIDTH = 760
LABELS = 190
FIGURES = 120
MARGIN = 20
BAR = 18
STEP = 24

STYLE = """
  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: bold }
  .group { font-weight: bold }
  .note { font-size: 12px; fill: #57606a }
  .card { fill: #ffffff; stroke: #d0d7de }
  .ours { fill: #0969da }
  .peer { fill: #8c959f }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .line { fill: none; stroke-width: 2 }
  .c0 { stroke: #0969da; fill: #0969da } .c1 { stroke: #1a7f37; fill: #1a7f37 }
  .c2 { stroke: #8c959f; fill: #8c959f } .c3 { stroke: #bc4c00; fill: #bc4c00 }
  .c4 { stroke: #8250df; fill: #8250df } .c5 { stroke: #bf3989; fill: #bf3989 }
  .line { fill: none } text.key { stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .card { fill: #151b23; stroke: #3d444d }
    .ours { fill: #4493f8 }
    .peer { fill: #7d8590 }
    .grid { stroke: #3d444d }
    .c0 { stroke: #4493f8; fill: #4493f8 } .c1 { stroke: #3fb950; fill: #3fb950 }
    .c3 { stroke: #db6d28; fill: #db6d28 } .c4 { stroke: #ab7df8; fill: #ab7df8 }
    .c5 { stroke: #db61a2; fill: #db61a2 } .line { fill: none }
  }
"""


@dataclass(frozen=True)
class Bar:
    """One bar: `kind` is `ours` or `peer`."""

    label: str
    value: float
    figure: str
    kind: str = "peer"


def bars(title, notes, groups):
    """A chart of (group name, bars) pairs; each group has a scale of its own."""
    room = WIDTH - 2 * MARGIN - LABELS - FIGURES
    body = []
    y = MARGIN + 14

    def text(x, y, words, kind="", anchor="start"):
        body.append(
            f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"'
            + (f' class="{kind}"' if kind else "")
            + f">{escape(words)}</text>"
        )

    text(MARGIN, y, title, "title")
    for note in notes:
        y += 20
        text(MARGIN, y, note, "note")
    y += 12
    for name, group in groups:
        y += 22
        text(MARGIN, y, name, "group")
        y += 10
        largest = max(bar.value for bar in group)
        for bar in group:
            middle = y + BAR / 2 + 5
            length = max(1.0, bar.value / largest * room)
            text(MARGIN + LABELS - 8, middle, bar.label, anchor="end")
            body.append(
                f'<rect class="{bar.kind}" x="{MARGIN + LABELS}" y="{y:.0f}" width="{length:.1f}" height="{BAR}" rx="2"/>'
            )
            text(MARGIN + LABELS + length + 6, middle, bar.figure)
            y += STEP
    return page(title, y + MARGIN - 6, body)


def lines(title, notes, across, up, series):
    """A chart of `series`, {name: {x: y}}, over the same few x, which stand at equal distances; y is logarithmic.

    `across` and `up` say what the axes are; x is a string.
    """
    marks = list(dict.fromkeys(x for points in series.values() for x in points))
    values = [y for points in series.values() for y in points.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    top = MARGIN + 30 + 20 * len(notes) + 18
    bottom = top + 260
    left, right = MARGIN + 60, WIDTH - MARGIN - 150
    body = []

    def text(x, y, words, kind="", anchor="start"):
        mark = f' class="{kind}"' if kind else ""
        body.append(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{mark}>{escape(words)}</text>')

    def at(x, y):
        place = left + (right - left) * marks.index(x) / max(1, len(marks) - 1)
        return place, bottom - (bottom - top) * (math.log10(y) - low) / (high - low)

    text(MARGIN, MARGIN + 14, title, "title")
    for index, note in enumerate(notes):
        text(MARGIN, MARGIN + 34 + 20 * index, note, "note")
    text(MARGIN, top - 10, up, "note")
    for power in range(low, high + 1):
        y = bottom - (bottom - top) * (power - low) / (high - low)
        body.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        text(left - 8, y + 4, f"{10.0**power:g}", "note", "end")
    for x in marks:
        text(at(x, 10.0**low)[0], bottom + 18, x, "note", "middle")
    text((left + right) / 2, bottom + 38, across, "note", "middle")
    # Names stand at the ends of their lines, pushed apart where those lie close together.
    last = [(at(*list(points.items())[-1]), index, name) for index, (name, points) in enumerate(series.items())]
    taken = top - 16.0
    for (x, y), index, name in sorted(last, key=lambda entry: entry[0][1]):
        taken = max(y + 4, taken + 16)
        text(x + 10, taken, name, f"key c{index % 6}")
    for index, points in enumerate(series.values()):
        drawn = [at(x, y) for x, y in points.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        body.append(f'<polyline class="line c{index % 6}" points="{path}"/>')
        body += [f'<circle class="c{index % 6}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in drawn]
    return page(title, bottom + 38 + MARGIN, body)


def page(title, height, body):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
        *body,
        "</svg>",
        "",
    ])
