"""mlsec-lab: doctor · list · open · reset · build · train."""
import argparse
import sys


def main(argv=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="mlsec-lab", description="The course in machine-learning security, from the command line.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="is this machine ready for the course?")
    commands.add_parser("list", help="the lessons, what you have passed, and the checkpoints")
    commands.add_parser("open", help="bring your copies of the lessons up to date; your work is never overwritten")
    reset = commands.add_parser("reset", help="a fresh copy of one lesson; yours is kept under another name")
    reset.add_argument("lesson")
    build = commands.add_parser("build", help="make both notebooks of each lesson from solutions/NN_topic.py (for authors)")
    build.add_argument("lessons", nargs="*", metavar="LESSON", help="such as 01 or evasion; all of them by default")
    build.add_argument("--check", action="store_true", help="change nothing; fail where a committed notebook is stale or gives a solution away")
    train = commands.add_parser("train", help="make a checkpoint from its recipe")
    train.add_argument("name", help="such as signs_cnn; `mlsec-lab list` shows them all")
    train.add_argument("--seed", type=int, default=0, help="of weights, order and data (default 0)")
    train.add_argument("--ship", action="store_true", help="write into data/checkpoints, for authors; by default into your own folder")
    arguments = parser.parse_args(argv)
    try:
        return globals()[f"_{arguments.command}"](arguments) or 0
    except (ValueError, OSError) as error:
        print(f"mlsec-lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mlsec-lab: stopped; nothing half-written is left", file=sys.stderr)
        return 130


def _doctor(arguments):
    from mlsec_lab.course.doctor import examine, report
    rows = examine()
    print(report(rows))
    return 0 if all(well for _, _, well in rows) else 1


def _list(arguments):
    from mlsec_lab.course.catalogue import LESSONS, NAMES
    from mlsec_lab.course.progress import passed
    done = passed()
    for lesson in LESSONS:
        status = "planned"
        if lesson.ready:
            from mlsec_lab.exercises import exercises_of
            own = exercises_of(lesson.topic)
            status = f"{len(done & set(own))} of {len(own)} exercises passed"
        print(f"{lesson.name:26} {NAMES[lesson.direction]:15} {lesson.owasp:10} {lesson.minutes:4} min   {status}")
    from mlsec_lab.course.recipes import RECIPES
    from mlsec_lab.victims.checkpoints import own_folder, read_manifest
    shipped, own = read_manifest(), read_manifest(own_folder())
    print()
    for name in sorted({*RECIPES, *shipped, *own}):
        entry = own.get(name) if name not in shipped else shipped[name]
        made = f"about {RECIPES[name].minutes:g} min to train" if name in RECIPES else "no recipe"
        print(f"{name:26} " + (f"{'shipped' if name in shipped else 'yours':8} accuracy {entry['accuracy']:.1%}" if entry else f"not trained, {made}"))


def _open(arguments):
    from mlsec_lab.course.workspace import open_lessons
    for sentence in open_lessons():
        print(sentence)


def _reset(arguments):
    from mlsec_lab.course.workspace import reset
    print(reset(arguments.lesson))


def _build(arguments):
    try:
        from mlsec_lab.course import build
    except ModuleNotFoundError as error:
        raise ValueError(f"building lessons needs {error.name}, which learners do not: pip install -e \".[instructor]\"") from None
    return build.main(arguments.lessons, check_only=arguments.check)


def _train(arguments):
    from mlsec_lab.course.recipes import train_checkpoint
    from mlsec_lab.victims.checkpoints import SHIPPED, own_folder, read_manifest
    before = read_manifest().get(arguments.name)
    entry = train_checkpoint(arguments.name, SHIPPED if arguments.ship else None, seed=arguments.seed)
    print(f"{arguments.name}: accuracy {entry['accuracy']:.2%}" + (f", the shipped one had {before['accuracy']:.2%}" if before else "")
          + f"; written to {SHIPPED if arguments.ship else own_folder()}")


if __name__ == "__main__":
    raise SystemExit(main())
