"""Explorers without a browser: what moves, what is recomputed, what is said when it fails."""
import base64
import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from mlsec_lab.display import Choice, Slider, bars, explore


def draw(result):
    return bars({"value": result}, xlabel="value", percent=False), f"The value is {result}."


@pytest.fixture
def explorer():
    asked = []

    def compute(eps, method):
        asked.append((eps, method))
        return eps * {"FGSM": 1, "PGD": 10}[method]
    made = explore(compute, draw, eps=Slider("eps, in 1/255", 0, 16, 8, help="how far"), method=Choice("attack", ["FGSM", "PGD"]))
    made.asked = asked
    return made


def picture(explorer):
    data, = re.findall(r"src='data:image/png;base64,([^']+)'", explorer.picture.value)
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").tobytes()


def test_it_is_drawn_at_once_and_again_at_each_move(explorer):
    assert explorer.asked == [(8, "FGSM")]
    first = picture(explorer)
    explorer.controls["eps"].value = 12
    second = picture(explorer)
    explorer.controls["method"].value = "PGD"
    assert explorer.asked == [(8, "FGSM"), (12, "FGSM"), (12, "PGD")]
    assert len({first, second, picture(explorer)}) == 3
    explorer.controls["method"].value = "FGSM"
    assert picture(explorer) == second


def test_the_picture_carries_its_alternative_text_escaped():
    made = explore(lambda eps: eps, lambda eps: (Figure((1, 1)), f"<b>'{eps}'"), eps=Slider("eps", 0, 4, 1))
    assert "alt='&lt;b&gt;&#x27;1&#x27;'" in made.picture.value and "<b>" not in made.picture.value


def test_values_are_kept_within_their_limits(explorer):
    explorer.controls["eps"].value = 99
    assert explorer.controls["eps"].value == 16 and explorer.asked[-1] == (16, "FGSM")
    explorer.controls["eps"].value = -1
    assert explorer.controls["eps"].value == 0
    with pytest.raises(Exception, match="Invalid selection"):
        explorer.controls["method"].value = "C&W"


def test_the_number_box_and_the_slider_hold_one_value_and_draw_once_a_move(explorer):
    slider, box = explorer.children[0].children
    assert slider is explorer.controls["eps"]
    box.value = 3
    assert slider.value == 3 and explorer.asked[-1] == (3, "FGSM")
    slider.value = 5
    assert box.value == 5 and len(explorer.asked) == 3


@pytest.mark.parametrize("broken", ["compute", "draw"])
def test_an_exception_is_told_in_the_pictures_place_and_the_next_move_recovers(broken):
    def fails_at_2(eps):
        if eps == 2:
            raise ValueError("eps must not be <two>")
        return eps

    functions = (fails_at_2, draw) if broken == "compute" else (lambda eps: eps, lambda eps: draw(fails_at_2(eps)))
    made = explore(*functions, eps=Slider("eps", 0, 4, 1))
    made.controls["eps"].value = 2
    assert "role='alert'" in made.picture.value and "ValueError: eps must not be &lt;two&gt;" in made.picture.value
    assert "<img" not in made.picture.value
    made.controls["eps"].value = 3
    assert "The value is 3." in made.picture.value and "alert" not in made.picture.value


def test_an_explorer_that_fails_at_its_first_setting_still_has_its_controls():
    made = explore(lambda eps: 1 / eps, draw, eps=Slider("eps", 0, 4, 0))
    assert "ZeroDivisionError" in made.picture.value
    made.controls["eps"].value = 4
    assert "The value is 0.25." in made.picture.value


def test_every_control_is_described_and_reachable_by_the_keyboard(explorer):
    slider, box = explorer.children[0].children
    menu = explorer.children[1]
    assert slider.description == "eps, in 1/255" and slider.tooltip == "how far" and box.tooltip == "eps, in 1/255, as a number"
    assert menu.description == "attack" and menu.tooltip == "attack"
    assert slider.continuous_update is False and all(not widget.disabled and widget.tabbable is not False for widget in (slider, box, menu))


def test_all_labels_have_the_room_that_the_longest_needs():
    longest, option = "attacker: " + 20 * "W", "an option with a long name"
    made = explore(lambda **values: 0, draw, a=Slider("eps", 0, 4, 1), b=Slider(longest, 0, 4, 1), c=Choice("attack", [option, "x"]))
    assert {control.style.description_width for control in made.controls.values()} == {f"{len(longest) + 2}ch"}
    assert all(f"{len(longest) + 2}ch + " in made.controls[name].layout.width for name in "ab")  # the slider's own room comes on top
    menu = int(made.controls["c"].layout.width.removesuffix("ch"))
    assert menu >= len(longest) + 2 + len(option)  # label and options stand beside each other


def test_whole_numbers_stay_whole_and_fractions_stay_fractions():
    seen = []
    made = explore(lambda steps, rate: seen.append((steps, rate)) or 0, draw, steps=Slider("steps", 1, 40, 10), rate=Slider("rate", 0, 1, 0.25, step=0.05))
    made.controls["rate"].value = 0.5
    assert seen == [(10, 0.25), (10, 0.5)] and isinstance(seen[0][0], int) and isinstance(seen[1][1], float)


def test_a_choice_may_show_one_thing_and_mean_another():
    seen = []
    made = explore(lambda model: seen.append(model) or 0, draw, model=Choice("model", {"the plain one": 1, "the robust one": 2}, value=2))
    made.controls["model"].value = 1
    assert seen == [2, 1] and made.controls["model"].label == "the plain one"


def test_big_pictures_are_kept_small_enough_for_the_wire():
    import numpy as np

    def noise(result):
        figure = Figure((12, 9))
        figure.add_subplot().imshow(np.random.default_rng(0).random((600, 800, 3)))
        return figure, "noise"
    made = explore(lambda eps: eps, noise, eps=Slider("eps", 0, 1, 0))
    assert 10_000 < len(made.picture.value) < 400_000 * 4 / 3 + 1000
