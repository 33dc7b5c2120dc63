"""What can be said of kernels without a GPU: they compile for one, and interpreted they pass the tests of one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressnet.maths import cuda
from compressnet.maths.assignment import Assignment

ROOT = Path(__file__).parent.parent.parent
WORDS = {"cells": "*u32", "tiles": "*u32", "count": "i32", "halvings": "i32"}
POINTERS = {
    "signed_indices": {"out": "*i32"},
    "gather": {"out": "*fp32", "values": "*fp32", "transform": "*fp32"},
    "add": {"numbers": "*fp32", "sums": "*fp32", "transform": "*fp32"},
}
needs_triton = pytest.mark.skipif(not cuda.installed(), reason="Triton is not installed")


@needs_triton
@pytest.mark.parametrize("capability", [75, 90])
@pytest.mark.parametrize("name", POINTERS)
def test_a_kernel_compiles_for_a_gpu_with_unsigned_shifts(name: str, capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget

    from compressnet.maths.cuda import kernels

    fixed = {"size": 9, "balanced": True, "block": 128} | ({} if name == "signed_indices" else {"width": 16})
    signature = POINTERS[name] | WORDS | dict.fromkeys(fixed, "constexpr")
    source = triton.compiler.ASTSource(fn=getattr(kernels, name), signature=signature, constexprs=fixed)
    target = GPUTarget("cuda", capability, 32)
    assembly = triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"]
    assert re.search(r"\bshr\.u32", assembly)
    assert not re.search(r"\bshr\.s32", assembly)


@needs_triton
@pytest.mark.parametrize("some", ["test_indices or inverse_dct", pytest.param("test", marks=pytest.mark.slow)])
def test_interpreted_kernels_pass_the_tests_of_a_gpu(some: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", some, "tests/gpu/test_kernels.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b\d\d passed", done.stdout)


def test_no_kernel_runs_on_the_cpu_or_counts_past_31_bits() -> None:
    assert not cuda.runs(Assignment(10, (0,), (5,), 1), torch.device("cpu"))
    assert not cuda.runs(Assignment(1 << 31, (0,), (5,), 1), torch.device("cuda"))


def test_where_kernels_do_not_work_that_is_said_once() -> None:
    nowhere = torch.device("cpu")
    cuda.works.cache_clear()
    with pytest.warns(UserWarning, match="Triton does not work on cpu, indices are made on the CPU"):
        assert not cuda.works(nowhere)
    assert not cuda.works(nowhere)
