"""The machine that a run happens on: threads, memory, device, precision."""

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params

# Of mallopt, in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def set_up_machine(params: Params) -> None:
    """Set the number of threads, and have freed memory used again.

    glibc gives a large tensor's memory back to the system when it is freed, and the next step's
    tensors fault it in again, page by page: a fifth to a third of a step on the CPU. No figure
    changes.
    """
    torch.set_num_threads(params.threads)
    if params.reuse_memory and sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(M_MMAP_MAX, 0)
            library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def resolve_device(name: str) -> torch.device:
    """Return the named device, or with ``auto`` the fastest one there is."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"device = '{name}' is not to be had here: use auto or cpu") from None
    return torch.device(name)


def resolve_precision(name: str) -> str:
    """Return the precision; ``auto`` is bfloat16 where the processor computes in it."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def autocast(params: Params, device: torch.device) -> AbstractContextManager:
    """Compute a network in the precision of a run; weights and losses stay in float32."""
    if resolve_precision(params.precision) == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
