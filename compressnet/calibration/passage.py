"""Some images on their way through the model, halted at each layer that is not fitted yet."""

from collections.abc import Iterator, Mapping
from threading import Semaphore, Thread
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressnet.calibration.calls import Call, Place, met
from compressnet.maths.hashing import derive

_BATCH = 16  # images whose outputs of a layer are computed at a time


class _Abandoned(BaseException):
    """Nobody waits for the passage any more."""


class Passage(TorchFunctionMode):
    """A batch of images that holds each of them twice and goes through the model once.

    The first half is what the dense network computes, the second what the compressed one does. At a planned layer that
    is not fitted the passage halts, in a thread of its own whose stack holds the activations that are still needed, and
    nothing else does. It runs only inside :meth:`advance`, so that one passage runs at a time.

    Args:
        model: in evaluation mode.
        places: its planned layers, by the id of their weight.
        images: shape (N, C, H, W).
        number: of the passage, which its positions are drawn by.

    Attributes:
        call: where it halts; None before the first :meth:`advance` and when the model is done.
        inputs: of that layer in the compressed network.
        outputs: of that layer in the dense network.
    """

    def __init__(self, model: nn.Module, places: Mapping[int, Place], images: Tensor, number: int) -> None:
        super().__init__()
        self.model, self.places, self.images, self.number = model, places, images, number
        self.call: Call | None = None
        self.inputs = self.outputs = images
        self._go, self._halted = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None
        self._abandoned = False
        self._thread = Thread(target=self._run, daemon=True)

    @property
    def free(self) -> bool:
        """Whether the layer where it halts is fitted by now."""
        return self.call is not None and self.call.place.fitted is not None

    def advance(self) -> bool:
        """Go on to the next planned layer that is not fitted, or to the end.

        Returns:
            whether it halts at one.

        Raises:
            Exception: of the model, as it is.
        """
        self.call = None
        if self._thread.ident is None:
            self._thread.start()
        self._go.release()
        self._halted.acquire()
        if self._error is not None:
            raise self._error
        return self.call is not None

    def rows(self, share: float) -> Iterator[tuple[Tensor, Tensor]]:
        """A share of the positions at the layer where it halts: see :meth:`Call.rows`."""
        assert self.call is not None
        seed = derive(self.call.place.layer.seed or 0, self.number)
        return self.call.rows(self.inputs, self.outputs, share, seed)

    def abandon(self) -> None:
        """Let go of the activations."""
        self._abandoned = True
        self._go.release()
        if self._thread.ident is not None:
            self._thread.join()

    @torch.no_grad()
    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                with self:
                    self.model(torch.cat((self.images, self.images)))
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.inputs = self.outputs = self.images[:0]
            self._halted.release()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if call := met(self.places, func, args, kwargs):
            return self._both_halves(call)
        return func(*args, **(kwargs or {}))

    def _both_halves(self, call: Call) -> Tensor:
        x = call.arguments["input"]
        half = len(x) // 2
        y = call.dense(x[:1])
        y = y.new_empty(len(x), *y.shape[1:])
        for start in range(0, half, _BATCH):
            part = slice(start, min(start + _BATCH, half))
            y[part] = call.dense(x[part])
        if call.place.fitted is None:
            self._halt(call, x[half:], y[:half])
        for start in range(half, len(x), _BATCH):
            y[start : start + _BATCH] = call.compressed(x[start : start + _BATCH])
        return y

    def _halt(self, call: Call, inputs: Tensor, outputs: Tensor) -> None:
        self.call, self.inputs, self.outputs = call, inputs, outputs
        self._halted.release()
        self._go.acquire()
        self.inputs = self.outputs = self.images[:0]
        if self._abandoned:
            raise _Abandoned
