/* The compression loop of the kernel on registers alone: no loads, no table, no tree. What it reaches
 * is the most that hashing can reach on a device. */

#include "../../src/commit/cuda/reduce.cu"

/* Compresses `blocks` blocks of 64 bytes in each thread. */
KERNEL counterfoil_ceiling(u32 blocks, uint4 *digests)
{
    const u32 seed = blockIdx.x * CHUNKS + threadIdx.x;
    u32 state[8] = {seed, 1, 2, 3, 4, 5, 6, 7};
    u32 words[16] = {seed, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    /* The schedule that a compression leaves is the next one's message. */
#pragma unroll 1
    for (u32 block = 0; block < blocks; block++) compress(state, words);
    digests[2 * (u64)seed] = VECTOR(state[0], state[1], state[2], state[3]);
    digests[2 * (u64)seed + 1] = VECTOR(state[4], state[5], state[6], state[7]);
}
