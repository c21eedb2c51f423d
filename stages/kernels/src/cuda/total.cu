// total: out[0] = Σ_b parts[b], in f64: what blocks have added up becomes a number (cuda/total.rs).
//
// One block of 256 threads: thread t adds the parts t, t + 256, … in order, block_sum the threads. Reads 8 bytes a part;
// as long as a launch takes. Shared memory: 256 bytes. CPU twins: the sums at the end of the losses' forward functions.
extern "C" __global__ void __launch_bounds__(256) total(const double *__restrict__ parts, u32 n, float *__restrict__ out) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[0] = float(sum);
}
