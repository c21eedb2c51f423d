"""Tests the emulator: `check.py FOLDER` runs every case in a process of its own and prints one line for each.

A case is a function: `good_*` has to finish without a word on standard error, also while checking and for 20 seeds;
`faulty` lists kernels with one mistake each and what has to be said about it.
"""

import ctypes
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

import cuda as api
from cuda import f32, u32

HERE = os.path.dirname(os.path.abspath(__file__))
SEEDS = 20


class Range(ctypes.Structure):
    _fields_ = [("first", ctypes.c_int), ("step", ctypes.c_longlong)]


def source(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


def equal(found, expected):
    assert found == expected, f"found {found[:8]}.., expected {expected[:8]}.."


def good(cuda):
    """Every kernel of good.cu, with sizes that leave a remainder."""
    module = cuda.compile(source("good.cu"))
    n = 1000
    x, y = cuda.buffer("f", range(n)), cuda.buffer("f", [1.0] * n)
    cuda.launch(module, "saxpy", (8, 1, 1), (128, 1, 1), u32(n), f32(2.0), x, y)
    equal(y.read(), [2.0 * i + 1.0 for i in range(n)])

    rows, columns = 37, 50
    x, y = cuda.buffer("f", range(rows * columns)), cuda.buffer("f", rows * columns)
    cuda.launch(module, "transpose", (4, 3, 1), (16, 16, 1), u32(rows), u32(columns), x, y)
    equal(y.read(), [float(r * columns + c) for c in range(columns) for r in range(rows)])

    x, partial, total = cuda.buffer("f", range(n)), cuda.buffer("f", 5), cuda.buffer("f", 1)
    cuda.launch(module, "block_sum", (5, 1, 1), (64, 1, 1), u32(n), x, partial)
    cuda.launch(module, "block_sum", (1, 1, 1), (256, 1, 1), u32(5), partial, total)
    equal(total.read(), [n * (n - 1) / 2.0])  # below 2^24, so exact in any order

    width, height = 45, 21
    y = cuda.buffer("i", width * height)
    cuda.launch(module, "grid_2d", (3, 3, 1), (16, 8, 1), u32(width), u32(height), y)
    equal(y.read(), [r * 1000 + c for r in range(height) for c in range(width)])

    values, counts = cuda.buffer("I", [i * i for i in range(n)]), cuda.buffer("I", [0] * 8)
    cuda.launch(module, "histogram", (10, 1, 1), (128, 1, 1), u32(n), values, counts)
    equal(counts.read(), [sum(i * i % 8 == k for i in range(n)) for k in range(8)])

    x, y = cuda.buffer("f", range(64)), cuda.buffer("f", 64)
    ballots, last = cuda.buffer("I", 2), cuda.buffer("d", 2)
    cuda.launch(module, "warp_wise", (1, 1, 1), (64, 1, 1), x, y, ballots, last)
    equal(y.read(), [float(i // 32 * 32 + 31 - i % 32) for i in range(64)])
    equal(ballots.read(), [0, 0xffffffff])
    equal(last.read(), [31.0, 63.0])

    x, y = cuda.buffer("f", range(256)), cuda.buffer("f", 256)
    cuda.launch(module, "reverse4", (1, 1, 1), (64, 1, 1), x, y, shared=1024)
    equal(y.read(), [float((63 - i // 4) * 4 + i % 4) for i in range(256)])

    data = [i * 7 % 256 for i in range(128)]
    x, y = cuda.buffer("B", data), cuda.buffer("B", 128)
    cuda.launch(module, "turns", (2, 1, 1), (64, 1, 1), u32(5), x, y)
    equal(y.read(), [data[i // 64 * 64 + (i + 5) % 64] for i in range(128)])

    data = [i * 5 % 251 for i in range(64)]
    x, halves, y = cuda.buffer("B", data), cuda.buffer("H", range(64)), cuda.buffer("I", 16)
    cuda.launch(module, "parts", (1, 1, 1), (64, 1, 1), x, halves, y)
    equal(x.read(), [value + 1 for value in data])
    equal(halves.read(), [i + 1 for i in range(64)])
    equal(y.read(), [int.from_bytes(bytes(x.read()[4 * i:4 * i + 4]), "little") for i in range(16)])

    y = cuda.buffer("f", 64)
    cuda.launch(module, "hand_on", (1, 1, 1), (64, 1, 1), y)
    equal(y.read(), [64.0 + 31.0] * 64)

    y = cuda.buffer("i", 32)
    cuda.launch(module, "by_value", (1, 1, 1), (32, 1, 1), Range(3, 2), y)
    equal(y.read(), [sum((3 + 2 * i) * 10 ** (i % 4) for i in range(32))] * 32)

    x, y = cuda.buffer("i", range(64)), cuda.buffer("i", 3)
    cuda.launch(module, "counting", (1, 1, 1), (64, 1, 1), x, y)
    equal(y.read(), [63, 1, 1])


def memory(cuda):
    """Allocations of no bytes, the limit, copies."""
    a, b = cuda.buffer("f", 0), cuda.buffer("f", 0)
    assert a.address and a.address != b.address
    equal(a.read(), [])
    a.free()
    b.free()
    held = cuda.buffer("B", 600)
    for size, code in ((401, 2), (400, 0)):  # SPDFLOW_EMULATOR_MEMORY is 1000 here
        try:
            cuda.buffer("B", size).free()
            found = 0
        except api.Failure as failure:
            found = failure.code
        assert found == code, f"{size} bytes: {found}"
    held.free()


def expect(code, work):
    try:
        work()
    except api.Failure as failure:
        assert failure.code == code, failure
        return
    raise AssertionError(f"no error, expected {code}")


def copy_out_of_bounds(cuda):
    x = cuda.buffer("f", range(4))
    x.length, x.bytes = 5, 20
    expect(1, x.read)


def double_free(cuda):
    x = cuda.buffer("f", range(4))
    x.free()
    expect(1, x.free)


def written_outside(cuda):
    """Without checking, a write past the end is noticed when the memory is freed."""
    module = cuda.compile(source("faulty.cu"))
    y = cuda.buffer("f", [0.0] * 64)
    cuda.launch(module, "write_past_end", (1, 1, 1), (65, 1, 1), u32(64), y)
    expect(700, y.free)


def other_thread(cuda):
    """A thread without a context may not use the device."""
    x, errors = cuda.buffer("f", range(4)), []

    def work():
        try:
            x.read()
        except api.Failure as failure:
            errors.append(failure.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    equal(errors, [201])


def compile_in_threads(cuda):
    """Threads that compile the same and different sources at the same time."""
    errors = []

    def work(number):
        text = f'extern "C" __global__ void k(float *x) {{ x[0] = {number // 2}; }}'
        try:
            cuda.bind()
            x = cuda.buffer("f", [-1.0])
            cuda.launch(cuda.compile(text), "k", (1, 1, 1), (1, 1, 1), x)
            equal(x.read(), [float(number // 2)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def compile_error(cuda):
    try:
        cuda.compile('extern "C" __global__ void k(float *x) {\n    x[0] = nonsense;\n}\n')
    except api.Failure as failure:
        assert failure.code == 6 and "test.cu:2" in str(failure) and "nonsense" in str(failure), failure
        return
    raise AssertionError("it compiled")


def real_ptx(cuda):
    module = ctypes.c_void_p()
    expect(200, lambda: cuda.call("cuModuleLoadData", ctypes.byref(module), b".version 7.0\n"))


# Kernel: (threads of a block, arguments given the library, error code, what standard error has to match)
def floats(n):
    return lambda cuda: [cuda.buffer("f", range(n))]


def freed(cuda):
    buffer = cuda.buffer("f", range(64))
    buffer.free()
    return [buffer]


FAULTY = {
    "read_past_end": (64, lambda c: [u32(64), *floats(64)(c), *floats(64)(c)], 700,
                      r"out of bounds: kernel `read_past_end`, block \(0,0,0\), thread \(63,0,0\): read of 4 bytes at "
                      r"allocation 1 \+256, outside of it, line 5: `if \(i < n\) y\[i\] = x\[i \+ 1\];`"),
    "write_past_end": (65, lambda c: [u32(64), *floats(64)(c)], 700,
                       r"out of bounds: .*thread \(64,0,0\): write of 4 bytes at allocation 1 \+256, outside of it"),
    "shared_overrun": (64, floats(64), 700, r"out of bounds: .*thread \(63,0,0\): index 64 of an array"),
    "shared_overrun_by_pointer": (64, floats(64), 700,
                                  r"out of bounds: .*write of 4 bytes at shared array `first` \(256 bytes\) \+ 256"),
    "missing_barrier": (64, floats(64), 700, r"race: .* at shared array `tile` \(256 bytes\) \+ \d+ and .* by block "
                                             r"\(0,0,0\) thread \(\d+,0,0\) with no barrier between them"),
    "missing_second_barrier": (64, floats(64), 700, r"race: .*write at shared array `tile` .* and read by"),
    "missing_warp_barrier": (32, floats(32), 700, r"race: .* at shared array `line`"),
    "race_of_blocks": (64, floats(64), 700, r"race: .*write at allocation 1 \(256 bytes\) \+ 0 and write by block "
                                            r"\(0,0,0\) thread \(0,0,0\), and blocks of a launch have no order"),
    "misaligned": (1, lambda c: [*floats(8)(c), *floats(1)(c)], 700,
                   r"misaligned: .* access at allocation 1 \+ 4, which is not a multiple of 16 bytes"),
    "uninitialised": (64, lambda c: [c.buffer("f", 64), *floats(64)(c)], 700,
                      r"uninitialised: .*read of allocation 1 \(256 bytes\) \+ 0, which was never written"),
    "uninitialised_shared": (64, floats(64), 700, r"uninitialised: .*read of shared array `tile` \(256 bytes\) \+ 252"),
    "barrier_after_return": (64, floats(64), 700, r"divergent barrier: .*63 threads wait at a block barrier that 1"),
    "barrier_against_warp": (64, floats(64), 700, r"divergent barrier: .*nobody can go on"),
    "bounded": (256, floats(256), 1, r"launch refused: .* more threads than __launch_bounds__\(128\)"),
    "much_shared": (64, floats(64), 1, r"launch refused: .*52000 bytes of static shared memory"),
    "absent_lane": (48, floats(48), 700, r"absent lane: .*reads lane \d+, which does not take part"),
    "null_pointer": (64, lambda c: [ctypes.c_uint64(0)], 700, r"out of bounds: .*null|out of bounds: .*at 0, which is"),
    "atomic_and_plain": (64, floats(64), 700, r"race: .*read at allocation 1 .* and atomic access by"),
    "read_of_another_block": (64, floats(128), 700, r"race: .*allocation 1 .*, and blocks of a launch have no order"),
    "failing_assertion": (64, floats(64), 700, r"trap: .*thread \(5,0,0\): assertion failed: y\[threadIdx.x\] < 5.0f"),
    "local_overrun": (1, lambda c: [u32(4), *floats(8)(c)], 700, r"out of bounds: .*index 4 of an array"),
    "dynamic_overrun": (64, floats(64), 700,
                        r"out of bounds: .*write of 4 bytes at 0x\w+, which is neither|"
                        r"out of bounds: .*shared array `dynamic` \(128 bytes\) \+ 128"),
    "late_write": (64, lambda c: freed(c), 700, r"out of bounds: .*write of 4 bytes"),
    "a block of 1025 threads": (1025, None, 1, r"launch refused: .* more than 1024 threads"),
}


def faulty(cuda, name):
    block, arguments, code, _ = FAULTY[name]
    module = cuda.compile(source("faulty.cu"))
    kernel = name if arguments else "uninitialised_shared"
    values = (arguments or floats(64))(cuda)
    grid = (2, 1, 1) if "block" in kernel else (1, 1, 1)
    shared = 128 if name == "dynamic_overrun" else 0
    expect(code, lambda: cuda.launch(module, kernel, grid, (block, 1, 1), *values, shared=shared))


def child(folder, name):
    if name.startswith("faulty "):
        faulty(api.Cuda(folder), name.removeprefix("faulty "))
    elif name.startswith("nccl "):
        import nccl
        nccl.CASES[name.removeprefix("nccl ")](folder)
    else:
        globals()[name](api.Cuda(folder))


def main(folder):
    import nccl
    cache = tempfile.TemporaryDirectory()
    # Name, case, environment, what standard error has to match (None: it has to be empty)
    cases = [("right kernels", "good", {}, None)]
    cases += [(f"right kernels, checked, seed {seed}", "good", {"SPDFLOW_EMULATOR_CHECK": "1",
                                                               "SPDFLOW_EMULATOR_SEED": str(seed)}, None)
              for seed in range(SEEDS)]
    cases += [("memory and its limit", "memory", {"SPDFLOW_EMULATOR_MEMORY": "1000"}, None),
              ("copy past an allocation", "copy_out_of_bounds", {}, r"to the host of 20 bytes at allocation 1 \+ 0"),
              ("second free", "double_free", {}, r"free of 0x\w+, which is not the start of a live allocation"),
              ("write past an allocation", "written_outside", {}, r"written outside of allocation 1 \(256 bytes"),
              ("a thread without a context", "other_thread", {}, None),
              ("threads that compile", "compile_in_threads", {}, None),
              ("compile error", "compile_error", {}, None),
              ("PTX of others", "real_ptx", {}, None)]
    cases += [(f"finds {name}", f"faulty {name}", {"SPDFLOW_EMULATOR_CHECK": "1"}, case[3])
              for name, case in FAULTY.items()]
    collective = {"SPDFLOW_EMULATOR_NCCL_TIMEOUT_S": "2", "SPDFLOW_EMULATOR_DEVICES": "3"}
    cases += [(f"collectives: {name}", f"nccl {name}", collective,
               nccl.EXPECTED.get(name)) for name in nccl.CASES]
    failed = 0
    for title, case, variables, pattern in cases:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("SPDFLOW_EMULATOR_")}
        environment = {**mine, "SPDFLOW_EMULATOR_CACHE": cache.name, **variables}
        start = time.time()
        run = subprocess.run([sys.executable, __file__, folder, case], env=environment, capture_output=True, text=True,
                             timeout=60, check=False)
        said = run.stderr.strip()
        ok = run.returncode == 0 and (re.search(pattern, said) if pattern else not said)
        print(f"{'ok  ' if ok else 'FAIL'} {title} ({time.time() - start:.1f} s)", flush=True)
        if not ok:
            failed += 1
            print(f"     exit code {run.returncode}, expected: {pattern}\n     " + said.replace("\n", "\n     "))
    print(f"{len(cases) - failed} of {len(cases)} cases pass")
    return failed != 0


if __name__ == "__main__":
    sys.exit(child(*sys.argv[1:]) if len(sys.argv) == 3 else main(sys.argv[1]))
