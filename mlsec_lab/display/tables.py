"""Tables set as figures: a grid of verdicts, and a program of a few lines with what counts in colour."""
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mlsec_lab.display.figures import BLUE, GREEN, GREY, ORANGE, RED, widest

TINTS = {RED: "#f6d5d8", ORANGE: "#fbe3d0", GREEN: "#d5ece4", BLUE: "#d6e8f4", GREY: "#eceef0"}


def grid(rows, columns, colours, *, cell=1.05, line=0.205):
    """A table of short verdicts, each on a tint of its colour.

    rows: {label: texts, one a column}, or {label: ()} for a heading above the rows that follow.  columns: their names; "\\n" breaks a line.
    colours: {text: one of the palette's colours}; a text without one stays grey.  cell, line: width and height of a cell, in inches.
    """
    labels = [label for label, texts in rows.items() if texts]
    left = widest(labels, 8.5) / 72 + 0.16
    above = line * max(name.count("\n") + 1 for name in columns) * 0.8 + 0.1
    figure = Figure(figsize=(left + cell * len(columns) + 0.05, above + line * len(rows) + 0.05))
    axes = figure.add_axes((0, 0, 1, 1))  # one unit is an inch, counted from the upper left corner
    axes.set_xlim(0, figure.get_figwidth())
    axes.set_ylim(figure.get_figheight(), 0)
    axes.axis("off")
    for column, name in enumerate(columns):
        axes.text(left + cell * (column + 0.5), above - 0.06, name, ha="center", va="bottom", fontsize=8, fontweight="bold", linespacing=1.05)
    for row, (label, texts) in enumerate(rows.items()):
        top = above + line * row
        axes.text(left - 0.08 if texts else 0.04, top + line / 2, label, ha="right" if texts else "left", va="center", fontsize=8.5, fontweight=None if texts else "bold")
        for column, text in enumerate(texts):
            colour = colours.get(text, GREY)
            axes.add_patch(Rectangle((left + cell * column + 0.02, top + 0.015), cell - 0.04, line - 0.03, facecolor=TINTS.get(colour, "#eceef0"), edgecolor="none"))
            axes.text(left + cell * (column + 0.5), top + line / 2, text, ha="center", va="center", fontsize=8, color=colour)
    return figure


def program(lines, *, title=None, beside=None, most=16, width=4.6):
    """A program line by line, each (place, word, argument, colour); a coloured line stands on a tint.

    title: (text, colour) above it.  beside: {label: share} draws bars to the right of it.  most: how many lines; of a longer program the ones in colour are kept, and dots stand for the others.
    """
    shown = _shortened(lines, most)
    above = 0.3 if title else 0.08
    figure = Figure(figsize=(width + (3.4 if beside else 0), max(0.205 * len(shown) + above + 0.08, 0.5 * len(beside or ()) + 0.5)))
    wide, high = figure.get_size_inches()
    axes = figure.add_axes((0, 0, width / wide, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(high, 0)
    axes.axis("off")
    if title:
        axes.text(0.06, 0.15, title[0], va="center", fontsize=9.5, fontweight="bold", color=title[1])
    for row, (place, word, argument, colour) in enumerate(shown):
        middle = above + 0.1 + 0.205 * row
        if colour != GREY:
            axes.add_patch(Rectangle((0.02, middle - 0.095), width - 0.04, 0.19, facecolor=TINTS[colour], edgecolor="none"))
        for x, text, align in ((0.45, place, "right"), (0.55, word, "left"), (1.85, argument, "left")):
            axes.text(x, middle, text, ha=align, va="center", fontsize=8, family="monospace", color=colour)
    if beside:
        axes = figure.add_axes(((width + 0.25) / wide, 0.5 / high, 2.7 / wide, 1 - 0.6 / high))
        for place, (label, share) in enumerate(beside.items()):
            axes.barh(place, share, color=ORANGE if place == 0 else BLUE, height=0.34)
            axes.annotate(label, (0, place - 0.3), fontsize=8.5, va="center")
            axes.annotate(f"{share:.0%}", (share, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9, annotation_clip=False)
        axes.set_ylim(len(beside) - 0.6, -0.6)
        axes.set_xlim(0, 1.15)
        axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"], fontsize=8)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _shortened(lines, most):
    """At most `most` lines: the coloured ones first, then from the top; one line of dots for each gap."""
    order = sorted(range(len(lines)), key=lambda k: (lines[k][3] == GREY, k))
    for count in range(min(most, len(lines)), 0, -1):
        kept, shown, last = sorted(order[:count]), [], -1
        for k in kept + [len(lines)]:
            if k - last > 1:
                shown.append(("", "…", f"{k - last - 1} more", GREY))
            if k < len(lines):
                shown.append(lines[k])
            last = k
        if len(shown) <= most or count == 1:
            return shown
    return list(lines)
