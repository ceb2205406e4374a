"""An independent judge of portraits: a second network that says whom a picture shows, or that it shows nobody.

An attack can always make the attacked model sure of a picture. Whether *anybody else* would see that person in it is asked of a network
that shares nothing with the attacked one: other shots, other weights, another architecture. It knows the staff, strangers beside whom
they have to stand out, and what is no portrait at all; and it has learnt from blurred and pale copies as well, so that it looks at the
person and not at the quality of the picture.
"""
import torch
import torch.nn.functional as F

from mlsec_lab.victims.datasets import load_data
from mlsec_lab.victims.inputs import check_number
from mlsec_lab.victims.training import train, varied


def train_judge(model, data, *, shots=60, epochs=10, seed=0, progress=True):
    """A trained copy of `model`, whose last class means "no portrait".

    model: [N, C, H, W] in [0, 1] -> logits for the staff of `data`, then the strangers of its test split, then that class.
    data: "badges" or "olivetti". The shots are those of the test splits: the attacked model has been trained on others.
    shots: so many a person; where there are fewer, varied copies of them.  seed: of shots, copies, order.
    Raises ValueError where the model's classes are not so many, FileNotFoundError where the data cannot be had.
    """
    check_number(shots, "shots", least=2, whole=True)
    staff, strangers = (people_of(name, shots, seed) for name in (data, f"{data}_public"))
    draw = torch.Generator().manual_seed(seed)
    nothing = no_portraits(10 * shots, staff.x.shape[1:], draw)
    known = len(staff.classes) + len(strangers.classes)
    x = careless(torch.cat([staff.x, strangers.x, nothing]), draw)
    y = torch.cat([staff.y, strangers.y + len(staff.classes), torch.full((len(nothing),), known)])
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    if classes != known + 1:
        raise ValueError(f"model must have {known + 1} classes, {known} people and one for what is no portrait, not {classes}")
    return train(model, x, y, epochs=epochs, seed=seed, progress=progress)


def people_of(data, shots, seed=0, split="test"):
    """`shots` pictures of each person of a data set; where it has fewer, each is repeated with other pose and light.  Returns Data."""
    try:
        return load_data(data, split, n=shots * len(load_data(data, split, n=1).classes), seed=seed)
    except ValueError:  # a data set of files has as many as it has
        few = load_data(data, split)
        times = -(-shots * len(few.classes) // len(few.x))
        copies = varied(few.x.repeat(times, 1, 1, 1), torch.Generator().manual_seed(seed))
        return few._replace(x=torch.cat([few.x, copies[len(few.x):]]), y=few.y.repeat(times))


def no_portraits(n, shape, generator):
    """Noise and coloured clouds, coarse and fine: [n, *shape] in [0, 1]."""
    grains = torch.tensor([1, 2, 4, 8, 16, shape[-1]])[torch.randint(6, (n,), generator=generator)]
    x = torch.empty(n, *shape)
    for grain in grains.unique().tolist():
        chosen = grains == grain
        x[chosen] = F.interpolate(torch.rand(int(chosen.sum()), shape[0], grain, grain, generator=generator), size=shape[1:], mode="bilinear")
    return x


def careless(x, generator):
    """Copies as careless people make them: four in five blurred, each in some way, all with more or less contrast."""
    x, height, width = x.clone(), *x.shape[2:]
    kinds = torch.randint(5, (len(x),), generator=generator)
    for kind, share in enumerate((1 / 4, 1 / 3, 1 / 2, 2 / 3)):
        chosen = kinds == kind
        if chosen.any():
            small = F.interpolate(x[chosen], size=(round(height * share), round(width * share)), mode="bilinear", antialias=True)
            x[chosen] = F.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)
    middle = x.mean((1, 2, 3), keepdim=True)
    return ((x - middle) * (0.5 + torch.rand(len(x), 1, 1, 1, generator=generator)) + middle).clamp(0, 1)
