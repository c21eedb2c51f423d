// The switch between stacks that fibers.cpp is built on: what a call has to preserve, and nothing else. The C library's
// swapcontext also saves the signal mask, which costs a system call each time.
#include "context.h"

#include <cstddef>

#if defined(__x86_64__)
asm(R"(.text
.globl spdflow_emulator_switch
.hidden spdflow_emulator_switch
.type spdflow_emulator_switch,@function
spdflow_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
constexpr size_t SAVED_WORDS = 6; // below the return address
#elif defined(__aarch64__)
asm(R"(.text
.globl spdflow_emulator_switch
.hidden spdflow_emulator_switch
.type spdflow_emulator_switch,%function
spdflow_emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp d8, d9, [sp, #80]
    stp d10, d11, [sp, #96]
    stp d12, d13, [sp, #112]
    stp d14, d15, [sp, #128]
    stp x29, x30, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp d8, d9, [sp, #80]
    ldp d10, d11, [sp, #96]
    ldp d12, d13, [sp, #112]
    ldp d14, d15, [sp, #128]
    ldp x29, x30, [sp, #144]
    add sp, sp, #160
    ret
)");
constexpr size_t SAVED_WORDS = 19; // below x30
#else
#error "the emulator switches fibers on x86-64 and aarch64 only"
#endif

void *emulator::new_context(void *stack_end, void (*entry)()) {
    auto **top = static_cast<void **>(stack_end);
    *--top = nullptr; // keeps the stack aligned as it is after a call
#if defined(__aarch64__)
    *--top = nullptr;
#endif
    *--top = reinterpret_cast<void *>(entry);
    for (size_t i = 0; i < SAVED_WORDS; i++) *--top = nullptr;
    return top;
}
