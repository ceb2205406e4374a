"""Every claim of every lesson, on data that the lesson was not written on; and every explorer, without a kernel."""
import functools
import os
import time

import pytest
from lesson_runner import run_lesson

from mlsec_lab.course.build import solved_notebook
from mlsec_lab.course.catalogue import ready_lessons
from mlsec_lab.display import figures

LESSONS = [lesson.topic for lesson in ready_lessons()]
SEEDS = int(os.environ.get("MLSEC_SEEDS", 2))  # data seeds that each lesson's claims are tried on; its author tries five or more


run_once = functools.cache(run_lesson)  # seed 0 is the lesson as it stands: its explorer is tested on the same run


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.by_itself) for seed in range(1, SEEDS))])
@pytest.mark.parametrize("topic", LESSONS)
def test_every_claim_holds_on_the_lessons_data_and_on_fresh_data(topic, seed):
    ran = run_once(topic, seed=seed)
    assert len(ran.claims) >= 6
    assert [statement for statement, holds in ran.claims.items() if not holds] == []


@pytest.mark.parametrize("topic", LESSONS)
def test_a_lesson_has_the_parts_that_every_lesson_has(topic):
    lesson = next(lesson for lesson in ready_lessons() if lesson.topic == topic)
    cells = solved_notebook(lesson).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for part in ("**After this lesson**", "## What you have seen", "**Shown:**", "**Not shown:**", "**On Monday", "### Check yourself", "### Read on",
                 "Budget explorer"):
        assert part in text, f"{topic} lacks {part}"
    assert text.count("<details>") == 3
    assert sum("claim" in cell.metadata for cell in cells) >= 3
    assert 3 <= sum(cell.metadata.get("nbgrader", {}).get("solution", False) for cell in cells) <= 6
    code = [cell for cell in cells if cell.cell_type == "code" and "nbgrader" not in cell.metadata]
    long = [cell.id for cell in code[1:] if len(cell.source.splitlines()) > 26]  # the first one imports
    assert long == []
    wide = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines() if len(line) > 88]
    assert wide == []  # wider lines are cut off on a laptop's screen


@pytest.fixture(scope="module")
def explored():
    """What the lessons define, each run once."""
    return {topic: run_once(topic, seed=0).names for topic in LESSONS}


@pytest.mark.slow
def test_lesson_00_turns_the_stop_sign_with_the_budget(explored):
    names = explored["start_here"]
    explorer = names["explorer"]
    seen = []
    for eps_255 in (0, 4, 16):
        explorer.controls["eps_255"].value = eps_255
        seen.append(explorer.picture.value)
    assert len(set(seen)) == 3
    assert "is still read as stop" in seen[0]
    assert "is read as speed limit 80" in seen[2]


@pytest.mark.slow
def test_lesson_01_sets_budget_against_threshold(explored):
    names = explored["evasion"]
    _, clean, _ = names["compute"](0, 0.3, "does not know the fence")
    _, clean_strict, _ = names["compute"](0, 0.99, "does not know the fence")
    _, ignorant, _ = names["compute"](8, 0.85, "does not know the fence")
    _, knowing, _ = names["compute"](8, 0.85, "knows the fence")
    assert clean.count("right") >= 6 and clean_strict.count("refused") >= clean.count("refused") + 3
    assert knowing.count("wrong") >= ignorant.count("wrong") >= 1


@pytest.mark.slow
def test_lesson_02_sets_poison_against_removal(explored):
    compute = explored["poisoning"]["compute"]
    none, _, _ = compute(0, 0)
    many, removed, few_found = compute(26, 20)
    cured, removed_more, most_found = compute(26, 40)
    assert none["ASR before"] < 0.2 < 0.8 < many["ASR before"]
    assert removed == 200 and removed_more == 400  # so many of each of the ten classes
    assert 0.3 < few_found.recall < most_found.recall
    assert cured["ASR after"] < 0.2 < many["ASR after"] - 0.2
    assert cured["accuracy after"] > cured["accuracy before"] - 0.1


@pytest.mark.slow
def test_lesson_03_sets_the_budget_against_what_a_repair_may_cost(explored):
    compute = explored["undetectable_or_robust"]["compute"]
    chosen, few, (seen, kept), _ = compute("badnets", 100, 0)
    _, many, _, _ = compute("badnets", 1000, 0)
    _, repaired, (same, little), points = compute("badnets", 1000, 3)
    assert chosen == "badnets" and points == 3 and len(few["badnets"]) == 1 and len(many["badnets"]) == 3
    assert many["badnets"][0] == few["badnets"][0] and many["badnets"][-1][1] > few["badnets"][-1][1] + 0.5  # it takes poisons to work
    assert repaired["badnets"][-1][0] == many["badnets"][-1][0] and repaired["badnets"][-1][1] < 0.2  # a repair changes what is left alone
    assert 0 <= seen == same <= 1 and kept > 0.95 and little < 0.1


@pytest.mark.slow
def test_lesson_04_sets_poison_against_screening(explored):
    compute = explored["poisoned_features"]["compute"]
    ignorant, knowing = "does not know the screening", "knows the screening"
    clean, unpoisoned, _, caught, cost = compute(0, 30, ignorant)
    assert abs(clean - unpoisoned) < 0.02 and caught != caught and cost > 0.25  # nothing to catch, and it costs clean rows
    _, poisoned, screened, caught, _ = compute(3, 8, ignorant)
    assert poisoned < clean - 0.08 and screened > poisoned + 0.08 and caught > 0.9
    _, _, little, missed, _ = compute(3, 8, knowing)
    _, _, much, _, _ = compute(30, 8, knowing)
    assert missed < 0.2 and poisoned < much < little - 0.02  # the knowing attacker is not caught, pays for it, and needs a larger budget


@pytest.mark.slow
def test_lesson_05_sets_the_suffix_against_the_filter(explored):
    compute = explored["jailbreaks"]["compute"]
    text, _, _, verdict, loss, mild = compute(0, 0, 1, 1)
    longer, values, _, _, low, strict = compute(8, 6, 30, 1)
    assert verdict == "refused" and loss is None and longer.startswith(text) and len(longer.split()) == len(text.split()) + 8
    assert low < compute(8, 0, 30, 1)[4] and strict < mild and max(values) > strict


@pytest.mark.slow
def test_lesson_06_sets_harmful_pairs_against_safety_data(explored):
    compute = explored["harmful_finetuning"]["compute"]
    none, many, mixed = compute(0, 0, "none"), compute(8, 0, "none"), compute(8, 40, "none")
    assert many["refused"] < none["refused"] - 0.3 and mixed["refused"] > many["refused"] + 0.3


@pytest.mark.slow
def test_lesson_08_sets_what_is_answered_against_the_questions(explored):
    compute = explored["inversion"]["compute"]

    def found(*values):
        _, _, x, sure, choice, alike, certain = compute(*values)
        assert x.shape == (1, 3, 32, 32) and 0 <= sure <= 1 and (certain is not None) == (values[1] == "rounded")
        return choice, alike

    assert found(7, "probabilities", 8, 60, 0.1)[0] == 7 and found(7, "names", 12, 60, 0.1)[1] > 0.7
    assert found(7, "weights", 12, 60, 1.0)[1] > found(7, "weights", 1, 60, 1.0)[1] + 0.1
    assert found(7, "weights", 12, 60, 1.0)[1] > found(7, "weights", 12, 60, 0.0)[1] + 0.1
    assert 0.3 < compute(7, "rounded", 8, 60, 0.1)[6] <= 1


@pytest.mark.slow
def test_lesson_10_sets_repetition_against_the_defence(explored):
    compute = explored["memorization"]["compute"]
    assert compute(16, "as collected", 1.0)[3] > 9
    assert compute(16, "near copies dropped, DP", 1.0)[3] < compute(16, "as collected", 1.0)[3] - 2


@pytest.mark.slow
def test_lesson_11_sets_the_age_of_a_record_against_the_tolerance(explored):
    compute = explored["output_integrity"]["compute"]

    def taken(*values):
        return not compute(*values)[-1]

    assert taken("recorded, same sign", "question, time", 20, 0, 30) and not taken("recorded, same sign", "question, time", 40, 0, 30)
    assert taken("recorded, same sign", "question", 120, 0, 0) and not taken("recorded, same sign", "question, time, nonce", 0, 0, 120)
    assert taken("nobody", "question, time, nonce", 0, 45, 60) and not taken("nobody", "question, time, nonce", 0, 45, 30)
    assert taken("recorded, other sign", "nothing (the guide)", 120, 0, 0)


@pytest.mark.slow
def test_lesson_12_sets_queries_against_what_is_told(explored):
    compute = explored["theft"]["compute"]

    def agreed(kind, queries, told):
        return compute(kind, queries, 50)[3][told]

    growing = agreed("unlabelled signs", 800, "the label")
    assert len(growing) == 5 and growing[-1] > growing[0] + 0.1
    assert agreed("photographs", 800, "all probabilities")[-1] > agreed("photographs", 800, "the label")[-1] + 0.05
    assert max(agreed("random noise", 800, "all probabilities")) < 0.3
    _, limit, budgets, _, verdict = compute("random noise", 800, 50)
    assert (limit, budgets[0], budgets[-1]) == (50, 160, 800) and verdict.strange
    assert not compute("unlabelled signs", 800, 50)[-1].strange and compute("random noise", 150, 50)[-1] is None


@pytest.mark.slow
def test_lesson_15_sets_the_length_of_a_list_against_one_file(explored):
    compute = explored["supply_chain"]["compute"]
    _, _, lines, found, none = compute("timeit.timeit", 0)
    _, _, same, still, some = compute("timeit.timeit", 10)
    _, _, _, caught, most = compute("timeit.timeit", len(explored["supply_chain"]["LIST"]))
    assert lines == same and "GLOBAL" in [word for _, word, _, _ in lines]
    assert found == still == set() and caught == {"timeit.timeit"}
    assert none == {"payloads that pass": 1, "innocent files stopped": 0} and most["payloads that pass"] == 0
    assert 0.5 < some["payloads that pass"] < 1 and some["innocent files stopped"] < 0.5 < most["innocent files stopped"]


@pytest.mark.slow
@pytest.mark.parametrize("topic, values", [("start_here", (8,)), ("evasion", (8, 0.85, "knows the fence")),
                                           ("poisoning", (26, 20)),
                                           ("undetectable_or_robust", ("refool", 1000, 2)),
                                           ("poisoned_features", (30, 8, "knows the screening")),
                                           ("jailbreaks", (8, 6, 5, 1)),
                                           ("harmful_finetuning", (5, 0, "none")),
                                           ("inversion", (7, "probabilities", 12, 60, 0.1)),
                                           ("memorization", (16, "as collected", 1.0)),
                                           ("output_integrity", ("recorded, same sign", "question, time", 20, 0, 30)),
                                           ("theft", ("photographs", 800, 50)),
                                           ("supply_chain", ("a whole nn.Module", 20))])
def test_an_explorer_answers_soon(explored, topic, values):
    names = explored[topic]

    def answer():
        began = time.perf_counter()
        figures.png(names["draw"](names["compute"](*values))[0], most=400_000)
        return time.perf_counter() - began

    assert any(answer() < 0.4 for _ in range(20))  # generous for a busy machine; the browser benchmark asks for 0.2 with painting
