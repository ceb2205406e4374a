"""Our attacks against the libraries', in one run: same model, same pictures, same start, one thread.

    python benchmarks/evasion.py               PGD-40 against foolbox's, 512 pictures, undefended and adversarially trained
    python benchmarks/evasion.py --autoattack  the stronger attack against AutoAttack (pip install -e ".[benchmark]"), 256 pictures

Times are compared as ratios within the run: rounds alternate, the median counts.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mlsec_lab  # noqa: E402, F401
import foolbox  # noqa: E402
import torch  # noqa: E402

from mlsec_lab.data_to_model import evasion  # noqa: E402
from mlsec_lab.victims import accuracy, load_data, load_model  # noqa: E402

EPS, STEPS = 8 / 255, 40


class SameStart(foolbox.attacks.LinfPGD):
    """foolbox's PGD from a starting point that is handed over."""

    def __init__(self, start, **arguments):
        super().__init__(random_start=True, **arguments)
        self.start = start

    def get_random_start(self, x0, epsilon):
        return type(x0)(self.start)


def timed(function):
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def against_foolbox(victim, n, rounds):
    x, y, _ = load_data(victim, "test", n=n)
    print(f"PGD-40 in L∞ on {n} pictures, {'accuracy left':>28} {'CPU seconds':>22} {'faster':>10}")
    for name, eps in ((f"{victim}_cnn", EPS), (f"{victim}_cnn", 2 * EPS), (f"{victim}_cnn_robust", EPS)):
        model = load_model(name)
        step = 2.5 * eps / STEPS
        attack = SameStart(evasion.random_point(x, eps, seed=0), steps=STEPS, abs_stepsize=step)
        fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
        ours, theirs, ratios = [], [], []
        for _ in range(rounds):
            seconds, (_, by_foolbox, _) = timed(lambda: attack(fmodel, x, y, epsilons=eps))
            theirs.append(seconds)
            seconds, by_us = timed(lambda: evasion.pgd(model, x, y, eps=eps, steps=STEPS, step_size=step, seed=0))
            ours.append(seconds)
            ratios.append(theirs[-1] / ours[-1])
        left = accuracy(model, by_foolbox, y), accuracy(model, by_us, y)
        print(f"{name + f' at {eps * 255:.0f}/255':32} foolbox {left[0]:6.1%}  ours {left[1]:6.1%}   foolbox {statistics.median(theirs):6.2f}  ours {statistics.median(ours):6.2f}"
              f"  {statistics.median(ratios):7.1f}x", flush=True)


def against_autoattack(victim, n):
    from pyautoattack import AutoAttack
    model = load_model(f"{victim}_cnn_robust")
    x, y, _ = load_data(victim, "test", n=n)
    print(f"{victim}_cnn_robust, L∞ 8/255, {n} pictures: clean {accuracy(model, x, y):.1%}")
    attacks = {"PGD-40": lambda: evasion.pgd(model, x, y, eps=EPS, steps=STEPS),
               "multi_targeted": lambda: evasion.multi_targeted(model, x, y, eps=EPS),
               "AutoAttack, standard": lambda: AutoAttack(model, norm="Linf", eps=EPS, version="standard", seed=0).run_standard_evaluation(x, y, batch_size=128)}
    for name, attack in attacks.items():
        seconds, x_adv = timed(attack)
        x_adv = x_adv[0] if isinstance(x_adv, tuple) else x_adv
        assert evasion.linf_distance(x, x_adv.clamp(0, 1)).max() <= EPS + 1e-5
        print(f"{name:24} robust accuracy {accuracy(model, x_adv.clamp(0, 1), y):6.1%}   {seconds:8.1f} CPU seconds", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoattack", action="store_true")
    parser.add_argument("--victim", default="signs")
    parser.add_argument("-n", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.autoattack:
        against_autoattack(arguments.victim, arguments.n or 256)
    else:
        against_foolbox(arguments.victim, arguments.n or 512, arguments.rounds)
