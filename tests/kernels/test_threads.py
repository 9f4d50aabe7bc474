import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparsepriors.kernels import dispatch

SOURCES = Path(__file__).parents[2] / "src/sparsepriors/kernels/csrc"
COMPILER = shutil.which("c++")

LAYER = """
import os, threading, time
import torch
from sparsepriors.kernels import pack_1x1, spmm_chw
generator = torch.Generator().manual_seed(0)
packed = pack_1x1(torch.randn(64, 96, generator=generator), block=4)
x = torch.randn(4, 96, 900, generator=generator)

def product(threads):
    torch.set_num_threads(threads)
    y = spmm_chw(x, packed)
    torch.set_num_threads(1)   # torch's own threads stay out of it
    return y

want = product(1)
"""

FORK = LAYER + """
import multiprocessing

def child(threads):
    assert torch.equal(product(threads), want)
    assert len(os.listdir("/proc/self/task")) == threads

assert torch.equal(product(2), want)
for threads in (2, 3):
    process = multiprocessing.get_context("fork").Process(target=child, args=(threads,))
    process.start()
    process.join(20)
    assert process.exitcode == 0, process.exitcode
product(2)
"""

CALLERS = LAYER + """
wrong = []

def call():
    for _ in range(30):
        if not torch.equal(product(3), want):
            wrong.append(1)

callers = [threading.Thread(target=call) for _ in range(4)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
assert not wrong
"""

COUNT = LAYER + """
def tasks():
    return len(os.listdir("/proc/self/task"))

before = tasks()
for threads, started in ((1, 0), (3, 2), (2, 2), (3, 2)):
    assert torch.equal(product(threads), want)
    assert tasks() == before + started, (threads, tasks() - before)
time.sleep(0.01)
used = time.process_time()
time.sleep(0.2)
assert time.process_time() - used < 0.05   # threads without work are asleep
"""

DAEMONS = LAYER + """
def call():
    while True:
        spmm_chw(x, packed, out=want)   # nothing of torch's, which ends the process in such a case

torch.set_num_threads(1)
for _ in range(2):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
"""


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_pool_keeps_its_promises(tmp_path):
    """Pieces once, exceptions, thread counts, forks, signals, concurrent and nested calls: in C++, without Python."""
    program = tmp_path / "pool"
    x86 = ["-DSPARSEPRIORS_X86"] if platform.machine() in ("x86_64", "AMD64") else []
    subprocess.run([str(COMPILER), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", *x86, "-I", SOURCES,
                    Path(__file__).with_name("pool.cpp"), SOURCES / "threads.cpp", "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr or f"ended by signal {-done.returncode}"


@pytest.mark.skipif(dispatch.NATIVE is None or sys.platform != "linux", reason="forks compiled kernels")
@pytest.mark.parametrize("program", [FORK, CALLERS, COUNT, DAEMONS],
                         ids=["fork", "callers", "count", "daemons"])
def test_kernels_share_one_pool_of_threads(program):
    """Each program ends while the pool or daemon threads wait: it must neither hang nor abort, nor say a word."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
