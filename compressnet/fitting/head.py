"""The linear layer behind a block, by ridge regression in closed form."""

import torch
from torch import Tensor, nn

MOST = 4096  # samples, where features are as many or more: their kernel is a matrix of this side
RIDGES = 10.0 ** torch.arange(-7, 4, dtype=torch.float64)  # relative to the mean eigenvalue


@torch.no_grad()
def fit_head_(head: nn.Linear, features: Tensor, targets: Tensor) -> float:
    """Set a linear layer to argmin Σ ‖W h + b − y‖² + λ ‖W‖², with the λ whose leave-one-out error is least.

    Leaving out sample i multiplies its residual by 1 / (1 − Hᵢᵢ), with H the matrix that takes targets to outputs, so
    every λ of a grid is judged from one eigendecomposition, of the smaller of both Gram matrices.

    Args:
        head: set in place; without a bias, b is 0.
        features: h, shape (samples, in_features).
        targets: y, shape (samples, out_features).

    Returns:
        the relative error of the outputs on samples that are left out, one at a time.
    """
    if min(features.shape) > MOST:
        features, targets = features[:MOST], targets[:MOST]
    h, y = features.double(), targets.double()
    biased, means = head.bias is not None, (h.mean(0), y.mean(0))
    if biased:
        h, y = h - means[0], y - means[1]
    wide = h.shape[0] <= h.shape[1]
    values, vectors = torch.linalg.eigh(h @ h.T if wide else h.T @ h)
    values = values.clamp(min=0)
    # left singular vectors of h; those of vanishing values carry nothing
    left = vectors if wide else h @ vectors / values.clamp(min=max(1e-12 * values[-1].item(), 1e-30)).sqrt()
    seen = left.T @ y
    ridges = RIDGES * values.mean().clamp(min=1e-30)
    errors = [_left_out(left, values, seen, y, ridge, biased) for ridge in ridges]
    best = min(range(len(ridges)), key=errors.__getitem__)
    shrunk = seen / (values + ridges[best])[:, None]
    weight = (h.T @ (left @ shrunk)).T if wide else (vectors @ (values.sqrt()[:, None] * shrunk)).T
    head.weight.copy_(weight)
    if biased:
        head.bias.copy_(means[1] - weight @ means[0])
    return errors[best] / max(targets.double().norm().item(), 1e-30)


def _left_out(left: Tensor, values: Tensor, seen: Tensor, y: Tensor, ridge: Tensor, biased: bool) -> float:
    """The norm of all residuals, each of a fit without its sample."""
    share = values / (values + ridge)
    own = left.square() @ share + (1 / len(y) if biased else 0)
    residual = y - left @ (share[:, None] * seen)
    return float((residual / (1 - own).clamp(min=1e-9)[:, None]).norm())
