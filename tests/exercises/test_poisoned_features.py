"""Lesson 04's exercises, tried with what learners write."""
import torch
import torch.nn.functional as F

from mlsec_lab.data_to_model.features import gradient
from mlsec_lab.exercises.poisoned_features import CANCELLING_LOSS, FEATURE_MATCHING, GRADPC, SCREEN, SCREENING_REPORT
from mlsec_lab.victims.self_supervised import as_head, flat


# ---- GradPC

def gradpc_variant(*, uphill=1, by_norm=True, in_ball=True, fresh=True, rounds=None, returns="head", times=2.5, pixelwise=False, late=False, stops=False, by=None):
    def gradpc(head, features, y, radius, steps=40):
        start = w = flat(head)
        slope = None
        for _ in range(rounds or steps):
            if slope is None or fresh:
                slope = gradient(w, features, y)
            before, unit = w, by(slope) if by else slope / slope.norm() if by_norm else slope
            w = w + uphill * times * radius / steps * unit
            change = w - start
            if in_ball and pixelwise:
                w = start + change.clamp(-radius, radius)
            elif stops and change.norm() > radius:
                w = before
                break
            elif in_ball and not late and change.norm() > radius:
                w = start + change * radius / change.norm()
        if late:
            w = start + (w - start) * (radius / (w - start).norm().clamp_min(1e-12)).clamp(max=1)
        return as_head(w) if returns == "head" else w
    return gradpc


def gradpc_on_the_modules_own_parameters(head, features, y, radius, steps=40):
    model = torch.nn.Linear(head.in_features, head.out_features)
    model.load_state_dict(head.state_dict())
    first = [p.detach().clone() for p in model.parameters()]
    for _ in range(steps):
        slopes = torch.autograd.grad(F.cross_entropy(model(features), y), list(model.parameters()))
        length = sum(s.square().sum() for s in slopes).sqrt()
        with torch.no_grad():
            for p, s in zip(model.parameters(), slopes):
                p += 2.5 * radius / steps * s / length
            moved = sum((p - f).square().sum() for p, f in zip(model.parameters(), first)).sqrt()
            for p, f in zip(model.parameters(), first):
                p.copy_(f + (p - f) * (radius / moved.clamp_min(1e-12)).clamp(max=1))
    return model


# ---- the loss of gradient cancelling

def loss_variant(*, weigh=True, decay_weight="right", root=False, mean=False, item=False, detached=False, poison_counts=True):
    def cancelling_loss(head, features, y, poison, y_poison, decay):
        w, share = flat(head), len(poison) / len(features) if weigh else 1
        push = gradient(w, poison.detach() if detached else poison, y_poison) if poison_counts else 0
        weight = {"right": 1 + len(poison) / len(features), "plain": 1, "none": 0}[decay_weight]
        total = gradient(w, features, y) + share * push + weight * decay * w
        value = total.norm() if root else total.square().mean() if mean else total.square().sum()
        return value.item() if item else value
    return cancelling_loss


def loss_by_autograd(head, features, y, poison, y_poison, decay):
    w = flat(head).requires_grad_()
    n = len(features)
    rows, labels = torch.cat([features, poison]), torch.cat([y, y_poison])
    logits = rows @ w[:, :-1].T + w[:, -1]
    value = F.cross_entropy(logits, labels, reduction="sum") / n + (1 + len(poison) / n) * decay / 2 * w.pow(2).sum()
    slope, = torch.autograd.grad(value, w, create_graph=True)
    return (slope ** 2).sum()


# ---- feature matching

def matching_variant(*, clamp=True, held=True, uphill=False, mean=False, from_base=True, rounds=None, keeps_graph=False, at_end=False, absolute=False, zeroed=True, by_predict=False, renewed=False):
    def feature_matching(extractor, features, x_base, beta=0.0, steps=100, lr=0.03):
        x = (x_base.clone() if from_base else torch.full_like(x_base, 0.5)).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=lr)
        for _ in range(rounds or steps):
            loss = ((predict_like(extractor, x) if by_predict else extractor(x)) - features).square().sum()
            if held:
                loss = loss + beta * ((x - x_base).abs().sum() if absolute else (x - x_base).square().mean() if mean else (x - x_base).square().sum())
            if renewed:
                optimizer = torch.optim.Adam([x], lr=lr)
            if zeroed:
                x.grad, = torch.autograd.grad(-loss if uphill else loss, x)
            else:
                loss.backward()
            optimizer.step()
            if clamp and not at_end:
                x.data.clamp_(0, 1)
        if at_end:
            x.data.clamp_(0, 1)
        return x if keeps_graph else x.detach()
    return feature_matching


def predict_like(extractor, x):
    with torch.no_grad():
        return extractor(x)


def matching_with_backward(extractor, features, x_base, beta=0.0, steps=100, lr=0.03):
    x = torch.nn.Parameter(x_base.clone())
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(extractor(x), features, reduction="sum") + beta * F.mse_loss(x, x_base, reduction="sum")
        loss.backward()
        optimizer.step()
        x.data = x.data.clip(0, 1)
    return x.data


def matching_that_writes_into_x_base(extractor, features, x_base, beta=0.0, steps=100, lr=0.03):
    x = x_base.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        x.grad, = torch.autograd.grad((extractor(x) - features).square().sum(), x)
        optimizer.step()
        x.data.clamp_(0, 1)
    return x.detach()


# ---- the screening

def screen_variant(*, by_class=True, middle="median", nearest=False, turned=False, own=True, numbers=False, copied=False, last=False, whole=False, p=2):
    def screen(features, y, share):
        keep = torch.ones(len(y), dtype=torch.bool)
        for group in ([torch.arange(len(y))] if not by_class else [(y == k).nonzero().flatten() for k in y.unique()]):
            part = features[group]
            base = part if own else features
            centre = {"median": base.median(0).values, "mean": base.mean(0), "zero": torch.zeros(part.shape[1])}[middle]
            order = (part - centre).norm(dim=1, p=p).argsort(descending=not nearest)
            many = int(share * len(group)) if whole else round(share * len(group))
            if last:
                keep[group[order.flip(0)[-many:]]] = False
            elif copied:
                keep[y == y[group[0]]][order[:many]] = False
            else:
                keep[group[order[:many]]] = False
        return (~keep).nonzero().flatten() if numbers else ~keep if turned else keep
    return screen


def screen_by_topk(features, y, share):
    dropped = set()
    for k in range(int(y.max()) + 1):
        rows = torch.where(y == k)[0]
        if not len(rows):
            continue
        far = ((features[rows] - features[rows].quantile(0.5, dim=0)) ** 2).sum(1)
        dropped |= set(rows[far.topk(round(share * len(rows))).indices].tolist())
    return torch.tensor([i not in dropped for i in range(len(y))])


# ---- its report

def report_by_counting(keep, is_poison):
    caught = sum(1 for k, p in zip(keep.tolist(), is_poison.tolist()) if p and not k)
    cost = sum(1 for k, p in zip(keep.tolist(), is_poison.tolist()) if not p and not k)
    poisons, clean = int(is_poison.sum()), int((~is_poison).sum())
    return (caught / poisons if poisons else float("nan")), (cost / clean if clean else float("nan"))


def shares(keep, is_poison):
    return (~keep)[is_poison].float().mean().item(), (~keep)[~is_poison].float().mean().item()


RIGHT = [
    (GRADPC, "on the module's own parameters", gradpc_on_the_modules_own_parameters),
    (CANCELLING_LOSS, "the whole loss, differentiated twice", loss_by_autograd),
    (FEATURE_MATCHING, "with backward and a Parameter", matching_with_backward),
    (SCREEN, "with topk and quantiles", screen_by_topk),
    (SCREENING_REPORT, "by counting", report_by_counting),
]
WRONG = [
    (GRADPC, "downhill", gradpc_variant(uphill=-1), "raises the training loss", "add the gradient, do not subtract"),
    (GRADPC, "no ball", gradpc_variant(in_ball=False), "within `radius`", "shorten the change"),
    (GRADPC, "each parameter clipped", gradpc_variant(pixelwise=True), "within `radius`", "shorten the change"),
    (GRADPC, "the gradient's own length", gradpc_variant(by_norm=False), "steps of 2.5", "divide the gradient by its norm"),
    (GRADPC, "one gradient for all rounds", gradpc_variant(fresh=False), "raises the training loss", "a new gradient"),
    (GRADPC, "one round", gradpc_variant(rounds=1), "steps of 2.5", "`steps` rounds"),
    (GRADPC, "brought back once, at the end", gradpc_variant(late=True), "after each step", "inside the loop"),
    (GRADPC, "a step that leaves is left out", gradpc_variant(stops=True), "", "divide the gradient by its norm"),
    (GRADPC, "row by row", gradpc_variant(by=lambda g: g / g.norm(dim=1, keepdim=True) / len(g) ** 0.5), "", "no row by row"),
    (GRADPC, "signs", gradpc_variant(by=lambda g: g.sign() / g.numel() ** 0.5), "", "no sign"),
    (GRADPC, "the matrix", gradpc_variant(returns="w"), "within `radius`", "return as_head(w)"),
    (CANCELLING_LOSS, "poisons not weighed", loss_variant(weigh=False), "has the value and the slope", "(M / N)"),
    (CANCELLING_LOSS, "no decay", loss_variant(decay_weight="none"), "has the value and the slope", "(1 + M / N)"),
    (CANCELLING_LOSS, "the decay not weighed", loss_variant(decay_weight="plain"), "", "(1 + M / N)"),
    (CANCELLING_LOSS, "the root", loss_variant(root=True), "", "no root and no mean"),
    (CANCELLING_LOSS, "the mean", loss_variant(mean=True), "", "no root and no mean"),
    (CANCELLING_LOSS, "a float", loss_variant(item=True), "differentiated with respect to the poison", "leave out `.item()`"),
    (CANCELLING_LOSS, "poison detached", loss_variant(detached=True), "differentiated with respect to the poison", "no `.detach()`"),
    (FEATURE_MATCHING, "no clamp", matching_variant(clamp=False), "every pixel in [0, 1]", "clamp(0, 1)"),
    (FEATURE_MATCHING, "uphill", matching_variant(uphill=True), "near the wanted ones", "Adam goes downhill"),
    (FEATURE_MATCHING, "one step", matching_variant(rounds=1), "near the wanted ones", "`steps` steps"),
    (FEATURE_MATCHING, "beta ignored", matching_variant(held=False), "near it when beta is large", "add `beta *"),
    (FEATURE_MATCHING, "the mean of the change", matching_variant(mean=True), "near it when beta is large", "beta *"),
    (FEATURE_MATCHING, "clipped once, at the end", matching_variant(at_end=True), "after each step, not once at the end", "inside the loop"),
    (FEATURE_MATCHING, "the absolute change", matching_variant(absolute=True), "near it when beta is large", ".square().sum()"),
    (FEATURE_MATCHING, "gradients that pile up", matching_variant(zeroed=False), "near the wanted ones", "zero_grad"),
    (FEATURE_MATCHING, "a new Adam in each round", matching_variant(renewed=True), "", "before the loop"),
    (FEATURE_MATCHING, "predict in place of the extractor", matching_variant(by_predict=True), "near the wanted ones", "`predict` keeps none"),
    (FEATURE_MATCHING, "keeps the graph", matching_variant(keeps_graph=True), "every pixel in [0, 1]", ".detach()"),
    (FEATURE_MATCHING, "writes into x_base", matching_that_writes_into_x_base, "every pixel in [0, 1]", "x_base.clone()"),
    (SCREEN, "all classes together", screen_variant(by_class=False), "of each class of n", "of each class on its own"),
    (SCREEN, "turned round", screen_variant(turned=True), "keeps or drops each row", "True means keep"),
    (SCREEN, "the last of none", screen_variant(last=True), "keeps or drops each row", "`[-0:]`"),
    (SCREEN, "written to a copy", screen_variant(copied=True), "of each class of n", "changes a copy"),
    (SCREEN, "int for round", screen_variant(whole=True), "of each class of n", "not `int`"),
    (SCREEN, "the sum of absolute differences", screen_variant(p=1), "", "norm(dim=1)"),
    (SCREEN, "row numbers", screen_variant(numbers=True), "keeps or drops each row", "shapes"),
    (SCREEN, "the nearest", screen_variant(nearest=True), "Euclidean", "drop the farthest"),
    (SCREEN, "from the middle of all", screen_variant(own=False), "far from the middle of their own class", "the row's own class"),
    (SCREEN, "from zero", screen_variant(middle="zero"), "far from the middle of their own class", "the row's own class"),
    (SCREEN, "the mean", screen_variant(middle="mean"), "not misled", "use the median"),
    (SCREENING_REPORT, "swapped", lambda keep, is_poison: shares(keep, is_poison)[::-1], "poisons first", "swap them"),
    (SCREENING_REPORT, "kept, not dropped", lambda keep, is_poison: shares(~keep, is_poison), "poisons first", "dropped is `~keep`"),
    (SCREENING_REPORT, "shares of all rows", lambda keep, is_poison: ((~keep & is_poison).float().mean().item(), (~keep & ~is_poison).float().mean().item()),
     "poisons first", "divide by the number of poisons"),
    (SCREENING_REPORT, "precision in place of recall", lambda keep, is_poison: (is_poison[~keep].float().mean().item(), shares(keep, is_poison)[1]),
     "", "divide by the number of poisons"),
    (SCREENING_REPORT, "divides by none", lambda keep, is_poison: ((~keep & is_poison).sum().item() / is_poison.sum().item(), shares(keep, is_poison)[1]), "", "float('nan')"),
    (SCREENING_REPORT, "0 of none", lambda keep, is_poison: tuple(v if v == v else 0.0 for v in shares(keep, is_poison)), "says NaN", "float('nan')"),
    (SCREENING_REPORT, "one number", lambda keep, is_poison: shares(keep, is_poison)[0], "poisons first", "return caught, cost"),
]
