"""How much of a pretrained network FreshNet's closed projection keeps, by how its buckets are allotted to the bands.

    python tests/benchmarks/bands.py WEIGHTS.pth

WEIGHTS is a state_dict; its 3×3 convolutions are projected at ratios 2, 4 and 16. A figure is ‖W − Ŵ‖ / ‖W‖ over all of
them together.
"""

import sys

import torch

from compressnet.methods.freshnet import FreshNetConfig, FreshNetWeight

DENSITIES = [(1, 1), (0.8, 1.2), (1, 1.5), (1, 2), (0.5, 1), (0.2, 1), (0.5, 1.5), (0.2, 2.5), (0.2, 6), (2.5, 0.2)]


def error(weights: list[torch.Tensor], config: FreshNetConfig) -> float:
    """The relative error over all weights together."""
    wrong = energy = 0.0
    for seed, dense in enumerate(weights):
        weight = FreshNetWeight(tuple(dense.shape), config, seed)
        wrong += (weight.project_(dense).to_dense() - dense).square().sum().item()
        energy += dense.square().sum().item()
    return float((wrong / energy) ** 0.5)


def main() -> None:
    """A table of densities and ratios, for both hashes."""
    state = torch.load(sys.argv[1], weights_only=True)
    weights = [t.float() for t in state.values() if t.ndim == 4 and t.shape[2:] == (3, 3)]
    ratios = (2, 4, 16)
    head = [f"{hashing} {ratio}×" for hashing in ("balanced", "independent") for ratio in ratios]
    print("| α, β | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
    for alpha, beta in DENSITIES:
        row = [
            error(weights, FreshNetConfig(ratio=ratio, alpha=alpha, beta=beta, hashing=hashing))
            for hashing in ("balanced", "independent")
            for ratio in ratios
        ]
        print(f"| {alpha}, {beta} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


if __name__ == "__main__":
    main()
