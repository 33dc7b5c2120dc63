"""What an error of a stored number costs, against gradients of every image by itself."""

import torch
from torch import Tensor, nn

from compressnet.allocation.sensitivity import divergence, sensitivity
from compressnet.layers import CompressedLinear
from compressnet.methods import BY_NAME


def net() -> nn.Module:
    torch.manual_seed(0)
    head = nn.Linear(6, 4)
    weight = BY_NAME["hashednet"](head.weight.shape, BY_NAME["hashednet"].Config(ratio=2), 1).project_(head.weight)
    body = nn.Sequential(nn.Conv2d(2, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
    return nn.Sequential(body, CompressedLinear.like(head, weight)).eval()


def explicit(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The diagonal of E[Jᵀ (diag(p) − p pᵀ) J], one class and image at a time."""
    parameters = dict(model.named_parameters())
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for image in images:
        answer = model(image[None])[0]
        rows = [torch.autograd.grad(logit, list(parameters.values()), retain_graph=True) for logit in answer]
        for place, name in enumerate(parameters):
            jacobian = torch.stack([row[place] for row in rows])
            p = answer.detach().softmax(0).view(-1, *[1] * (jacobian.dim() - 1))
            totals[name] += (p * jacobian.square()).sum(0) - (p * jacobian).sum(0).square()
    return {name: total / len(images) for name, total in totals.items()}


def test_it_is_the_diagonal_of_the_fisher_information_of_stored_numbers() -> None:
    model = net()
    images = torch.randn(6, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    found = sensitivity(model, images.repeat(1500, 1, 1, 1), batch_size=6)
    expected = explicit(model, images)
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, cost in expected.items():
        torch.testing.assert_close(found[name], cost, rtol=0.15, atol=0.05 * cost.max().item())


def test_small_errors_move_the_answer_by_half_their_squares_times_it() -> None:
    model = net()
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(40, 2, 2, 2, generator=generator)
    costs = explicit(model, images)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    answer = model(images).detach()
    found, expected = 0.0, 0.0
    for _ in range(200):
        for name, parameter in model.named_parameters():
            error = 0.01 * torch.randn(parameter.shape, generator=generator)
            parameter.data = before[name] + error
            expected += 0.5 * (costs[name] * error.square()).sum().item()
        found += divergence(answer, model(images))
    assert abs(found / expected - 1) < 0.1


def test_labels_are_not_looked_at_nor_drawn_anew() -> None:
    model, images = net(), torch.randn(5, 2, 2, 2)
    once, again = sensitivity(model, images), sensitivity(model, images)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_that_the_answer_does_not_depend_on_cost_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Threshold(1e9, 0.0), nn.Linear(4, 2))
    found = sensitivity(model, torch.randn(4, 3))
    assert not found["0.weight"].any()
    assert found["2.bias"].any()


def test_parameters_that_asked_for_no_gradient_ask_for_none_afterwards() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    assert sensitivity(model, torch.randn(4, 3))["weight"].any()
    assert not model.weight.requires_grad


def test_an_answer_that_is_no_row_of_logits_is_the_mean_of_a_unit_gaussian() -> None:
    model, images = nn.Conv2d(1, 1, 1), torch.full((4, 1, 2, 2), 3.0)
    found = sensitivity(model, images.repeat(500, 1, 1, 1), batch_size=1)
    torch.testing.assert_close(found["weight"].item(), 4 * 9.0, rtol=0.1, atol=0)
    answer = model(images)
    torch.testing.assert_close(divergence(answer, answer + 0.5), 0.5 * 4 * 0.25, rtol=1e-4, atol=0)
