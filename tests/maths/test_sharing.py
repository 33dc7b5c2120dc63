import torch

from compressnet.maths.sharing import expand, signed_mean

INDICES = torch.tensor([0, 3, 1, 2, 0], dtype=torch.int32)  # buckets 0+, 1−, 0−, 1+, 0+


def test_every_position_reads_its_value_with_its_sign() -> None:
    assert expand(torch.tensor([2.0, 5.0]), INDICES).tolist() == [2, -5, -2, 5, 2]


def test_the_gradient_of_a_value_is_the_signed_sum_over_its_positions() -> None:
    values = torch.tensor([2.0, 5.0], requires_grad=True)
    expand(values, INDICES).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    assert values.grad is not None
    assert values.grad.tolist() == [1 - 100 + 10000, -10 + 1000]


def test_the_signed_mean_is_the_least_squares_solution() -> None:
    dense = torch.randn(5, dtype=torch.float64)
    design = torch.stack([expand(row, INDICES) for row in torch.eye(2, dtype=torch.float64)], dim=1)
    expected = torch.linalg.lstsq(design, dense[:, None]).solution.flatten()
    torch.testing.assert_close(signed_mean(dense, INDICES, 2), expected)


def test_a_value_that_nothing_reads_is_zero() -> None:
    assert signed_mean(torch.ones(5), INDICES, 3)[2] == 0
