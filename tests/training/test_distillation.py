import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressnet.data.sources import NO_LABEL
from compressnet.recipe import DistillSection
from compressnet.training.distillation import Teacher
from compressnet.training.evaluation import from_json


def test_the_loss_is_hintons() -> None:
    torch.manual_seed(0)
    student, taught = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    teacher = Teacher(nn.Identity(), DistillSection(temperature=3, weight=0.25), torch.device("cpu"))
    p, q = (taught / 3).softmax(1), (student / 3).softmax(1)
    expected = 0.75 * 2.0 + 0.25 * 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(teacher.loss(torch.tensor(2.0, dtype=torch.float64), student, taught), expected)


def test_a_student_that_agrees_adds_no_loss() -> None:
    logits = torch.randn(5, 7)
    teacher = Teacher(nn.Identity(), DistillSection(weight=1), torch.device("cpu"))
    assert teacher.loss(F.cross_entropy(logits, torch.zeros(5).long()), logits, logits).abs() < 1e-6


def test_what_was_asked_once_is_kept_by_place() -> None:
    images = torch.randn(6, 4)
    teacher = Teacher(nn.Linear(4, 3), DistillSection(), torch.device("cpu"))
    loader = torch.utils.data.DataLoader(list(zip(images, range(6), strict=True)), batch_size=4)
    fresh = teacher.logits(images[[5, 2]], [5, 2])
    teacher.keep(loader)
    torch.testing.assert_close(teacher.logits(torch.zeros(2, 4), [5, 2]), fresh)


def test_layers_are_taught_beside_the_logits_by_their_weights() -> None:
    torch.manual_seed(0)
    dense, student = (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)) for _ in range(2))
    settings = DistillSection(features=("?",), feature_weight=3, attention=("0",), attention_weight=5)
    teacher, images = Teacher(dense, settings, torch.device("cpu")), torch.randn(2, 1, 4, 4)
    assert (teacher.features, teacher.attention) == (["0", "1", "2"], ["0"])
    given = {"0": student[0](images), "1": student[:2](images), "2": student(images)}
    teacher.logits(images, [0, 1])
    wanted = {"0": dense[0](images), "1": dense[:2](images), "2": dense(images)}
    expected = sum(3 * ((given[n] - wanted[n]) ** 2).mean() / (wanted[n] ** 2).mean() for n in given)
    maps = [F.normalize(each["0"].square().sum(1).flatten(1)) for each in (given, wanted)]
    expected = expected + 5 / 2 * (maps[0] - maps[1]).norm(dim=1).mean()
    torch.testing.assert_close(teacher.layer_loss(given), expected)


def test_a_teacher_of_layers_is_asked_at_every_step() -> None:
    images = torch.randn(6, 4)
    teacher = Teacher(nn.Sequential(nn.Linear(4, 3)), DistillSection(features=("0",)), torch.device("cpu"))
    teacher.keep(torch.utils.data.DataLoader(list(zip(images, range(6), strict=True)), batch_size=4))
    torch.testing.assert_close(teacher.logits(images[:2], [4, 5]), teacher.model(images[:2]))


def test_the_divergence_of_a_part_is_the_mean_over_its_images() -> None:
    torch.manual_seed(0)
    dense, student = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.randn(5, 3, 2, 2)
    loader = torch.utils.data.DataLoader([(image, NO_LABEL) for image in images], batch_size=2)
    teacher = Teacher(dense, DistillSection(features=("1",)), torch.device("cpu"))
    judged = teacher.judge(student.train(), loader, torch.device("cpu"))
    p, q = dense(images).softmax(1), student(images).softmax(1)
    assert judged.count == 5
    assert judged.divergence == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-5)
    assert student.training
    assert judged.to_json() == {"count": 5, "divergence": judged.divergence}
    assert from_json(judged.to_json()) == judged
