"""The exponential moving average of what learns."""

from contextlib import AbstractContextManager

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compressnet.training.holding import holding


class MovingAverage(AveragedModel):
    """The average, over the last steps, of the floating-point numbers that a module stores.

        average ← decay · average + (1 − decay) · number

    These are its parameters and the statistics of its norm layers. Tables are not stored, and so not averaged; masks
    are no floating-point numbers.

    Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging, SIAM J. Control Optim. 30, 1992.

    Args:
        module: that learns.
        decay: from 0 to below 1; the last 1 / (1 − decay) steps or so count.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        stored = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point()]
        numbers = nn.ParameterList(stored)  # in the memory of the module's
        super().__init__(numbers, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.numbers = (numbers,)  # in a tuple: they are no part of the average

    def update(self) -> None:
        """Take in the numbers as they stand; the first time the average is these."""
        self.update_parameters(self.numbers[0])

    def applied(self) -> AbstractContextManager[None]:
        """Within it the module has the averages, where there are any yet, to be evaluated or saved."""
        numbers = list(self.numbers[0])
        return holding(numbers, list(self.module.parameters()) if self.n_averaged else numbers)
