"""Cases of the emulated collectives: ranks are processes (forked) or threads of this one."""

import ctypes
import os
import threading
import time

import cuda as api

INT32, INT64, FLOAT32, FLOAT64 = 2, 4, 7, 8
SUM, PROD, MAX, MIN, AVG = range(5)


class Id(ctypes.Structure):
    _fields_ = [("internal", ctypes.c_char * 128)]


def load(folder, device=0):
    cuda = api.Cuda(folder, device)
    return cuda, ctypes.CDLL(os.path.join(folder, "libnccl.so.2"))


def size(n):
    return ctypes.c_size_t(n)


def check(code, expected=0):
    assert code == expected, f"returned {code}, expected {expected}"


def collectives(cuda, lib, comm, rank, world):
    """Every collective, with more data than one chunk holds where that matters."""
    def buffers(code, values, out):
        return cuda.buffer(code, values), cuda.buffer(code, out)

    def at(buffer):
        return api.POINTER(buffer.address)

    n = 300_000  # more than 1 MiB of f32
    x, y = buffers("f", [float(rank + 1)] * n, n)
    check(lib.ncclAllReduce(at(x), at(y), size(n), FLOAT32, SUM, comm, None))
    assert y.read() == [world * (world + 1) / 2] * n
    check(lib.ncclAllReduce(at(x), at(x), size(n), FLOAT32, AVG, comm, None))
    assert x.read() == [(world + 1) / 2] * n
    for kind, code in ((INT32, "i"), (INT64, "q"), (FLOAT64, "d")):
        x, y = buffers(code, [rank + 1, -rank], 2)
        for reduction, expected in ((MAX, [world, 0]), (MIN, [1, 1 - world]), (SUM, [sum(range(1, world + 1)),
                                                                                   -sum(range(world))])):
            check(lib.ncclAllReduce(at(x), at(y), size(2), kind, reduction, comm, None))
            assert y.read() == expected, (kind, reduction, y.read())
    x, y = buffers("f", [float(rank)] * 3, [-1.0] * 3)
    check(lib.ncclBroadcast(at(x), at(y), size(3), FLOAT32, world - 1, comm, None))
    assert y.read() == [world - 1.0] * 3
    x, y = buffers("f", [rank + 0.5, rank + 0.25], 2 * world)
    check(lib.ncclAllGather(at(x), at(y), size(2), FLOAT32, comm, None))
    assert y.read() == [r + part for r in range(world) for part in (0.5, 0.25)]
    x, y = buffers("f", [float(i) for i in range(2 * world)], 2)
    check(lib.ncclReduceScatter(at(x), at(y), size(2), FLOAT32, SUM, comm, None))
    assert y.read() == [world * 2.0 * rank, world * (2.0 * rank + 1)]
    x, y = buffers("f", [2.0], [-1.0])
    check(lib.ncclReduce(at(x), at(y), size(1), FLOAT32, PROD, 0, comm, None))
    assert y.read() == ([2.0**world] if rank == 0 else [-1.0])
    # A ring: everybody sends to the next and receives from the one before, at the same time.
    x, y = buffers("i", [rank] * 50_000, 50_000)
    check(lib.ncclGroupStart())
    check(lib.ncclSend(at(x), size(50_000), INT32, (rank + 1) % world, comm, None))
    check(lib.ncclRecv(at(y), size(50_000), INT32, (rank - 1) % world, comm, None))
    check(lib.ncclGroupEnd())
    assert y.read() == [(rank - 1) % world] * 50_000
    check(lib.ncclAllReduce(at(x), at(y), size(0), INT32, SUM, comm, None))


def in_processes(folder, world, body, device=lambda rank: rank):
    """Forks `world` ranks, each with the device that `device` gives it; all have to end well. `body(cuda, lib, id, rank)`.
    """
    unique = Id()
    ctypes.CDLL(os.path.join(folder, "libnccl.so.2")).ncclGetUniqueId(ctypes.byref(unique))
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                cuda, lib = load(folder, device(rank))
                body(cuda, lib, unique, rank)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for pid in children:
        check(os.waitpid(pid, 0)[1])
    assert not os.path.exists("/dev/shm" + unique.internal.decode()), "the segment is left behind"


def processes(folder):
    def body(cuda, lib, unique, rank):
        comm, count = ctypes.c_void_p(), ctypes.c_int()
        check(lib.ncclCommInitRank(ctypes.byref(comm), 3, unique, rank))
        check(lib.ncclCommCount(comm, ctypes.byref(count)))
        assert count.value == 3
        collectives(cuda, lib, comm, rank, 3)
        check(lib.ncclCommAbort(comm))

    in_processes(folder, 3, body)


def threads(folder):
    cuda, lib = load(folder)
    comms = (ctypes.c_void_p * 2)()
    check(lib.ncclCommInitAll(comms, 2, None))
    errors = []

    def body(rank):
        try:
            cuda.bind()
            collectives(cuda, lib, ctypes.c_void_p(comms[rank]), rank, 2)
        except BaseException as error:
            errors.append(error)
            lib.ncclCommAbort(ctypes.c_void_p(comms[rank]))

    workers = [threading.Thread(target=body, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors, errors


def one_thread(folder):
    """One thread that holds two ranks has to use a group."""
    cuda, lib = load(folder)
    comms = (ctypes.c_void_p * 2)()
    check(lib.ncclCommInitAll(comms, 2, None))
    x, y = [cuda.buffer("f", [1.0 + rank]) for rank in range(2)], [cuda.buffer("f", 1) for _ in range(2)]
    check(lib.ncclGroupStart())
    for rank in range(2):
        check(lib.ncclAllReduce(api.POINTER(x[rank].address), api.POINTER(y[rank].address), size(1), FLOAT32, SUM,
                                ctypes.c_void_p(comms[rank]), None))
    check(lib.ncclGroupEnd())
    assert [buffer.read() for buffer in y] == [[3.0], [3.0]]


def dead_rank(folder):
    def body(cuda, lib, unique, rank):
        comm = ctypes.c_void_p()
        check(lib.ncclCommInitRank(ctypes.byref(comm), 2, unique, rank))
        if rank == 0:
            return  # dies
        x = cuda.buffer("f", [1.0])
        at = api.POINTER(x.address)
        check(lib.ncclAllReduce(at, at, size(1), FLOAT32, SUM, comm, None), 6)
        check(lib.ncclAllReduce(at, at, size(1), FLOAT32, SUM, comm, None), 6)

    in_processes(folder, 2, body)


def missing_rank(folder):
    def body(_cuda, lib, unique, rank):
        comm = ctypes.c_void_p()
        check(lib.ncclCommInitRank(ctypes.byref(comm), 2, unique, rank), 6)

    in_processes(folder, 1, body)


def different_counts(folder):
    def body(cuda, lib, unique, rank):
        comm = ctypes.c_void_p()
        check(lib.ncclCommInitRank(ctypes.byref(comm), 2, unique, rank))
        at = api.POINTER(cuda.buffer("f", [1.0] * 4).address)
        check(lib.ncclAllReduce(at, at, size(3 + rank), FLOAT32, SUM, comm, None), 5)

    in_processes(folder, 2, body)


def buffer_too_short(folder):
    def body(cuda, lib, unique, rank):
        comm = ctypes.c_void_p()
        check(lib.ncclCommInitRank(ctypes.byref(comm), 1, unique, rank))
        at = api.POINTER(cuda.buffer("f", [1.0] * 4).address)
        check(lib.ncclAllReduce(at, at, size(5), FLOAT32, SUM, comm, None), 1)

    in_processes(folder, 1, body)


def same_device(folder):
    def body(_cuda, lib, unique, rank):
        comm = ctypes.c_void_p()
        check(lib.ncclCommInitRank(ctypes.byref(comm), 2, unique, rank), 5)

    in_processes(folder, 2, body, device=lambda rank: 0)


class Config(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("magic", ctypes.c_uint), ("version", ctypes.c_uint),
                ("blocking", ctypes.c_int), ("rest", ctypes.c_int * 7)]


IN_PROGRESS, NOT_READY = 7, 600


def connecting(lib, unique, world, rank):
    """A communicator that does not block, on its way."""
    comm = ctypes.c_void_p()
    config = Config(size=48, magic=0xcafebeef, version=21800, blocking=0)
    check(lib.ncclCommInitRankConfig(ctypes.byref(comm), world, unique, rank, ctypes.byref(config)), IN_PROGRESS)
    return comm


def settled(lib, comm):
    """What the last call came to."""
    state = ctypes.c_int(IN_PROGRESS)
    while state.value == IN_PROGRESS:
        time.sleep(0.001)
        check(lib.ncclCommGetAsyncError(comm, ctypes.byref(state)))
    return state.value


def beside(folder):
    """Calls return at once; the stream is busy until all ranks have come, and copies come after the sum."""
    def body(cuda, lib, unique, rank):
        comm = connecting(lib, unique, 2, rank)
        check(settled(lib, comm))
        x = cuda.buffer("f", [rank + 1.0] * 3)
        at = api.POINTER(x.address)
        if rank == 1:
            time.sleep(0.3)
        check(lib.ncclAllReduce(at, at, size(3), FLOAT32, SUM, comm, None), IN_PROGRESS)
        check(settled(lib, comm))
        if rank == 0:
            check(cuda.driver.cuStreamQuery(None), NOT_READY)
        assert x.read() == [3.0] * 3
        check(cuda.driver.cuStreamQuery(None))
        check(lib.ncclCommFinalize(comm))
        check(lib.ncclCommDestroy(comm))

    in_processes(folder, 2, body)


def aborting(folder):
    """A rank that waits for one that does not come, in the middle and at the start, is free when it aborts."""
    def body(cuda, lib, unique, rank):
        if rank == 2:
            begin = time.time()
            comm = connecting(lib, Id(b"/spdflow-nccl-nobody"), 2, 0)
            check(lib.ncclCommAbort(comm))
            assert time.time() - begin < 1
            return
        comm = connecting(lib, unique, 2, rank)
        check(settled(lib, comm))
        if rank == 1:
            return
        x = cuda.buffer("f", [1.0])
        at = api.POINTER(x.address)
        check(lib.ncclAllReduce(at, at, size(1), FLOAT32, SUM, comm, None), IN_PROGRESS)
        check(settled(lib, comm))
        time.sleep(0.2)
        check(cuda.driver.cuStreamQuery(None), NOT_READY)
        begin = time.time()
        check(lib.ncclCommAbort(comm))
        check(cuda.driver.cuStreamQuery(None))
        assert time.time() - begin < 1

    in_processes(folder, 3, body)


CASES = {
    "three processes": processes,
    "two threads": threads,
    "one thread with a group": one_thread,
    "a rank that dies": dead_rank,
    "a rank that never comes": missing_rank,
    "different counts": different_counts,
    "a buffer that is too short": buffer_too_short,
    "two ranks with one device": same_device,
    "calls that do not block": beside,
    "calls that are given up": aborting,
}
EXPECTED = {
    "two ranks with one device": r"Duplicate GPU detected : rank . and rank . both on CUDA device 0",
    "a rank that dies": r"rank 1 of 2: collective: a rank has not come, or has failed",
    "a rank that never comes": r"rank 0 of 2: initialisation: a rank has not come",
    "different counts": r"the ranks call different collectives",
    "a buffer that is too short": r"send buffer of a collective of 20 bytes at allocation 1 \+ 0, which has 16 bytes",
}
