"""The map that the course hangs on: Data and Model, the four directions between them, and the lessons on each arrow.

An SVG whose lesson names are links. The rows come from the caller, so that the map knows nothing of the course.
In a notebook the links are HTML, laid over the picture: JupyterLab opens those in a tab, and fails on links inside an SVG.
"""
import html

COLOURS = {"D→M": "#0072b2", "M→D": "#8c4a7c", "M→M": "#a04a00", "D→D": "#00725a", "loop": "#3c444c"}
NAMES = {"D→M": "Data → Model", "M→D": "Model → Data", "M→M": "Model → Model", "D→D": "Data → Data", "loop": "The whole loop"}
# Where each direction's arrow runs (an SVG path) and where its list of lessons stands (x, y).
ARROWS = {"D→M": ("M 318 208 C 400 168, 540 168, 622 208", (372, 24)), "M→D": ("M 622 262 C 540 302, 400 302, 318 262", (372, 318)),
          "D→D": ("M 196 208 C 150 140, 280 130, 250 206", (24, 24)), "M→M": ("M 764 208 C 810 140, 680 130, 710 206", (744, 24)),
          "loop": ("", (24, 318))}


class LoopMap:
    """The map as a picture: HTML in a notebook, `.svg` for a file, text in a terminal."""

    def __init__(self, lessons, lit=None):
        self.lessons, self.lit = list(lessons), lit

    @property
    def svg(self):
        """The picture for a file or a web page, its links inside."""
        return self._svg(links=True)

    def _svg(self, links):
        shown = {direction: [row for row in self.lessons if row["direction"] == direction] for direction in ARROWS}
        parts = [f"<path d='{path}' fill='none' stroke='{self._colour(d)}' stroke-width='{7 if d == self.lit else 4}' marker-end='url(#head-{i})'/>"
                 for i, (d, (path, _)) in enumerate(ARROWS.items()) if path]
        heads = "".join(f"<marker id='head-{i}' viewBox='0 0 10 10' refX='6' refY='5' markerWidth='{3.2 if d == self.lit else 4.2}' markerHeight='{3.2 if d == self.lit else 4.2}' "
                        f"orient='auto'><path d='M0 0 L10 5 L0 10 z' fill='{self._colour(d)}'/></marker>" for i, d in enumerate(ARROWS))
        boxes = "".join(f"<rect x='{x}' y='206' width='180' height='58' rx='10' fill='#fff' stroke='#22272b' stroke-width='2.5'/>"
                        f"<text x='{x + 90}' y='242' text-anchor='middle' font-size='22' font-weight='bold' fill='#22272b'>{name}</text>"
                        for x, name in ((138, "Data"), (622, "Model")))
        lists = "".join(self._list(direction, rows, links) for direction, rows in shown.items())
        return (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 960 410' role='img' aria-label='{html.escape(str(self), quote=True)}' "
                f"style='display:block;max-width:960px;width:100%;background:#fff;font-family:Helvetica,Arial,sans-serif'><defs>{heads}</defs>"
                + "".join(parts) + boxes + lists + "</svg>")

    def _list(self, direction, rows, links):
        colour, (x, y) = self._colour(direction), ARROWS[direction][1]
        text = [f"<text x='{x}' y='{y}' font-size='15' font-weight='bold' fill='{colour}'>{NAMES[direction]}</text>"]
        for line, row in enumerate(rows, 1):
            here = f"<text x='{x}' y='{y + 19 * line}' font-size='13.5' fill='{colour if row['ready'] else '#6b7178'}'"
            if not row["ready"]:
                text.append(f"{here} font-style='italic'>{_label(row)} (planned)</text>")
            elif links:
                text.append(f"<a href='{_file(row)}'>{here} text-decoration='underline'>{_label(row)}</text></a>")
            else:
                text.append(f"{here} text-decoration='underline'>{_label(row)}</text>")
        return "".join(text)

    def _links(self):
        """The ready lessons as HTML links, each over its name in the picture and scaled with it."""
        links = []
        for direction, (_, (x, y)) in ARROWS.items():
            for line, row in enumerate((row for row in self.lessons if row["direction"] == direction), 1):
                if row["ready"]:
                    width = min(7.5 * len(_label(row)) + 6, 960 - x)
                    place = f"left:{(x - 3) / 9.6:.2f}%;top:{(y + 19 * line - 14) / 4.1:.2f}%;width:{width / 9.6:.2f}%;height:{19 / 4.1:.2f}%"
                    links.append(f"<a href='{_file(row)}' style='position:absolute;{place};overflow:hidden;white-space:nowrap;color:transparent'>"
                                 f"{_label(row)}</a>")
        return "".join(links)

    def _colour(self, direction):
        return COLOURS[direction] if self.lit in (None, direction, "loop") else "#a9b0b7"

    def _repr_html_(self):
        return f"<div style='position:relative;max-width:960px'>{self._svg(links=False)}{self._links()}</div>"

    def __str__(self):
        """The map in words: what a terminal and a screen reader get."""
        return "; ".join(f"{NAMES[d]}: " + ", ".join(f"{row['number']} {row['title']}" for row in self.lessons if row["direction"] == d) for d in ARROWS)

    __repr__ = __str__


def _label(row):
    return f"{row['number']} {html.escape(row['title'])}"


def _file(row):
    return f"{row['number']}_{row['topic']}.ipynb"


def loop_map(lessons, lit=None):
    """The map of the course.

    lessons: rows with number ("01"), topic ("evasion"), title, direction (a key of NAMES) and ready (bool).
    lit: the direction to light up; the others go grey.  ValueError for a direction that does not exist.
    """
    if lit is not None and lit not in NAMES:
        raise ValueError(f"lit must be one of {', '.join(NAMES)}, not {lit!r}")
    return LoopMap(lessons, lit)
