"""Train a classifier, ask it, score it."""
import copy

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import device_of, frozen


def train(model, x, y, *, epochs=6, lr=0.01, batch=128, shift=2, perturb=None, learn=None, seed=0, progress=True):
    """Train a copy of `model` on (x, y) with Adam and one cycle of the learning rate (Smith, 2018); the argument stays as it is.

    x: [N, C, H, W] in [0, 1].  y: [N], the true classes.
    lr: the highest learning rate of the cycle.  shift: each image is moved by up to so many pixels, anew each time.
    perturb: None, or a function (model, x, y, seed) -> x that attacks each batch before it is learnt from.
    learn: None, or a function (model, x, y, step) -> loss that fills in the weights' gradients for a batch; by default those of
        the cross-entropy.
    seed: of the order, the shifts and the attacks.
    Returns the trained copy, in eval mode, on the model's device.
    Raises ValueError for images or labels of the wrong kind, fewer than 2 of them, epochs < 1, batch < 2, lr <= 0 or shift < 0.
    """
    check_images(x)
    if len(x) < 2:
        raise ValueError(f"x must hold at least 2 images to train on, not {len(x)}")
    check_labels(y, len(x), classes=predict(model, x[:1]).shape[1])
    check_number(epochs, "epochs", least=1, whole=True)
    check_number(batch, "batch", least=2, whole=True)
    check_number(lr, "lr", above=0)
    check_number(shift, "shift", least=0, whole=True)
    check_number(seed, "seed", whole=True)
    learn = learn or _cross_entropy
    device = device_of(model)
    model = copy.deepcopy(model).train()
    order = torch.Generator().manual_seed(seed)
    steps = -(-len(x) // batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=1e-4)

    def descend(index, number):
        if len(index) < 2:  # batch normalisation has no variance to go by in a batch of one
            return None
        xb, yb = shifted(x[index], shift, order).to(device), y[index].to(device)
        if perturb is not None:
            xb = perturb(model, xb, yb, seed + number)
        optimizer.zero_grad()
        loss = learn(model, xb, yb, number)
        optimizer.step()
        return loss

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        (torch.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(seed)  # dropout draws from it
        in_passes(descend, lambda: torch.randperm(len(x), generator=order).split(batch), one_cycle(optimizer, lr, epochs * steps),
                  epochs=epochs, steps=steps, progress=progress)
    model.zero_grad()
    return model.eval()


def in_passes(descend, batches, cycle, *, epochs, steps, name="training", progress=True):
    """The loop that every training here has: `epochs` passes over the data, a step of the learning rate after each batch, a progress bar.

    descend: (index, number) -> the loss of a batch from which it has learnt, or None where it left the batch out; `number` counts
        batches from 0 and goes on from pass to pass.
    batches: () -> the batches of one pass, `steps` of them.  cycle: the schedule of the learning rate.  name: of the bar.
    """
    with tqdm(total=epochs * steps, desc=name, unit="batch", delay=1, leave=False, disable=not progress) as bar:
        for epoch in range(epochs):
            last = None
            for number, index in enumerate(batches()):
                loss = descend(index, epoch * steps + number)
                last = last if loss is None else loss
                cycle.step()
                bar.update()
            if last is not None:  # once a pass: reading a number makes a GPU wait
                bar.set_postfix(epoch=epoch + 1, loss=f"{last.item():.3f}", refresh=False)


def one_cycle(optimizer, lr, steps, *, warm=0.3):
    """The schedule that takes the learning rate up to `lr`, over a share `warm` of the `steps`, and down to nothing (Smith, 2018)."""
    if warm * steps == 1:  # a rise that ends with its first step is a division by zero in PyTorch
        warm *= 2
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=warm)


def _cross_entropy(model, x, y, step):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


def shifted(x, shift, generator):
    """Each image moved by up to `shift` pixels, its border repeated; signs are never mirrored: left is not right."""
    if not shift:
        return x
    n, c, h, w = x.shape
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n), generator=generator)
    rows = (torch.arange(h) + dy[:, None])[:, None, :, None]
    columns = (torch.arange(w) + dx[:, None])[:, None, None, :]
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    return padded[torch.arange(n)[:, None, None, None], torch.arange(c)[None, :, None, None], rows, columns]


def varied(x, generator):
    """Each image anew as another photograph of the same thing might look: moved by up to 3 pixels, turned by up to 14°, nearer or
    further by up to 15 %, brighter or darker, its colours shifted a little.  For those who have few images: [N, C, H, W] in [0, 1]."""
    n, channels = x.shape[:2]
    draw = lambda *shape: 2 * torch.rand(n, *shape, generator=generator) - 1  # noqa: E731
    angle, scale = 0.25 * draw(), 1 + 0.15 * draw()
    turn = torch.stack([torch.stack([angle.cos() * scale, -angle.sin() * scale], 1), torch.stack([angle.sin() * scale, angle.cos() * scale], 1)], 1)
    move = draw(2, 1) * 6 / torch.tensor([x.shape[3], x.shape[2]])[:, None]
    where = F.affine_grid(torch.cat([turn, move], 2), x.shape, align_corners=False)
    seen = F.grid_sample(x, where, padding_mode="reflection", align_corners=False)
    return (seen * (1 + 0.4 * draw(1, 1, 1)) + 0.15 * draw(channels, 1, 1)).clamp(0, 1)


@torch.no_grad()
def predict(model, x, *, batch=256):
    """The model's logits [N, K] for x [N, C, H, W] in [0, 1], asked in batches, in eval mode, without gradients.

    Raises ValueError for images of the wrong kind, or batch < 1.
    """
    check_images(x)
    check_number(batch, "batch", least=1, whole=True)
    device = next((p.device for p in model.parameters()), x.device)
    with frozen(model):
        try:
            return torch.cat([model(part.to(device)).to(x.device) for part in x.split(batch)])
        except RuntimeError as error:
            raise ValueError(f"x holds images of shape {list(x.shape[1:])}, which this model does not take ({str(error).splitlines()[0]})") from error


def accuracy(model, x, y):
    """The share of x [N, C, H, W] whose predicted class is y [N]: a float in [0, 1], NaN for an empty batch.

    Raises ValueError for images or labels of the wrong kind.
    """
    check_images(x)
    check_labels(y, len(x))
    return (predict(model, x).argmax(1) == y).float().mean().item()
