// The emulated libcublas.so.12: a handle can be made and destroyed, which dfdx does when it opens a device. Everything
// else is a stub that returns CUBLAS_STATUS_NOT_SUPPORTED: matrix products are done by kernels of our own.
#include <stddef.h>

extern "C" {
int cublasCreate_v2(void **handle) { return *handle = reinterpret_cast<void *>(8), 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, void *) { return 0; }
int cublasSetMathMode(void *, int) { return 0; }
int cublasSetWorkspace_v2(void *, void *, size_t) { return 0; }
const char *cublasGetStatusName(int status) { return status ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_SUCCESS"; }
const char *cublasGetStatusString(int status) { return status ? "the emulator has no cuBLAS" : "success"; }
}
