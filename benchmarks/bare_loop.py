"""AMSGrad as one loop in C and nothing else: what a processor needs for its nine words.

It allocates nothing, checks nothing and is called without Python objects in between, so no
optimizer that keeps torch's state can be expected to be faster.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

SOURCE = """
#include <math.h>
#include <stddef.h>

void amsgrad(float *restrict p, const float *restrict g, float *restrict m, float *restrict v,
             float *restrict v_max, ptrdiff_t n, int threads, float lr, float b1, float b2,
             float eps) {
    #pragma omp parallel for simd num_threads(threads)
    for (ptrdiff_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
        v_max[i] = v[i] > v_max[i] ? v[i] : v_max[i];
        p[i] -= lr * m[i] / (sqrtf(v_max[i]) + eps);
    }
}
"""
COMPILER = next((c for c in ("gcc", "clang", "cc") if shutil.which(c)), None)


@functools.cache
def _loop() -> Callable[..., None]:
    folder = Path(tempfile.mkdtemp(prefix="bare_loop"))
    (folder / "amsgrad.c").write_text(SOURCE)
    library = folder / "amsgrad.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run(
        [str(COMPILER), *flags, str(folder / "amsgrad.c"), "-o", str(library)], check=True
    )
    return ctypes.CDLL(str(library)).amsgrad


def amsgrad(params: Sequence[Tensor], _: bool) -> Callable[[], None]:
    """A step of AMSGrad on `params`, whose gradients lie there when it is called."""
    loop, threads = _loop(), ctypes.c_int(torch.get_num_threads())
    numbers = [ctypes.c_float(x) for x in (1e-4, 0.9, 0.999, 1e-8)]
    state = [[torch.zeros_like(p) for _ in range(3)] for p in params]

    def step() -> None:
        for p, slots in zip(params, state, strict=True):
            assert p.grad is not None
            addresses = [ctypes.c_void_p(t.data_ptr()) for t in (p, p.grad, *slots)]
            loop(*addresses, ctypes.c_ssize_t(p.numel()), threads, *numbers)

    return step
