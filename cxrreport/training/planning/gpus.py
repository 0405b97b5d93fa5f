"""Memory, peak performance and price of GPUs, for `plan` and `benchmarks/gpu.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card.

    Args:
        name: value of the `gpu` setting.
        device: part of the name that CUDA reports.
        memory: bytes that a process can use.
        flops: dense bfloat16 products with float32 accumulation, operations per second, from the data sheet.
        price: US dollars per hour; a round figure for one card on demand in 2026.
        bandwidth: of its memory, bytes per second, from the data sheet.
    """

    name: str
    device: str
    memory: int
    flops: float
    price: float
    bandwidth: float


_GIB = 2**30

# Longer names first, because `recognised` returns the first match.
GPUS = (
    Gpu("L4", "L4", int(22.0 * _GIB), 121e12, 0.8, 300e9),
    Gpu("A10G", "A10G", int(22.0 * _GIB), 70e12, 1.2, 600e9),
    Gpu("RTX-4090", "RTX 4090", int(23.5 * _GIB), 165e12, 0.6, 1008e9),
    Gpu("L40S", "L40S", int(44.5 * _GIB), 362e12, 1.8, 864e9),
    Gpu("A100-40GB", "A100-SXM4-40GB", int(39.4 * _GIB), 312e12, 1.5, 1555e9),
    Gpu("A100-80GB", "A100", int(79.2 * _GIB), 312e12, 2.0, 2039e9),
    Gpu("H100-PCIe", "H100 PCIe", int(79.2 * _GIB), 756e12, 2.5, 2000e9),
    Gpu("H100", "H100", int(79.2 * _GIB), 989e12, 3.0, 3350e9),
    Gpu("H200", "H200", int(139.8 * _GIB), 989e12, 3.8, 4800e9),
    Gpu("B200", "B200", int(178.0 * _GIB), 2250e12, 6.0, 8000e9),
)


def recognised(device: str) -> Gpu | None:
    """The GPU that CUDA calls `device`, for example "NVIDIA H100 80GB HBM3"; `None` if it is not in the table."""
    words = device.replace("-", " ").split()
    for gpu in GPUS:
        wanted = gpu.device.replace("-", " ").split()
        if any(words[start : start + len(wanted)] == wanted for start in range(len(words))):
            return gpu
    return None
