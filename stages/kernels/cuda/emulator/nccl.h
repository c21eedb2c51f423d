// The emulated libnccl.so.2: what nccl.cpp (transport and collectives) and nccl_group.cpp (the interface) share.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>

#include "interface.h"

namespace nccl {

enum Result : int {
    SUCCESS = 0,
    UNHANDLED_CUDA_ERROR = 1,
    SYSTEM_ERROR = 2,
    INTERNAL_ERROR = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    REMOTE_ERROR = 6,
    IN_PROGRESS = 7,
};

enum Type : int { INT8, UINT8, INT32, UINT32, INT64, UINT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16 };
enum Reduction : int { SUM, PROD, MAX, MIN, AVG };

struct UniqueId {
    char internal[128];
};

enum Kind : int { NOTHING, ALL_REDUCE, REDUCE, BROADCAST, ALL_GATHER, REDUCE_SCATTER, SEND, RECEIVE };

// What a rank says it does; all ranks have to say the same.
struct Operation {
    int kind, type, reduction, root; // root: the peer of a SEND or RECEIVE
    uint64_t count;

    bool operator==(const Operation &other) const {
        return kind == other.kind && type == other.type && reduction == other.reduction && root == other.root &&
               count == other.count;
    }
};

constexpr int MAX_RANKS = 64;
constexpr size_t CHUNK = 1 << 20; // bytes that a rank shows the others at a time
constexpr size_t LETTER = 64 << 10;

// One direction between two ranks: one message part at a time.
struct Mailbox {
    std::atomic<uint32_t> full;
    uint32_t size;
    uint64_t total; // bytes of the whole message
    unsigned char bytes[LETTER];
};

// The head of the shared memory. All of it may begin as zeros, so that whoever comes first can create it.
struct Segment {
    std::atomic<uint32_t> world;
    std::atomic<uint32_t> joined; // which ranks have joined cannot be told apart, only how many
    std::atomic<uint32_t> arrived, generation;
    std::atomic<uint32_t> failed;
    std::atomic<int32_t> devices[MAX_RANKS]; // 1 + the number of the device, 0 for a rank that has not come
    Operation operations[MAX_RANKS];
};

struct Comm {
    UniqueId id;
    int world = 0, rank = 0, device = 0;
    Segment *segment = nullptr;
    size_t segment_bytes = 0;
    bool blocking = true;
    std::atomic<int> state{SUCCESS}; // of one that does not block: IN_PROGRESS while it connects, then the first error
    std::atomic<bool> aborted{false};
    std::thread worker; // the last piece of work of one that does not block

    unsigned char *slot(int of_rank) const;
    Mailbox *mailbox(int from, int to) const;
};

void make_id(UniqueId *id);
// Meets the other ranks, of which no two may have the same device; fails after SPDFLOW_EMULATOR_NCCL_TIMEOUT_S seconds (30).
Result connect(Comm *comm);
void disconnect(Comm *comm);
Result run(Comm *comm, const Operation &operation, const void *send, void *receive);
size_t size_of(int type); // 0 for an unknown one
void set_error(const std::string &text);
const char *last_error();

} // namespace nccl
