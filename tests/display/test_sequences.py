"""Sequence diagrams, by what is drawn."""
import pytest
from matplotlib.colors import to_hex

from mlsec_lab.display import figures, sequence

STEPS = [("a", "b", "question", figures.GREY), ("b", "a", "answer", figures.RED), ("a", "a", "a note that is long enough to leave the picture if it could", figures.GREEN)]


def test_arrows_go_from_one_party_to_the_other_in_order_and_what_was_changed_stands_out():
    axes, = sequence(["a", "b"], STEPS).axes
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None)]
    (there, back) = [(arrow.xyann, arrow.xy) for arrow in arrows]
    assert there[0][0] < there[1][0] and back[0][0] > back[1][0] and there[0][1] < back[0][1]
    texts = {text.get_text(): text for text in axes.texts}
    assert to_hex(texts["answer"].get_color()) == figures.RED and texts["answer"].get_fontweight() == "bold" != texts["question"].get_fontweight()
    assert {"a", "b"} <= set(texts) and len(axes.lines) == 2


def test_a_note_stays_inside_the_picture():
    figure = sequence(["a", "b"], STEPS)
    figure.draw_without_rendering()
    note = next(text for text in figure.axes[0].texts if text.get_text().startswith("a note"))
    box = note.get_bbox_patch().get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_a_party_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="between a, b, not to or from 'c'"):
        sequence(["a", "b"], [("a", "c", "", figures.GREY)])
