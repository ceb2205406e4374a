"""The headline of lesson 04: how much accuracy each attack costs, by task and by the share of poison that is added.

    python benchmarks/poisoned_features.py                  extractor of signs; heads for signs (fine-tuning) and digits (transfer)
    python benchmarks/poisoned_features.py --data cifar10   extractor of CIFAR-10; heads for CIFAR-10 and Fashion-MNIST (or --transfer gtsrb)

The second one reads real data (MLSEC_DATA) and trains its extractor first, in about eight minutes, where `mlsec-lab train
cifar10_contrastive` has not done so. A thousand clean rows a task, one thread; each number is in points of accuracy, the mean over
the seeds and its standard deviation. Every attack has the same clean rows, the same start and the same labels.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from tqdm.auto import tqdm  # noqa: E402

from mlsec_lab.course.recipes import train_checkpoint  # noqa: E402
from mlsec_lab.data_to_model import features as attacks  # noqa: E402
from mlsec_lab.victims import load_data, load_model, predict  # noqa: E402
from mlsec_lab.victims.self_supervised import as_head, fit_images, flat, train_head  # noqa: E402

BUDGETS = (0.01, 0.03, 0.1)
RADIUS, SHRINK = 0.2, 0.02  # the target: so far from the clean head, and so much less sure


def extractor_of(data):
    try:
        return load_model(f"{data}_contrastive")
    except FileNotFoundError:
        train_checkpoint(f"{data}_contrastive")
        return load_model(f"{data}_contrastive")


def one_task(model, data, n, seed, bar):
    """{(attack, eps_d): accuracy lost} for one task and one seed."""
    x, y, classes = load_data(data, "train", n=n, seed=seed)
    x_test, y_test, _ = load_data(data, "test", n=500 if data == "digits" else 1000, seed=seed)
    x, x_test, k = fit_images(x), fit_images(x_test), len(classes)
    extractor, features, test = model.extractor, predict(model.extractor, x), predict(model.extractor, x_test)
    head = train_head(features, y, k)
    clean = attacks.head_accuracy(head, test, y_test)
    target = as_head(SHRINK * flat(attacks.gradpc(head, features, y, radius=RADIUS * flat(head).norm().item())))
    lost = {("clean accuracy", 0): clean, ("GradPC's head itself", 0): clean - attacks.head_accuracy(target, test, y_test)}

    def frozen_and_head(x, y):
        return nn.Sequential(extractor, train_head(predict(extractor, x), y, k))

    for eps_d in BUDGETS:
        rows = attacks.poison_rows(n, eps_d, seed=seed)
        start, y_poison = x[rows], y[rows]
        poison = attacks.gradient_cancelling(target, features, y, features[rows], y_poison)
        made = {"GC on features": lambda: poison,
                "GC, not clipped": lambda: extractor(free()).detach(),
                "  the same, stored": lambda: predict(extractor, free().clamp(0, 1)),
                "GC, clipped": lambda: predict(extractor, attacks.gradient_cancelling_images(extractor, target, features, y, start, y_poison)),
                "feature-targeted, decoder": lambda: predict(extractor, attacks.decoder_inversion(model.decoder, poison)),
                "feature-targeted, matching": lambda: predict(extractor, attacks.feature_matching(extractor, poison, start)),
                "feature-targeted, β = 100": lambda: predict(extractor, attacks.feature_matching(extractor, poison, start, beta=100)),
                "TGDA, clipped": lambda: predict(extractor, attacks.tgda(extractor, x, y, start, y_poison, k)),
                "EMN, 8/255": lambda: predict(extractor, attacks.error_minimising_noise(frozen_and_head, start, y_poison))}
        unclipped = []

        def free():
            if not unclipped:
                unclipped.append(attacks.gradient_cancelling_images(extractor, target, features, y, start, y_poison, clip=False))
            return unclipped[0]

        for name, make in made.items():
            rows_now, labels = torch.cat([features, make()]), torch.cat([y, y_poison])
            lost[name, eps_d] = clean - attacks.head_accuracy(train_head(rows_now, labels, k), test, y_test)
            bar.update()
    return lost


def main(data, transfer, seeds, n):
    model, tasks = extractor_of(data), {"fine-tuning": data, "transfer": transfer}
    began = time.process_time()
    with tqdm(total=len(tasks) * seeds * len(BUDGETS) * 9, desc="attacks") as bar:
        found = {task: [one_task(model, name, n, seed, bar) for seed in range(seeds)] for task, name in tasks.items()}

    def cell(task, key):
        values = [100 * lost[key] for lost in found[task]]
        return f"{statistics.mean(values):5.1f} ±{statistics.stdev(values) if seeds > 1 else 0:4.1f}"

    print(f"\nAccuracy lost in points, mean ± standard deviation over {seeds} seeds; {n} clean rows; extractor of {data}")
    for key in (("clean accuracy", 0), ("GradPC's head itself", 0)):
        print(f"{key[0]:28}" + "   ".join(f"{task} ({name}) {cell(task, key)}" for task, name in tasks.items()))
    print(f"{'attack':28}" + "".join(f"{task + f' {eps_d:.0%}':>18}" for task in tasks for eps_d in BUDGETS))
    for name in dict.fromkeys(name for name, eps_d in found["transfer"][0] if eps_d):
        print(f"{name:28}" + "".join(f"{cell(task, (name, eps_d)):>18}" for task in tasks for eps_d in BUDGETS))
    print(f"{time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs", choices=("signs", "cifar10"))
    parser.add_argument("--transfer", help="digits, fashion_mnist or gtsrb; gtsrb's 43 classes make TGDA's Hessian slow")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-n", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(arguments.data, arguments.transfer or {"signs": "digits", "cifar10": "fashion_mnist"}[arguments.data], arguments.seeds, arguments.n)
