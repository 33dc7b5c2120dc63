"""compressnet: ship a vision network in little space.

    import compressnet

    model = compressnet.load("model.safetensors")            # a torch module, ready to run
    prepare = compressnet.transforms("model.safetensors")    # its images

The commands are functions: :func:`convert`, :func:`finetune`, :func:`export`, :func:`report`, :func:`evaluate`,
:func:`predict`, :func:`run`. For modules that are not torchvision's: :func:`compress`, :func:`save` and
``load(path, into=module)``. Everything is imported when it is first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressnet.api import compress, save, transforms
    from compressnet.checkpoint import load
    from compressnet.commands.convert import convert
    from compressnet.commands.evaluate import evaluate
    from compressnet.commands.export import export
    from compressnet.commands.finetune import finetune
    from compressnet.commands.predict import predict
    from compressnet.commands.report import report
    from compressnet.commands.run import run
    from compressnet.errors import CompressnetError

__version__ = version("compressnet")

_HOMES = {
    "CompressnetError": "errors",
    "compress": "api",
    "save": "api",
    "transforms": "api",
    "load": "checkpoint",
    **{name: f"commands.{name}" for name in ("convert", "evaluate", "export", "finetune", "predict", "report", "run")},
}

__all__ = [
    "CompressnetError",
    "compress",
    "convert",
    "evaluate",
    "export",
    "finetune",
    "load",
    "predict",
    "report",
    "run",
    "save",
    "transforms",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"compressnet.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'compressnet' has no attribute '{name}'")
