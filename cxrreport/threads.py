"""How threads of OpenMP wait and what oneDNN keeps, set before torch is imported.

By default, threads of libgomp spin while they wait for work. On a machine that does anything else they take the cores
from the threads that have work (measured on two cores beside other work: 0.6 instead of 7 to 11 studies/s). What
sleeping costs on an idle machine is for `benchmarks/wait_policy.py` to measure; it has not been run on one.
"""

from __future__ import annotations

import os

_PRIMITIVES = "32"
"""Compiled operations that oneDNN keeps. By default it keeps 1,024, each for one shape of its input: 290 MB after
RadGraph read 600 reports. With 32, neither these nor a training took longer."""


def wait_asleep() -> None:
    """Let waiting threads sleep, unless the user has set a policy. Child processes inherit it."""
    if "GOMP_SPINCOUNT" not in os.environ and "KMP_BLOCKTIME" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_few_primitives() -> None:
    """Bound the caches of oneDNN and of its wrapper in torch, unless the user has set their sizes."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, _PRIMITIVES)
