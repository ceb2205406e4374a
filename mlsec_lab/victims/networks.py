"""The networks that are attacked: small enough for a laptop's CPU, and normalising inside themselves.

Every network takes x [N, C, H, W] in [0, 1] and returns logits [N, K]. Because the normalisation is a layer, a budget
eps is always in the units of the pixels.
"""
from contextlib import contextmanager

import torch
from torch import nn

from mlsec_lab.victims.inputs import check_number


class Normalise(nn.Module):
    """Shift and scale pixels from [0, 1] to [-1, 1]: the network's business, not the attacker's."""

    def forward(self, x):
        return x * 2 - 1


def stage(inputs, outputs):
    """A convolution, pooled before it is normalised: the same function as the usual order, a quarter of the work."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()]


def small_cnn(channels=3, classes=12, *, size=32, width=16, seed=0):
    """Three convolutions and a linear layer: the course's main victim, 68,000 parameters at its defaults.

    channels, classes: of the data.  size: height and width of the images, at least 8.  seed: of the first weights.
    Returns an nn.Module in eval mode.  Raises ValueError for a size below 8.
    """
    check_number(size, "size", least=8, whole=True)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's too, which nothing restores
        model = nn.Sequential(Normalise(), *stage(channels, width), *stage(width, 3 * width), *stage(3 * width, 6 * width),
                              nn.Flatten(), nn.Linear(6 * width * (size // 8) ** 2, classes))
    return model.to(memory_format=torch.channels_last).eval()  # the faster layout for convolutions on a CPU


def pooled_cnn(channels=3, classes=12, *, width=16, seed=0):
    """Four convolutions and a mean over the picture before the linear layer: what lesson 03 repairs, 48,000 parameters at its defaults.

    Where `small_cnn` has weights for each place of the picture, this one, as large networks do, only knows *that* it saw something.
    width: channels of the first stage; the others have two, three and four times as many.  seed: of the first weights.
    Returns an nn.Module in eval mode; it takes any image of 16 pixels a side or more.
    """
    check_number(width, "width", least=1, whole=True)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        stages, inputs = [], channels
        for outputs in (width, 2 * width, 3 * width, 4 * width):
            stages += stage(inputs, outputs)
            inputs = outputs
        model = nn.Sequential(Normalise(), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
    return model.to(memory_format=torch.channels_last).eval()


class _Residual(nn.Module):
    """Two convolutions and a short cut around them (He et al., 2016)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def small_resnet(channels=3, classes=10, *, width=16, depth=3, seed=0):
    """A residual network for real photographs: 20 layers and 0.27 million parameters at its defaults (He et al., 2016).

    width: channels of the first stage, doubled twice.  depth: residual blocks a stage.  seed: of the first weights.
    Returns an nn.Module in eval mode; it takes any image of 8 pixels a side or more.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        stages, inputs = [], width
        for outputs in (width, 2 * width, 4 * width):
            for block in range(depth):
                stages.append(_Residual(inputs, outputs, stride=2 if outputs > width and not block else 1))
                inputs = outputs
        return nn.Sequential(
            Normalise(), nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), *stages,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes),
        ).to(memory_format=torch.channels_last).eval()


def resnet18(channels=3, classes=10, *, seed=0):
    """torchvision's ResNet-18 for small images, 11.2 million parameters: for a GPU (He et al., 2016).

    Its first convolution keeps the size of the image, and no pooling follows it, as is usual for images of 32 pixels a side.
    channels, classes: of the data.  seed: of the first weights.
    Returns an nn.Module in eval mode; it takes any image of 8 pixels a side or more.
    """
    from mlsec_lab.victims.datasets import import_torchvision
    models = import_torchvision().models
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = models.resnet18(num_classes=classes)
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision begins the others
    network.maxpool = nn.Identity()
    return nn.Sequential(Normalise(), network).to(memory_format=torch.channels_last).eval()


def device_of(model):
    """Where a model's parameters are; the CPU for one that has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def frozen(model):
    """Put `model` in eval mode with parameters that need no gradient, and restore each flag afterwards.

    An attack needs the gradient of the input alone; leaving out those of the weights saves a fifth of the time.
    """
    modes = [(module, module.training) for module in model.modules()]
    wants = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in wants:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wants:
            parameter.requires_grad_(requires_grad)


def penultimate(model, x):
    """What the model's last linear layer sees, and its answer: (features [N, D], logits [N, K]), with gradients.

    x: [N, C, H, W] in [0, 1].  Raises ValueError for a model without a linear layer.
    """
    last = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    if last is None:
        raise ValueError("model must have a linear layer for its features to be what that layer sees")
    seen = []
    with last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        logits = model(x)
    return seen[-1].flatten(1), logits


class QueryCounter(nn.Module):
    """Wraps a model and counts in `.queries` every input that it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.queries = model, 0
        self.training = model.training

    def forward(self, x):
        self.queries += len(x)
        return self.model(x)


class LabelOnly(nn.Module):
    """Wraps a model so that it answers with its decision alone: logits of 1 for the class it chose, 0 elsewhere.

    No probability and no gradient gets out: what a careful service shows its callers.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.training = model.training

    @torch.no_grad()
    def forward(self, x):
        logits = self.model(x)
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
