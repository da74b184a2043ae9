"""The machine that a run happens on: threads, memory, device, precision, compiler."""

import ctypes
import functools
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from fusionkd_lib.errors import InputError
from fusionkd_lib.params import Params

# Of mallopt and madvise, in glibc's malloc.h and Linux's mman.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, MADV_HUGEPAGE = -1, -4, 14
PAGE = 4096
HEAP = 2**33  # bytes of addresses; of memory, what tensors touch


def set_up_machine(params: Params) -> None:
    """Set the number of threads, and have freed memory used again. No figure changes."""
    torch.set_num_threads(params.threads)
    if params.reuse_memory and sys.platform == "linux":
        _reuse_memory(ctypes.CDLL(None))


def _reuse_memory(library: ctypes.CDLL) -> None:
    """Keep what tensors free, in large pages.

    glibc gives a large tensor's memory back to the system when it is freed, and the next step's
    tensors fault it in again, page by page: a third to a half of a step on the CPU. Memory that the
    heap keeps is faulted in once, and in pages of 2 MiB it is found faster.
    """
    if not hasattr(library, "mallopt"):  # another C library than glibc
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)
    if _counts_addresses_as_memory():
        return
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # The heap grows here once; what lies in these addresses keeps the advice.
    if address := library.malloc(HEAP):
        library.madvise(-(-address // PAGE) * PAGE, HEAP - PAGE, MADV_HUGEPAGE)
        library.free(address)


def _counts_addresses_as_memory() -> bool:
    """Whether Linux counts what a process might touch, not what it does touch."""
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return True


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


@functools.cache
def can_compile() -> bool:
    """Whether ``torch.compile`` works here: for a CPU it wants a C++ compiler."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of its own imports
            torch.compile(torch.neg)(torch.zeros(8))
    except Exception:  # a missing compiler and a broken one show in many ways
        return False
    return True


def resolve_fast_layers(choice: bool | str, device: torch.device) -> bool:
    """Return whether to train with fast layers; ``auto`` is on a CPU that can compile them."""
    if choice == "auto":
        return device.type == "cpu" and can_compile()
    if choice and not can_compile():
        raise InputError(
            "fast_layers = true: torch.compile does not work here, for want of a C++ compiler as a "
            "rule: install one, or use auto"
        )
    return bool(choice)
