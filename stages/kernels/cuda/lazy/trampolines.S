/* The assembly half of a lazy library: one entry for each function, which jumps to the real one with all its arguments
 * where they are. The first call of any goes through RESOLVE in resolve.c, which fills the table. */
#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)
#define RESOLVE NAME(PREFIX, _lazy_resolve)
#define SLOTS NAME(PREFIX, _lazy_slots)
#define SLOW NAME(PREFIX, _lazy_slow)

    .text
    .set slot, 0
#if defined(__x86_64__)

    .macro ENTRY name
    .globl \name
    .type \name, @function
\name:
    movl $slot, %r11d
    leaq SLOTS(%rip), %r10
    movq (%r10,%r11,8), %r10
    testq %r10, %r10
    je SLOW
    jmp *%r10
    .size \name, . - \name
    .set slot, slot + 1
    .endm

    /* Keeps every register that may hold an argument; rax counts the vector registers of variadic calls. */
SLOW:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %r11
    pushq %rax
    subq $128, %rsp
    movups %xmm0, (%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    call RESOLVE
    movups (%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $128, %rsp
    popq %rax
    popq %r11
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %rbp
    leaq SLOTS(%rip), %r10
    movq (%r10,%r11,8), %r10
    jmp *%r10

#elif defined(__aarch64__)

    .macro ENTRY name
    .globl \name
    .type \name, %function
\name:
    mov w17, #slot
    adrp x16, SLOTS
    add x16, x16, :lo12:SLOTS
    ldr x16, [x16, x17, lsl #3]
    cbz x16, SLOW
    br x16
    .size \name, . - \name
    .set slot, slot + 1
    .endm

SLOW:
    stp x29, x30, [sp, #-224]!
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    stp x8, x17, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    stp q4, q5, [sp, #160]
    stp q6, q7, [sp, #192]
    bl RESOLVE
    ldp x0, x1, [sp, #16]
    ldp x2, x3, [sp, #32]
    ldp x4, x5, [sp, #48]
    ldp x6, x7, [sp, #64]
    ldp x8, x17, [sp, #80]
    ldp q0, q1, [sp, #96]
    ldp q2, q3, [sp, #128]
    ldp q4, q5, [sp, #160]
    ldp q6, q7, [sp, #192]
    ldp x29, x30, [sp], #224
    adrp x16, SLOTS
    add x16, x16, :lo12:SLOTS
    ldr x16, [x16, x17, lsl #3]
    br x16

#else
#error "lazy libraries exist for x86-64 and aarch64 only"
#endif

#define SYMBOL(name) ENTRY name
#include SYMBOLS

    .section .note.GNU-stack, "", %progbits
