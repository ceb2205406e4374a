"""The experiments that take longer than a lesson: each a function of one cell, its cells, and the table that the lesson reads.

`mlsec-lab sweep undetectable_or_robust --workers 2` runs one; killed, it goes on where it was.
"""
import functools
from dataclasses import dataclass
from typing import Callable

from mlsec_lab.data_to_model import backdoors
from mlsec_lab.home import COURSE
from mlsec_lab.victims import accuracy, load_data, load_model, pooled_cnn, train
from mlsec_lab.victims.inputs import check_choice
from mlsec_lab.victims.networks import resnet18

TABLES = COURSE / "data" / "tables"


@dataclass(frozen=True)
class Grid:
    """function: of one cell's arguments; returns a dict of numbers.  cells: (dataset, device) -> the list of cells.

    about: one line.  minutes: for all cells of the drawn signs on two cores.  summarise: the finished cells as a table.
    out: (dataset) -> where that table goes.
    """
    function: Callable
    cells: Callable
    about: str
    minutes: int
    summarise: Callable
    out: Callable


@dataclass(frozen=True)
class Size:
    """How large the experiment is on one data set.  train, trusted, test: images; `trusted` is 1 % of `train`.  counts: of poisons."""
    network: Callable
    train: int
    epochs: int
    trusted: int
    test: int
    counts: tuple
    seeds: int = 5
    surrogate: str = "signs_cnn"  # the attacker's own model, for AdvCleanLabel


SIZES = {
    "signs": Size(pooled_cnn, train=50_000, epochs=1, trusted=500, test=1000, counts=(50, 250, 1000)),
    "cifar10": Size(resnet18, train=50_000, epochs=30, trusted=500, test=2000, counts=(50, 250, 1000), surrogate="cifar10_resnet"),
}
TEN_SEEDS = ("none", "badnets", "pcb")  # where the AUC of a single attack is asked for: ten backdoored models and ten clean ones
BASELINES = 3  # so many seeds of each attack, at the most poisons, are repaired in the other ways too


def cells(dataset, device):
    """One cell a model: attack, count of poisons, seed.  Those with the same seed, and so the same data, follow each other."""
    check_choice(dataset, "dataset", tuple(SIZES))
    size, rows = SIZES[dataset], []
    for seed in range(10):
        for attack in ("none", *backdoors.ATTACKS):
            if seed < size.seeds or attack in TEN_SEEDS:
                rows += [dict(dataset=dataset, device=device, attack=attack, count=count, seed=seed,
                              baselines=seed < BASELINES and count == size.counts[-1])
                         for count in (size.counts if attack != "none" else (0,))]
    return rows


def measure(dataset, device, attack, count, seed, baselines):
    """Implant a backdoor, repair it, look for it: one row.  Every model has data, weights and order of its own."""
    size = SIZES[dataset]
    x, y, classes = _training_set(dataset, size.train, seed)
    held = load_data(dataset, "test", n=size.trusted + size.test, seed=seed)
    trusted, test = ((held.x[part], held.y[part]) for part in (slice(size.trusted), slice(size.trusted, None)))
    fresh = size.network(x.shape[1], len(classes), seed=seed).to(device)
    training = dict(epochs=size.epochs, seed=seed, progress=False)
    if attack == "none":
        trigger = backdoors.BadNets(seed=seed)
        model = train(fresh, x, y, **training)
    else:
        trigger = backdoors.ATTACKS[attack](seed=seed, **({"model": load_model(size.surrogate)} if attack == "adv_clean_label" else {}))
        model = trigger.implant(fresh, x, y, count, **training)
    row = {"accuracy": accuracy(model, *test), "asr": backdoors.attack_success_rate(model, trigger, *test)}
    for name, repair in backdoors.REPAIRS.items():
        if name == "pivotal tuning" or baselines:
            course, repaired = backdoors.repair_course(repair, model, *trusted, trigger, *test, every=25, seed=seed, progress=False)
            row |= {f"{name}: asr": backdoors.lowest_asr(course), f"{name}: last asr": course[-1].asr,
                    f"{name}: last accuracy": course[-1].accuracy, f"{name}: seconds": course[-1].seconds}
            if name == "pivotal tuning":
                calibrated = repaired
    for name, weight in (("calibrated", 0.5), ("uncalibrated", 0.0)):
        found = backdoors.calibrated_trigger_inversion(model, calibrated, *trusted, *test, weight=weight, seed=seed, progress=False)
        row |= {name: found.score, f"{name}: class": found.target}
    found = backdoors.neural_cleanse(model, *trusted, seed=seed, progress=False)
    return row | {"neural cleanse": found.score, "neural cleanse: class": found.target}


@functools.lru_cache(maxsize=1)
def _training_set(dataset, n, seed):
    """Drawn once for all the cells of a seed, which follow each other."""
    return load_data(dataset, "train", n=n, seed=seed)


def summarise(frame):
    """Of each attack and count: means over the models, and how well each detector tells them from the clean ones (AUC, 95 % interval)."""
    import pandas
    clean, rows = frame[frame["attack"] == "none"], []
    for (attack, count), group in frame[frame["attack"] != "none"].groupby(["attack", "count"], sort=False):
        row = {"attack": attack, "count": count, "models": len(group)}
        row |= group.drop(columns=["seed", "count", "baselines", "seconds"]).mean(numeric_only=True).to_dict()
        row["pivotal tuning: worst asr"] = group["pivotal tuning: asr"].max()
        for detector in ("calibrated", "uncalibrated", "neural cleanse"):
            row |= dict(zip((f"{detector}: auc", f"{detector}: low", f"{detector}: high"), backdoors.roc_auc(group[detector], clean[detector])))
        rows.append(row)
    return pandas.DataFrame(rows).round(4)


GRIDS = {
    "undetectable_or_robust": Grid(measure, cells, "ten attacks, three counts of poisons: implanted, repaired, looked for", 60, summarise,
                                   lambda dataset: TABLES / f"undetectable_or_robust_{dataset}.csv"),
}
