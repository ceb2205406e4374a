"""Sequence diagrams: who says what to whom, from top to bottom, and where it was changed."""
from matplotlib.figure import Figure

from mlsec_lab.display.figures import GREY, RED, text_width


def sequence(parties, steps, *, size=None):
    """Arrows between parties, in the order in which things are said.

    parties: their names, from left to right.  steps: (from, to, text, colour), both out of `parties`; where they are the same, the text is a note
    below that party's name, in a frame. colour: one of the palette's; arrows and texts in RED stand out as what was changed.
    """
    unknown = {name for start, end, _, _ in steps for name in (start, end)} - set(parties)
    if unknown:
        raise ValueError(f"steps must go between {', '.join(parties)}, not to or from {sorted(unknown)[0]!r}")
    wide, high = size or (max(6.4, 2.9 * (len(parties) - 1) + 1.6), 0.36 * len(steps) + 0.62)
    figure = Figure(figsize=(wide, high))
    axes = figure.add_axes((0, 0, 1, 1))  # one unit is an inch, counted from the upper left corner
    axes.set_xlim(0, wide)
    axes.set_ylim(high, 0)
    axes.axis("off")
    margin = 0.95
    place = {name: margin + (wide - 2 * margin) * number / max(1, len(parties) - 1) for number, name in enumerate(parties)}
    for name, x in place.items():
        axes.plot([x, x], [0.36, high - 0.06], color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        axes.text(x, 0.2, name, ha="center", va="center", fontsize=9.5, fontweight="bold")
    for number, (start, end, text, colour) in enumerate(steps):
        y, left, right = 0.68 + 0.36 * number, place[start], place[end]
        if start == end:
            half = text_width(text, 8.5) / 144 + 0.08  # a frame must not leave the picture
            axes.text(min(max(left, half + 0.04), wide - half - 0.04), y, text, ha="center", va="center", fontsize=8.5, color=colour, zorder=3,
                      bbox=dict(boxstyle="round,pad=0.25", facecolor="white", edgecolor=colour, linewidth=1))
            continue
        arrow = dict(arrowstyle="-|>", color=colour, linewidth=2 if colour == RED else 1.2, shrinkA=1, shrinkB=1)
        axes.annotate("", (right, y + 0.06), (left, y + 0.06), arrowprops=arrow)
        axes.text((left + right) / 2, y, text, ha="center", va="bottom", fontsize=8.5, color=colour, zorder=3,
                  fontweight="bold" if colour == RED else None, bbox=dict(boxstyle="square,pad=0.08", facecolor="white", edgecolor="none"))
    return figure
