"""``compressnet finetune``."""

from typing import Annotated

import typer

from compressnet.cli.options import Compile, Device, File, Folder, Force, Json, Set
from compressnet.cli.processes import is_first

EXAMPLES = (
    "compressnet finetune converted.safetensors -o tuned",
    "compressnet finetune converted.safetensors -o tuned --resume",
    "compressnet finetune converted.safetensors -o tuned --device cuda --set finetune.epochs=30",
    "torchrun --nproc-per-node 4 -m compressnet finetune converted.safetensors -o tuned",
    "compressnet finetune model.safetensors -o birds --set model.num_classes=5 --set data.dataset=imagefolder "
    "--set data.root=birds",
)

TENSORBOARD = "Write the history for TensorBoard, too; pip install 'compressnet[tensorboard]'."


def finetune(
    file: File,
    output: Folder,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    force: Force = False,
    compile: Compile = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help=TENSORBOARD)] = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Train a converted model until its accuracy is back.

    It carries its recipe in its file. The folder takes best.safetensors, metrics.jsonl and, for --resume, last.pt.
    Ctrl-C saves the state and stops. For another task, --set model.num_classes makes the last layer anew. Several
    processes that torchrun starts train it together.
    """
    from compressnet.cli.display import summaries, terminal
    from compressnet.cli.display.progress import progress
    from compressnet.commands.finetune import finetune

    trained = finetune(
        file,
        output,
        device=device,
        resume=resume,
        force=force,
        overrides=set_ or (),
        compile=compile,
        tensorboard=tensorboard,
        progress=progress(),
    )
    if not is_first():
        return
    if json:
        terminal.show_json(trained.to_json())
    else:
        summaries.show_trained(trained)
