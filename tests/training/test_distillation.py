import torch
from torch import nn
from torch.nn import functional as F

from compressnet.recipe import DistillSection
from compressnet.training.distillation import Teacher


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
