"""The course's figures: one palette that colour-blind readers can tell apart, direct labels, alternative text.

Every function returns a matplotlib Figure that belongs to no window; `show(figure, "what is to be seen")` puts it on the page.
"""
import base64
import functools
import html
import io
import itertools
import re

import numpy as np
from matplotlib.figure import Figure

# Okabe & Ito's colours (2008), dark enough for lines on white.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072b2", "#d55e00", "#00795a", "#a6002c", "#8c4a7c", "#5f6770"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
BYTES = 60_000


def show(figure, alt):
    """Put `figure` on the page, with `alt` as its alternative text.  In a terminal, print the text.

    figure: a matplotlib Figure.  alt: one or two sentences that say what is to be seen, for those who cannot look.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt must be a sentence that says what is to be seen")
    import sys
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    if shell is None:
        print(alt)
        return
    # As HTML, because JupyterLab gives an image/png output no alternative text.
    from IPython.display import display
    display({"text/html": image_tag(png(figure), alt), "text/plain": alt}, raw=True)


def image_tag(data, alt):
    """An <img> element that holds the PNG bytes `data` and says `alt` to those who cannot look."""
    return f"<img alt='{html.escape(alt, quote=True)}' style='max-width:100%' src='data:image/png;base64,{base64.b64encode(data).decode()}'>"


def tagged_png(markup):
    """The PNG of an <img> element that `image_tag` made, in base64; None for any other markup."""
    found = re.fullmatch(r"<img alt='[^']*' style='max-width:100%' src='data:image/png;base64,([^']*)'>", markup)
    return found and found[1]


def png(figure, *, dpi=96, most=BYTES):
    """The figure as PNG bytes, at a lower resolution or in fewer colours if it would be larger than `most` bytes."""
    from PIL import Image
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, facecolor="white")
    if file.tell() <= most:
        return file.getvalue()
    image = Image.open(file).convert("RGB")
    while True:
        file = io.BytesIO()
        image.quantize(200, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        if file.tell() <= most or image.width < 200:
            return file.getvalue()
        image = image.resize((int(image.width * 0.85), int(image.height * 0.85)))


def pictures(x, titles=None, *, columns=6, size=1.35, colours=None):
    """A grid of pictures.

    x: [N, C, H, W] in [0, 1], C 1 or 3.  titles: N short texts.  colours: N colours for the titles.
    """
    columns = min(columns, len(x))
    rows = [list(range(start, min(start + columns, len(x)))) for start in range(0, len(x), columns)]
    return _sheet([[(x[k], titles[k] if titles else "", colours[k] if colours else "black") for k in row] for row in rows], size)


def compare(x, x_adv, before, after, *, eps=None, size=1.3):
    """Three rows: the pictures, what was changed (grey is no change, magnified to be seen), and the attacked pictures.

    x, x_adv: [N, C, H, W] in [0, 1].  before, after: N texts, what the model reads.  eps: the budget that the
    magnification goes by; the largest change by default.
    """
    delta = x_adv - x
    scale = max(float(eps or delta.abs().max()), 1e-9)
    changed = [RED if a != b else GREEN for a, b in zip(after, before)]
    return _sheet([[(image, text, GREEN) for image, text in zip(x, before)],
                   [((d / scale / 2 + 0.5).clamp(0, 1), "", "black") for d in delta],
                   [(image, text, colour) for image, text, colour in zip(x_adv, after, changed)]],
                  size, sides=("as it was", f"change × {0.5 / scale:.0f}", "attacked"))


def _sheet(rows, size, sides=()):
    """Rows of (picture, title, colour) as one image on one pair of axes: many times faster than an axes for each picture."""
    cells = [[_pixels(image) for image, _, _ in row] for row in rows]
    height, width, _ = cells[0][0].shape
    above = round(0.26 * width) if any(title for row in rows for _, title, _ in row) else 1
    gap = max(1, width // 12)
    sheet = np.ones((len(rows) * (height + above) + 1, max(map(len, rows)) * (width + gap), 3), np.float32)
    inches = size / width
    figure = Figure(figsize=(sheet.shape[1] * inches + (0.25 if sides else 0), sheet.shape[0] * inches))
    left = 0.25 / figure.get_figwidth() if sides else 0
    axes = figure.add_axes((left, 0, 1 - left, 1))
    for r, row in enumerate(rows):
        for c, (_, title, colour) in enumerate(row):
            top, start = r * (height + above) + above, c * (width + gap)
            sheet[top:top + height, start:start + width] = cells[r][c]
            if title:
                fits = size * 72 * 1.06 / (0.56 * max(len(title), 1))  # points that let the title end with its picture
                axes.text(start + width / 2, top - 0.06 * width, title, color=colour, fontsize=min(8.5, fits), ha="center", va="bottom")
    for r, side in enumerate(sides):
        axes.text(-0.04 * width, r * (height + above) + above + height / 2, side, rotation=90, ha="right", va="center", fontsize=8.5)
    axes.imshow(sheet, interpolation="nearest", aspect="equal")
    axes.axis("off")
    return figure


def _pixels(image):
    """One picture [C, H, W] as [H, W, 3], large enough that its pixels stay sharp on the page."""
    image = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image).transpose(1, 2, 0)
    return np.clip(np.broadcast_to(image, (*image.shape[:2], 3)), 0, 1)


def readings(images, probabilities, classes, titles, *, most=5):
    """Each picture above what the model makes of it: its likeliest classes as bars, the first one in colour.

    images: [N, C, H, W] in [0, 1].  probabilities: [N, K].  classes: K names.  titles: N texts.
    """
    share = 1 / len(images)
    figure = Figure(figsize=(3.1 * len(images), 4.1))
    for column, (image, row) in enumerate(zip(images, np.asarray(probabilities))):
        # Places by hand: automatic layout takes longer than the attack whose result is shown.
        axes = figure.add_axes(((column + 0.36) * share, 0.42, 0.6 * share, 0.52))
        axes.imshow(_pixels(image), interpolation="nearest")
        axes.set_title(titles[column], fontsize=8.5, pad=3)
        axes.axis("off")
        axes = figure.add_axes(((column + 0.36) * share, 0.01, 0.6 * share, 0.36))
        order = row.argsort()[::-1][:most]
        axes.barh([classes[k] for k in order], row[order], color=[ORANGE] + [GREY] * (most - 1), height=0.62)
        for place, k in enumerate(order):
            axes.annotate(f"{row[k]:.0%}", (row[k], place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.25)
        axes.set_xticks([])
        axes.tick_params(labelsize=8.5, length=0)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def curves(x, lines, *, xlabel, ylabel, percent=True, marks=None, span=None, size=(6.4, 3.4)):
    """Lines over a budget, each labelled at its end.

    x: the budgets.  lines: {label: values}.  marks: {label: x} draws a dashed upright line.  percent: values are shares.
    span: None, or (from, to) for a logarithmic axis that begins and ends there whatever x is, as an explorer wants it.
    """
    figure = Figure(figsize=size, layout=None if span else "constrained")
    # Places by hand where an explorer draws: automatic layout draws everything twice.
    axes = figure.add_axes((0.11, 0.16, 0.67, 0.8)) if span else figure.add_subplot()
    if span:
        axes.set_xscale("log")
        axes.set_xlim(*span)
        axes.xaxis.set_major_formatter("{x:g}")
    ends = []
    for (label, values), colour in zip(lines.items(), PALETTE):
        axes.plot(x, values, color=colour, marker="o", markersize=3.5, linewidth=1.8, label=label)
        ends.append((float(values[-1]), label, colour))
    low, high = axes.get_ylim()
    axes.set_ylim((-0.03, 1.03) if percent else (low, high))
    low, high = axes.get_ylim()
    gap, last = 0.075 * (high - low), -np.inf
    for end, label, colour in sorted(ends):  # labels that would lie on each other are moved apart
        last = max(end, last + gap)
        axes.annotate(label, (x[-1], last), xytext=(7, 0), textcoords="offset points", color=colour, va="center", fontsize=9, annotation_clip=False)
    for label, place in (marks or {}).items():
        axes.axvline(place, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(label, (place, low), xytext=(3, 4), textcoords="offset points", color=GREY, fontsize=8)
    plain_axes(axes, xlabel, ylabel, "y" if percent else "")
    return figure


def plane(points, *, xlabel, ylabel, paths=(), marks=None, shares="xy", size=(6.4, 4.4)):
    """Points from 0 to 1 both ways, each with its name.

    points: {label: (x, y)}, or {label: [(x, y), …]} for the stations of a path, whose last one carries the label.
    paths: the labels that stand out; the others are grey where there are any.  marks: {label: (x, y)}, drawn as stars.
    shares: the axes that are marked in percent, "xy", "x" or "y".
    """
    figure = Figure(figsize=size)
    axes = figure.add_axes((0.11, 0.12, 0.7, 0.84))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.05)
    colours, taken, marks = dict(zip(paths or points, itertools.cycle(PALETTE))), [], marks or {}
    everything = {label: [stations] if np.ndim(stations) == 1 else stations for label, stations in (points | marks).items()}
    for label, stations in sorted(everything.items(), key=lambda item: (item[0] not in marks, -item[1][-1][1])):  # stars first, then from the top
        starred, bold = label in marks, label in colours
        colour = ORANGE if starred else colours.get(label, GREY)
        (across, up), (x, y) = zip(*stations), stations[-1]
        axes.plot(across, up, color=colour, linewidth=1.8 if bold else 0.5, marker="*" if starred else "o",
                  markersize=14 if starred else 5 if bold else 3, zorder=3 if bold or starred else 2)
        end = x + 0.05 + 0.017 * len(label)
        near = [place for left, right, place in taken if left < end and x < right]  # names that would lie on each other move apart
        place = next((place for step in range(24) for place in (y - 0.045 * step, y + 0.045 * step)
                      if -0.02 < place < 1.05 and all(abs(place - other) > 0.044 for other in near)), y)
        taken.append((x, end, place))
        moved = abs(place - y) > 0.03  # too far for the eye: a thin line leads to the point
        axes.annotate(label, (x, y), xytext=(axes.transData.transform((x, place)) - axes.transData.transform((x, y))) / figure.dpi * 72 + (16 if moved else 8, 0),
                      textcoords="offset points", color=colour, va="center", fontsize=8.5, annotation_clip=False, bbox=dict(facecolor="white", linewidth=0, alpha=0.7, pad=0.2),
                      arrowprops=dict(arrowstyle="-", linestyle=":", color=colour, linewidth=0.7, shrinkA=0, shrinkB=2) if moved else None)
    plain_axes(axes, xlabel, ylabel, shares)
    return figure


def bars(values, *, xlabel, percent=True, size=None, colours=None):
    """Horizontal bars, each with its number.  values: {label: value}.  colours: one a bar."""
    heights = list(values.values())
    numbers = [f"{value:.0%}" for value in heights] if percent else _alike(heights)
    figure = Figure(figsize=size or (6.4, 0.42 * len(values) + 0.8))
    width, height = figure.get_size_inches() * 72
    # Places by hand, in points: automatic layout draws everything twice, and explorers draw bars at each move.
    left, right, below, above = widest(values, 8.5) + 12, 8 if percent else widest(numbers, 9) + 10, 36, 8
    axes = figure.add_axes((left / width, below / height, 1 - (left + right) / width, 1 - (below + above) / height))
    places = range(len(heights))
    axes.barh(places, heights, color=colours or BLUE, height=0.62)
    axes.set_yticks(places, list(values))
    for place, value, number in zip(places, heights, numbers):
        axes.annotate(number, (value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9, annotation_clip=False)
    axes.invert_yaxis()
    if percent:
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    plain_axes(axes, xlabel, "", "x" if percent else "")
    return figure


def _alike(values):
    """Numbers as text, all with as many decimals as the one that needs most: 2.0 beside 2.1."""
    short = [f"{value:g}" for value in values]
    if any("e" in text for text in short):
        return short
    decimals = max((len(text.partition(".")[2]) for text in short), default=0)
    return [f"{value:.{decimals}f}" for value in values]


def widest(texts, fontsize):
    """The width of the longest of `texts`, in points."""
    return max((text_width(text, fontsize) for text in texts), default=0)


@functools.lru_cache(maxsize=256)  # explorers draw the same labels again and again
def text_width(text, fontsize):
    """The width of `text`, in points."""
    from matplotlib.textpath import TextPath
    return TextPath((0, 0), text, size=fontsize).get_extents().width if text.strip() else 0


def plain_axes(axes, xlabel, ylabel, share):
    """Axis labels, no box, and percent signs on the axis that holds shares."""
    from matplotlib.ticker import PercentFormatter
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    for side in share:
        getattr(axes, f"{side}axis").set_major_formatter(PercentFormatter(1, decimals=0))
