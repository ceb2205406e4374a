"""Budget explorers: sliders on a picture that is computed anew each time.

    def compute(eps, steps): ...            a plain function: numbers and arrays
    def draw(result): return figure, alt    a Figure and the sentence that says what is to be seen
    explore(compute, draw, eps=Slider("eps, in 1/255", 0, 16, 8), method=Choice("attack", ["FGSM", "PGD"]))
"""
import html
from dataclasses import dataclass

from mlsec_lab.display.figures import image_tag, png


@dataclass(frozen=True)
class Slider:
    """A number from `least` to `most`, to be dragged or typed.  label: with its unit.  help: what it does, for the tooltip."""
    label: str
    least: float
    most: float
    value: float
    step: float = 1
    help: str = ""


@dataclass(frozen=True)
class Choice:
    """One of a few values.  options: a list, or a dict from what is shown to what is meant."""
    label: str
    options: object
    value: object = None
    help: str = ""


def explore(compute, draw, **controls):
    """Show controls and the picture that belongs to them, and draw it anew whenever one of them is moved.

    compute(**values) -> result: the plain computation.  draw(result) -> (figure, alt): how it is shown.
    controls: for each argument of compute a Slider or a Choice.
    An exception in either is told in the picture's place; the controls stay alive.
    Returns the widget, with `.controls` ({name: widget}) and `.picture` (the HTML widget), for tests.
    """
    import ipywidgets as widgets
    longest = max((len(control.label) for control in controls.values()), default=0)
    made = {name: _control(widgets, control, longest + 2) for name, control in controls.items()}
    picture = widgets.HTML()
    picture.add_class("mlsec-picture")

    def refresh(_=None):
        values = {name: control.value for name, (control, _) in made.items()}
        try:
            figure, alt = draw(compute(**values))
            picture.value = (f"<figure style='margin:4px 0'>{image_tag(png(figure, most=400_000), alt)}"
                             f"<figcaption>{html.escape(alt)}</figcaption></figure>")
        except Exception as error:
            picture.value = (f"<div role='alert' style='border-left:5px solid #b35900;padding:6px 12px'>This setting could not be drawn: "
                             f"{html.escape(type(error).__name__)}: {html.escape(str(error))}. Move a control to go on.</div>")

    for control, _ in made.values():
        control.observe(refresh, "value")
    refresh()
    box = widgets.VBox([row for _, row in made.values()] + [picture])
    box.controls, box.picture = {name: control for name, (control, _) in made.items()}, picture
    return box


def _control(widgets, control, room):
    """(the widget that holds the value, the row that is shown).  A slider has a number box beside it: it can be typed, and it is
    the one that screen readers can name.  room: for the label, in digits' widths: the same for all, so that the controls stand in line."""
    wide = {"description_width": f"{room}ch"}
    if isinstance(control, Choice):
        options = list(control.options.items()) if isinstance(control.options, dict) else list(control.options)
        first = options[0][1] if isinstance(control.options, dict) else options[0]
        widget = widgets.Dropdown(options=options, value=first if control.value is None else control.value, description=control.label,
                                  tooltip=control.help or control.label, style=wide,
                                  layout={"width": f"{room + 6 + max(len(str(shown)) for shown in control.options)}ch"})
        return widget, widget
    whole = all(float(v).is_integer() for v in (control.least, control.most, control.value, control.step))
    kinds = (widgets.IntSlider, widgets.BoundedIntText) if whole else (widgets.FloatSlider, widgets.BoundedFloatText)
    shared = dict(value=control.value, min=control.least, max=control.most, step=control.step)
    slider = kinds[0](**shared, description=control.label, tooltip=control.help or control.label, continuous_update=False, readout=False,
                      style=wide, layout={"width": f"calc({room}ch + 20em)"})
    number = kinds[1](**shared, tooltip=f"{control.label}, as a number", layout={"width": "6em"})
    widgets.link((slider, "value"), (number, "value"))
    return slider, widgets.HBox([slider, number])
