"""Freed memory kept and used again, in large pages: glibc on Linux alone."""

import ctypes
import sys
from pathlib import Path

# Of mallopt and madvise, in glibc's malloc.h and Linux's mman.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, MADV_HUGEPAGE = -1, -4, 14
PAGE = 4096
HEAP = 2**33  # bytes of addresses; of memory, what tensors touch


def reuse_memory() -> None:
    """Keep what tensors free, in large pages; elsewhere than with glibc, do nothing.

    glibc gives a large tensor's memory back to the system when it is freed, and the next step's
    tensors fault it in again, page by page: a third to a half of a step on the CPU. Memory that the
    heap keeps is faulted in once, and in pages of 2 MiB it is found faster.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
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
