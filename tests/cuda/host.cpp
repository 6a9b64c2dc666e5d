// The kernel as C++: the blocks of a launch one after the other, and the threads of a block between
// two barriers likewise. Whatever it computes here is what the shipped PTX must compute.

struct alignas(16) uint4 {
    unsigned int x, y, z, w;
};

#define KERNEL static void
#define FUNCTION static inline
#define CONSTANT static
#define SHARED
#define BLOCK block_index
#define EACH_THREAD(thread) for (u32 thread = 0; thread < CHUNKS; thread++)
#define BARRIER
#define VECTOR(x, y, z, w) uint4{x, y, z, w}
#define PERMUTE permute
#define SHIFT_LEFT(word, count) ((count) < 32 ? (word) << (count) : 0)

static thread_local unsigned int block_index;

// Byte i of the result is the byte of `high:low` that nibble i of the selector names (PTX: prmt).
static inline unsigned int permute(unsigned int low, unsigned int high, unsigned int selector)
{
    const unsigned long long both = (unsigned long long)high << 32 | low;
    unsigned int result = 0;
    for (int i = 0; i < 4; i++) result |= (unsigned int)(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return result;
}

#include "../../src/commit/cuda/reduce.cu"

// Carries out the blocks from `first` on.
extern "C" void launch(u32 first, u32 blocks, u64 segments, u32 count, u32 domain, u64 digests)
{
    for (block_index = first; block_index < blocks; block_index++)
        counterfoil_reduce((const Segment *)segments, count, domain, (uint4 *)digests);
}
