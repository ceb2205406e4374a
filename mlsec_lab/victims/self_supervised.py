"""A feature extractor that learns without labels, and the linear head that somebody puts on it later.

SimCLR (Chen et al., 2020): two random views of one picture shall have similar features, views of different pictures
different ones. The projector that the loss works on is thrown away afterwards, as the paper does.

The network, the views and the sizes are the course's own choice: small enough for a laptop's CPU.
"""
import copy
import functools

import torch
import torch.nn.functional as F
from torch import nn

from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import Normalise, stage
from mlsec_lab.victims.training import in_passes, one_cycle, predict

FEATURES = 64


class SelfSupervised(nn.Module):
    """`extractor` x [N, C, H, W] -> features [N, 64] · `decoder` features -> pictures in [0, 1] · `head` features -> logits.

    `model(x)` is the linear head on the extractor's features: a classifier like every other of the course.
    """

    def __init__(self, extractor, decoder, head):
        super().__init__()
        self.extractor, self.decoder, self.head = extractor, decoder, head

    def forward(self, x):
        return self.head(self.extractor(x))


def self_supervised_cnn(channels=3, classes=12, *, size=32, width=12, seed=0):
    """An extractor, a decoder and a linear head, 160,000 parameters at its defaults; `pretrain` trains them.

    channels, classes: of the data.  size: height and width of the images, a multiple of 8.  seed: of the first weights.
    The extractor ends in a batch normalisation, so that on its own data each feature has mean 0 and variance 1.
    Returns a SelfSupervised in eval mode.  Raises ValueError for a size that is no multiple of 8.
    """
    check_number(size, "size", least=8, whole=True)
    if size % 8:
        raise ValueError(f"size must be a multiple of 8, not {size}")

    def grow(inputs, outputs):
        return [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    small = size // 8
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        extractor = nn.Sequential(Normalise(), *stage(channels, width), *stage(width, 3 * width), *stage(3 * width, 6 * width),
                                  nn.Flatten(), nn.Linear(6 * width * small ** 2, FEATURES, bias=False), nn.BatchNorm1d(FEATURES, affine=False))
        decoder = nn.Sequential(nn.Linear(FEATURES, 3 * width * small ** 2), nn.ReLU(), nn.Unflatten(1, (3 * width, small, small)),
                                *grow(3 * width, 2 * width), *grow(2 * width, width),
                                nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Sigmoid())
        model = SelfSupervised(extractor, decoder, nn.Linear(FEATURES, classes))
    return model.to(memory_format=torch.channels_last).eval()


def two_views(x, generator):
    """Two random views of each picture: moved, turned, zoomed, recoloured, sometimes grey or blurred, with noise; never mirrored.

    x: [N, C, H, W] in [0, 1].  generator: the source of all randomness.  Returns two tensors like x.
    """
    return _view(x, generator), _view(x, generator)


def _view(x, generator):
    n = len(x)

    def uniform(low, high, channels=1):
        return low + (high - low) * torch.rand(n, channels, 1, 1, generator=generator)

    zoom, stretch, angle = uniform(0.5, 1.0), uniform(0.9, 1.1), uniform(-0.35, 0.35)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * 0.2
    place = torch.stack([torch.stack([(zoom * stretch * angle.cos()).flatten(), (-zoom * angle.sin()).flatten(), shift[:, 0]], 1),
                         torch.stack([(zoom * angle.sin()).flatten(), (zoom / stretch * angle.cos()).flatten(), shift[:, 1]], 1)], 1)
    view = F.grid_sample(x, F.affine_grid(place, x.shape, align_corners=False), padding_mode="reflection", align_corners=False)
    grey = view.mean(1, keepdim=True)
    saturation = uniform(0.2, 1.6) * (uniform(0, 1) > 0.2)  # one picture in five loses its colours
    view = grey + saturation * (view - grey)
    mean = view.mean((1, 2, 3), keepdim=True)
    view = (view - mean) * uniform(0.4, 1.8) + mean * uniform(0.5, 1.5)
    view = view * uniform(0.7, 1.3, x.shape[1])
    shade = F.interpolate(torch.randn(n, x.shape[1], 5, 5, generator=generator), size=x.shape[2:], mode="bilinear", align_corners=True)
    view = view + uniform(0, 0.2) * shade  # uneven light: without it, two views know each other by their background
    blurred = F.avg_pool2d(F.pad(view, (1,) * 4, mode="replicate"), 3, stride=1)
    view = torch.where(uniform(0, 1) < 0.3, blurred, view)
    return (view + uniform(0, 0.08) * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def nt_xent(a, b, temperature=0.2):
    """The contrastive loss: each view has to find its partner among all 2N - 1 others (Chen et al., 2020).

    a, b: [N, D], the two views' projections, row by row.  Returns the mean cross-entropy, a scalar tensor.
    Raises ValueError for shapes that differ or temperature <= 0.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"a and b must both be [N, D], not {list(a.shape)} and {list(b.shape)}")
    check_number(temperature, "temperature", above=0)
    z = F.normalize(torch.cat([a, b]), dim=1)
    n = len(a)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(2 * n).roll(n))


def pretrain(model, x, y, *, epochs=15, lr=6e-3, batch=256, temperature=0.2, decoder_epochs=4, seed=0, progress=True):
    """Train a copy of a SelfSupervised: the extractor by SimCLR without labels, then the decoder, then the head.

    x: [N, C, H, W] in [0, 1].  y: [N], used by the head alone.
    epochs, lr, batch, temperature: of the contrastive training.  decoder_epochs: epochs in which the decoder learns x from its features.
    Returns the trained copy, in eval mode.
    Raises ValueError for images or labels of the wrong kind, epochs < 1, batch < 2 or more than there are images.
    """
    check_images(x)
    check_labels(y, len(x), classes=model.head.out_features)
    for name, value in dict(epochs=epochs, decoder_epochs=decoder_epochs).items():
        check_number(value, name, least=1, whole=True)
    check_number(batch, "batch", least=2, most=len(x), whole=True)
    check_number(lr, "lr", above=0)
    check_number(seed, "seed", whole=True)
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        projector = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES // 2))

    def contrast(index):
        first, second = two_views(x[index], generator)
        return nt_xent(*projector(model.extractor(torch.cat([first, second]))).chunk(2), temperature)

    def rebuild(index):
        return F.mse_loss(model.decoder(features[index]), x[index])

    descend = functools.partial(_descend, n=len(x), batch=batch, generator=generator, progress=progress)
    model.extractor.train()
    descend([*model.extractor.parameters(), *projector.parameters()], contrast, epochs=epochs, lr=lr, name="contrastive training")
    features = predict(model.extractor, x)  # in eval mode, as it will be used
    model.decoder.train()
    descend(list(model.decoder.parameters()), rebuild, epochs=decoder_epochs, lr=lr, name="decoder")
    model.head = train_head(features, y, model.head.out_features)
    model.zero_grad()
    return model.eval()


def _descend(parameters, loss_of, *, n, epochs, batch, lr, generator, name, progress):
    """Adam with one cycle of the learning rate over random batches of row numbers."""
    steps = n // batch
    optimizer = torch.optim.Adam(parameters, lr=lr, weight_decay=1e-5)

    def descend(index, number):
        loss = loss_of(index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    # whole batches: the loss depends on their size
    in_passes(descend, lambda: torch.randperm(n, generator=generator)[:steps * batch].split(batch), one_cycle(optimizer, lr, epochs * steps, warm=0.1),
              epochs=epochs, steps=steps, name=name, progress=progress)


def fit_images(x, channels=3, size=32):
    """Pictures of another data set in the format that an extractor takes: enlarged (bilinear), one channel repeated.

    x: [N, C, H, W] in [0, 1], C 1 or `channels`.  Returns [N, channels, size, size].  Raises ValueError for another C.
    """
    check_images(x)
    if x.shape[1] not in (1, channels):
        raise ValueError(f"x must have 1 or {channels} channels, not {x.shape[1]}")
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False).clamp(0, 1)
    return x.expand(-1, channels, -1, -1).contiguous()


# ---- the linear head that a user of the extractor trains

def train_head(features, y, classes, *, decay=1e-3, start=None, steps=300):
    """The linear head that a user trains on frozen features: multinomial logistic regression, to the end (L-BFGS).

    features: float32 [N, D].  y: int64 [N].  classes: how many.  decay: the weight of the squared length of all parameters;
    it makes the problem strictly convex, so that there is one answer and it does not depend on a seed.
    start: an nn.Linear to begin at, to be there sooner.  steps: at most so many iterations; clean rows need some 75, rows far out up to 300.
    Returns an nn.Linear(D, classes).  Raises ValueError for features or labels of the wrong kind, decay <= 0.
    """
    check_features(features)
    check_labels(y, len(features), classes=classes)
    check_number(decay, "decay", above=0)
    check_number(steps, "steps", least=1, whole=True)
    rows, truth = with_ones(features).double(), F.one_hot(y, classes)
    # Searched is v = w @ root, by which the loss curves about alike in all directions: where some rows lie far out that saves most of the steps.
    root = torch.linalg.cholesky(rows.T @ rows / (len(rows) * classes) + decay * torch.eye(rows.shape[1]))
    inverse = torch.linalg.inv(root)
    v = rows.new_zeros(classes, rows.shape[1]) if start is None else flat(start).double() @ root
    turned = rows @ inverse.T
    optimizer = torch.optim.LBFGS([v], max_iter=steps, tolerance_grad=1e-5, tolerance_change=1e-10, history_size=20, line_search_fn="strong_wolfe")

    def loss():
        log_p, w = (turned @ v.T).log_softmax(1), v @ inverse
        v.grad = (log_p.exp() - truth).T @ turned / len(rows) + decay * w @ inverse.T  # written out: twice as fast as asking autograd
        return -log_p.gather(1, y[:, None]).mean() + decay / 2 * w.square().sum()

    optimizer.step(loss)
    return as_head((v @ inverse).float())


def check_features(features, width=None, name="features"):
    """Raise ValueError unless `features` is a finite float32 tensor [N, D], of D = `width` where that is given."""
    if not isinstance(features, torch.Tensor) or features.dtype != torch.float32 or features.ndim != 2:
        got = f"{features.dtype} {list(features.shape)}" if isinstance(features, torch.Tensor) else type(features).__name__
        raise ValueError(f"{name} must be a float32 tensor [N, D], one row an image, not {got}")
    if width is not None and features.shape[1] != width:
        raise ValueError(f"{name} must have {width} columns, as many as the head takes, not {features.shape[1]}")
    if not features.isfinite().all():
        raise ValueError(f"{name} must be finite, but it holds NaN or infinity")


def with_ones(features):
    """features [N, D] with a column of ones for the bias: [N, D + 1]."""
    return torch.cat([features, features.new_ones(len(features), 1)], 1)


def flat(head):
    """The weights and biases of an nn.Linear as one matrix [K, D + 1]."""
    return torch.cat([head.weight, head.bias[:, None]], 1).detach().clone()


def as_head(w):
    """The nn.Linear of a matrix [K, D + 1]."""
    head = nn.Linear(w.shape[1] - 1, w.shape[0])
    with torch.no_grad():
        head.weight.copy_(w[:, :-1])
        head.bias.copy_(w[:, -1])
    return head.eval()
