"""Every attack on an answer against every protection, over real connections: how many of 1,000 answers each one takes.

    OMP_NUM_THREADS=1 python benchmarks/output_integrity.py --answers 1000 --seeds 1

A seed makes other keys, other pictures and other mutations. Below the table, without a network: 1,000 genuine exchanges, and 1,000 that were
mutated or replayed, in every way that `integrity.MUTATIONS` names, and how many of either each signature takes.
"""
import argparse
import random

import torch

from mlsec_lab.model_to_data import integrity
from mlsec_lab.model_to_data.integrity_lab import PROTECTIONS, Lab
from mlsec_lab.victims import load_data, load_model


def exchanges(lab, n):
    """n genuine exchanges, as they went over the wire."""
    lab.front.rewrite = None
    lab.front.set(cache=False)
    lab.accepted("nobody attacks")
    return lab.front.seen[-n:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("signs_cnn")
    for seed in range(options.seeds):
        x, _, classes = load_data("signs", "test", n=options.answers + 1, seed=1000 * seed)
        with Lab(model, x, classes, seed=seed) as lab:
            rows = lab.table()
            genuine = exchanges(lab, options.answers)
            print(f"seed {seed}: answers taken, of {options.answers:,}")
            print(" " * 42 + "".join(f"{name:>18}" for name in PROTECTIONS))
            for attack, taken in rows.items():
                print(f"{attack:42}" + "".join(f"{taken[name]:>18,}" for name in PROTECTIONS))
            chance, kinds = random.Random(seed), integrity.MUTATIONS
            for name, header in (("bound HMAC", "X-Hmac"), ("bound Ed25519", "X-Ed25519")):
                attacked = [integrity.mutate(exchange, chance.choice(genuine[:place] + genuine[place + 1:]), kinds[place % len(kinds)], lab.classes,
                                             seed=place, header=header) for place, exchange in enumerate(genuine)]
                taken = [sum(integrity.accepts(lab.checks[name], exchange) for exchange in some) for some in (genuine, attacked)]
                print(f"{name}: {taken[0]:,} of {len(genuine):,} genuine, {taken[1]:,} of {len(attacked):,} mutated or replayed")


if __name__ == "__main__":
    main()
