"""The catalogue: one table of the lessons, from which the README's course map, `mlsec-lab list` and the picture of the loop are made."""
from dataclasses import asdict, dataclass

NAMES = {"D→M": "Data → Model", "M→D": "Model → Data", "M→M": "Model → Model", "D→D": "Data → Data", "loop": "the loop"}


@dataclass(frozen=True)
class Lesson:
    """number, topic: of its files (01_evasion).  owasp, severity: in the OWASP ML Top 10, where it has a place there.

    minutes: for a learner who does every exercise.  ready: False while the lesson is only planned.
    """
    number: str
    topic: str
    title: str
    direction: str
    owasp: str = ""
    severity: str = ""
    minutes: int = 90
    needs: tuple = ("00",)
    about: str = ""
    ready: bool = False

    @property
    def name(self):
        """The stem of its files: "01_evasion"."""
        return f"{self.number}_{self.topic}"

    @property
    def facts(self):
        """One line for the head of the lesson."""
        owasp = f"OWASP {self.owasp}, {self.severity.lower()}" if self.owasp else ""
        needs = "needs lesson " + " and ".join(self.needs) if self.needs else "needs nothing before it"
        return " · ".join(filter(None, [f"**{NAMES[self.direction]}**", owasp, f"about {self.minutes} minutes", needs]))


LESSONS = (
    Lesson("00", "start_here", "Start here", "loop", minutes=30, needs=(), ready=True, about="The map, the words, and a stop sign that reads 80"),
    Lesson("01", "evasion", "Evasion", "D→M", "ML01", "Critical", 120, ready=True, about="Small changes that fool a model; a fence that falls; training that holds"),
    Lesson("02", "poisoning", "Poisoning", "D→M", "ML02", "Critical", 110, needs=("01",), ready=True, about="Label flips, backdoors, and the fence they walk through"),
    Lesson("03", "undetectable_or_robust", "Undetectable or robust", "D→M", "ML02", "Critical", 110, needs=("02",), ready=True, about="Repair and search of a suspect; what each poison gains and costs"),
    Lesson("04", "poisoned_features", "Poisoned features", "D→M", "ML02, ML07", "Critical", 110, needs=("02",), ready=True, about="Poison for a frozen feature extractor"),
    Lesson("05", "jailbreaks", "Jailbreaks", "D→M", minutes=110, needs=("01",), ready=True, about="Suffixes that talk an assistant out of its refusals"),
    Lesson("06", "harmful_finetuning", "Harmful fine-tuning", "D→M", minutes=100, needs=("05",), ready=True, about="Ten uploaded examples undo an alignment; what a service can do about it"),
    Lesson("07", "skew", "Skew", "D→M", "ML08", "Medium", about="When the stream drifts, and when somebody pushes"),
    Lesson("08", "inversion", "Inversion", "M→D", "ML03", "High", 100, needs=("01",), ready=True, about="Faces out of a model behind a service, and what a judge recognises of them"),
    Lesson("09", "membership", "Membership", "M→D", "ML04", "High", about="Was this patient in the training set?"),
    Lesson("10", "memorization", "Memorization", "M→D", minutes=100, ready=True, about="Text that a language model gives back, and what stops it"),
    Lesson("11", "output_integrity", "Output integrity", "M→D", "ML09", "High", 100, ready=True, about="Answers changed on their way; what TLS covers, and what a signature must bind"),
    Lesson("12", "theft", "Theft", "M→M", "ML05", "Critical", 100, needs=("01",), ready=True, about="A copy of a model from its answers; who asks like a thief, and whose model it is"),
    Lesson("13", "transfer", "Transfer", "M→M", "ML07", "High", needs=("02",), about="Adopting somebody else's backdoor"),
    Lesson("14", "unified_backdoor", "Unified backdoor", "M→M", "ML07", "High", needs=("02",), about="One model for text and pictures, one trigger"),
    Lesson("15", "supply_chain", "Supply chain", "M→M", "ML06", "Critical", 110, ready=True, about="What loading a file can do, what scanners see of it, and what refuses it"),
    Lesson("16", "weight_poisoning", "Weight poisoning", "M→M", "ML10", "Critical", needs=("15",), about="The artefact itself is edited"),
    Lesson("17", "decryption", "Decryption", "D→D", about="Encrypted images that can be learnt from, and read"),
    Lesson("18", "watermark_removal", "Watermark removal", "D→D", about="Marks in images and text, and how they go"),
    Lesson("19", "closed_loop", "The closed loop", "loop", minutes=120, needs=("01", "12"), about="The map, walked"),
)


def find_lesson(name):
    """The Lesson called "01", "evasion" or "01_evasion".  Raises ValueError, with the names there are, for any other."""
    for lesson in LESSONS:
        if name in (lesson.number, lesson.topic, lesson.name):
            return lesson
    raise ValueError(f"there is no lesson {name!r}: there are {', '.join(lesson.name for lesson in LESSONS)}")


def ready_lessons():
    """The lessons that can be opened, in order."""
    return [lesson for lesson in LESSONS if lesson.ready]


def course_map(lit=None):
    """The picture of the loop with every lesson on its arrow; `lit` ("D→M", …) lights one direction."""
    from mlsec_lab.display.loop_map import loop_map
    return loop_map([asdict(lesson) for lesson in LESSONS], lit)


def course_table():
    """The README's course map, as Markdown."""
    rows = ["| lesson | direction | OWASP | minutes | status | what it is about |", "|---|---|---|---|---|---|"]
    for lesson in LESSONS:
        title = f"[{lesson.number} {lesson.title}](notebooks/{lesson.name}.ipynb)" if lesson.ready else f"{lesson.number} {lesson.title}"
        owasp = f"{lesson.owasp} {lesson.severity}".strip() or "–"
        rows.append(f"| {title} | {NAMES[lesson.direction]} | {owasp} | {lesson.minutes} | {'ready' if lesson.ready else 'planned'} | {lesson.about} |")
    return "\n".join(rows)
