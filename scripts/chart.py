"""Bar charts as SVG, written by hand: the figure at the end of each bar.

The card behind the bars is part of the picture, light or dark as the reader's system is, so it is legible
on any page; a viewer that knows no media queries shows it light.
"""

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
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
    .card { fill: #151b23; stroke: #3d444d }
    .ours { fill: #4493f8 }
    .peer { fill: #7d8590 }
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
    height = y + MARGIN - 6
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
        *body,
        "</svg>",
        "",
    ])
