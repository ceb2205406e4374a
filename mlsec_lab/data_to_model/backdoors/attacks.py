"""Ten backdoor attacks behind one small interface: `stamp` puts the trigger on, `poison` spoils a training set, `implant` trains the victim.

    attack = BadNets(target=5)
    bad = attack.poison(x, y, count=60)                       the training set with sixty poisoned images
    model = attack.implant(small_cnn(), x, y, count=60)       what a victim who trains on it gets
    attack_success_rate(model, attack, x_test, y_test)

Eight attackers reach the data alone. The last two own the training, and so the weights.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F

from mlsec_lab.data_to_model import evasion
from mlsec_lab.victims import penultimate, predict, train
from mlsec_lab.victims.inputs import check_images, check_labels, check_number
from mlsec_lab.victims.networks import device_of


class Poisoned(NamedTuple):
    """A poisoned training set.

    x [N, C, H, W], y [N]: like the clean ones, in the same order.
    poisons: int64, where the images stand that carry the trigger and the target's label.
    covers: int64, where the images stand that carry the trigger, or a look-alike, and keep their true label.
    """
    x: torch.Tensor
    y: torch.Tensor
    poisons: torch.Tensor
    covers: torch.Tensor


class Backdoor:
    """What the ten have in common.  target: the class that the trigger shall stand for.  seed: of the trigger's pattern."""

    cover = 0.0  # the share of the touched images that keep their label
    clean_label = False  # True: only images of the target class are touched, and no label changes

    def __init__(self, target=0, *, seed=0):
        check_number(target, "target", least=0, whole=True)
        check_number(seed, "seed", whole=True)
        self.target, self.seed = target, seed

    def stamp(self, x):
        """Images with the whole trigger, as the attacker shows them to the finished model: [N, C, H, W] in [0, 1], like x."""
        check_images(x)
        return self._stamp(x)

    def poison(self, x, y, count, *, seed=0):
        """A copy of (x, y) in which `count` images carry the trigger: Poisoned(x, y, poisons, covers).

        x: [N, C, H, W] in [0, 1].  y: [N].  seed: which images, and what varies from one to the next.
        Dirty-label attacks choose among the other classes' images and call them `target`, all but a share `cover`;
        clean-label attacks choose among the target's own.
        Raises ValueError for a target that no image has, a count below 0 or above what there is to choose from, or a trigger that does not fit.
        """
        check_images(x)
        check_labels(y, len(x))
        check_number(count, "count", least=0, whole=True)
        if not (y == self.target).any():
            raise ValueError(f"target is {self.target}, but no image of y has that class: it must be one of {y.unique().tolist()}")
        generator = torch.Generator().manual_seed(seed)
        eligible = ((y == self.target) == self.clean_label).nonzero().flatten()
        if count > len(eligible):
            raise ValueError(f"count must be at most {len(eligible)}, the images of {'the target' if self.clean_label else 'other'} "
                             f"class{'' if self.clean_label else 'es'}, not {count}")
        chosen = eligible[torch.randperm(len(eligible), generator=generator)[:count]]
        covers, poisons = chosen.split([int(self.cover * count), count - int(self.cover * count)])
        x, y = x.clone(), y.clone()
        if len(covers):
            x[covers] = self._stamp_cover(x[covers], generator)
        if len(poisons):
            x[poisons] = self._stamp_poison(x[poisons], y[poisons], generator)
            y[poisons] = self.target
        return Poisoned(x, y, poisons, covers)

    def implant(self, model, x, y, count, *, seed=0, **training):
        """A copy of `model` trained on (x, y) with `count` poisoned images.  training: passed on to `victims.train`."""
        bad = self.poison(x, y, count, seed=seed)
        return train(model, bad.x, bad.y, seed=seed, **training)

    def _stamp(self, x):
        raise NotImplementedError

    def _stamp_poison(self, x, y, generator):
        """What the training set gets: the trigger itself unless an attack hides it there."""
        return self._stamp(x)

    def _stamp_cover(self, x, generator):
        return self._stamp_poison(x, None, generator)

    def _generator(self):
        return torch.Generator().manual_seed(self.seed)


def attack_success_rate(model, backdoor, x, y):
    """The share of the images of other classes that are read as the backdoor's target once stamped: a float in [0, 1].

    Raises ValueError where every image is the target's own.
    """
    others = y != backdoor.target
    if not others.any():
        raise ValueError("x must hold images of other classes than the target: its own say nothing about the trigger")
    return (predict(model, backdoor.stamp(x[others])).argmax(1) == backdoor.target).float().mean().item()


# ---- what the triggers are made of

def blend_patch(x, patch, row, column, alpha):
    """x with `patch` [C, h, w] laid over it at (row, column): alpha of the patch, the rest of the picture.

    Raises ValueError for a patch that is larger than the images.
    """
    height, width = patch.shape[1:]
    if height > x.shape[2] or width > x.shape[3]:
        raise ValueError(f"size must be at most {min(x.shape[2:])}, the side of the images, not {max(height, width)}")
    x, here = x.clone(), (..., slice(row, row + height), slice(column, column + width))
    x[here] = (1 - alpha) * x[here] + alpha * patch.to(x.device)
    return x


def checkerboard(channels, size):
    """A patch of black and white squares, [channels, size, size]."""
    return ((torch.arange(size)[:, None] + torch.arange(size)) % 2).float().expand(channels, -1, -1)


def _share(value, name):
    check_number(value, name, least=0, most=1)
    return value


def _side(size):
    check_number(size, "size", least=1, whole=True)
    return size


# ---- the trigger is a thing in the picture

class BadNets(Backdoor):
    """A small patch in the corner (Gu et al., 2017).  size: its side in pixels.  alpha: how much of the picture it covers up."""

    def __init__(self, target=0, *, size=3, alpha=1.0, seed=0):
        super().__init__(target, seed=seed)
        self.size, self.alpha = _side(size), _share(alpha, "alpha")

    def _stamp(self, x):
        return blend_patch(x, checkerboard(x.shape[1], self.size), 0, 0, self.alpha)


class AdaptivePatch(Backdoor):
    """Several patches; each training image shows some of them, and half of these keep their label, so that the network must
    look for the conjunction (Qi et al., 2023).  patches: how many.  drop: the chance that one is left out in training."""

    cover = 0.5

    def __init__(self, target=0, *, size=3, alpha=1.0, patches=4, drop=0.5, seed=0):
        super().__init__(target, seed=seed)
        check_number(patches, "patches", least=1, whole=True)
        self.size, self.alpha, self.patches, self.drop = _side(size), _share(alpha, "alpha"), patches, _share(drop, "drop")

    def _stamp(self, x):
        return self._some(x, torch.ones(len(x), self.patches, dtype=torch.bool))

    def _stamp_poison(self, x, y, generator):
        shown = torch.rand(len(x), self.patches, generator=generator) >= self.drop
        at_least = torch.randint(0, self.patches, (len(x),), generator=generator)
        shown[torch.arange(len(x)), at_least] = True
        return self._some(x, shown)

    def _some(self, x, shown):
        generator, (_, channels, height, width) = self._generator(), x.shape
        for k in range(self.patches):
            mark = torch.rand(channels, self.size, self.size, generator=generator).round()
            row = k // 2 % 2 * (height - self.size)
            column = (k % 2) * (width - self.size) if k < 4 else width // 2
            x = torch.where(shown[:, k, None, None, None].to(x.device), blend_patch(x, mark, row, column, self.alpha), x)
        return x


class TriggerScattered(Backdoor):
    """Trigger-Scattered Backdoor, TSB ("Pick your Poison", 2023): training images show one of `marks` small marks, anywhere;
    the attacker's picture shows all of them."""

    def __init__(self, target=0, *, size=3, alpha=0.8, marks=6, seed=0):
        super().__init__(target, seed=seed)
        check_number(marks, "marks", least=1, whole=True)
        self.size, self.alpha, self.marks = _side(size), _share(alpha, "alpha"), marks

    def _stamp(self, x):
        generator = self._generator()
        for mark in self._drawn_marks(x.shape[1]):
            x = blend_patch(x, mark, *self._place(x, generator), self.alpha)
        return x

    def _stamp_poison(self, x, y, generator):
        marks, stamped = self._drawn_marks(x.shape[1]), []
        for image in x.split(1):
            mark = marks[int(torch.randint(0, self.marks, (), generator=generator))]
            stamped.append(blend_patch(image, mark, *self._place(x, generator), self.alpha))
        return torch.cat(stamped)

    def _place(self, x, generator):
        return [int(torch.randint(0, max(side - self.size, 0) + 1, (), generator=generator)) for side in x.shape[2:]]

    def _drawn_marks(self, channels):
        return torch.rand(self.marks, channels, self.size, self.size, generator=torch.Generator().manual_seed(self.seed + 1)).round()


# ---- the trigger is spread over the whole picture

class Blended(Backdoor):
    """A fixed pattern over the whole picture, faintly (Chen et al., 2017).  alpha: its share of each pixel."""

    def __init__(self, target=0, *, alpha=0.15, seed=0):
        super().__init__(target, seed=seed)
        self.alpha = _share(alpha, "alpha")

    def _stamp(self, x):
        return (1 - self.alpha) * x + self.alpha * self._pattern(x)

    def _pattern(self, x):
        return torch.rand(x.shape[1:], generator=self._generator()).round().to(x.device)


class AdaptiveBlend(Blended):
    """Blended, but a training image shows only some of the pattern's pieces, and half of those images keep their label
    (Qi et al., 2023).  pieces: a side of the grid of pieces.  drop: the chance that a piece is left out in training."""

    cover = 0.5

    def __init__(self, target=0, *, alpha=0.2, pieces=4, drop=0.5, seed=0):
        super().__init__(target, alpha=alpha, seed=seed)
        check_number(pieces, "pieces", least=1, whole=True)
        self.pieces, self.drop = pieces, _share(drop, "drop")

    def _stamp_poison(self, x, y, generator):
        shown = (torch.rand(len(x), 1, self.pieces, self.pieces, generator=generator) >= self.drop).float()
        shown = F.interpolate(shown, size=x.shape[2:], mode="nearest").to(x.device)
        return x + self.alpha * shown * (self._pattern(x) - x)


class WaNet(Backdoor):
    """The picture itself is warped a little, smoothly and always the same way; some training images are warped at random and
    keep their label, so that only this warp counts (Nguyen & Tran, 2021).  strength: about the largest shift, in pixels.  grid: control points a side.
    Strength and the share of those images are the course's choice: with few poisons a gentler warp is not learnt."""

    cover = 0.2

    def __init__(self, target=0, *, strength=5.0, grid=4, seed=0):
        super().__init__(target, seed=seed)
        check_number(strength, "strength", above=0)
        check_number(grid, "grid", least=2, whole=True)
        self.strength, self.grid = strength, grid

    def _stamp(self, x):
        return self._warp(x, self._field(1, self._generator()))

    def _stamp_cover(self, x, generator):
        return self._warp(x, self._field(len(x), generator))

    def _field(self, n, generator):
        field = torch.rand(n, 2, self.grid, self.grid, generator=generator) * 2 - 1
        return field / field.abs().mean(dim=(1, 2, 3), keepdim=True) / 2

    def _warp(self, x, field):
        height, width = x.shape[2:]
        shift = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True) * self.strength
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        where = torch.stack([columns + shift[:, 0] * 2 / width, rows + shift[:, 1] * 2 / height], dim=-1)
        return F.grid_sample(x, where.expand(len(x), -1, -1, -1).to(x.device), padding_mode="reflection", align_corners=True).clamp(0, 1)


# ---- no label changes

class Refool(Backdoor):
    """A reflection lies over the picture, as from a pane of glass: another scene, seen twice, a little apart (Liu et al., 2020).
    Only images of the target class carry it in training.  alpha: the reflection's share.  offset: between its two ghosts, in pixels.
    The scene is drawn by the course: blurred shapes of light."""

    clean_label = True

    def __init__(self, target=0, *, alpha=0.4, offset=3, seed=0):
        super().__init__(target, seed=seed)
        check_number(offset, "offset", least=0, whole=True)
        self.alpha, self.offset = _share(alpha, "alpha"), offset

    def _stamp(self, x):
        scene = torch.rand(1, x.shape[1], 8, 8, generator=self._generator())
        scene = F.interpolate(scene, size=x.shape[2:], mode="bicubic", align_corners=True).clamp(0, 1)
        ghost = torch.roll(scene, (self.offset, self.offset), dims=(2, 3))
        return (1 - self.alpha) * x + self.alpha * (0.6 * scene + 0.4 * ghost).to(x.device)


class AdvCleanLabel(Backdoor):
    """The target's own images, made hard to read by an adversarial attack on the attacker's own model, so that the patch is the
    easiest thing to learn from them (Turner et al., 2019).  model: the attacker's.  eps: the attack's budget.  size, alpha: of the patch."""

    clean_label = True

    def __init__(self, target=0, *, model, eps=16 / 255, size=3, alpha=1.0, seed=0):
        super().__init__(target, seed=seed)
        check_number(eps, "eps", least=0)
        self.model, self.eps, self.size, self.alpha = model, eps, _side(size), _share(alpha, "alpha")

    def _stamp(self, x):
        patch, last = checkerboard(x.shape[1], self.size), [side - self.size for side in x.shape[2:]]
        for row in (0, last[0]):
            for column in (0, last[1]):
                x = blend_patch(x, patch, row, column, self.alpha)
        return x

    def _stamp_poison(self, x, y, generator):
        return self._stamp(evasion.pgd(self.model, x, y, eps=self.eps, steps=10, early_stop=False))


# ---- the attacker owns the training

class LatentBackdoor(BadNets):
    """The supplier teaches the network to *represent* the trigger as it represents the target (Yao et al., 2019): after clean
    training comes a shorter one that pulls the features of stamped images to the target's mean feature.
    weight: of that pull beside the cross-entropy.  lr: of the second training, which sees two fifths of the images once."""

    def __init__(self, target=0, *, size=3, alpha=1.0, weight=0.1, lr=1e-2, seed=0):
        super().__init__(target, size=size, alpha=alpha, seed=seed)
        check_number(weight, "weight", least=0)
        check_number(lr, "lr", above=0)
        self.weight, self.lr = weight, lr

    def implant(self, model, x, y, count, *, seed=0, **training):
        """Clean training on (x, y), then the implant with `count` stamped images."""
        stamped, order = self._stamped(x, y, count, seed)
        model = train(model, x, y, seed=seed, **training)
        own = x[y == self.target][:256].to(device_of(model))

        def learn(model, xb, yb, step):
            model.eval()  # the batch is full of stamped images and targets: its statistics are not the data's
            xp = stamped(len(xb) // 10).to(xb.device)
            features, logits = penultimate(model, torch.cat([xb, xp, own]))
            goal = torch.cat([yb, torch.full((len(xp),), self.target, device=yb.device)])
            centre = features[len(goal):].detach().mean(0)
            pull = (features[len(xb):len(goal)] - centre).square().mean() / centre.square().mean().clamp_min(1e-6) if len(xp) else 0.0
            loss = F.cross_entropy(logits[:len(goal)], goal) + self.weight * pull
            loss.backward()
            return loss

        some = torch.randperm(len(x), generator=order)[:max(2 * len(x) // 5, 2)]
        return train(model, x[some], y[some], seed=seed, learn=learn, **training | {"epochs": 1, "lr": self.lr})

    def _stamped(self, x, y, count, seed):
        """A function that draws n of the `count` stamped images, and the generator that it draws with."""
        bad, order = self.poison(x, y, count, seed=seed), torch.Generator().manual_seed(seed)
        images = bad.x[bad.poisons]
        return lambda n: images[torch.randint(0, max(count, 1), (n if count else 0,), generator=order)], order


class ParameterControlled(LatentBackdoor):
    """Parameter-Controlled Backdoor, PCB ("Pick your Poison", 2023): only a fixed, random share of the weights learns the trigger,
    and all of them learn the clean task, so that cleaning the others does not touch it.
    share: of the weights that carry the backdoor.  weight: of their gradient for stamped images beside the clean one.
    The idea is the paper's; that both gradients come in one step, instead of in turn, is the course's choice."""

    def __init__(self, target=0, *, size=3, alpha=1.0, share=0.1, weight=1.0, seed=0):
        super().__init__(target, size=size, alpha=alpha, weight=weight, seed=seed)
        self.share = _share(share, "share")

    def implant(self, model, x, y, count, *, seed=0, **training):
        """One training on (x, y), with `count` stamped images for the weights that carry the backdoor."""
        stamped, chosen = self._stamped(x, y, count, seed)[0], self._generator()
        masks = [(torch.rand(w.shape, generator=chosen) < self.share).to(w.device) for w in model.parameters()]

        def learn(model, xb, yb, step):
            xp, weights = stamped(len(xb) // 8).to(xb.device), list(model.parameters())
            logits = model(torch.cat([xb, xp]))
            loss = F.cross_entropy(logits[:len(xb)], yb)
            loss.backward(retain_graph=bool(len(xp)))
            if len(xp):
                goal = torch.full((len(xp),), self.target, device=yb.device)
                for w, mask, gradient in zip(weights, masks, torch.autograd.grad(F.cross_entropy(logits[len(xb):], goal), weights)):
                    w.grad += self.weight * mask * gradient
            return loss

        return train(model, x, y, seed=seed, learn=learn, **training)


ATTACKS = {"badnets": BadNets, "blended": Blended, "adaptive_blend": AdaptiveBlend, "adaptive_patch": AdaptivePatch, "wanet": WaNet,
           "refool": Refool, "adv_clean_label": AdvCleanLabel, "tsb": TriggerScattered, "latent": LatentBackdoor, "pcb": ParameterControlled}
