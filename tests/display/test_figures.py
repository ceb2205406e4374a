"""Figures, by the data they plot."""
import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from mlsec_lab.display import bars, compare, curves, figures, pictures, plane, readings, show

NOISE = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def only_axes(figure):
    axes, = figure.axes
    return axes


def pixels(picture):
    return picture.permute(1, 2, 0).expand(-1, -1, 3).numpy()


def test_curves_plot_the_values_and_label_each_line_at_its_end():
    axes = only_axes(curves([0, 4, 8], {"plain": [1, 0.4, 0.1], "robust": [0.9, 0.8, 0.7]}, xlabel="eps", ylabel="accuracy", marks={"budget": 8}))
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[1, 0.4, 0.1], [0.9, 0.8, 0.7]]
    assert all(line.get_xdata().tolist() == [0, 4, 8] for line in axes.lines[:2]) and axes.lines[2].get_xdata() == [8, 8]
    labels = {text.get_text(): text for text in axes.texts}
    assert set(labels) == {"plain", "robust", "budget"} and labels["plain"].xy == (8, 0.1)
    assert [labels[name].get_color() for name in ("plain", "robust")] == [line.get_color() for line in axes.lines[:2]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("eps", "accuracy") and axes.get_ylim() == (-0.03, 1.03)


def test_labels_of_lines_that_end_together_do_not_lie_on_each_other():
    axes = only_axes(curves([0, 1], {name: [0, 0.5 + 0.001 * k] for k, name in enumerate("abcd")}, xlabel="x", ylabel="y"))
    heights = sorted(text.xy[1] for text in axes.texts)
    assert np.diff(heights).min() > 0.07 and heights[0] == pytest.approx(0.5)


def test_curves_of_other_numbers_keep_their_own_scale():
    axes = only_axes(curves([0, 1], {"queries": [10, 5000]}, xlabel="x", ylabel="queries", percent=False))
    assert axes.get_ylim()[1] >= 5000 and "%" not in axes.yaxis.get_major_formatter()(5000)


@pytest.mark.parametrize("x", [[0.1, 1], [20, 80]])
def test_curves_with_a_span_keep_one_logarithmic_axis_whatever_is_drawn(x):
    axes = only_axes(curves(x, {"label": [0.1, 0.4]}, xlabel="hours", ylabel="agreement", span=(0.05, 100)))
    assert axes.get_xscale() == "log" and axes.get_xlim() == (0.05, 100)
    assert axes.xaxis.get_major_formatter()(10) == "10" and axes.texts[0].xy == (x[-1], 0.4)


def test_bars_are_as_long_as_their_values_and_say_them():
    axes = only_axes(bars({"FGSM": 0.25, "PGD": 0.9}, xlabel="misread"))
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.9]
    assert [text.get_text() for text in axes.texts] == ["25%", "90%"] and axes.yaxis_inverted()
    assert [text.get_text() for text in only_axes(bars({"a": 1234.5}, xlabel="queries", percent=False)).texts] == ["1234.5"]


@pytest.mark.parametrize("values, said", [([2.1, 2, 1.9], ["2.1", "2.0", "1.9"]), ([3, 12], ["3", "12"]), ([0.25, 0.5, 0], ["0.25", "0.50", "0.00"]),
                                          ([-1.5, 2], ["-1.5", "2.0"]), ([2e7, 1], ["2e+07", "1"])])
def test_the_numbers_of_one_chart_have_the_same_number_of_decimals(values, said):
    axes = only_axes(bars({f"bar {k}": value for k, value in enumerate(values)}, xlabel="value", percent=False))
    assert [text.get_text() for text in axes.texts] == said


@pytest.mark.parametrize("percent, values", [(True, [1, 0.2, 0]), (False, [1234.5, 20, 0])])
@pytest.mark.parametrize("label", ["a", "priority road (24% in the smaller)", "WWWWWWWWWWWWWWWWWWWW"])
def test_every_label_and_number_of_bars_lies_inside_the_figure(percent, values, label):
    figure = bars({f"{label} {k}": value for k, value in enumerate(values)}, xlabel="how far out the top ones lie", percent=percent)
    figures.png(figure)
    axes, whole = only_axes(figure), figure.bbox
    texts = [*axes.texts, *axes.get_yticklabels(), axes.xaxis.label]
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{label} {k}" for k in range(3)]
    for box in (text.get_window_extent() for text in texts):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1


def test_pictures_stand_in_rows_in_their_order_with_their_titles():
    x = NOISE[:5]
    axes = only_axes(pictures(x, list("abcde"), columns=3))
    sheet = axes.images[0].get_array()
    assert [text.get_text() for text in axes.texts] == list("abcde")
    rows = sorted({round(text.get_position()[1]) for text in axes.texts})
    assert len(rows) == 2
    for number, text in enumerate(axes.texts):
        left = round(text.get_position()[0] - 16)
        top = round(text.get_position()[1] + 0.06 * 32)
        np.testing.assert_allclose(sheet[top:top + 32, left:left + 32], pixels(x[number]))


def test_grey_pictures_are_shown_grey_and_titles_may_be_left_out():
    axes = only_axes(pictures(torch.full((2, 1, 8, 8), 0.25)))
    sheet = np.asarray(axes.images[0].get_array())
    assert not axes.texts and (sheet[..., 0] == sheet[..., 1]).all() and (sheet[..., 1] == sheet[..., 2]).all()
    assert np.isclose(sheet, 0.25).sum() == 2 * 8 * 8 * 3 and np.isclose(sheet, 1).sum() == sheet.size - 2 * 8 * 8 * 3


def test_compare_shows_the_change_in_grey_and_magnified_and_colours_what_changed():
    x = torch.full((2, 3, 16, 16), 0.5)
    x_adv = x.clone()
    x_adv[1, :, 4, 4] += 0.1
    axes = only_axes(compare(x, x_adv, ["stop", "yield"], ["stop", "eighty"], eps=0.1))
    sheet = np.asarray(axes.images[0].get_array())
    assert np.isclose(sheet, 0.5).sum() == 3 * (6 * 256 - 2) and np.isclose(sheet, 0.6).sum() == 3
    assert [text.get_text() for text in axes.texts][:4] == ["stop", "yield", "stop", "eighty"]
    assert [to_hex(text.get_color()) for text in axes.texts[2:4]] == [figures.GREEN, figures.RED]
    assert "change × 5" in [text.get_text() for text in axes.texts]
    compare(x, x, ["stop"] * 2, ["stop"] * 2)  # no change at all: nothing is divided by zero


def test_readings_show_the_likeliest_classes_first():
    probabilities = torch.tensor([[0.1, 0.6, 0.3, 0.0], [0.25, 0.2, 0.15, 0.4]])
    figure = readings(NOISE[:2], probabilities, ["a", "b", "c", "d"], ["before", "after"], most=3)
    first, chart, second, other = figure.axes
    assert (first.get_title(), second.get_title()) == ("before", "after")
    np.testing.assert_allclose(first.images[0].get_array(), pixels(NOISE[0]))
    assert [bar.get_width() for bar in chart.patches] == pytest.approx([0.6, 0.3, 0.1])
    assert [tick.get_text() for tick in other.get_yticklabels()] == ["d", "a", "b"]
    assert [to_hex(bar.get_facecolor()) for bar in chart.patches] == [figures.ORANGE, figures.GREY, figures.GREY]


def test_attacked_tensors_that_carry_a_graph_can_be_shown():
    x = NOISE[:2].clone().requires_grad_()
    assert only_axes(pictures(x)).images[0].get_array().max() <= 1


@pytest.mark.parametrize("make", [lambda: pictures(NOISE, [f"number {k}" for k in range(24)]), lambda: compare(NOISE[:8], NOISE[8:16], ["a"] * 8, ["b"] * 8),
                                  lambda: readings(NOISE[:3], torch.rand(3, 12), [f"class {k}" for k in range(12)], ["a", "b", "c"])], ids=["pictures", "compare", "readings"])
def test_even_noise_stays_within_sixty_kilobytes_and_can_be_read(make):
    content = figures.png(make())
    image = Image.open(io.BytesIO(content))
    assert len(content) <= 60_000 and image.format == "PNG" and image.width >= 200


def test_a_plain_figure_is_saved_at_full_size():
    figure = curves([0, 1], {"a": [0, 1]}, xlabel="x", ylabel="y")
    image = Image.open(io.BytesIO(figures.png(figure)))
    assert image.size == (round(6.4 * 96), round(3.4 * 96))


@pytest.mark.parametrize("alt", [None, "", "  ", 3])
def test_a_figure_without_alternative_text_is_refused(alt):
    with pytest.raises(ValueError, match="alt must be a sentence"):
        show(bars({"a": 1}, xlabel="x"), alt)


def test_outside_a_notebook_the_alternative_text_is_printed(capsys):
    show(bars({"a": 1}, xlabel="x"), "One bar of length one.")
    assert capsys.readouterr().out == "One bar of length one.\n"


def test_in_a_notebook_the_picture_carries_its_alternative_text(monkeypatch):
    import IPython
    import IPython.display
    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    show(bars({"a": 1}, xlabel="x"), "One bar, <1> 'unit' long.")
    data, = shown
    assert data["text/plain"] == "One bar, <1> 'unit' long."
    assert "alt='One bar, &lt;1&gt; &#x27;unit&#x27; long.'" in data["text/html"]
    encoded, = re.findall("src='data:image/png;base64,([^']+)'", data["text/html"])
    assert base64.b64decode(encoded).startswith(b"\x89PNG")


def test_the_palette_has_six_colours_that_stand_out_from_white():
    def luminance(colour):
        channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for weight, c in zip((0.2126, 0.7152, 0.0722), channels))
    assert len(set(figures.PALETTE)) == 6
    assert all(1.05 / (luminance(colour) + 0.05) >= 3 for colour in figures.PALETTE)  # WCAG's ratio for graphics


def test_the_png_in_an_image_tag_can_be_taken_out_again_whatever_the_text_says():
    data = figures.png(figures.bars({"a": 0.5}, xlabel="share"))
    tag = figures.image_tag(data, "it's \"half\" > a <third> & more")
    assert base64.b64decode(figures.tagged_png(tag)) == data
    assert figures.tagged_png(f"<p>{tag}</p>") is None and figures.tagged_png("") is None


# ---- plane

def test_a_plane_draws_a_point_or_a_path_for_each_name_and_says_the_name_at_its_end():
    figure = plane({"one": (0.2, 0.3), "walks": [(0.1, 0.1), (0.5, 0.6), (0.9, 1.0)]}, xlabel="across", ylabel="up", marks={"here": (0.4, 0.2)})
    axes, = figure.axes
    assert sorted(line.get_xydata().tolist() for line in axes.lines) == [[[0.1, 0.1], [0.5, 0.6], [0.9, 1.0]], [[0.2, 0.3]], [[0.4, 0.2]]]
    assert {text.get_text(): text.xy for text in axes.texts} == {"one": (0.2, 0.3), "walks": (0.9, 1.0), "here": (0.4, 0.2)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("across", "up")


def test_in_a_plane_the_chosen_paths_stand_out_and_names_do_not_lie_on_each_other():
    points = {f"name {n}": (0.5, 0.5) for n in range(4)}
    axes, = plane(points, xlabel="", ylabel="", paths=["name 2"]).axes
    assert len({line.get_color() for line in axes.lines}) == 2 and axes.lines[2].get_color() != axes.lines[0].get_color()
    axes.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # an annotation's own has its line in it
    places = sorted((box.y0, box.y1, text.arrow_patch is not None) for box, text in zip(boxes, axes.texts))
    assert all(lower[1] <= upper[0] + 2 for lower, upper in zip(places, places[1:]))
    assert [led for _, _, led in places].count(False) == 1, "a name that had to move far is led back to its point by a line"


def test_the_names_of_a_plane_stay_off_its_axis_even_where_there_are_more_than_it_has_room_for():
    axes, = plane({f"name {n}": (0.4, 0.01 * n) for n in range(9)}, xlabel="across", ylabel="", shares="y").axes
    axes.figure.draw_without_rendering()
    assert all(Text.get_window_extent(text).y0 > axes.bbox.y0 - 4 for text in axes.texts)
    assert [label.get_text() for label in axes.get_xticklabels()][1] == "0.0" and "%" in axes.get_yticklabels()[1].get_text()
    assert len(plane({f"name {n}": (0.4, 0.0) for n in range(60)}, xlabel="", ylabel="").axes[0].texts) == 60
