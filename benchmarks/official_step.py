"""UniMatch's step as its code takes it, in plain torch: baseline and oracle.

Nothing here is clever: batch statistics, boolean indices, torch.optim, a KL that gathers Omega.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pixels(images: Tensor) -> Tensor:
    """ToTensor and Normalize."""
    return (images.float() / 255.0 - MEAN.to(images.device)) / STD.to(images.device)


def forward_fp(network: Any, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Clean and feature-dropped logits, one decoder pass."""
    c1, c4 = network.backbone(x)
    k1, k4 = keep[:, : c1.shape[1]], keep[:, c1.shape[1] :]
    c1 = torch.cat([c1, c1 * k1[:, :, None, None] / 0.5])
    c4 = torch.cat([c4, c4 * k4[:, :, None, None] / 0.5])
    out = network.decode(c1, c4, x.shape[-2:])
    return out[: len(x)], out[len(x) :]


def unsupervised(q: Tensor, y: Tensor, c: Tensor, ignore: Tensor, tau: float) -> Tensor:
    """L_s: masked by confidence and padding, divided by the pixels that are not padding."""
    loss = functional.cross_entropy(q, y, reduction="none")
    return (loss * ((c >= tau) & ~ignore)).sum() / (~ignore).sum()


def paste(box: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """CutMix by boolean assignment, as released code writes it."""
    mixed = outside.clone()
    if mixed.dim() == 4:
        box = box[:, None].expand_as(mixed)
    mixed[box] = inside[box]
    return mixed


def inter_pixel(q: Tensor, p: Tensor, valid: Tensor, kind: str, tau: float, t: float) -> Tensor:
    """Eq. 2 image by image, gathering the pixels of Omega."""
    total = q.new_zeros(())
    for b in range(len(q)):
        omega = (p[b].softmax(0).max(0).values > tau) & valid[b]
        n = int(omega.sum())
        if n < 2:
            continue
        for k in range(q.shape[1]):
            u = (p[b, k][omega] / t).softmax(0)
            v = (q[b, k][omega] / t).softmax(0)
            if kind == "kl":
                distance = (u * (u.log() - v.log())).sum()
            else:
                a, c = u - u.mean(), v - v.mean()
                distance = 1 - (a * c).sum() / (a.norm() * c.norm()).clamp(min=1e-16)
            total = total + distance / (q.shape[1] * math.log(n))
    return total / len(q)


def fixmatch_step(network: nn.Module, x: Any, u: Any, *, tau: float) -> tuple[Tensor, list[Any]]:
    """FixMatch's step in the UniMatch code."""
    network.eval()
    with torch.no_grad():
        mix = network(pixels(u.mix_weak))
        mix_c, mix_y = mix.softmax(1).max(1)
    network.train()
    strong = paste(u.boxes[0], u.mix_strong[0], u.strong[0])
    out = network(pixels(torch.cat([x.images, u.weak])))
    q_x, weak = out[: len(x.images)], out[len(x.images) :].detach()
    q_s = network(pixels(strong))
    c, y = weak.softmax(1).max(1)
    box = u.boxes[0]
    ignore = paste(box, u.mix_padded, u.padded)
    loss_s = unsupervised(q_s, paste(box, mix_y, y), paste(box, mix_c, c), ignore, tau)
    loss_x = functional.cross_entropy(q_x, x.masks, ignore_index=255)
    return (loss_x + loss_s) / 2.0, [(q_s, paste(box, mix, weak), ~ignore)]


def unimatch_step(network: nn.Module, x: Any, u: Any, *, tau: float) -> tuple[Tensor, list[Any]]:
    """UniMatch's step."""
    network.eval()
    with torch.no_grad():
        mix = network(pixels(u.mix_weak))
        mix_c, mix_y = mix.softmax(1).max(1)
    network.train()
    strong = [paste(u.boxes[i], u.mix_strong[i], u.strong[i]) for i in range(2)]
    keep = torch.cat([x.keep, u.keep])
    clean, dropped = forward_fp(network, pixels(torch.cat([x.images, u.weak])), keep)
    num = len(x.images)
    q_x, weak, q_fp = clean[:num], clean[num:].detach(), dropped[num:]
    q = network(pixels(torch.cat(strong))).chunk(2)
    c, y = weak.softmax(1).max(1)
    losses, pairs = [], []
    for i in range(2):
        box = u.boxes[i]
        ignore = paste(box, u.mix_padded, u.padded)
        y_i, c_i = paste(box, mix_y, y), paste(box, mix_c, c)
        losses.append(unsupervised(q[i], y_i, c_i, ignore, tau))
        pairs.append((q[i], paste(box, mix, weak), ~ignore))
    loss_fp = unsupervised(q_fp, y, c, u.padded, tau)
    loss_x = functional.cross_entropy(q_x, x.masks, ignore_index=255)
    loss = (loss_x + 0.25 * losses[0] + 0.25 * losses[1] + 0.5 * loss_fp) / 2.0
    return loss, pairs


def supervised_step(network: nn.Module, x: Any, u: Any, *, tau: float) -> tuple[Tensor, list[Any]]:
    """Labelled images alone."""
    out = network(pixels(x.images))
    return functional.cross_entropy(out, x.masks, ignore_index=255), []


STEPS = {"unimatch": unimatch_step, "fixmatch": fixmatch_step, "supervised": supervised_step}


def train(network: nn.Module, data: list[Any], setting: dict[str, Any]) -> None:
    """SGD over the given batches: poly rate, two groups, ramp; `setting` holds the numbers.

    With `setting["lag"]` the rate is written after the step, as the released code does.
    """
    backbone = [p for n, p in network.named_parameters() if "backbone" in n]
    head = [p for n, p in network.named_parameters() if "backbone" not in n]
    lr, total = setting["lr"], setting["total"]
    optimiser = torch.optim.SGD(
        [{"params": backbone, "lr": lr}, {"params": head, "lr": lr * setting["head"]}],
        lr=lr,
        momentum=0.9,
        weight_decay=1e-4,
        foreach=False,
    )
    for k, (x, u) in enumerate(data):
        done = max(k - 1, 0) if setting["lag"] else k
        factor = (1 - done / total) ** 0.9
        optimiser.param_groups[0]["lr"] = lr * factor
        optimiser.param_groups[1]["lr"] = lr * setting["head"] * factor
        loss, pairs = STEPS[setting["algorithm"]](network, x, u, tau=setting["confidence"])
        if setting["distance"] != "none":
            ramp = math.exp(-5 * (1 - k / setting["warmup"]) ** 2) if k < setting["warmup"] else 1.0
            views = [
                inter_pixel(q, p, v, setting["distance"], setting["threshold"], 4.0)
                for q, p, v in pairs
            ]
            loss = loss + ramp * sum(views) / len(views)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
