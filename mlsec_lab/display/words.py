"""Figures of what language models read and say: words in colour, lists of texts, what comes next."""
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mlsec_lab.display.figures import BLUE, GREY, ORANGE, plain_axes


def next_words(prompt, odds, truth, *, xlabel="", ylabel="", lines=None, point=None, most=5):
    """What a language model says next, word by word: for each place its likeliest words as bars, the true one in colour.

    prompt: the text before.  odds: for each place a dict {word: probability}, of any number of words.  truth: the word that stood there, one a place.
    lines: None, or {label: (x, y)} to be drawn on the left, with the axis labels; the last is drawn boldly.  point: (x, y, text), a mark among them.
    """
    figure = Figure(figsize=(9.2 if lines else 5.2, 3.2))
    start = 0.53 if lines else 0.02
    if lines:
        axes = figure.add_axes((0.06, 0.15, 0.3, 0.75))
        chosen = list(lines)[-1]
        for label in lines:
            colour, width = (BLUE, 2.2) if label == chosen else (GREY, 0.9)
            axes.plot(*lines[label], color=colour, linewidth=width, marker="o", markersize=3.5 if label == chosen else 2)
        last = -np.inf
        low, high = axes.get_ylim()
        for label in sorted(lines, key=lambda label: lines[label][1][-1]):  # names that would lie on each other move apart
            last = max(lines[label][1][-1], last + 0.07 * (high - low))
            axes.annotate(label, (lines[label][0][-1], last), xytext=(12 if point and label == chosen else 6, 0), textcoords="offset points", va="center", fontsize=8,
                          color=BLUE if label == chosen else GREY, annotation_clip=False)
        plain_axes(axes, xlabel, ylabel, "")
        if point:
            axes.plot(*point[:2], color=ORANGE, marker="*", markersize=14, linestyle="")
            axes.annotate(point[2], (0.5, 1.07), xycoords="axes fraction", color=ORANGE, fontsize=9.5, ha="center", va="center")
    axes = figure.add_axes((start, 0.03, 0.99 - start, 0.94))  # one for all places: an axes each takes longer than the model
    axes.set_xlim(0, len(odds))
    axes.set_ylim(most + 0.5, -1.7)
    axes.axis("off")
    axes.text(0, -1.45, f"{prompt} …", fontsize=9.5, va="center")
    for place, (row, right) in enumerate(zip(odds, truth)):
        likeliest = sorted(row, key=row.get, reverse=True)[:most]
        shown = likeliest if right in likeliest else [*likeliest[:-1], right]
        axes.barh(range(len(shown)), [0.5 * row[word] for word in shown], left=place + 0.25, height=0.62,
                  color=[ORANGE if word == right else GREY for word in shown])
        for level, word in enumerate(shown):
            axes.text(place + 0.22, level, f"{word} ✓" if word == right else word, ha="right", va="center", fontsize=8.5)
            axes.text(place + 0.27 + 0.5 * row[word], level, f"{row[word]:.0%}", va="center", fontsize=8)
        before = f"after {' '.join(truth[:place])}:" if place else "says"
        axes.text(place + 0.25, -0.75, f"{before} {likeliest[0]}", fontsize=9, va="center", color=ORANGE if likeliest[0] == right else "black")
    return figure


def listed(columns, *, fits=62, size=4.8):
    """Lists of texts side by side, from the first to the last, those that are marked in colour and with a dot.

    columns: {title: [(text, marked)]}.  fits: the characters of a line; longer texts end in an ellipsis.  size: the width of a column.
    """
    longest = max(map(len, columns.values()))
    figure = Figure(figsize=(size * len(columns), 0.235 * longest + 0.4))
    line = 1 / (longest + 1.7)
    for column, (title, rows) in enumerate(columns.items()):
        left = (column + 0.02) / len(columns)
        figure.text(left, 1 - 0.6 * line, title, fontsize=9.5, fontweight="bold", va="center")
        for number, (text, marked) in enumerate(rows):
            short = text if len(text) <= fits else text[:fits - 1].rstrip() + "…"
            figure.text(left, 1 - (number + 1.9) * line, f"{number + 1:>2} {'●' if marked else ' '} {short}", fontsize=8.2, va="center",
                        family="DejaVu Sans Mono", color=ORANGE if marked else "black")
    return figure


def shaded_words(lines, *, high, gauges=None, fits=92):
    """Texts word by word, each word the redder the larger its value.

    lines: {title: [(word, value)]}, the value None for a word that is not shaded.  high: the value that is shaded most.
    gauges: {label: (share, mark, text, colour)}, bars below: how far they reach, in [0, 1], where a dashed line stands (or None), and what is written behind them.
    fits: characters in a line.
    """
    placed, shades, row = [], [], 0  # one row a line of text: (row, column, text), the titles with a column of None; (row, column, width, colour)
    for title, words in lines.items():
        placed.append((row, None, title))
        row, column, plain = row + 1, 0, False
        for word, value in words:
            if column and column + len(word) > fits:
                row, column, plain = row + 1, 0, False
            if plain and value is None:  # words without a value are one text: each text costs an explorer time
                placed[-1] = (*placed[-1][:2], f"{placed[-1][2]} {word}")
            else:
                placed.append((row, column, word))
            share, plain = min(max((value or 0) / high, 0), 1), value is None
            if share > 0.02:
                shades.append((row, column, len(word), (*to_rgb(ORANGE), 0.85 * share)))
            column += len(word) + 1
        row += 1.35
    rows = row + 1.3 * len(gauges or {})
    figure = Figure(figsize=(0.0755 * fits + 0.2, 0.235 * rows + 0.1))
    axes = figure.add_axes((0.012, 0.0, 0.985, 1.0))
    axes.set_xlim(-0.6, fits + 0.6)
    axes.set_ylim(rows - 0.3, -0.75)
    axes.axis("off")
    corners = [[(x, y), (x + wide, y), (x + wide, y + 0.86), (x, y + 0.86)] for x, y, wide in ((k - 0.35, r - 0.43, n + 0.7) for r, k, n, _ in shades)]
    axes.add_collection(PolyCollection(corners, facecolors=[colour for *_, colour in shades], linewidths=0))
    for row_of, column, text in placed:
        style = dict(fontsize=9.5, fontweight="bold") if column is None else dict(fontsize=9, family="DejaVu Sans Mono")
        axes.text(-0.4 if column is None else column, row_of, text, va="center", **style)
    for number, (label, (share, mark, text, colour)) in enumerate((gauges or {}).items()):
        at, start, wide = row + 1.3 * number, 0.24 * fits, 0.42 * fits
        axes.text(start - 1, at, label, fontsize=9, ha="right", va="center")
        axes.barh(at, wide, left=start, height=0.7, color="#e8eaed")
        axes.barh(at, wide * min(max(share, 0), 1), left=start, height=0.7, color=colour)
        if mark is not None:
            axes.plot([start + wide * min(mark, 1)] * 2, [at - 0.55, at + 0.55], color="black", linestyle="--", linewidth=1.2)
        axes.text(start + wide + 1, at, text, fontsize=9, va="center", color=colour)
    return figure
