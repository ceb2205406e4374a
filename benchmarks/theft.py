"""What a copy costs: agreement by queries, by what is asked and by what is told; then rules for choosing what to ask.

    OMP_NUM_THREADS=1 python benchmarks/theft.py                       signs; unlabelled ones are drawn anew
    OMP_NUM_THREADS=1 python benchmarks/theft.py --data fashion_mnist  photographs; the thief's are from the test split

The victim is the shipped network, the thief's one of the same kind with half its width and other first weights. A seed is another set of
pictures for the thief, other first weights and another order. Each cell is the mean over the seeds ± their standard deviation; agreement is
measured on 1,000 pictures that nobody asked about. A copy sees about 8,000 pictures in its
training, and each query at least six times and at most twenty. Copies from probabilities are trained at temperature 3, those from labels at 1.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

from mlsec_lab.model_to_model import theft  # noqa: E402
from mlsec_lab.victims import accuracy, load_data, load_model, predict, small_cnn  # noqa: E402

BUDGETS, PASSED = (250, 500, 1000, 2000, 4000), 8000  # queries; images seen in one training, about


def spread(values):
    return f"{statistics.mean(values):6.1%} ± {statistics.stdev(values) if len(values) > 1 else 0:4.1%}"


def uncertain(model, pool, chosen, count, how):
    """Rows of the pool where the copy is least sure: by entropy, or by how near its two likeliest classes are."""
    probabilities = predict(model, pool).softmax(1)
    if how == "entropy":
        unsure = -(probabilities * probabilities.clamp_min(1e-9).log()).sum(1)
    else:
        best = probabilities.topk(2, dim=1).values
        unsure = best[:, 1] - best[:, 0]
    unsure[chosen] = -torch.inf
    return unsure.topk(count).indices


def by_rule(rule, ask, pool, start, seed, *, first=100, budget=400):
    """A copy whose queries were chosen by a rule, in two rounds."""
    if rule == "k-center":
        return theft.active_knockoff(ask, pool, start, budget=budget, first=first, epochs=20, seed=seed, progress=False)
    chosen = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:budget if rule == "random" else first]
    while len(chosen) < budget:
        model = theft.imitate(start, pool[chosen], ask(pool[chosen]), epochs=20, seed=seed, progress=False)
        chosen = torch.cat([chosen, uncertain(model, pool, chosen, (budget - first) // 2, rule)])
    return theft.imitate(start, pool[chosen], ask(pool[chosen]), epochs=20, seed=seed, progress=False), chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs", choices=("signs", "fashion_mnist", "gtsrb"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, model = time.process_time(), load_model(f"{options.data}_cnn")
    results, rules = {}, {}
    for seed in range(options.seeds):
        x, y, classes = load_data(options.data, "test", n=1000 + max(BUDGETS), seed=seed)
        held_out, mine, shape = x[:1000], x[1000:], tuple(x.shape[1:])
        if not seed:
            print(f"victim {options.data}_cnn, accuracy {accuracy(model, held_out, y[:1000]):.1%}; pictures {list(shape)}, {len(classes)} classes, "
                  f"{options.seeds} seeds, {len(held_out):,} held-out pictures", flush=True)
        start, full = small_cnn(shape[0], len(classes), size=shape[1], width=8, seed=seed + 1), theft.answering(model)
        asked = {"unlabelled": mine, "photographs": theft.photograph_pieces(max(BUDGETS), shape, seed=seed), "noise": theft.random_noise(1000, shape, seed)}
        for kind, pool in asked.items():
            for mode in ("probabilities", "rounded", "top1"):
                ask = theft.answering(model, mode)
                for n in (n for n in BUDGETS if n <= len(pool)):
                    copied = theft.knockoff(ask, pool[:n], start, epochs=min(20, max(6, PASSED // n)), temperature=1.0 if mode == "top1" else 3.0,
                                            seed=seed, progress=False)
                    results.setdefault((kind, mode), {}).setdefault(n, []).append(theft.agreement(copied, full, held_out))
        heaps = {"unlabelled alone": mine[:3000], "one in five": torch.cat([mine[:600], theft.coloured_digits(2400, shape, seed)])}
        for heap, pool in heaps.items():
            for rule in ("random", "entropy", "margin", "k-center"):
                copied, chosen = by_rule(rule, full, pool, start, seed)
                rules.setdefault((heap, rule), []).append((theft.agreement(copied, full, held_out), (chosen < 600).float().mean().item()))
    print(f"\nagreement with the victim\n{'asked about':14}{'told':16}" + "".join(f"{n:>17,}" for n in BUDGETS))
    for (kind, mode), row in results.items():
        print(f"{kind:14}{mode:16}" + "".join(f"{spread(row[n]):>17}" for n in BUDGETS if n in row))
    print(f"\n400 queries chosen from a heap of 3,000, probabilities told\n{'heap':20}{'rule':12}{'agreement':>17}{'of the kind':>14}")
    for (heap, rule), pairs in rules.items():
        share = f"{statistics.mean(found for _, found in pairs):.0%}" if heap == "one in five" else ""
        print(f"{heap:20}{rule:12}{spread([a for a, _ in pairs]):>17}{share:>14}")
    print(f"\n{(time.process_time() - began) / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main()
