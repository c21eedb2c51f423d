// The functions of libnccl.so.2: communicators, collectives, groups. The others are stubs made by `build`.
//
// Outside a group a call does its work and returns; of a communicator that does not block, its work goes on beside the
// caller, one piece after the other, and meanwhile the streams of its device are busy. Inside a group, calls are collected and run by ncclGroupEnd: what has
// to go on at the same time (ranks of several devices held by one thread, sends and receives) on threads of its own.
#include <cstring>
#include <map>
#include <thread>
#include <tuple>
#include <vector>

#include "nccl.h"

using namespace nccl;

namespace {

struct Task {
    Comm *comm;
    Operation operation; // NOTHING: connect
    const void *send;
    void *receive;
};

thread_local int depth = 0;
thread_local std::vector<Task> tasks;

Result do_task(const Task &task) {
    return task.operation.kind == NOTHING ? connect(task.comm)
                                          : run(task.comm, task.operation, task.send, task.receive);
}

// Tasks of one line run one after the other: the collectives of a communicator, its messages to one peer, those from
// it.
Result run_all(const std::vector<Task> &all) {
    std::map<std::tuple<Comm *, int, int>, std::vector<Task>> lines;
    for (const Task &task : all) {
        bool message = task.operation.kind == SEND || task.operation.kind == RECEIVE;
        lines[{task.comm, message ? task.operation.kind : NOTHING, message ? task.operation.root : 0}].push_back(task);
    }
    std::vector<Result> results(lines.size(), SUCCESS);
    std::vector<std::thread> threads;
    size_t index = 0;
    for (auto &line : lines) {
        auto work = [&results, index, &line] {
            for (const Task &task : line.second)
                if (results[index] == SUCCESS) results[index] = do_task(task);
        };
        if (++index == lines.size())
            work();
        else
            threads.emplace_back(work);
    }
    for (std::thread &thread : threads) thread.join();
    for (Result result : results)
        if (result != SUCCESS) return result;
    return SUCCESS;
}

// What does not block: a connection is IN_PROGRESS until it is made, a collective until it is on its stream.
Result do_beside(const Task &task) {
    Comm *comm = task.comm;
    const bool connecting = task.operation.kind == NOTHING;
    if (comm->state.load() == IN_PROGRESS) {
        set_error("a call on a communicator whose last call is still in progress");
        return INVALID_ARGUMENT;
    }
    if (comm->state.load() != SUCCESS) return Result(comm->state.load());
    comm->state.store(IN_PROGRESS);
    if (!connecting) spdflow_emulator_stream_begin(comm->device);
    auto work = [task, connecting](std::thread before) {
        if (before.joinable()) before.join();
        if (!connecting) task.comm->state.store(SUCCESS);
        Result result = do_task(task);
        if (connecting || result != SUCCESS) task.comm->state.store(result);
        if (!connecting) spdflow_emulator_stream_end(task.comm->device);
    };
    comm->worker = std::thread(work, std::move(comm->worker));
    return IN_PROGRESS;
}

void end(Comm *comm) {
    if (comm->worker.joinable()) comm->worker.join();
    disconnect(comm);
    delete comm;
}

Result submit(const Task &task) {
    if (!task.comm) return INVALID_ARGUMENT;
    if (!task.comm->blocking) return depth == 0 ? do_beside(task) : INVALID_USAGE; // not emulated in groups
    if (depth == 0) return do_task(task);
    tasks.push_back(task);
    return SUCCESS;
}

Comm *new_comm(const UniqueId &id, int world, int rank, int device) {
    auto *comm = new Comm;
    comm->id = id;
    comm->world = world;
    comm->rank = rank;
    comm->device = device;
    return comm;
}

} // namespace

extern "C" {

Result ncclGetVersion(int *version) { return *version = 21800, SUCCESS; }
Result ncclGetUniqueId(UniqueId *id) { return make_id(id), SUCCESS; }

Result ncclCommInitRank(Comm **comm, int world, UniqueId id, int rank) {
    *comm = new_comm(id, world, rank, spdflow_emulator_current_device());
    return submit({*comm, {}, nullptr, nullptr});
}
// The part of ncclConfig_t that matters here.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};
Result ncclCommInitRankConfig(Comm **comm, int world, UniqueId id, int rank, const Config *config) {
    if (config && config->magic != 0xcafebeef) return INVALID_ARGUMENT;
    *comm = new_comm(id, world, rank, spdflow_emulator_current_device());
    (*comm)->blocking = !config || config->blocking != 0;
    return submit({*comm, {}, nullptr, nullptr});
}
Result ncclCommInitAll(Comm **comms, int count, const int *devices) {
    UniqueId id;
    make_id(&id);
    std::vector<Task> all;
    for (int rank = 0; rank < count; rank++) {
        comms[rank] = new_comm(id, count, rank, devices ? devices[rank] : rank);
        all.push_back({comms[rank], {}, nullptr, nullptr});
    }
    return run_all(all);
}
Result ncclCommFinalize(Comm *comm) { return comm ? SUCCESS : INVALID_ARGUMENT; }
Result ncclCommDestroy(Comm *comm) { return comm ? (end(comm), SUCCESS) : INVALID_ARGUMENT; }
Result ncclCommAbort(Comm *comm) {
    if (!comm) return INVALID_ARGUMENT;
    comm->aborted.store(true);
    end(comm);
    return SUCCESS;
}
Result ncclCommCount(Comm *comm, int *count) { return comm ? (*count = comm->world, SUCCESS) : INVALID_ARGUMENT; }
Result ncclCommUserRank(Comm *comm, int *rank) { return comm ? (*rank = comm->rank, SUCCESS) : INVALID_ARGUMENT; }
Result ncclCommCuDevice(Comm *comm, int *device) { return comm ? (*device = comm->device, SUCCESS) : INVALID_ARGUMENT; }
Result ncclCommGetAsyncError(Comm *comm, Result *error) {
    if (!comm) return INVALID_ARGUMENT;
    if (comm->blocking)
        *error = comm->segment && comm->segment->failed.load() ? REMOTE_ERROR : SUCCESS;
    else
        *error = Result(comm->state.load());
    return SUCCESS;
}
const char *ncclGetLastError(Comm *) { return last_error(); }
const char *ncclGetErrorString(Result result) {
    switch (result) {
    case SUCCESS: return "no error";
    case UNHANDLED_CUDA_ERROR: return "unhandled cuda error";
    case SYSTEM_ERROR: return "unhandled system error";
    case INTERNAL_ERROR: return "internal error";
    case INVALID_ARGUMENT: return "invalid argument";
    case INVALID_USAGE: return "invalid usage";
    case REMOTE_ERROR: return "remote process exited or there was a network error";
    case IN_PROGRESS: return "NCCL operation in progress";
    default: return "unknown result code";
    }
}

Result ncclGroupStart() { return depth++, SUCCESS; }
Result ncclGroupEnd() {
    if (depth == 0) return INVALID_USAGE;
    if (--depth) return SUCCESS;
    std::vector<Task> connecting, working;
    for (const Task &task : tasks) (task.operation.kind == NOTHING ? connecting : working).push_back(task);
    tasks.clear();
    Result result = run_all(connecting);
    return result == SUCCESS ? run_all(working) : result;
}

Result ncclAllReduce(const void *send, void *receive, size_t count, int type, int reduction, Comm *comm, void *) {
    return submit({comm, {ALL_REDUCE, type, reduction, 0, count}, send, receive});
}
Result ncclReduce(const void *send, void *receive, size_t count, int type, int reduction, int root, Comm *comm,
                  void *) {
    return submit({comm, {REDUCE, type, reduction, root, count}, send, receive});
}
Result ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, Comm *comm, void *) {
    return submit({comm, {BROADCAST, type, SUM, root, count}, send, receive});
}
Result ncclBcast(void *buffer, size_t count, int type, int root, Comm *comm, void *stream) {
    return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}
Result ncclAllGather(const void *send, void *receive, size_t count, int type, Comm *comm, void *) {
    return submit({comm, {ALL_GATHER, type, SUM, 0, count}, send, receive});
}
Result ncclReduceScatter(const void *send, void *receive, size_t count, int type, int reduction, Comm *comm, void *) {
    return submit({comm, {REDUCE_SCATTER, type, reduction, 0, count}, send, receive});
}
Result ncclSend(const void *send, size_t count, int type, int peer, Comm *comm, void *) {
    return submit({comm, {SEND, type, SUM, peer, count}, send, nullptr});
}
Result ncclRecv(void *receive, size_t count, int type, int peer, Comm *comm, void *) {
    return submit({comm, {RECEIVE, type, SUM, peer, count}, nullptr, receive});
}
}
