"""mlsec-lab: doctor · list · open · reset · build · train · sweep."""
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
    sweep = commands.add_parser("sweep", help="run an experiment over its whole grid and write its table; stopped, it resumes")
    sweep.add_argument("name", help="of the experiment, from mlsec_lab/course/grids.py")
    sweep.add_argument("--dataset", default="signs", help="such as signs (the default) or cifar10")
    sweep.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    sweep.add_argument("--workers", type=int, default=1, metavar="N", help="so many cells at a time, one thread each (default 1)")
    sweep.add_argument("--out", metavar="FILE", help="where the table goes; by default beside the experiment's other tables")
    sweep.add_argument("--cells", type=int, nargs="+", metavar="N", help="only these cells, counted from 0; a table is written only to --out")
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


def _sweep(arguments):
    try:
        import pandas  # noqa: F401 (here, not after the first cell)
        from mlsec_lab.course.grids import GRIDS, table_path, tidy
    except ModuleNotFoundError as error:
        raise ValueError(f"sweeping needs {error.name}, which is not installed here: `python3 lab.py` brings the installation up to date") from None
    import contextlib
    from pathlib import Path

    from mlsec_lab import __version__
    from mlsec_lab.course.sweep import sweep, workers
    from mlsec_lab.home import work_folder, write_whole
    from mlsec_lab.victims.datasets import DATA_SETS
    from mlsec_lab.victims.inputs import check_choice, check_number
    check_choice(arguments.name, "name", tuple(GRIDS))
    check_choice(arguments.dataset, "dataset", DATA_SETS)
    check_number(arguments.workers, "workers", least=1)
    grid = GRIDS[arguments.name]
    cells = grid.cells(arguments.dataset, arguments.device)
    for number in arguments.cells or ():
        check_number(number, "cells", least=0, most=len(cells) - 1)
    chosen = cells if arguments.cells is None else [cells[number] for number in arguments.cells]
    takes = grid.size(arguments.dataset, arguments.device).takes
    print(f"{arguments.name} on {arguments.dataset}: {grid.about} ({len(chosen)} of {len(cells)} cells; all of them take {takes})", flush=True)
    folder = work_folder() / "sweeps" / f"{arguments.name}-{arguments.dataset}"
    try:
        with workers(arguments.workers) if arguments.workers > 1 else contextlib.nullcontext() as pool:
            frame = sweep(grid.function, chosen, folder=folder, executor=pool, version=__version__)
    except KeyboardInterrupt:
        print("mlsec-lab: stopped; the finished cells are kept, and running the command again resumes with the others", file=sys.stderr)
        return 130
    failed = frame[frame["error"] != ""]
    if len(failed):
        print(f"mlsec-lab: {len(failed)} of {len(frame)} cells failed, the first with {failed['error'].iloc[0]}; no table is written; "
              "the others are kept, and running the command again resumes with these", file=sys.stderr)
        return 1
    if arguments.cells is not None and not arguments.out:
        print(f"{len(frame)} cells are done; without --cells the same command does the rest and writes the table")
        return 0
    path = Path(arguments.out or table_path(arguments.name, arguments.dataset))
    table = tidy(frame)
    write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())
    print(f"{path}: {len(table)} rows")


if __name__ == "__main__":
    raise SystemExit(main())
