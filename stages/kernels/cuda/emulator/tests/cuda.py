"""The few driver, compiler and collective calls that check.py needs, through ctypes."""

import ctypes
import os
import struct

POINTER = ctypes.c_uint64


class Failure(Exception):
    """A call returned an error; `code` is its number."""

    def __init__(self, what, code):
        super().__init__(f"{what} returned {code}")
        self.code = code


class Cuda:
    def __init__(self, folder, device=0):
        self.driver = ctypes.CDLL(os.path.join(folder, "libcuda.so.1"), mode=ctypes.RTLD_LOCAL)
        self.nvrtc = ctypes.CDLL(os.path.join(folder, "libnvrtc.so.12"))
        self.call("cuInit", 0)
        self.context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self.bind()

    def bind(self):
        """Makes the device usable on the calling thread."""
        self.call("cuCtxSetCurrent", self.context)

    def call(self, name, *arguments):
        code = getattr(self.driver, name)(*arguments)
        if code:
            raise Failure(name, code)

    def compile(self, source, options=()):
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        self.nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"test.cu", 0, None, None)
        texts = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        code = self.nvrtc.nvrtcCompileProgram(program, len(options), texts)
        self.nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetProgramLog(program, log)
        if code:
            raise Failure(log.value.decode(), code)
        self.nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
        ptx = ctypes.create_string_buffer(size.value)
        self.nvrtc.nvrtcGetPTX(program, ptx)
        self.nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ptx)
        return module

    def launch(self, module, name, grid, block, *arguments, shared=0):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        values = [POINTER(value.address) if isinstance(value, Buffer) else value for value in arguments]
        pointers = (ctypes.c_void_p * max(1, len(values)))(
            *[ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values])
        self.call("cuLaunchKernel", function, *grid, *block, shared, None, pointers, None)

    def buffer(self, code, values):
        """Device memory with `values`, of the struct code `code`; an int leaves that many uninitialised."""
        return Buffer(self, code, values)


class Buffer:
    def __init__(self, cuda, code, values):
        self.cuda, self.code = cuda, code
        self.length = values if isinstance(values, int) else len(values)
        self.bytes = self.length * struct.calcsize("=" + code)
        pointer = POINTER()
        cuda.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(self.bytes))
        self.address = pointer.value
        if not isinstance(values, int):
            packed = struct.pack(f"={self.length}{code}", *values)
            cuda.call("cuMemcpyHtoD_v2", pointer, packed, ctypes.c_size_t(self.bytes))

    def read(self):
        out = ctypes.create_string_buffer(self.bytes or 1)
        self.cuda.call("cuMemcpyDtoH_v2", out, POINTER(self.address), ctypes.c_size_t(self.bytes))
        return list(struct.unpack(f"={self.length}{self.code}", out.raw[:self.bytes]))

    def free(self):
        self.cuda.call("cuMemFree_v2", POINTER(self.address))


def u32(value):
    return ctypes.c_uint32(value)


def f32(value):
    return ctypes.c_float(value)
