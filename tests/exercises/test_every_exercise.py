"""Every exercise of the course, tried with what learners write: the tables RIGHT and WRONG of the other files of this folder.

    RIGHT = [(EXERCISE, "what is different", function), ...]
    WRONG = [(EXERCISE, "what is wrong", function, "words of the property that catches it", "words of `got` or of the next step"), ...]
"""
import importlib.util
import time
from collections import Counter
from pathlib import Path

import pytest

from mlsec_lab.course.catalogue import LESSONS
from mlsec_lab.course.check import judge
from mlsec_lab.exercises import exercises_of


def tables(lesson):
    """The exercises, RIGHT and WRONG of one lesson, and why they cannot be read: one broken file is no reason not to test the others."""
    path = Path(__file__).with_name(f"test_{lesson.topic}.py")
    try:
        spec = importlib.util.spec_from_file_location(f"answers_to_{lesson.topic}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert {len(entry) for entry in module.RIGHT} <= {3} and {len(entry) for entry in module.WRONG} <= {5}, "RIGHT holds triples, WRONG holds quintuples"
        return list(exercises_of(lesson.topic).values()), module.RIGHT, module.WRONG, ""
    except Exception as error:
        return [], [], [], f"{path.name} cannot be used: {type(error).__name__}: {error}"


TABLES = {lesson.topic: tables(lesson) for lesson in LESSONS}


def every(column):
    """Parameters for all entries of a column of TABLES; a topic's tests share one process, which makes what is costly once."""
    return [pytest.param(*(entry if isinstance(entry, tuple) else (entry,)), marks=pytest.mark.xdist_group(f"exercises of {topic}"),
                         id=f"{topic}.{entry.name}" if column == 0 else f"{topic}.{entry[0].name}: {entry[1]}")
            for topic, table in TABLES.items() for entry in table[column]]


@pytest.mark.parametrize("exercise", every(0))
def test_the_stub_is_not_attempted_and_the_reference_typed_anew_passes(exercise, stub, retyped, verdicts):
    assert [verdict.outcome for verdict in verdicts(exercise, stub(exercise))] == ["not attempted"] * 5
    answer = retyped(exercise)
    assert answer is not exercise.reference
    assert [str(verdict) for verdict in verdicts(exercise, answer) if verdict.outcome != "passed"] == []


@pytest.mark.parametrize("exercise, different, answer", every(1))
def test_any_right_way_of_writing_it_passes(exercise, different, answer, verdicts):
    assert [str(verdict) for verdict in verdicts(exercise, answer) if verdict.outcome != "passed"] == []


@pytest.mark.parametrize("exercise, wrong, answer, property, words", every(2))
def test_a_wrong_answer_is_told_what_is_wrong_with_it(exercise, wrong, answer, property, words, verdicts):
    for verdict in verdicts(exercise, answer):
        assert verdict.outcome == "not yet" and property in verdict.property, verdict
        assert words in verdict.got + verdict.next_step, verdict
        assert verdict.expected and verdict.got and verdict.next_step, verdict


@pytest.mark.parametrize("exercise", every(0))
def test_a_check_takes_less_than_three_seconds(exercise, retyped):
    began = time.process_time()
    assert judge(exercise, retyped(exercise), seed=77).outcome == "passed"
    assert time.process_time() - began < 3


@pytest.mark.parametrize("exercise", every(0))
def test_every_exercise_states_difficulty_minutes_and_two_hints(exercise):
    assert exercise.difficulty in range(1, 6) and 1 <= exercise.minutes <= 30
    assert len(exercise.hints) >= 2 and len(exercise.properties) >= 3


@pytest.mark.by_itself
@pytest.mark.parametrize("lesson", [lesson for lesson in LESSONS if lesson.ready], ids=lambda lesson: lesson.topic)
def test_every_exercise_of_a_ready_lesson_is_tried_with_right_and_wrong_answers(lesson):
    exercises, right, wrong, problem = TABLES[lesson.topic]
    assert not problem, problem
    rights, wrongs = Counter(entry[0].id for entry in right), Counter(entry[0].id for entry in wrong)
    assert exercises and {*rights, *wrongs} <= {exercise.id for exercise in exercises}
    thin = [f"{exercise.id}: {rights[exercise.id]} right, {wrongs[exercise.id]} wrong" for exercise in exercises
            if rights[exercise.id] < 1 or wrongs[exercise.id] < 3]
    assert thin == [], f"tests/exercises/test_{lesson.topic}.py needs at least 1 right and 3 wrong answers for each exercise"
