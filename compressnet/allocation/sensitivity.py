"""What an error of a stored number costs: how far it moves the model's answer, to second order."""

import torch
from torch import Tensor, nn

from compressnet.maths.hashing import uniform

BATCH = 8  # images whose gradients are taken in one pass


def sensitivity(model: nn.Module, images: Tensor, batch_size: int = BATCH) -> dict[str, Tensor]:
    """The diagonal of the Fisher information F of a model's answers, in the space of its parameters.

    Errors e of the parameters move the answer by a divergence of ½ Σ F[i] e[i]² nats to second order, where they do not
    hang together. With p the answer's chances, r random signs and v = √p r − p (√p · r), the gradient of v · logits
    has F as the mean of its square, as E[v vᵀ] = diag(p) − p pᵀ. One backward pass takes a batch: as signs of different
    images are independent, what mixes them has mean zero. An answer that is not a row of logits an image is taken as
    the mean of a unit Gaussian, and v = r. No labels are needed.

    Args:
        model: in evaluation mode, with no frozen weights.
        images: unlabelled, of shape (N, C, H, W).
        batch_size: images in one pass.

    Returns:
        by name, of each parameter's shape; zero where the images do not reach it.

    Source: J. Martens: New Insights and Perspectives on the Natural Gradient Method, JMLR 2020, sections 5 and 9;
    random signs: C. Bekas, E. Kokiopoulou, Y. Saad: An estimator for the diagonal of a matrix, 2007.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    wanted = [parameter.requires_grad for parameter in parameters.values()]
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_()
        for number, batch in enumerate(images.split(batch_size)):
            with torch.enable_grad():
                answer = model(batch)
            pull = _pull(answer.detach(), number)
            found = torch.autograd.grad(answer, list(parameters.values()), pull, allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    totals[name] += gradient.square()
    finally:
        for parameter, want in zip(parameters.values(), wanted, strict=True):
            parameter.requires_grad_(want)
    return {name: total / len(images) for name, total in totals.items()}


def _pull(answer: Tensor, number: int) -> Tensor:
    """v of each image."""
    drawn = uniform(answer.numel(), seed=0, stream=number).to(answer).view_as(answer)
    signs = torch.where(drawn < 0.5, 1.0, -1.0)
    if answer.dim() != 2:
        return signs
    chances = answer.softmax(1)
    roots = chances.sqrt() * signs
    return roots - chances * roots.sum(1, keepdim=True)


@torch.no_grad()
def divergence(answer: Tensor, given: Tensor) -> float:
    """How far answers are from what they should be: the mean over images of Σ p (log p − log q), in nats.

    Args:
        answer: of the model, of shape (images, classes), p its softmax. Of another shape, it is half the squared
            distance, the divergence of unit Gaussians.
        given: in its place, q its softmax.
    """
    if answer.dim() != 2:
        return 0.5 * (answer - given).square().flatten(1).sum(1, dtype=torch.float64).mean().item()
    p, q = answer.double().log_softmax(1), given.double().log_softmax(1)
    return (p.exp() * (p - q)).sum(1).mean().item()
