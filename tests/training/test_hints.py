import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from compressnet.errors import TrainingError
from compressnet.training.hints import Outputs, attention_loss, check_layers, feature_loss


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(32, 5)
    ).eval()


def test_the_attention_loss_is_equation_2_of_the_paper() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 4, 5)
    terms = []
    for a_s, a_t in zip(student, teacher, strict=True):
        q_s = torch.tensor([sum(channel[h, w] ** 2 for channel in a_s) for h in range(4) for w in range(5)])
        q_t = torch.tensor([sum(channel[h, w] ** 2 for channel in a_t) for h in range(4) for w in range(5)])
        terms.append(((q_s / q_s.norm() - q_t / q_t.norm()) ** 2).sum().sqrt() / 2)
    torch.testing.assert_close(attention_loss(student, teacher), sum(terms) / 2)


def test_the_feature_loss_is_the_share_of_the_teachers_energy_that_is_missed() -> None:
    teacher = torch.randn(3, 4, 5)
    torch.testing.assert_close(feature_loss(torch.zeros(3, 4, 5), teacher), torch.tensor(1.0))
    torch.testing.assert_close(feature_loss(1.1 * teacher, teacher), torch.tensor(0.01))
    torch.testing.assert_close(feature_loss(110 * teacher, 100 * teacher), torch.tensor(0.01))


@pytest.mark.parametrize("loss", [feature_loss, attention_loss])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_student_that_agrees_has_no_loss_and_a_finite_gradient(loss, scale: float) -> None:
    teacher = scale * torch.randn(2, 3, 4, 4)
    student = teacher.clone().requires_grad_()
    lost = loss(student, teacher)
    lost.backward()
    assert lost.abs() < 1e-6
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_outputs_are_those_before_an_activation_that_works_in_place() -> None:
    model, images = net(), torch.randn(2, 3, 8, 8)
    outputs = Outputs(model, ["0", "2"])
    model(images)
    given = outputs.take()
    torch.testing.assert_close(given["0"], nn.functional.conv2d(images, model[0].weight, model[0].bias))
    assert given["2"].requires_grad
    assert outputs.take() == {}


def test_outputs_are_those_of_the_parameters_a_functional_call_puts_in_place() -> None:
    model, images = net(), torch.randn(2, 3, 8, 8)
    outputs = Outputs(model, ["0"])
    twice = {name: (2 * parameter).detach().requires_grad_() for name, parameter in model.named_parameters()}
    functional_call(model, twice, (images,))
    given = outputs.take()["0"]
    torch.testing.assert_close(given, 2 * nn.functional.conv2d(images, model[0].weight, model[0].bias))
    given.sum().backward()
    assert twice["0.weight"].grad is not None


def test_a_closed_model_is_as_it_was() -> None:
    model = net()
    outputs = Outputs(model, ["0", "0", "2"])
    outputs.close()
    model(torch.randn(2, 3, 8, 8))
    assert outputs.take() == {}
    assert not any(module._forward_hooks for module in model.modules())


def test_a_compiled_model_gives_its_outputs_without_a_graph_break() -> None:
    model, images = net(), torch.randn(2, 3, 8, 8)
    outputs = Outputs(model, ["0"])
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(2):
        compiled(images)
        torch.testing.assert_close(outputs.take()["0"], nn.functional.conv2d(images, model[0].weight, model[0].bias))


class Pair(nn.Module):
    """Two layers: one that runs, and one whose weight alone is used."""

    def __init__(self) -> None:
        super().__init__()
        self.run, self.idle = nn.Linear(8, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x) @ self.idle.weight


def test_a_layer_that_never_runs_cannot_be_taught() -> None:
    with pytest.raises(TrainingError, match=r"finetune\.distill: idle never runs as a layer by itself.*\n.*such as"):
        check_layers(Pair(), Pair(), ["run", "idle"], [], torch.randn(1, 8))


def test_a_layer_that_a_block_stands_for_cannot_be_taught() -> None:
    student = net()
    student[2] = nn.Identity()
    student[4] = nn.Linear(144, 5)
    check_layers(student, net(), ["0"], ["0"], torch.randn(1, 3, 8, 8))
    with pytest.raises(
        TrainingError, match=r"2 gives \(1, 4, 6, 6\) in the compressed model, \(1, 2, 4, 4\) in the dense"
    ):
        check_layers(student, net(), ["2"], [], torch.randn(1, 3, 8, 8))


def test_attention_needs_places() -> None:
    model = net()
    with pytest.raises(TrainingError, match=r"distill\.attention: 4 gives \(1, 5\), which has no places"):
        check_layers(copy.deepcopy(model), model, [], ["4"], torch.randn(1, 3, 8, 8))
    check_layers(copy.deepcopy(model), model, ["4"], ["2"], torch.randn(1, 3, 8, 8))
