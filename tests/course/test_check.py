"""The check engine against whatever a function may do: hang, print, exit, spoil its arguments, return nonsense."""
import functools
import random
import signal
import sys
import threading
import time

import nbformat
import numpy as np
import pytest
import torch

from mlsec_lab.course import check, progress
from mlsec_lab.course.check import Attempt, exercise, judge
from mlsec_lab.exercises import Exercise, NotYet, advising, require
from mlsec_lab.victims import small_cnn

MODEL = small_cnn(size=8, width=4)


def doubled(model, x):
    """Twice x."""
    ### BEGIN SOLUTION
    return x + x
    ### END SOLUTION


@pytest.fixture
def doubling():
    """A small exercise that hands a model and a tensor to its answer."""
    made = Exercise("playground.doubled", reference=doubled, difficulty=1, minutes=1, hints=["Think <b>twice</b>.", "Add it to itself."])

    @made.property("is twice x")
    def _(answer, seed):
        x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        got = answer(MODEL, x)
        require(torch.allclose(got, 2 * x), expected="2 x", got="something else", next_step="add x to x")
    return made


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """After every test: the alarm's handler, tracing, gradient mode and the global random state are as they were."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = (signal.getsignal(signal.SIGALRM), sys.gettrace(), random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    weights = {key: value.clone() for key, value in MODEL.state_dict().items()}
    yield
    after = (signal.getsignal(signal.SIGALRM), sys.gettrace(), random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    assert before == after
    assert signal.setitimer(signal.ITIMER_REAL, 0) == (0.0, 0.0) and torch.is_grad_enabled()
    assert not MODEL.training and all(torch.equal(value, weights[key]) for key, value in MODEL.state_dict().items())


def told(exercise, answer, **kwargs):
    verdict = judge(exercise, answer, seed=5, **kwargs)
    assert verdict.outcome == "not yet", verdict
    return verdict


# ---- answers that go wrong

def test_an_exception_is_named_with_the_line_that_raised_it(doubling):
    def answer(model, x):
        y = x[0]
        return x @ y.flatten()

    verdict = told(doubling, answer)
    assert verdict.got.startswith("RuntimeError: ") and verdict.got.endswith("return x @ y.flatten()")
    assert f"in line {answer.__code__.co_firstlineno + 2}" in verdict.got and "shapes" in verdict.next_step


@pytest.mark.parametrize("answer, got, step", [
    (lambda model, x: None, "None", "`return`"),
    (lambda model: model, "TypeError", "doubled(model, x)"),
    (lambda model, x, more: x, "TypeError", "doubled(model, x)"),
    (lambda model, x: exit(), "SystemExit", "`return`"),
    (lambda model, x: quit(), "SystemExit", "`return`"),
    (lambda model, x: sys.exit(3), "SystemExit: 3", "`return`"),
    (lambda model, x: [x, x], "led to TypeError", "compare what you return"),
    (lambda model, x: "a picture", "led to TypeError", "compare what you return"),
    (lambda model, x: x.flatten() * 2, "led to RuntimeError", "compare what you return"),
    (lambda model, x: 1 / 0, "ZeroDivisionError: division by zero", "read that line"),
    (lambda model, x: undefined_name, "NameError: name 'undefined_name' is not defined", "check the spelling"),  # noqa: F821
], ids=["None", "an argument too few", "one too many", "exit()", "quit()", "sys.exit", "a list", "a text", "another shape", "an error", "a name"])
def test_a_result_that_cannot_be_used_leads_to_a_verdict(answer, got, step, doubling, monkeypatch):
    for name in ("exit", "quit"):
        monkeypatch.setattr(f"builtins.{name}", sys.exit, raising=False)
    verdict = told(doubling, answer)
    assert got in verdict.got, verdict
    assert step in verdict.next_step
    assert verdict.property == ("is twice x" if "compare" in step or got == "None" else "runs to its `return`")


@pytest.mark.parametrize("spoil, argument, step", [
    (lambda model, x: x.mul_(2), "the argument x", "`x.clone()`"),
    (lambda model, x: x.requires_grad_() * 2, "the argument x", "`x.clone().requires_grad_()`"),
    (lambda model, x: [p.data.zero_() for p in model.parameters()] and x * 2, "the argument model", "change nothing in model"),
    (lambda model, x: (model.train(), x * 2)[1], "the argument model", "mode in which you found it"),
    (lambda model, x: (model.train()(x), x * 2)[1], "the argument model", "mode in which you found it"),
    (lambda model, x: (model.requires_grad_(False), x * 2)[1], "the argument model", "as you found it"),
    (lambda model, x: (model.register_buffer("extra", x), x * 2)[1], "the argument model", "change nothing in model"),
], ids=["in place", "requires_grad", "weights", "mode", "statistics", "parameters frozen", "a new buffer"])
def test_an_answer_that_spoils_an_argument_is_told_which_and_the_model_is_put_right(spoil, argument, step, doubling):
    verdict = told(doubling, spoil)
    assert verdict.expected.startswith(argument) and step in verdict.next_step, verdict
    MODEL._buffers.pop("extra", None)
    assert not MODEL.training and all(parameter.requires_grad for parameter in MODEL.parameters())


def test_a_model_is_put_right_after_an_exception_too(doubling):
    def answer(model, x):
        torch.set_grad_enabled(False)
        model.train()
        raise KeyError("later")

    assert told(doubling, answer).got.startswith("KeyError: 'later'")
    assert not MODEL.training and torch.is_grad_enabled()


def test_gradients_left_in_the_model_are_no_fault_and_no_load(doubling):
    def answer(model, x):
        model(x).sum().backward()
        return x * 2

    assert judge(doubling, answer, seed=5).outcome == "passed"
    assert all(parameter.grad is None for parameter in MODEL.parameters())


def test_endless_recursion_is_told_as_such(doubling):
    def answer(model, x):
        return answer(model, x)

    verdict = told(doubling, answer)
    assert verdict.got.startswith("RecursionError") and "calls itself" in verdict.next_step


def test_an_interrupt_stays_an_interrupt_so_that_stopping_the_kernel_stops_run_all(doubling):
    def answer(model, x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(doubling, answer, seed=5)


@pytest.mark.parametrize("answer", [3, None, "fgsm", torch.zeros(2)], ids=["a number", "None", "a text", "a tensor"])
def test_what_cannot_be_called_is_not_yet_a_function(answer, doubling):
    verdict = told(doubling, answer)
    assert verdict.expected == "a function named doubled" and verdict.got == type(answer).__name__


class Doubler:
    def __init__(self, factor=2):
        self.factor = factor

    def __call__(self, model, x):
        return x * self.factor + ("" if self.factor == 3 else 0)

    def method(self, model, x):
        return self(model, x)


@pytest.mark.parametrize("answer", [lambda model, x: 2 * x, functools.partial(lambda factor, model, x: factor * x, 2), Doubler(), Doubler().method, torch.no_grad()(lambda model, x: 2 * x)],
                         ids=["a lambda", "a partial", "an instance", "a method", "decorated"])
def test_anything_that_can_be_called_is_an_answer(answer, doubling):
    assert judge(doubling, answer, seed=5).outcome == "passed"
    assert judge(doubling, Doubler(3), seed=5).got.startswith("TypeError") and "factor == 3" in judge(doubling, Doubler(3), seed=5).got


# ---- attempted or not

def test_only_the_answers_own_raise_counts_as_not_attempted(doubling):
    def stub(model, x):
        """Twice x."""
        raise NotImplementedError("write your answer here, then delete this line")

    class Stub:
        def __call__(self, model, x):
            raise NotImplementedError

    for untouched in (stub, functools.partial(stub), torch.no_grad()(stub), Stub()):
        assert judge(doubling, untouched, seed=5).outcome == "not attempted"
    verdict = told(doubling, lambda model, x: stub(model, x))  # an answer that calls an exercise which is still open
    assert verdict.got.startswith("NotImplementedError: write your answer here") and "another exercise is still open" in verdict.next_step
    verdict = told(doubling, lambda model, x: torch.nn.Module()(x))  # torch has NotImplementedErrors of its own
    assert "NotImplementedError" in verdict.got and verdict.outcome == "not yet"


def test_the_reference_handed_back_in_is_no_attempt_and_says_to_run_the_cell_again(doubling):
    attempt = Attempt(doubling)
    going_on = attempt.check(lambda model, x: x, seed=5)
    assert going_on is doubled
    verdict = judge(doubling, going_on)
    assert verdict.outcome == "not attempted" and "Run the cell with your function, then this one" in verdict.sentence
    assert attempt.check(going_on) is doubled
    assert progress._read(progress._path("playground.doubled"))["checks"] == 1


# ---- time

def loops(model, x):
    while True:
        pass


def swallows(model, x):
    while True:
        try:
            pass
        except:  # noqa: E722
            pass


def swallows_in_its_sleep(model, x):
    while True:
        try:
            time.sleep(1000)
        except:  # noqa: E722
            continue


def sleeps(model, x):
    with torch.no_grad():
        time.sleep(1000)


@pytest.mark.parametrize("answer", [loops, swallows, swallows_in_its_sleep, sleeps], ids=lambda answer: answer.__name__)
def test_what_never_ends_is_stopped_in_time(answer, doubling):
    began = time.monotonic()
    verdict = told(doubling, answer, time_limit=0.5)
    assert time.monotonic() - began < 10
    assert verdict.expected == "an answer within 0.5 seconds" and "never ends" in verdict.next_step
    time.sleep(0.25)  # a forgotten alarm would ring by now
    assert judge(doubling, Doubler(), seed=5).outcome == "passed"


@pytest.mark.parametrize("answer", [loops, swallows], ids=lambda answer: answer.__name__)
def test_where_there_are_no_alarms_a_second_thread_stops_it(answer, doubling, monkeypatch):
    monkeypatch.delattr(signal, "setitimer")
    began = time.monotonic()
    verdict = told(doubling, answer, time_limit=0.5)
    assert time.monotonic() - began < 10
    assert verdict.expected == "an answer within 0.5 seconds"
    time.sleep(0.3)  # no interrupt comes late
    assert judge(doubling, Doubler(), seed=5).outcome == "passed"

    def interrupted(model, x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(doubling, interrupted, seed=5)
    monkeypatch.undo()


def test_a_check_works_in_another_thread(doubling):
    found = []
    threads = [threading.Thread(target=lambda: found.append(judge(doubling, answer, seed=5).outcome)) for answer in (Doubler(),)]
    for thread in threads:
        thread.start()
        thread.join(20)
    assert found == ["passed"]


# ---- what is printed, and randomness

def test_what_an_answer_prints_is_kept_short_and_counted(doubling, capsys):
    def chatty(model, x):
        print("a" * 1_000_000)
        print("oh", file=sys.stderr)
        return 2 * x

    verdict = judge(doubling, chatty, seed=5)
    assert verdict.outcome == "passed" and len(verdict.printed) < 500
    assert "(1,000,004 characters in all)" in verdict.printed
    assert capsys.readouterr() == ("", "")
    assert "It printed" in str(verdict) and "few words" in judge(doubling, lambda model, x: print("few words"), seed=5).printed


def test_the_global_random_state_is_seeded_for_the_answer_and_put_back(doubling):
    drawn = []

    def random_answer(model, x):
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
        return 2 * x

    assert judge(doubling, random_answer, seed=5).outcome == "passed"
    assert judge(doubling, random_answer, seed=5).outcome == "passed"
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 3


def test_each_check_draws_new_inputs_unless_told_otherwise(doubling):
    seen = []

    def answer(model, x):
        seen.append(x.sum().item())
        return 2 * x

    for seed in (None, None, 7, 7):
        judge(doubling, answer, seed=seed)
    assert seen[0] != seen[1] and seen[2] == seen[3]
    assert "seed 7)" in judge(doubling, lambda model, x: x, seed=7).sentence


# ---- what is shown

def test_hints_come_one_by_one_and_start_again(doubling, capsys):
    attempt = Attempt(doubling)
    for _ in range(3):
        attempt.hint()
    first, second, third = capsys.readouterr().out.split("Hint ")[1:]
    assert first.startswith("1 of 2") and "twice" in first and second.startswith("2 of 2; the next call starts again")
    assert third == first


def test_the_solution_is_shown_without_its_markers(doubling, capsys):
    Attempt(doubling).solution()
    shown = capsys.readouterr().out
    assert "return x + x" in shown and "###" not in shown and "SOLUTION" not in shown


def test_a_verdict_escapes_what_came_from_the_answer(doubling):
    def answer(model, x):
        print("<script>alert(1)</script>")
        raise ValueError("<img src=x onerror=alert(2)>")

    page = told(doubling, answer)._repr_html_()
    assert "&lt;script&gt;" in page and "&lt;img" in page
    assert "<script" not in page and "<img" not in page
    assert "&lt;b&gt;" in check._Text("a <title>", doubling.hints[0], code=False)._repr_html_()


def test_a_verdict_reads_as_text_in_a_terminal(doubling, capsys):
    Attempt(doubling).check(lambda model, x: x, seed=5)
    shown = capsys.readouterr().out
    assert shown.startswith("[not yet] playground.doubled: ")
    assert [line.split(":")[0].strip() for line in shown.splitlines()[1:]] == ["Property", "Expected", "Got", "Next step"]


@pytest.mark.parametrize("id, words", [("start_here.nothing", "start_here.linf_distance"), ("nowhere.fgsm", "there is no lesson 'nowhere'"), ("start_here", "not 'start_here'"),
                                       ("", "no lesson ''"), (None, "no lesson 'None'"), (["start_here.linf_distance"], "no lesson")])
def test_an_unknown_exercise_is_answered_with_the_names_there_are(id, words):
    with pytest.raises(ValueError) as error:
        exercise(id)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_exercise_is_one_attempt_for_the_life_of_the_kernel():
    assert exercise("start_here.linf_distance") is exercise("start_here.linf_distance")
    assert exercise("start_here.linf_distance") is not exercise("start_here.l2_distance")


def test_a_check_hands_back_the_answer_once_it_passed_and_remembers_it(doubling):
    answer = Doubler()
    attempt = Attempt(doubling)
    assert attempt.check(answer, seed=5) is answer and attempt.outcome == "passed"
    assert progress.passed() == {"playground.doubled"}
    assert attempt.check(lambda model, x: x, seed=5) is doubled and attempt.outcome == "not yet"
    assert progress.passed() == {"playground.doubled"}


def test_a_property_may_ask_for_an_exception_and_for_a_changed_argument():
    def refuse(x, limit):
        ### BEGIN SOLUTION
        raise ValueError(limit)
        ### END SOLUTION

    made = Exercise("playground.refuse", reference=refuse, difficulty=1, minutes=1, hints=["a", "b"])
    made.property("refuses")(lambda answer, seed: answer(torch.zeros(2), 3, raises=ValueError))
    assert judge(made, lambda x, limit: int("no"), seed=1).outcome == "passed"
    assert told(made, lambda x, limit: x).got == "a result as if nothing were wrong"
    verdict = told(made, lambda x, limit: {}[limit])
    assert verdict.expected == "a ValueError for this input" and verdict.got.startswith("KeyError")

    changing = Exercise("playground.refuse", reference=refuse, difficulty=1, minutes=1, hints=["a", "b"])
    changing.property("adds")(lambda answer, seed: answer(torch.zeros(2), 3, changes=("x",)))
    assert judge(changing, lambda x, limit: x.add_(limit), seed=1).outcome == "passed"


def test_notyet_reads_as_a_sentence():
    with pytest.raises(NotYet, match="expected 1; got 2; count again"):
        require(False, expected="1", got="2", next_step="count again")
    require(True, expected="", got="", next_step="")


def test_advice_is_given_for_the_exceptions_that_it_is_meant_for_and_no_others():
    def ends_in(got):
        raise NotYet("a result", got, "look", about="runs")
    for got, words, step, expected in (("KeyError: 'a'", ("KeyError",), "use get", "a result"), ("KeyError: 'a'", (), "use get", "a result"),
                                       ("OSError: b", ("KeyError", "ValueError"), "look", "a result")):
        with pytest.raises(NotYet) as found, advising(*words, next_step="use get"):
            ends_in(got)
        assert (found.value.got, found.value.next_step, found.value.expected, found.value.about) == (got, step, expected, "runs")
    with pytest.raises(NotYet, match="expected a name; got KeyError; use get"), advising(expected="a name", next_step="use get"):
        ends_in("KeyError")
    with advising(next_step="use get"):
        pass


# ---- in a real kernel

def test_a_real_kernel_survives_a_looping_a_printing_and_an_exiting_answer(tmp_path):
    from nbclient import NotebookClient
    cells = ["from mlsec_lab.course import exercise\nimport time\n\ndef linf_distance(x, x_adv):\n    raise NotImplementedError('write your answer here, then delete this line')",
             "linf_distance = exercise('start_here.linf_distance').check(linf_distance)",
             "def linf_distance(x, x_adv):\n    while True:\n        try:\n            time.sleep(0.01)\n        except:\n            pass",
             "linf_distance = exercise('start_here.linf_distance').check(linf_distance, time_limit=0.5)",
             "def linf_distance(x, x_adv):\n    print('<i>' * 100_000)\n    return (x - x_adv).abs().flatten(1).amax(1)",
             "linf_distance = exercise('start_here.linf_distance').check(linf_distance)",
             "def linf_distance(x, x_adv):\n    exit()",
             "linf_distance = exercise('start_here.linf_distance').check(linf_distance)",
             "def linf_distance(x, x_adv):\n    change = x - x_adv\n    return change.abs().reshape(7, -1).amax(1)",
             "linf_distance = exercise('start_here.linf_distance').check(linf_distance)",
             "import signal\ntime.sleep(0.3)\nprint('alive', signal.getsignal(signal.SIGALRM) == signal.SIG_DFL, linf_distance.__module__)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = {index: cell.outputs[0].data["text/plain"] for index, cell in enumerate(notebook.cells) if index % 2 and cell.outputs}
    assert said[1].startswith("[not attempted]")
    assert said[3].startswith("[not yet]") and "within 0.5 seconds" in said[3]
    assert said[5].startswith("[passed]") and "characters in all" in said[5]
    assert "&lt;i&gt;" in notebook.cells[5].outputs[0].data["text/html"]
    assert "SystemExit" in said[7]
    assert "RuntimeError" in said[9] and "in line 3: return change.abs().reshape(7, -1).amax(1)" in said[9]
    assert notebook.cells[10].outputs[0].text == "alive True mlsec_lab.exercises.start_here\n"


def test_the_check_cell_run_again_shows_what_was_wrong_and_what_to_do(doubling, capsys):
    attempt = Attempt(doubling)
    went_on = attempt.check(lambda model, x: x)
    capsys.readouterr()
    assert attempt.check(went_on) is doubling.reference and attempt.outcome == "not yet"
    said = capsys.readouterr().out
    assert "[not yet]" in said and "when it was last checked" in said and "is twice x" in said
    assert attempt.check(lambda model, x: x * 2) is not doubling.reference and attempt.outcome == "passed"


def test_an_exercise_by_itself_says_how_it_is_used(doubling):
    assert repr(Attempt(doubling)) == "exercise playground.doubled, not attempted: .check(doubled), .hint() or .solution()"


@pytest.mark.parametrize("answer, words", [
    (lambda model, x: x.grad.sign(), "there is no gradient yet"),
    (lambda model, x: torch.autograd.grad(x.sum(), x)[0], "does not hang together"),
    (lambda model, x: x if x > 0 else -x, "torch.where"),
    (lambda model, x: x.flatten(1).min(1) - 1, "`.values`"),
    (lambda model, x: x.flatten(1).max(1).sqrt(), "`.values`"),
    (lambda model, x: x * (x > 0).mean(), "`.float().mean()`"),
    (lambda model, x: torch.stack([row for row in x if row.sum() < -1]), "still empty"),
    (lambda model, x: torch.cat([row.sum() for row in x]), "`torch.stack`"),
], ids=["no gradient", "no graph", "a condition", "a pair", "a pair's attribute", "a mean of booleans", "nothing", "numbers"])
def test_the_commonest_stumbling_blocks_have_advice_of_their_own(answer, words, doubling):
    verdict = told(doubling, answer)
    assert verdict.outcome == "not yet" and words in verdict.next_step, verdict


def test_many_lines_of_print_are_cut(doubling):
    verdict = told(doubling, lambda model, x: [print(k) for k in range(50)] and None)
    assert verdict.printed.count("\n") < 10 and "characters in all" in verdict.printed
