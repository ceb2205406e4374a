"""What model inversion finds, attack by answer mode, and at how many questions.

    python benchmarks/inversion.py                   the drawn badges, 5 seeds, line-ups of 24, 50 and 200
    python benchmarks/inversion.py --data olivetti   photographs (MLSEC_DATA must have them); trains model and judge first, about two minutes
    python benchmarks/inversion.py --private         also a model trained by DP-SGD at epsilon 8 (opacus), about a minute a seed

A seed draws other strangers for the attacker's prior and for the first questions, and all that the attacks draw; `--retrain` makes another
attacked model for each seed as well. The judge stays. A number is the mean share of people recognised and its standard deviation over the
seeds; `similarity` needs no line-up. Nothing goes over a network here: tests/model_to_data shows that the service answers the same.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mlsec_lab  # noqa: E402, F401
import torch  # noqa: E402
from torch import nn  # noqa: E402

from mlsec_lab.course.recipes import RECIPES, train_checkpoint  # noqa: E402
from mlsec_lab.model_to_data import inversion  # noqa: E402
from mlsec_lab.victims import LabelOnly, accuracy, load_data, load_model, predict, train  # noqa: E402
from mlsec_lab.victims.checkpoints import NETWORKS  # noqa: E402
from mlsec_lab.victims.judge import people_of  # noqa: E402


class Rounded(nn.Module):
    """Answers as a service does that rounds its probabilities."""

    def __init__(self, model, digits=2):
        super().__init__()
        self.model, self.digits = model, digits

    def forward(self, x):
        return self.model(x).double().softmax(1).round(decimals=self.digits).clamp_min(1e-100).log().float()


def trained(name):
    try:
        return load_model(name)
    except FileNotFoundError:
        train_checkpoint(name)
        return load_model(name)


def another(data, seed):
    """An attacked model of the same kind, from other weights and other shots."""
    recipe = RECIPES[f"{data}_cnn"]
    shots = {key: value for key, value in recipe.training.items() if key != "epochs"}
    x, y, _ = people_of(data, shots.get("shots", 250), seed, "train")
    return train(NETWORKS[recipe.network](**recipe.shape, seed=seed), x, y, epochs=recipe.training["epochs"], seed=seed)


def namesakes(ask, y, faces, public):
    """The mean of the strangers who are called each person, of all where none is, and the number of questions: where the repelling begins."""
    strangers, called = faces.coefficients(public), predict(ask, public).argmax(1)
    hits = [strangers[called == label] for label in y]
    return faces.pictures(torch.stack([(rows if len(rows) else strangers).mean(0) for rows in hits])), len(public)


def attacks(model, y, faces, public, shape, seed):
    """(attack, what is answered) -> a function that gives the pictures and the number of questions."""
    hidden, two, one = LabelOnly(model), Rounded(model), Rounded(model, 1)
    search = dict(faces=faces, public=public, seed=seed)
    return {
        ("pixels, naive", "weights"): lambda: (inversion.invert_pixels(model, y, shape, seed=seed), 0),
        ("pixels, smooth", "weights"): lambda: (inversion.invert_pixels(model, y, shape, tv=5, scales=(8, 16), shift=2, seed=seed), 0),
        ("eigenfaces", "weights"): lambda: (inversion.invert_faces(model, y, faces, seed=seed), 0),
        ("best stranger", "probabilities"): lambda: inversion.best_stranger(model, y, public),
        ("evolution, 3 generations", "probabilities"): lambda: inversion.from_probabilities(model, y, generations=3, **search),
        ("evolution", "probabilities"): lambda: inversion.from_probabilities(model, y, **search),
        ("evolution, 30 generations", "probabilities"): lambda: inversion.from_probabilities(model, y, generations=30, **search),
        ("evolution", "two digits"): lambda: inversion.from_probabilities(two, y, **search),
        ("evolution", "one digit"): lambda: inversion.from_probabilities(one, y, **search),
        ("evolution", "top-1"): lambda: inversion.from_probabilities(hidden, y, **search),
        ("namesakes", "top-1"): lambda: namesakes(hidden, y, faces, public),
        ("repelling, 8 rounds", "top-1"): lambda: inversion.from_labels(hidden, y, rounds=8, **search),
        ("repelling", "top-1"): lambda: inversion.from_labels(hidden, y, **search),
        ("repelling, 50 rounds", "top-1"): lambda: inversion.from_labels(hidden, y, rounds=50, **search)}


def main(data, seeds, retrain, private):
    base, judge, began = trained(f"{data}_cnn"), trained(f"{data}_judge"), time.process_time()
    shots, test = load_data(data, "train"), load_data(data, "test")
    y, known = torch.arange(len(shots.classes)), judge(shots.x[:1]).shape[1] - 1
    portraits = torch.stack([shots.x[shots.y == label].mean(0) for label in y])
    sizes = sorted({len(y), min(50, known), known})
    found, asked, right = {}, {}, []
    for seed in range(seeds):
        model = another(data, seed) if retrain else base
        right.append(accuracy(model, test.x, test.y))
        street = load_data(f"{data}_public", "train", seed=seed).x
        street = street[torch.randperm(len(street), generator=torch.Generator().manual_seed(seed))]
        faces = inversion.eigenfaces(street, min(60, len(street) - 1), seed=seed)
        runs = attacks(model, y, faces, street[:500], tuple(shots.x.shape[1:]), seed)
        if private:
            x, labels, _ = people_of(data, 250, seed, "train")
            start = NETWORKS["small_cnn"](**RECIPES[f"{data}_cnn"].shape, seed=seed)
            hardened = inversion.train_privately(start, x, labels, epochs=4, seed=seed).model
            print(f"seed {seed}: the private model is right on {accuracy(hardened, test.x, test.y):.1%} of fresh shots", flush=True)
            runs["eigenfaces", "weights, private"] = lambda: (inversion.invert_faces(hardened, y, faces, seed=seed), 0)
        for name, run in runs.items():
            x, asked[name] = run()
            rates = [inversion.recognised(judge, x, y, people).float().mean().item() for people in sizes]
            found.setdefault(name, []).append([*rates, inversion.similarity(x, y, portraits).mean().item()])
        print(f"seed {seed} done, {time.process_time() - began:.0f} CPU seconds", flush=True)

    def cell(values):
        return f"{statistics.mean(values):5.2f} ±{statistics.stdev(values) if len(values) > 1 else 0:4.2f}"

    print(f"\n{data}, {len(y)} people, {seeds} seeds; the attacked model is right on {statistics.mean(right):.1%} of fresh shots")
    print(f"{'attack':27}{'answers':18}{'questions':>10}{'at 100/hour':>13}" + "".join(f"{f'of {people}':>13}" for people in sizes) + f"{'similarity':>13}")
    for (attack, answer), rows in found.items():
        queries = asked[attack, answer]
        hours = f"{inversion.hours_needed(queries, 100)} h" if queries else ""
        print(f"{attack:27}{answer:18}{queries:10,}{hours:>13}" + "".join(f"{cell(values):>13}" for values in zip(*rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="badges", choices=("badges", "olivetti"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--retrain", action="store_true")
    parser.add_argument("--private", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    main(arguments.data, arguments.seeds, arguments.retrain, arguments.private)
