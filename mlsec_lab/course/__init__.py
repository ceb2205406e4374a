"""The machinery of the course: the catalogue, the check engine, the build and a learner's progress."""
from mlsec_lab.course.catalogue import course_map


def exercise(id):
    """The exercise `id` ("lesson.name"): `.check(function)`, `.hint()`, `.solution()`.  ValueError for an unknown id."""
    from mlsec_lab.course.check import exercise
    return exercise(id)


__all__ = ["course_map", "exercise"]
