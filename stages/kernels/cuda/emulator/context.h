// Stacks of fibers, see context.cpp.
#pragma once

// Keeps the registers on the current stack, its end in *from, and continues on the stack that ends at `to`.
extern "C" void spdflow_emulator_switch(void **from, void *to);

namespace emulator {

// Prepares an empty stack so that a switch to the result calls `entry`, which must not return.
void *new_context(void *stack_end, void (*entry)());

} // namespace emulator
