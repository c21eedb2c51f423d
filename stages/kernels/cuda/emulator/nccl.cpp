// Collectives over POSIX shared memory, for ranks that are processes or threads of one machine.
//
// Each rank shows a chunk of its data in its slot of the segment, all meet at a barrier, each takes what it needs, all
// meet again. Sums are taken in the order of the ranks, so that every run and every rank has the same bits. A rank that
// does not come within the timeout breaks the communicator: all others get an error, now and from then on. Nobody else
// notices that a rank is dead or has aborted, as on GPUs that reach each other without a network.
#include "nccl.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace nccl {
namespace {

std::mutex error_lock;
std::string error_text;

double now_seconds() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

double timeout_seconds() {
    const char *text = getenv("SPDFLOW_EMULATOR_NCCL_TIMEOUT_S");
    double seconds = text ? atof(text) : 0;
    return seconds > 0 ? seconds : 30;
}

void futex_wake(std::atomic<uint32_t> &word) { syscall(SYS_futex, &word, FUTEX_WAKE, 1 << 30, nullptr, nullptr, 0); }

// Waits until the word is no longer `value`. Looks at the word before it looks for a failure: a rank that has finished
// may leave while others have yet to notice that they may go on.
bool wait_change(Comm *comm, std::atomic<uint32_t> &word, uint32_t value) {
    Segment *segment = comm->segment;
    double deadline = now_seconds() + timeout_seconds();
    for (int spin = 0;; spin++) {
        if (word.load(std::memory_order_acquire) != value) return true;
        if (segment->failed.load() || comm->aborted.load()) return false;
        if (spin < 50) continue;
        if (now_seconds() > deadline) {
            segment->failed.store(1);
            return false;
        }
        timespec slice{0, 50 * 1000 * 1000}; // to notice a failure soon
        syscall(SYS_futex, &word, FUTEX_WAIT, value, &slice, nullptr, 0);
    }
}

bool barrier(Comm *comm) {
    Segment *segment = comm->segment;
    uint32_t generation = segment->generation.load();
    if (segment->arrived.fetch_add(1) + 1 == uint32_t(comm->world)) {
        segment->arrived.store(0);
        segment->generation.fetch_add(1);
        futex_wake(segment->generation);
        return true;
    }
    return wait_change(comm, segment->generation, generation);
}

Result broken(const Comm *comm, const char *what) {
    if (comm->aborted.load()) return REMOTE_ERROR; // as it was told to
    set_error("rank " + std::to_string(comm->rank) + " of " + std::to_string(comm->world) + ": " + what +
              ": a rank has not come, or has failed");
    return REMOTE_ERROR;
}

template <class T> T combine(int reduction, T a, T b) {
    switch (reduction) {
    case PROD: return a * b;
    case MAX: return a < b ? b : a;
    case MIN: return b < a ? b : a;
    default: return a + b;
    }
}

template <class T> void reduce_slots(const Comm *comm, int reduction, size_t count, void *result) {
    auto *out = static_cast<T *>(result);
    for (size_t i = 0; i < count; i++) {
        T value = reinterpret_cast<const T *>(comm->slot(0))[i];
        for (int rank = 1; rank < comm->world; rank++)
            value = combine(reduction, value, reinterpret_cast<const T *>(comm->slot(rank))[i]);
        out[i] = reduction == AVG ? T(value / T(comm->world)) : value;
    }
}

bool reduce(const Comm *comm, const Operation &operation, size_t count, void *result) {
    switch (operation.type) {
    case INT8: return reduce_slots<int8_t>(comm, operation.reduction, count, result), true;
    case UINT8: return reduce_slots<uint8_t>(comm, operation.reduction, count, result), true;
    case INT32: return reduce_slots<int32_t>(comm, operation.reduction, count, result), true;
    case UINT32: return reduce_slots<uint32_t>(comm, operation.reduction, count, result), true;
    case INT64: return reduce_slots<int64_t>(comm, operation.reduction, count, result), true;
    case UINT64: return reduce_slots<uint64_t>(comm, operation.reduction, count, result), true;
    case FLOAT32: return reduce_slots<float>(comm, operation.reduction, count, result), true;
    case FLOAT64: return reduce_slots<double>(comm, operation.reduction, count, result), true;
    default: return false;
    }
}

size_t segment_bytes(int world) {
    size_t ranks = size_t(world);
    return sizeof(Segment) + 64 + ranks * CHUNK + ranks * ranks * sizeof(Mailbox);
}

// Shows `bytes` of this rank, meets the others, lets `take` look at their slots, meets again.
template <class Take> bool exchange(Comm *comm, const void *mine, size_t bytes, Take take) {
    if (mine && bytes) memcpy(comm->slot(comm->rank), mine, bytes);
    if (!barrier(comm)) return false;
    take();
    return barrier(comm);
}

Result send(Comm *comm, int peer, const unsigned char *from, size_t bytes) {
    Mailbox *box = comm->mailbox(comm->rank, peer);
    for (size_t at = 0; at < bytes || at == 0;) {
        if (!wait_change(comm, box->full, 1)) return broken(comm, "send");
        size_t part = bytes - at < LETTER ? bytes - at : LETTER;
        box->size = uint32_t(part);
        box->total = bytes;
        if (part) memcpy(box->bytes, from + at, part);
        box->full.store(1, std::memory_order_release);
        futex_wake(box->full);
        at += part;
        if (part == 0) break;
    }
    return SUCCESS;
}

Result receive(Comm *comm, int peer, unsigned char *to, size_t bytes) {
    Mailbox *box = comm->mailbox(peer, comm->rank);
    for (size_t at = 0; at < bytes || at == 0;) {
        if (!wait_change(comm, box->full, 0)) return broken(comm, "receive");
        if (box->total != bytes) {
            set_error("rank " + std::to_string(comm->rank) + " expects " + std::to_string(bytes) + " bytes of rank " +
                      std::to_string(peer) + ", which sends " + std::to_string(box->total));
            comm->segment->failed.store(1);
            return INVALID_USAGE;
        }
        size_t part = box->size;
        if (part) memcpy(to + at, box->bytes, part);
        box->full.store(0, std::memory_order_release);
        futex_wake(box->full);
        at += part;
        if (part == 0) break;
    }
    return SUCCESS;
}

// All ranks say what they are about to do.
Result agree(Comm *comm, const Operation &operation) {
    comm->segment->operations[comm->rank] = operation;
    if (!barrier(comm)) return broken(comm, "collective");
    bool same = true;
    for (int rank = 0; rank < comm->world; rank++) same &= comm->segment->operations[rank] == operation;
    if (!barrier(comm)) return broken(comm, "collective");
    if (same) return SUCCESS;
    comm->segment->failed.store(1);
    set_error("the ranks call different collectives, or with different counts, types, reductions or roots");
    return INVALID_USAGE;
}

Result run_collective(Comm *comm, const Operation &operation, const unsigned char *send, unsigned char *receive) {
    const size_t width = size_of(operation.type), per_chunk = CHUNK / width;
    const bool root = comm->rank == operation.root;
    Result result = agree(comm, operation);
    if (result != SUCCESS) return result;
    bool ok = true, known = true;
    for (size_t first = 0; first < operation.count && ok; first += per_chunk) {
        const size_t count = operation.count - first < per_chunk ? operation.count - first : per_chunk;
        const size_t offset = first * width, bytes = count * width;
        switch (operation.kind) {
        case ALL_REDUCE:
            ok = exchange(comm, send + offset, bytes,
                          [&] { known &= reduce(comm, operation, count, receive + offset); });
            break;
        case REDUCE:
            ok = exchange(comm, send + offset, bytes, [&] {
                if (root) known &= reduce(comm, operation, count, receive + offset);
            });
            break;
        case BROADCAST:
            ok = exchange(comm, root ? send + offset : nullptr, bytes,
                          [&] { memcpy(receive + offset, comm->slot(operation.root), bytes); });
            break;
        case ALL_GATHER:
            ok = exchange(comm, send + offset, bytes, [&] {
                for (int rank = 0; rank < comm->world; rank++)
                    memcpy(receive + size_t(rank) * operation.count * width + offset, comm->slot(rank), bytes);
            });
            break;
        case REDUCE_SCATTER:
            for (int rank = 0; rank < comm->world && ok; rank++)
                ok = exchange(comm, send + size_t(rank) * operation.count * width + offset, bytes, [&] {
                    if (rank == comm->rank) known &= reduce(comm, operation, count, receive + offset);
                });
            break;
        default: return INVALID_ARGUMENT;
        }
    }
    if (!ok) return broken(comm, "collective");
    if (known) return SUCCESS;
    set_error("the emulator does not reduce numbers of 16 bits");
    return INVALID_ARGUMENT;
}

} // namespace

unsigned char *Comm::slot(int of_rank) const {
    auto *base = reinterpret_cast<unsigned char *>(segment) + (sizeof(Segment) + 63) / 64 * 64;
    return base + size_t(of_rank) * CHUNK;
}

Mailbox *Comm::mailbox(int from, int to) const { return reinterpret_cast<Mailbox *>(slot(world)) + from * world + to; }

size_t size_of(int type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return type >= 0 && type <= BFLOAT16 ? sizes[type] : 0;
}

void set_error(const std::string &text) {
    std::lock_guard<std::mutex> lock(error_lock);
    fprintf(stderr, "emulator: nccl: %s\n", text.c_str());
    error_text = text;
}

const char *last_error() {
    static thread_local std::string copy;
    std::lock_guard<std::mutex> lock(error_lock);
    copy = error_text;
    return copy.c_str();
}

void make_id(UniqueId *id) {
    memset(id, 0, sizeof *id);
    unsigned char random[12] = {};
    FILE *file = fopen("/dev/urandom", "rb");
    size_t got = file ? fread(random, 1, sizeof random, file) : 0;
    if (file) fclose(file);
    int at = snprintf(id->internal, sizeof id->internal, "/spdflow-nccl-%ld-", long(getpid()));
    for (size_t i = 0; i < got; i++)
        at += snprintf(id->internal + at, sizeof id->internal - size_t(at), "%02x", random[i]);
}

Result connect(Comm *comm) {
    if (comm->world < 1 || comm->world > MAX_RANKS || comm->rank < 0 || comm->rank >= comm->world) {
        set_error("rank " + std::to_string(comm->rank) + " of " + std::to_string(comm->world) + " is not possible");
        return INVALID_ARGUMENT;
    }
    if (comm->id.internal[0] != '/' || !memchr(comm->id.internal, 0, sizeof comm->id.internal)) {
        set_error("the unique id is not one of the emulator");
        return INVALID_ARGUMENT;
    }
    comm->segment_bytes = segment_bytes(comm->world);
    int file = shm_open(comm->id.internal, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    void *memory = MAP_FAILED;
    if (file >= 0 && ftruncate(file, off_t(comm->segment_bytes)) == 0)
        memory = mmap(nullptr, comm->segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (memory == MAP_FAILED) {
        set_error(std::string("shared memory `") + comm->id.internal + "`: " + strerror(errno));
        return SYSTEM_ERROR;
    }
    comm->segment = static_cast<Segment *>(memory);
    uint32_t nobody = 0;
    bool agreed =
        comm->segment->world.compare_exchange_strong(nobody, uint32_t(comm->world)) || nobody == uint32_t(comm->world);
    bool room = agreed && comm->segment->joined.fetch_add(1) < uint32_t(comm->world);
    comm->segment->devices[comm->rank].store(comm->device + 1);
    bool met = room && barrier(comm);
    // All have it mapped now, or never will: the name goes, so that nothing is left behind by a crash.
    if (!met || comm->rank == 0) shm_unlink(comm->id.internal);
    if (met) {
        for (int other = 0; other < comm->world; other++)
            if (other != comm->rank && comm->segment->devices[other].load() == comm->device + 1) {
                set_error("Duplicate GPU detected : rank " + std::to_string(comm->rank) + " and rank " +
                          std::to_string(other) + " both on CUDA device " + std::to_string(comm->device));
                return INVALID_USAGE;
            }
        return SUCCESS;
    }
    comm->segment->failed.store(1);
    if (!agreed || !room) {
        set_error("the ranks disagree on how many they are");
        return INVALID_USAGE;
    }
    return broken(comm, "initialisation");
}

void disconnect(Comm *comm) {
    if (!comm->segment) return;
    munmap(comm->segment, comm->segment_bytes);
    comm->segment = nullptr;
}

Result run(Comm *comm, const Operation &operation, const void *send_buffer, void *receive_buffer) {
    const size_t width = size_of(operation.type), ranks = size_t(comm->world);
    if (!width || operation.reduction < SUM || operation.reduction > AVG) {
        set_error("unknown type " + std::to_string(operation.type) + " or reduction " +
                  std::to_string(operation.reduction));
        return INVALID_ARGUMENT;
    }
    if (operation.root < 0 || operation.root >= comm->world) {
        set_error("no rank " + std::to_string(operation.root) + " among " + std::to_string(comm->world));
        return INVALID_ARGUMENT;
    }
    if (!comm->segment || comm->segment->failed.load()) return broken(comm, "communicator");
    const bool root = comm->rank == operation.root;
    const size_t bytes = operation.count * width;
    size_t send_bytes = bytes, receive_bytes = bytes;
    if (operation.kind == ALL_GATHER) receive_bytes *= ranks;
    if (operation.kind == REDUCE_SCATTER) send_bytes *= ranks;
    if (operation.kind == RECEIVE || (operation.kind == BROADCAST && !root)) send_bytes = 0;
    if (operation.kind == SEND || (operation.kind == REDUCE && !root)) receive_bytes = 0;
    const auto to_send = reinterpret_cast<uint64_t>(send_buffer),
               to_receive = reinterpret_cast<uint64_t>(receive_buffer);
    if (!spdflow_emulator_check_range(to_send, send_bytes, "send buffer of a collective") ||
        !spdflow_emulator_check_range(to_receive, receive_bytes, "receive buffer of a collective")) {
        comm->segment->failed.store(1); // the others shall not wait for this rank
        set_error("a buffer is not in device memory");
        return UNHANDLED_CUDA_ERROR;
    }
    const auto *from = static_cast<const unsigned char *>(send_buffer);
    auto *to = static_cast<unsigned char *>(receive_buffer);
    Result result = operation.kind == SEND      ? send(comm, operation.root, from, bytes)
                    : operation.kind == RECEIVE ? receive(comm, operation.root, to, bytes)
                                                : run_collective(comm, operation, from, to);
    if (result == SUCCESS) spdflow_emulator_mark_written(to_receive, receive_bytes);
    return result;
}

} // namespace nccl
