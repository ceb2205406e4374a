"""The check engine: `fgsm = exercise("evasion.fgsm").check(fgsm)`.

Three outcomes: *not attempted*, *not yet* (which property failed, expected, got, one next step) and *passed*. The lesson
goes on in each of them, with your function once it passed and with the reference until then.
"""
import html
import inspect
import re
import secrets
from dataclasses import dataclass, replace

from mlsec_lab.course import progress
from mlsec_lab.course.guard import Guard, NotAttempted, TimeUp, contained, notebook_shell
from mlsec_lab.exercises import Exercise, NotYet, exercises_of

TIME_LIMIT = 20  # seconds for one check; every reference needs less than three
NOT_ATTEMPTED, NOT_YET, PASSED = "not attempted", "not yet", "passed"


@dataclass(frozen=True)
class Verdict:
    """What a check found: outcome, and where it is "not yet" the property, expected, got and next_step."""
    exercise: str
    outcome: str
    sentence: str
    property: str = ""
    expected: str = ""
    got: str = ""
    next_step: str = ""
    printed: str = ""

    def rows(self):
        """(label, text) of what there is to say, in order."""
        pairs = [("Property", self.property), ("Expected", self.expected), ("Got", self.got), ("Next step", self.next_step),
                 ("It printed", self.printed)]
        return [(label, text) for label, text in pairs if text]

    def __str__(self):
        mark = {PASSED: "[passed]", NOT_YET: "[not yet]", NOT_ATTEMPTED: "[not attempted]"}[self.outcome]
        return "\n".join([f"{mark} {self.exercise}: {self.sentence}"] + [f"  {label + ':':11} {text}" for label, text in self.rows()])

    __repr__ = __str__

    def _repr_html_(self):
        colour, mark = {PASSED: ("#00725a", "✔"), NOT_YET: ("#b35900", "↻"), NOT_ATTEMPTED: ("#56606b", "○")}[self.outcome]
        rows = "".join(f"<tr><td style='text-align:left;vertical-align:top;padding:1px 12px 1px 0;white-space:nowrap'><b>{label}</b></td>"
                       f"<td style='text-align:left;vertical-align:top;padding:1px 0;white-space:pre-wrap'>{_marked(text)}</td></tr>" for label, text in self.rows())
        return (f"<div role='status' style='border-left:5px solid {colour};padding:6px 12px;margin:2px 0'><b style='color:{colour}'>{mark} "
                f"{self.outcome}</b> · <code>{html.escape(self.exercise)}</code> {_marked(self.sentence)}"
                + (f"<table style='margin:4px 0 0 0'>{rows}</table>" if rows else "") + "</div>")


def exercise(id):
    """The exercise `id` ("lesson.name"): `.check(function)`, `.hint()`, `.solution()`.

    Raises ValueError, with the names there are, for one that does not exist.
    """
    id = str(id)
    if id not in _started:
        lesson = id.partition(".")[0]
        try:
            found = exercises_of(lesson)
        except ModuleNotFoundError as error:
            if error.name != f"{exercises_of.__module__}.{lesson}":
                raise  # the lesson is there, something that it needs is not
            raise ValueError(f"id must be \"lesson.exercise\", and there is no lesson {lesson!r} with exercises: `mlsec-lab list` shows them") from None
        if id not in found:
            raise ValueError(f"id must be one of {', '.join(found)}, not {id!r}")
        _started[id] = Attempt(found[id])
    return _started[id]


_started = {}  # id: Attempt, so that hints go on where they stopped


class Attempt:
    """A learner's go at one exercise, for as long as the kernel lives."""

    def __init__(self, exercise: Exercise):
        self.exercise = exercise
        self.outcome = NOT_ATTEMPTED
        self.hints_seen = 0
        self.failed = None  # the Verdict of the last check, where it was "not yet"

    def __repr__(self):
        return f"exercise {self.exercise.id}, {self.outcome}: .check({self.exercise.name}), .hint() or .solution()"

    def check(self, answer, *, seed=None, time_limit=TIME_LIMIT):
        """Check `answer` on fresh inputs, show the verdict, and return the function to go on with.

        answer: your function.  seed: the inputs' seed, new at each call by default; a verdict names the one it used.
        time_limit: seconds after which the check is stopped.
        Returns `answer` if it passed, else the reference.
        """
        if answer is self.exercise.reference and self.failed is not None:  # the check cell alone was run again
            verdict = replace(self.failed, sentence="was not there yet when it was last checked. Change your function, run its cell, then this one.")
        else:
            verdict = judge(self.exercise, answer, seed=seed, time_limit=time_limit)
        self.failed = verdict if verdict.outcome == NOT_YET else None
        self.outcome = verdict.outcome
        _show(verdict)
        if answer is not self.exercise.reference:
            progress.record(self.exercise.id, verdict.outcome)
        return answer if verdict.outcome == PASSED else self.exercise.reference

    def hint(self):
        """Show one more hint each time it is called; after the last it starts again."""
        hints = self.exercise.hints
        number = self.hints_seen % len(hints)
        self.hints_seen += 1
        last = "; the next call starts again, .solution() shows the reference" if number + 1 == len(hints) else ""
        _show(_Text(f"Hint {number + 1} of {len(hints)}{last}", hints[number], code=False))

    def solution(self):
        """Show the reference solution."""
        _show(_Text(f"One way to write {self.exercise.name}", solution_source(self.exercise), code=True))


def judge(exercise, answer, *, seed=None, time_limit=TIME_LIMIT):
    """The Verdict on `answer`, shown to nobody: what `check` does, without display and progress.

    The learner's code runs in this process, and its own variables with it: this engine helps honest learners. Grading
    strangers' submissions is another matter, and another module.
    """
    name = exercise.id
    if answer is exercise.reference:
        return Verdict(name, NOT_ATTEMPTED, "is the reference at the moment, not your function. Run the cell with your function, then this one.")
    if not callable(answer):
        return Verdict(name, NOT_YET, "is not there yet.", expected=f"a function named {exercise.name}", got=type(answer).__name__,
                       next_step="run the cell that defines your function, then this one")
    seed = secrets.randbelow(100_000) if seed is None else seed
    guard = Guard(answer, exercise)
    sentence = ""
    try:
        with contained(seed, time_limit) as printed:
            for number, (sentence, holds) in enumerate(exercise.properties):
                holds(guard, seed + number)
    except NotAttempted:
        return Verdict(name, NOT_ATTEMPTED, "is not attempted; the lesson goes on with the reference. Once you have written your "
                       "answer, delete its line `raise NotImplementedError`.")
    except NotYet as found:
        return Verdict(name, NOT_YET, f"is not there yet; the lesson goes on with the reference (inputs drawn with seed {seed}).", found.about or sentence,
                       found.expected, found.got, found.next_step, printed.text())
    except Exception as error:  # the answer's result was of a kind that the property could not even look at
        return Verdict(name, NOT_YET, "is not there yet; the lesson goes on with the reference.", sentence, "a result that can be used as the stub says",
                       f"one that led to {type(error).__name__}: {str(error)[:200]}", "compare what you return, its type and shape, with the stub's text",
                       printed.text())
    except TimeUp:
        return Verdict(name, NOT_YET, "was stopped; the lesson goes on with the reference.", sentence, f"an answer within {time_limit:g} seconds",
                       "none by then", "look for a loop that never ends, or for work that could be done on the whole batch at once", printed.text())
    return Verdict(name, PASSED, f"holds all of its {len(exercise.properties)} properties.", printed=printed.text())


def solution_source(exercise):
    """The reference as the lesson shows it: its source without the markers."""
    lines = inspect.getsource(exercise.reference).splitlines()
    return "\n".join(line for line in lines if not line.strip().startswith("### "))


class _Text:
    """A titled paragraph or piece of code, as HTML in a notebook and as plain text elsewhere."""

    def __init__(self, title, text, *, code):
        self.title, self.text, self.code = title, text, code

    def __repr__(self):
        return f"{self.title}\n\n{self.text}"

    def _repr_html_(self):
        tag = "pre" if self.code else "p"
        return (f"<div style='border-left:5px solid #0b6fa4;padding:6px 12px'><b>{html.escape(self.title)}</b>"
                f"<{tag} style='margin:6px 0 0 0'>{html.escape(self.text) if self.code else _marked(self.text)}</{tag}></div>")


def _marked(text):
    """Text as HTML, with `code` between backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _show(thing):
    """Into the notebook where there is one, onto the terminal elsewhere."""
    if notebook_shell() is not None:
        from IPython.display import display
        display(thing)
    else:
        print(thing)
