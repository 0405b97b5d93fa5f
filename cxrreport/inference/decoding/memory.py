"""Free memory, and errors about memory."""

from __future__ import annotations

import psutil
import torch

_SIGNS = (
    "can't allocate memory",
    "bad_alloc",
    "out of memory",  # the driver and the runtime of CUDA, cuDNN, NCCL
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # its workspace did not fit
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)


def free_memory(device: torch.device) -> int:
    """Free memory of `device` in bytes."""
    if device.type == "cuda":
        # Blocks that torch has cached and does not use are free for its next allocation.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error says that memory could not be allocated."""
    # The CPU allocator and the libraries of CUDA raise a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(sign in str(error) for sign in _SIGNS)
