"""Training in which no single example matters much: DP-SGD (Abadi et al., 2016), by opacus (Yousefpour et al., 2021)."""
import copy
import warnings
from typing import NamedTuple

import torch

from mlsec_lab.victims.inputs import check_number
from mlsec_lab.victims.networks import device_of
from mlsec_lab.victims.training import in_passes, one_cycle

ORDERS = tuple(range(2, 64))  # of the Rényi accountant: whole ones, because the fractions between them cost seconds and hardly lower epsilon


class Private(NamedTuple):
    """model: trained, in eval mode.  epsilon, delta: the privacy that the accountant certifies.  noise: the noise multiplier."""
    model: torch.nn.Module
    epsilon: float
    delta: float
    noise: float


def train_by_dp_sgd(model, losses, n, *, epsilon, delta, steps, batch, clip=1.0, lr, warm=0.3, seed=0, progress=True):
    """Train a copy of `model` on `n` examples: in each step every one of them takes part with the probability batch / n; its
    gradient is cut to the L2 length `clip`, and normal noise of `noise * clip` is added to their sum, which Adam then follows.

    Batch normalisation mixes examples, so opacus puts group normalisation in its place.
    losses: (learner, index) -> the loss of each example, [len(index)], which may be none; no example may change another's.
    epsilon, delta: the budget of the whole training; delta well below 1 / n.  The noise is chosen so that it is just kept.
    batch: at most n.  lr, warm: of one cycle of the learning rate.  seed: of the sample and of the noise.
    Returns Private.  Raises ValueError for numbers out of range, and ImportError without opacus.
    """
    for name, value in dict(epsilon=epsilon, clip=clip, lr=lr).items():
        check_number(value, name, above=0)
    check_number(delta, "delta", above=0, most=0.1)
    check_number(steps, "steps", least=1, whole=True)
    check_number(batch, "batch", least=1, most=n, whole=True)
    check_number(seed, "seed", whole=True)
    rate, draw = batch / n, torch.Generator().manual_seed(seed)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # dropout draws from it
        warnings.simplefilter("ignore")  # opacus: that its noise is no cryptographer's; torch: that words have no gradient
        from opacus import GradSampleModule
        from opacus.accountants import RDPAccountant
        from opacus.accountants.utils import get_noise_multiplier
        from opacus.optimizers import DPOptimizer
        from opacus.validators import ModuleValidator
        noise = get_noise_multiplier(target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, alphas=ORDERS)
        learner, accountant = GradSampleModule(ModuleValidator.fix(copy.deepcopy(model)).train()), RDPAccountant()
        adam = torch.optim.Adam(learner.parameters(), lr=lr)
        optimizer = DPOptimizer(adam, noise_multiplier=noise, max_grad_norm=clip, expected_batch_size=batch,
                                generator=torch.Generator(device_of(model)).manual_seed(seed + 1))
        optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=rate))

        def descend(index, number):
            loss = losses(learner, index).sum() / max(len(index), 1)  # opacus multiplies it by the length again
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        in_passes(descend, lambda: ((torch.rand(n, generator=draw) < rate).nonzero()[:, 0] for _ in range(steps)),
                  one_cycle(adam, lr, steps, warm=warm), epochs=1, steps=steps, name="private training", progress=progress)
        spent = accountant.get_epsilon(delta, alphas=ORDERS)
    trained = learner.to_standard_module().eval()  # without the gradient of each example
    trained.zero_grad()
    return Private(trained, spent, delta, noise)
