/* Merkle roots (RFC 9162, section 2.1) of many runs of bytes, in a few launches for all of them.
 *
 * A launch turns each segment into digests: one for each 256 of its chunks. The first launch takes
 * the tensors (chunks of 1,024 bytes, leaves of their trees); every later one takes the digests of the
 * launch before (chunks of 64 bytes, two children of a node), until each segment has one digest left,
 * the root. Pairing level by level and passing on what has no sibling gives the tree of RFC 9162.
 *
 * The file is compiled three ways: by NVRTC to the PTX that is shipped, as C++ for the tests (HOST,
 * where a block's threads take turns between two barriers), and by nothing else: no inline assembly.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define KERNEL extern "C" __global__ void __launch_bounds__(256, 4)
#define FUNCTION __device__ __forceinline__
#define CONSTANT __constant__
#define SHARED __shared__
#define BLOCK blockIdx.x
/* A warp's number decides which quarter of the multiprocessor it works in. Levels whose nodes fit one warp
 * take turns, and so do blocks, also where the number of multiprocessors is a multiple of four. */
#define EACH_THREAD(thread) const u32 thread = (threadIdx.x + 32 * (level + BLOCK + BLOCK / 128)) % CHUNKS;
#define BARRIER __syncthreads()
#define VECTOR make_uint4
#define PERMUTE __byte_perm
#define SHIFT_LEFT(word, count) __funnelshift_lc(0, word, count)
#endif

/* Chunks of a block, and its threads. */
constexpr u32 CHUNKS = 256;
/* What stands before the bytes of a leaf and of a node. */
constexpr u32 LEAF = 0, NODE = 1;

struct Segment {
    u64 address;
    /* Bytes; not 0. */
    u64 length;
    /* The launch's first block for this segment. */
    u64 first_block;
};

CONSTANT const u32 ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

FUNCTION u32 rotate(u32 word, u32 count) { return (word >> count) | (word << (32 - count)); }

/* One block of 64 bytes (FIPS 180-4, section 6.2.2); `words` is overwritten. */
FUNCTION void compress(u32 state[8], u32 words[16])
{
    u32 a = state[0], b = state[1], c = state[2], d = state[3];
    u32 e = state[4], f = state[5], g = state[6], h = state[7];
#pragma unroll
    for (u32 i = 0; i < 64; i++) {
        if (i >= 16) {
            const u32 x = words[(i + 1) & 15], y = words[(i + 14) & 15];
            words[i & 15] += (rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3)) + words[(i + 9) & 15] +
                             (rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10));
        }
        const u32 first = h + words[i & 15] + ROUND[i] + ((e & f) ^ (~e & g)) +
                          (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25));
        const u32 second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first;
        d = c, c = b, b = a, a = first + second;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

/* Vector `index` of a message whose bytes lie from byte `lead` of vector 0 on, behind one that does
 * not. What follows the message is 0x80 and zeros. */
FUNCTION uint4 load(const uint4 *vectors, u32 index, u32 lead, u32 size)
{
    const u32 end = lead + size, count = end % 16;
    /* Only vectors with a byte of the message are touched: they lie on its pages. */
    const bool holds = 16 * index < end && (index > 0 || lead < 15);
    uint4 vector = VECTOR(0, 0, 0, 0);
    if (holds) vector = vectors[index];
    if (index != end / 16) return vector;
    u32 words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 bits = 8 * (count > 4 * i ? count - 4 * i : 0);
        words[i] = (words[i] & ~SHIFT_LEFT(0xffffffff, bits)) | (i == count / 4 ? 0x80u : 0) << bits % 32;
    }
    return VECTOR(words[0], words[1], words[2], words[3]);
}

/* SHA-256 of a domain byte and `length` bytes, at least one, at any address. */
FUNCTION void hash(u32 domain, const u8 *bytes, u32 length, uint4 digest[2])
{
    /* The message begins where the domain byte would lie, one byte before the others. Block b begins at
     * byte `lead` of vector 4b and ends in vector 4b + 4; nine bytes follow the message. */
    const u32 lead = (u32)((u64)bytes - 1) % 16, size = length + 1, blocks = (size + 9 + 63) / 64;
    const uint4 *vectors = (const uint4 *)(bytes - 1 - lead);
    /* From the block in which the message ends on, vectors are taken from a copy with the padding. */
    const u32 last = (lead + size) / 16, copied = (last == 0 ? 0 : last - 1) / 4;
    uint4 copy[8];
#pragma unroll 1
    for (u32 i = 4 * copied; i < 4 * blocks; i++) copy[i - 4 * copied] = load(vectors, i + 1, lead, size);

    /* Takes four bytes from byte lead % 4 of a word on, the first of them highest. */
    const u32 selector = 0x0123 + 0x1111 * (lead % 4);
    u32 state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint4 carried = load(vectors, 0, lead, size);
    vectors++;
#pragma unroll 1
    for (u32 block = 0; block < blocks; block++, vectors += 4) {
        if (block == copied) vectors = copy;
        u32 window[20] = {carried.x, carried.y, carried.z, carried.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            carried = vectors[i];
            window[4 + 4 * i] = carried.x, window[5 + 4 * i] = carried.y;
            window[6 + 4 * i] = carried.z, window[7 + 4 * i] = carried.w;
        }
        /* The block's first byte goes to word 3; in aligned tensors it is there. */
#pragma unroll 1
        for (u32 i = lead / 4; i < 3; i++) {
#pragma unroll
            for (u32 j = 19; j > 0; j--) window[j] = window[j - 1];
        }
        u32 words[16];
#pragma unroll
        for (u32 i = 0; i < 16; i++) words[i] = PERMUTE(window[i + 3], window[i + 4], selector);
        if (block == 0) words[0] = (words[0] & 0xffffff) | domain << 24;
        if (block + 1 == blocks) words[15] = 8 * size;
        compress(state, words);
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) state[i] = PERMUTE(state[i], 0, 0x0123);
    digest[0] = VECTOR(state[0], state[1], state[2], state[3]);
    digest[1] = VECTOR(state[4], state[5], state[6], state[7]);
}

/* The last segment that begins at this block or before. */
FUNCTION u32 segment_of(const Segment *segments, u32 count, u64 block)
{
    u32 low = 0;
    while (count > 1) {
        const u32 half = count / 2;
        if (segments[low + half].first_block <= block) low += half;
        count -= half;
    }
    return low;
}

/* `digests` receives one digest for each block. */
KERNEL counterfoil_reduce(const Segment *segments, u32 count, u32 domain, uint4 *digests)
{
    /* The digests of even levels, at most 256, and of odd ones, at most 128. */
    SHARED uint4 levels[3 * CHUNKS];
    const Segment segment = segments[segment_of(segments, count, BLOCK)];
    /* The binary logarithm of a chunk's bytes: 1,024, or two children. */
    u32 shift = domain == LEAF ? 10 : 6;
    const u64 begin = (BLOCK - segment.first_block) * CHUNKS << shift, rest = segment.length - begin;
    const u8 *source = (const u8 *)segment.address + begin;
    u32 bytes = rest < CHUNKS << shift ? (u32)rest : CHUNKS << shift;
    for (u32 level = 0;; level++) {
        const u32 chunk = 1 << shift, width = (bytes + chunk - 1) >> shift;
        uint4 *target = width == 1 ? digests + 2 * (u64)BLOCK : levels + level % 2 * 2 * CHUNKS;
        EACH_THREAD(thread)
        if (thread < width) {
            const u32 offset = thread << shift, length = thread + 1 < width ? chunk : bytes - offset;
            const uint4 *own = (const uint4 *)(source + offset);
            if (domain == NODE && length == 32) {
                /* A digest without a sibling goes up as it is. */
                target[2 * thread] = own[0], target[2 * thread + 1] = own[1];
            } else {
                hash(domain, source + offset, length, target + 2 * thread);
            }
        }
        BARRIER;
        if (width == 1) return;
        source = (const u8 *)target, bytes = 32 * width, shift = 6, domain = NODE;
    }
}
