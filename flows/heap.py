"""Keep the heap: on Linux, freed tensors otherwise go back to the kernel and are faulted in again page by page."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_heap(bytes_kept: int = 1 << 30) -> bool:
    """Ask glibc to keep up to `bytes_kept` of freed memory for the next tensors. Returns whether it could be asked.

    Programs call this once at their start (the command line, the benchmarks); the library never does. It took a
    third off the training time of continuous flows on CPU. No effect on results, nor outside Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    largest_block = 32 << 20  # the most glibc allows
    return bool(library.mallopt(_TRIM_THRESHOLD, bytes_kept) and library.mallopt(_MMAP_THRESHOLD, largest_block))
