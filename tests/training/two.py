"""What each of two processes sees, as JSON lines; run by torchrun, from test_distributed."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressnet.coding.quantisers import Codebook, Uniform
from compressnet.errors import CompressnetError
from compressnet.maths.hashing import derive
from compressnet.methods.hashednet import HashedNetConfig, HashedNetWeight
from compressnet.training import distributed
from compressnet.training.quantised import QuantisedParameters, Through


def gradients(quantiser: Any) -> dict[str, Any]:
    """Of a layer and its quantiser, of this process's half of a batch and averaged, and of the whole batch."""
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    found: dict[str, list[Any]] = {}
    for name, part in (("averaged", images[distributed.rank() :: 2]), ("whole", images)):
        torch.manual_seed(1)
        layer = nn.Linear(4, 3)
        through = Through(layer, QuantisedParameters(layer, {"weight": quantiser}))
        network = distributed.parallel(through, through.fixed) if name == "averaged" else through
        for _ in range(2):  # the first pass may go without its backward, as where a loss is not finite
            loss = network(part).square().mean()
        loss.backward()
        found[name] = [None if p.grad is None else p.grad.tolist() for p in through.parameters()]
    return found


def tables() -> list[int]:
    """The table of a weight that differs here, after it was made parallel and has run."""
    layer = HashedNetWeight((4, 6), HashedNetConfig(ratio=3), seed=1)
    layer.register_buffer("indices", layer.indices + 0 if distributed.rank() else layer.indices * 0, persistent=False)
    with torch.no_grad():
        layer.buckets.fill_(1.0 + distributed.rank())

    class Run(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.structured = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return layer.matmul(x)

    distributed.parallel(Run())(torch.ones(2, 6)).sum().backward()
    return [*layer.indices.tolist(), *layer.buckets.tolist()]


def statistics() -> list[list[float]]:
    """Norm statistics after each process saw images of its own."""
    norm = nn.BatchNorm1d(2).train()
    norm(torch.full((4, 2), float(1 + distributed.rank())))
    moved = distributed.norm_statistics(norm)
    distributed.average_(moved)
    return [tensor.tolist() for tensor in moved]


def refused(function: Any, *arguments: Any) -> str:
    """What is said."""
    try:
        function(*arguments)
    except CompressnetError as error:
        return str(error)
    return ""


@distributed.together()
def main(folder: Path) -> None:
    """Write a file a process."""
    with distributed.one_first():
        written = (folder / "first").exists()
        (folder / "first").touch()
    seen = {
        "rank": [distributed.rank(), distributed.count()],
        "first": written,
        "uniform": gradients(Uniform(0.1, 7)),
        "codebook": gradients(Codebook((-0.3, 0.0, 0.3))),
        "tables": tables(),
        "statistics": statistics(),
        "share": list(distributed.share([9, 8, 7, 6])),
        "total": list(distributed.total(1 + distributed.rank(), 0.5)),
        "agreed": distributed.agreed(2 * distributed.rank()),
        "everyones": distributed.everyones({"rank": distributed.rank()}),
        "seed": distributed.own_seed(5) == (derive(5, 1) if distributed.rank() else 5),
        "unequal": refused(distributed.check_shares, 7, 100),
        "few": refused(distributed.check_shares, 8, 7),
        "fits": refused(distributed.check_shares, 8, 8),
        "device": refused(distributed.own_device, torch.device("cuda:0")),
        "none": refused(distributed.own_device, torch.device("cuda")) if not torch.cuda.is_available() else "",
    }
    (folder / f"{distributed.rank()}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
