"""Tables set as figures: what stands where, and in which colour."""
from mlsec_lab.display.figures import GREEN, GREY, ORANGE, RED, png
from mlsec_lab.display.tables import _shortened, grid, program


def texts(figure):
    return [(text.get_text(), text.get_color()) for axes in figure.axes for text in axes.texts]


def test_a_grid_shows_every_verdict_in_its_colour_under_its_column():
    figure = grid({"harmful": (), "exec": ("caught", "missed"), "eval": ("caught", "?")}, ["one", "two\n1.0"], {"caught": GREEN, "missed": RED})
    shown = texts(figure)
    assert shown.count(("caught", GREEN)) == 2 and ("missed", RED) in shown and ("?", GREY) in shown and ("harmful", "black") in shown
    place = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    assert place["missed"][0] == place["two\n1.0"][0] > place["one"][0] and place["exec"][1] == place["missed"][1] < place["eval"][1]
    assert len(figure.axes[0].patches) == 4 and len(png(figure)) < 60_000


def test_a_program_keeps_its_order_its_colours_and_its_coloured_lines():
    lines = [(str(k), f"STEP{k}", "x", RED if k in (0, 30) else GREY) for k in range(40)]
    shown = _shortened(lines, 10)
    assert len(shown) <= 10 and lines[0] in shown and lines[30] in shown and [line for line in shown if line[1] != "…"] == [line for line in lines if line in shown]
    assert sum(int(argument.split()[0]) for _, word, argument, _ in shown if word == "…") + sum(word != "…" for _, word, _, _ in shown) == 40
    assert _shortened(lines[:10], 10) == lines[:10]
    figure = program(lines, title=("a title", ORANGE), beside={"pass": 0.25, "stopped": 1.0}, most=10)
    assert ("a title", ORANGE) in texts(figure) and ("STEP30", RED) in texts(figure) and ("25%", "black") in texts(figure)
    assert [round(bar.get_width(), 2) for bar in figure.axes[1].patches] == [0.25, 1.0]


def test_an_empty_program_is_a_figure_too():
    assert len(program([]).axes) == 1
