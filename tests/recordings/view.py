#!/usr/bin/env python3
"""The lines that a terminal showed at last, as pyte (https://pypi.org/project/pyte/) sees them: `view.py NAME.raw`.

The recordings are sessions of a terminal of 24 rows and 100 columns. The emulator's is wider, so that no line wraps.
"""

import copy
import sys

import pyte

ROWS, COLUMNS = 24, 1000
ALTERNATE = {47, 1047, 1049}


class Screen(pyte.HistoryScreen):
    """pyte has no alternate screen: keep the ordinary one while a program uses it."""

    ordinary = None

    def set_mode(self, *modes, **how):
        if how.get("private") and ALTERNATE & set(modes):
            self.ordinary = copy.deepcopy((self.buffer, self.cursor, self.history))
        super().set_mode(*modes, **how)

    def reset_mode(self, *modes, **how):
        super().reset_mode(*modes, **how)
        if how.get("private") and ALTERNATE & set(modes) and self.ordinary:
            self.buffer, self.cursor, self.history = self.ordinary


screen = Screen(COLUMNS, ROWS, history=100_000)
screen.set_mode(pyte.modes.LNM)
with open(sys.argv[1], "rb") as recording:
    pyte.ByteStream(screen).feed(recording.read())
rows = list(screen.history.top) + [screen.buffer[row] for row in range(ROWS)]
lines = ["".join(row[column].data for column in range(COLUMNS)).rstrip(" ") for row in rows]
cursor = len(screen.history.top) + screen.cursor.y
shown = max([at for at, line in enumerate(lines) if line] + [cursor])
sys.stdout.write("\n".join(lines[: shown + 1]))
