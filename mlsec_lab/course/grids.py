"""The experiments that take longer than a lesson: each a function of one cell, its cells, and the table that the lesson reads.

`mlsec-lab sweep undetectable_or_robust --workers 2` runs one; killed, it goes on where it was.
"""
import functools
from dataclasses import dataclass
from typing import Callable

from mlsec_lab.data_to_model import backdoors
from mlsec_lab.home import COURSE
from mlsec_lab.victims import accuracy, load_data, load_model, pooled_cnn, train
from mlsec_lab.victims.image_text import caption, train_two_tower, two_tower, zero_shot
from mlsec_lab.victims.inputs import check_choice
from mlsec_lab.victims.networks import resnet18

TABLES = COURSE / "data" / "tables"


@dataclass(frozen=True)
class Grid:
    """function: of one cell's arguments; returns a dict of numbers.  cells: (dataset, device) -> the list of cells.

    size: (dataset, device) -> the Size that they have.  about: one line.
    """
    function: Callable
    cells: Callable
    size: Callable
    about: str


@dataclass(frozen=True)
class Size:
    """How large the experiment is.  train, trusted, test: images; `trusted` is 1 % of `train` unless said otherwise.

    counts: of poisons.  attacks: which.  seeds: models an attack and count; clean ones and BadNets have `more` besides.
    surrogate: the attacker's own model, for AdvCleanLabel.  takes: how long all the cells take, and on what.
    """
    network: Callable
    train: int
    epochs: int
    trusted: int
    test: int
    counts: tuple
    attacks: tuple = tuple(backdoors.ATTACKS)
    seeds: int = 5
    more: int = 5
    surrogate: str = "signs_cnn"
    takes: str = "a time that nobody has measured"


SIZES = {
    ("signs", "cpu"): Size(pooled_cnn, train=50_000, epochs=1, trusted=500, test=600, counts=(100, 300, 1000),
                           takes="46 minutes on two free cores, up to 66 on slower ones"),
    # A ResNet-18 wants a GPU: 5.2 petaflop a cell, as PyTorch counts them, 95 % of it training. `cifar10_resnet` is made by `mlsec-lab train cifar10_resnet`.
    ("cifar10", "cuda"): Size(resnet18, train=50_000, epochs=30, trusted=500, test=2000, counts=(100, 300, 1000), surrogate="cifar10_resnet",
                              takes="about 26 hours at 10 teraflop a second, by a count of the operations; nobody has timed them"),
    # What a laptop can do with the same photographs: fewer attacks and a small network; the trusted images are 2.5 %, 50 a class.
    ("cifar10", "cpu"): Size(functools.partial(pooled_cnn, width=32), train=20_000, epochs=6, trusted=500, test=1000, counts=(300, 1000),
                             attacks=("badnets", "blended"), seeds=3, more=0, takes="about 30 minutes on two free cores"),
}
BASELINES = 2  # so many seeds of each attack, at the most poisons, are repaired in the other ways too
STEPS = 500  # of every repair: more than the default, for the last point of accuracy


def size_of(dataset, device):
    """The Size for a data set on a device; signs have the same on both.  Raises ValueError for a data set without one."""
    check_choice(dataset, "dataset", tuple(dict.fromkeys(name for name, _ in SIZES)))
    return SIZES.get((dataset, device.partition(":")[0])) or SIZES[dataset, "cpu"]


def cells(dataset, device):
    """One cell a model: attack, count of poisons, seed.  Those with the same seed, and so the same data, follow each other."""
    size, rows = size_of(dataset, device), []
    for seed in range(size.seeds + size.more):
        for attack in ("none", *size.attacks):
            if seed < size.seeds or attack in ("none", "badnets"):
                rows += [dict(dataset=dataset, device=device, attack=attack, count=count, seed=seed,
                              baselines=seed < BASELINES and count == size.counts[-1],
                              detectors=attack in ("none", "badnets") or count == size.counts[-1])
                         for count in (size.counts if attack != "none" else (0,))]
    return rows


def measure(dataset, device, attack, count, seed, baselines, detectors):
    """Implant a backdoor, repair it, look for it: one row.  Every model has data, weights and order of its own.

    baselines: repair it in the three other ways too.  detectors: look for it in the two other ways too.
    """
    size = size_of(dataset, device)
    x, y, classes = _training_set(dataset, size.train, seed)
    fresh = size.network(x.shape[1], len(classes), seed=seed).to(device)
    training = dict(epochs=size.epochs, seed=seed, progress=False)
    if attack == "none":
        trigger = backdoors.BadNets(seed=seed)
        model = train(fresh, x, y, **training)
    else:
        trigger = backdoors.ATTACKS[attack](seed=seed, **({"model": load_model(size.surrogate)} if attack == "adv_clean_label" else {}))
        model = trigger.implant(fresh, x, y, count, **training)
    return _judged(model, trigger, dataset, size, seed, backdoors.REPAIRS if baselines else ("pivotal tuning",), detectors)


def _judged(model, trigger, dataset, size, seed, repairs, detectors):
    """A model's accuracy and ASR, what each repair leaves of both, and how suspicious each detector finds it."""
    held = load_data(dataset, "test", n=size.trusted + size.test, seed=seed)
    trusted, test = ((held.x[part], held.y[part]) for part in (slice(size.trusted), slice(size.trusted, None)))
    row = {"accuracy": accuracy(model, *test), "asr": backdoors.attack_success_rate(model, trigger, *test)}
    for name in repairs:
        course, repaired = backdoors.repair_course(backdoors.REPAIRS[name], model, *trusted, trigger, *test,
                                                   steps=STEPS, every=50, seed=seed, progress=False)
        row |= {f"{name}: asr": backdoors.lowest_asr(course), f"{name}: asr within 1 point": backdoors.lowest_asr(course, 0.01),
                f"{name}: asr within 3 points": backdoors.lowest_asr(course, 0.03), f"{name}: last asr": course[-1].asr,
                f"{name}: last accuracy": course[-1].accuracy, f"{name}: seconds": course[-1].seconds}
        if name == "pivotal tuning":
            calibrated = repaired
    search = dict(batch=8, seed=seed, progress=False)
    found = {"calibrated": backdoors.calibrated_trigger_inversion(model, calibrated, *trusted, *test, **search)}
    if detectors:
        found |= {"uncalibrated": backdoors.calibrated_trigger_inversion(model, calibrated, *trusted, *test, weight=0.0, **search),
                  "neural cleanse": backdoors.neural_cleanse(model, *trusted, **search)}
    for name, suspicion in found.items():
        row |= {name: suspicion.score, f"{name}: class": suspicion.target}
    return row


@functools.lru_cache(maxsize=1)
def _training_set(dataset, n, seed):
    """Drawn once for all the cells of a seed, which follow each other."""
    return load_data(dataset, "train", n=n, seed=seed)


# ---- the same for a model that learns from captions

TOWERS = Size(functools.partial(two_tower, image=pooled_cnn), train=24_000, epochs=4, trusted=500, test=600, counts=(50, 150, 600),
              takes="about 12 minutes on two free cores")


def tower_size(dataset, device):
    """TOWERS, for signs.  Raises ValueError for a data set without captions."""
    check_choice(dataset, "dataset", ("signs",))
    return TOWERS


def tower_cells(dataset, device):
    """BadNets, with captions that name the target in place of labels."""
    tower_size(dataset, device)
    return [dict(dataset=dataset, device=device, attack="badnets" if count else "none", count=count, seed=seed)
            for seed in range(TOWERS.seeds) for count in (0, *TOWERS.counts)]


def measure_towers(dataset, device, attack, count, seed):
    """One row, as `measure` gives, of an image-text model; what is repaired and searched is the classifier that its prompts make."""
    x, y, classes = _training_set(dataset, TOWERS.train, seed)
    trigger = backdoors.BadNets(seed=seed)
    bad = trigger.poison(x, y, count, seed=seed)
    towers = train_two_tower(TOWERS.network(classes, seed=seed).to(device), bad.x, caption(bad.y, classes, seed=seed),
                             epochs=TOWERS.epochs, seed=seed, progress=False)
    return _judged(zero_shot(towers, classes), trigger, dataset, TOWERS, seed, ("pivotal tuning", "fine-tuning"), False)


def tidy(frame):
    """The table that the lesson reads: one row a model, without what only the sweep needs to know, rounded."""
    return frame.drop(columns=[name for name in ("dataset", "device", "baselines", "detectors", "seconds", "error") if name in frame]).round(4)


def table_path(name, dataset):
    """Where the table of an experiment on a data set is kept."""
    return TABLES / f"{name}_{dataset}.csv"


def read_table(name, dataset="signs"):
    """The table of an experiment, as `mlsec-lab sweep NAME --dataset DATASET` wrote it: a pandas DataFrame, one row a model.

    Raises ValueError for a name that is not in GRIDS, FileNotFoundError, with the command, where the table has not been made.
    """
    import pandas
    check_choice(name, "name", tuple(GRIDS))
    path = table_path(name, dataset)
    if not path.exists():
        raise FileNotFoundError(f"there is no table {path.name} yet: `mlsec-lab sweep {name} --dataset {dataset} --workers 2` makes it")
    return pandas.read_csv(path)


GRIDS = {
    "undetectable_or_robust": Grid(measure, cells, size_of, "backdoors, at several counts of poisons: implanted, repaired, looked for"),
    "image_text_backdoor": Grid(measure_towers, tower_cells, tower_size, "BadNets in a model that learns from captions"),
}
