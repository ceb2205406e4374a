"""Lessons on photographs: needs MLSEC_DATA with Fashion-MNIST and GTSRB.

    python benchmarks/real_data.py                     lesson 01's claims on each of them, five data seeds, by changing one word
    python benchmarks/real_data.py --lesson poisoning --seeds 3 gtsrb fashion_mnist         lesson 02's, on two of them, three seeds (or theft: lesson 12's)
    python benchmarks/real_data.py --drawn             a network trained on drawn signs alone, tested on real signs of the classes they share
"""
import argparse
import statistics

import mlsec_lab  # noqa: F401  (first, for its thread settings)
import torch

from mlsec_lab.data_to_model import evasion
from mlsec_lab.victims import accuracy, load_data, load_model, signs
from mlsec_lab.victims.datasets import GTSRB_CLASSES

EPS = 8 / 255
VICTIMS = ("signs", "fashion_mnist", "gtsrb")


def drawn_against_real():
    """The shipped signs_cnn has seen no photograph: how much does it read of GTSRB's test set, and what does PGD leave?"""
    x, y, _ = load_data("gtsrb", "test")
    shared = {GTSRB_CLASSES.index(name): k for k, name in enumerate(signs.CLASSES)}
    chosen = torch.tensor([label in shared for label in y.tolist()])
    x, y = x[chosen], torch.tensor([shared[label] for label in y[chosen].tolist()])
    for name in ("signs_cnn", "signs_cnn_robust"):
        model = load_model(name)
        print(f"{name}, trained on drawn signs alone, on {len(x):,} photographs of the {len(shared)} shared classes: {accuracy(model, x, y):.1%}")
        for k, title in enumerate(signs.CLASSES):
            print(f"    {title:22} {accuracy(model, x[y == k], y[y == k]):6.1%} of {(y == k).sum():4}")
        part = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:512]
        attacked = evasion.pgd(model, x[part], y[part], eps=EPS)
        print(f"  PGD-40 at 8/255 on {len(part)} of them leaves {accuracy(model, attacked, y[part]):.1%}", flush=True)


def evasion_figures(names):
    return names["table"] | {k: v for k, v in names["held"].items() if k.startswith("multi")}


def poisoning_figures(names):
    """Lesson 02's numbers, each a share."""
    numbers = {"clean accuracy": names["clean_accuracy"], "with BadNets": names["backdoored_accuracy"], "repaired": names["repaired_accuracy"]}
    numbers |= {f"accuracy, {rate:.0%} random flips": value for rate, value in zip(names["shares"], names["after_flips"])}
    numbers |= {"aimed flips: misread": float(names["misread"]), "BadNets: ASR": names["asr"]["backdoored one"], "repaired: ASR": names["repaired_asr"]}
    numbers |= {"fence: recall": names["fence_recall"], "spectral: recall": names["found"].recall, "clustering: recall": names["caught"].recall}
    numbers |= {"clean label: ASR": names["quiet_asr"], "clean label: recall": names["quiet_found"].recall}
    for n, heap in names["in_heap"].items():
        numbers |= {f"blended, {n} covers: ASR": names["blended_asr"][n], f"blended, {n} covers: poison in the heap": heap.precision}
    return numbers | {"blended, 120 covers: ASR without the target's suspects": names["rid_asr"]}


def theft_figures(names):
    """Lesson 12's numbers: how often the copies agree with the victim, and how often it is fooled by what fools another network."""
    return names["reached"] | {f"fooled by FGSM on: {name}": share for name, share in names["fooled"].items()}


FIGURES = {"evasion": evasion_figures, "poisoning": poisoning_figures, "theft": theft_figures}


def claims(topic, victims, seeds):
    import sys
    from pathlib import Path
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "solutions"))
    from lesson_runner import run_lesson
    for victim in victims:
        held, figures = {}, {}
        for seed in range(seeds):
            ran = run_lesson(topic, seed=seed, victim=victim)
            for claim, holds in ran.claims.items():
                held.setdefault(claim, []).append(holds)
            for what, value in FIGURES[topic](ran.names).items():
                figures.setdefault(what, []).append(value)
        print(f"\n{victim}: claims that held, of {seeds} seeds")
        for claim, results in held.items():
            print(f"  {sum(results)}/{seeds}  {claim}")
        for what, values in figures.items():
            print(f"  {what:52} {statistics.mean(values):6.1%}  ({min(values):.1%} to {max(values):.1%})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--lesson", choices=tuple(FIGURES), default="evasion")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("victims", nargs="*", metavar="victim", help=", ".join(VICTIMS) + "; all of them by default")
    arguments = parser.parse_args()
    if strange := set(arguments.victims) - {*VICTIMS}:
        parser.error(f"a victim must be one of {', '.join(VICTIMS)}, not {', '.join(sorted(strange))}")
    drawn_against_real() if arguments.drawn else claims(arguments.lesson, arguments.victims or VICTIMS, arguments.seeds)
