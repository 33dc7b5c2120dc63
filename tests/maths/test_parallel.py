import threading

import pytest
import torch

from compressnet.maths import parallel


@pytest.fixture(params=["torch's", "our own"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "our own":
        monkeypatch.setattr(parallel, "_openmp", lambda: None)
    elif parallel._openmp() is None:
        pytest.skip("torch's OpenMP library is none that others can use")
    return str(request.param)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("unit", [1, 9])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_cover_all_positions_once(count: int, unit: int) -> None:
    seen = torch.zeros(unit * 100_003)

    def add(_: int, part: slice) -> None:
        assert part.start % unit == 0
        seen[part] += 1

    parallel.in_parts(add, len(seen), count, unit)
    assert (seen == 1).all()


@pytest.mark.usefixtures("threads")
def test_parts_are_done_at_once() -> None:
    together = threading.Barrier(2, timeout=10)
    parallel.in_parts(lambda *_: together.wait(), 10, 2)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_a_part_is_raised(failing: int) -> None:
    def work(number: int, _: slice) -> None:
        if number == failing:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        parallel.in_parts(work, 10, 2)


@pytest.mark.usefixtures("threads")
def test_parts_may_be_cut_inside_a_part() -> None:
    seen = torch.zeros(4, 6)
    parallel.in_parts(lambda row, _: parallel.in_parts(lambda _, part: seen[row, part].add_(1), 6, 2), 4, 4)
    assert (seen == 1).all()


def test_few_positions_and_those_on_a_gpu_are_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert parallel.parts(1000, torch.device("cpu")) == parallel.parts(10**9, torch.device("cuda")) == 1
    assert parallel.parts(10**9, torch.device("cpu")) == 3
