"""mlsec_lab.display.words: words in colour, lists, what comes next."""
import pytest
from matplotlib.colors import to_hex, to_rgb

from mlsec_lab.display import figures, listed, next_words, shaded_words

ODDS = [{"8": 0.7, "4": 0.1, "3": 0.05, "2": 0.03, "9": 0.02, "5": 0.01}, {"1": 0.6, "4": 0.3, "7": 0.001, "2": 0.03, "9": 0.02, "5": 0.01}]


def test_next_words_shows_the_likeliest_words_of_each_place_and_always_the_true_one():
    axes, = next_words("the code is", ODDS, ["8", "7"]).axes
    shares = [round(bar.get_width() / 0.5, 3) for bar in axes.patches]
    assert shares == [0.7, 0.1, 0.05, 0.03, 0.02, 0.6, 0.3, 0.03, 0.02, 0.001]
    assert [to_hex(bar.get_facecolor()) == figures.ORANGE for bar in axes.patches] == [True] + 8 * [False] + [True]
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "the code is …" and texts.count("8 ✓") == texts.count("7 ✓") == 1 and {"says 8", "after 8: 1", "70%", "60%"} <= set(texts)


def test_next_words_beside_curves_sets_one_of_them_in_bold_and_marks_the_point():
    left, right = next_words("the code is", ODDS, ["8", "7"], lines={"first": ([0, 1], [2, 9]), "second": ([0, 1], [1, 9])}, point=(1, 9, "rank 1"), xlabel="times").axes
    assert [list(line.get_ydata()) for line in left.lines][:2] == [[2, 9], [1, 9]] and left.lines[1].get_linewidth() > 2 * left.lines[0].get_linewidth()
    assert left.lines[2].get_xdata() == [1] and {"first", "second", "rank 1"} == {text.get_text() for text in left.texts}
    first, second = (next(text for text in left.texts if text.get_text() == name) for name in ("first", "second"))
    assert abs(first.xy[1] - second.xy[1]) > 0.3 and left.get_xlabel() == "times" and right.texts


def test_lists_are_numbered_and_what_is_marked_has_a_dot_and_a_colour():
    figure = listed({"a": [("x " * 60, False), ("short", True)], "b": [("other", False)]}, fits=20)
    texts = {text.get_text(): text for text in figure.texts}
    assert {"a", "b", " 2 ● short", " 1   other"} <= set(texts) and any(text.endswith("…") and len(text) < 27 for text in texts)
    assert texts[" 2 ● short"].get_color() == figures.ORANGE != texts[" 1   other"].get_color()
    assert texts["b"].get_position()[0] > texts["a"].get_position()[0] + 0.4


def test_words_are_shaded_by_their_values_and_lines_break_between_words():
    words = [(f"word{i}", float(i)) for i in range(30)] + [("plain", None)]
    figure = shaded_words({"asked": words, "answer": [("yes", None), ("indeed", None)]}, high=29, gauges={"surprise": (0.5, 0.4, "stopped", "#a6002c")}, fits=60)
    axes, = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "asked" and texts[1:32] == [word for word, _ in words] and texts[32:] == ["answer", "yes indeed", "surprise", "stopped"]
    shaded, = axes.collections
    assert [tuple(colour[:3]) == pytest.approx(to_rgb(figures.ORANGE)) for colour in shaded.get_facecolors()] == [True] * 29
    for path, word in zip(shaded.get_paths(), axes.texts[2:31]):  # each lies behind its word
        (left, up), (right, down) = path.vertices.min(0), path.vertices.max(0)
        assert left < word.get_position()[0] < right < word.get_position()[0] + len(word.get_text()) + 0.5 and up < word.get_position()[1] < down
    shades = list(shaded.get_facecolors()[:, 3])
    assert len(shades) == 29 and shades == sorted(shades) and shades[-1] == pytest.approx(0.85)  # the value 0 and None are not shaded
    assert max(text.get_position()[0] + len(text.get_text()) for text in axes.texts[1:32]) <= 60
    assert len({text.get_position()[1] for text in axes.texts[1:32]}) > 2
