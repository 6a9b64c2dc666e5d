//! Keccak-256 of eight messages at once: lane `n` of a register holds a word of message `n`.
#![allow(
    unsafe_code,
    reason = "Rust knows the length of all that is read and written here, 64 or 32 bytes at a time; what it \
              cannot know is that the processor has the instructions, and the value that callers bring is \
              made by asking it."
)]

use std::arch::x86_64::*;

use super::sha256_avx512::Avx512;

pub(super) const LANES: usize = 8;
/// Words of the state that a block fills.
const RATE: usize = 17;

/// Hashes messages of `SIZE` bytes, a multiple of 64.
pub(super) fn digest<const SIZE: usize>(
    _proof: Avx512,
    messages: &[&[u8; SIZE]; LANES],
    hashes: &mut [[u8; 32]; LANES],
) {
    // SAFETY: the proof exists only where AVX-512F was detected.
    unsafe { sponge(messages, hashes) }
}

#[target_feature(enable = "avx512f")]
fn sponge<const SIZE: usize>(messages: &[&[u8; SIZE]; LANES], hashes: &mut [[u8; 32]; LANES]) {
    let mut words = [[_mm512_setzero_si512(); LANES]; 4];
    for tile in 0..SIZE / 64 {
        for lane in 0..LANES {
            let row = &messages[lane][64 * tile..64 * tile + 64];
            // SAFETY: a row has the 64 bytes that are read, at any alignment.
            words[tile][lane] = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
        }
        words[tile] = transpose(words[tile]);
    }
    let (words, last) = (words.as_flattened(), SIZE / 8 / RATE);
    let mut state = [_mm512_setzero_si512(); 25];
    for block in 0..=last {
        for word in RATE * block..(RATE * (block + 1)).min(SIZE / 8) {
            state[word % RATE] = _mm512_xor_si512(state[word % RATE], words[word]);
        }
        if block == last {
            // The padding of Keccak before it became SHA-3.
            let end = SIZE / 8 % RATE;
            state[end] = _mm512_xor_si512(state[end], _mm512_set1_epi64(1));
            state[RATE - 1] = _mm512_xor_si512(state[RATE - 1], _mm512_set1_epi64(i64::MIN));
        }
        state = permute::<SIZE>(state);
    }
    let mut rows = [_mm512_setzero_si512(); LANES];
    rows[..4].copy_from_slice(&state[..4]);
    let rows = transpose(rows);
    for lane in 0..LANES {
        // SAFETY: a hash has the 32 bytes that are written, at any alignment.
        unsafe { _mm256_storeu_si256(hashes[lane].as_mut_ptr().cast(), _mm512_castsi512_si256(rows[lane])) };
    }
}

/// From one message a row to one word a row, or back.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 8]) -> [__m512i; 8] {
    let (mut from, mut to) = (rows, rows);
    for i in 0..4 {
        to[2 * i] = _mm512_unpacklo_epi64(from[2 * i], from[2 * i + 1]);
        to[2 * i + 1] = _mm512_unpackhi_epi64(from[2 * i], from[2 * i + 1]);
    }
    for i in 0..2 {
        from[i] = _mm512_shuffle_i64x2::<0x88>(to[i], to[2 + i]);
        from[2 + i] = _mm512_shuffle_i64x2::<0xdd>(to[i], to[2 + i]);
        from[4 + i] = _mm512_shuffle_i64x2::<0x88>(to[4 + i], to[6 + i]);
        from[6 + i] = _mm512_shuffle_i64x2::<0xdd>(to[4 + i], to[6 + i]);
    }
    for i in 0..4 {
        to[i] = _mm512_shuffle_i64x2::<0x88>(from[i], from[4 + i]);
        to[4 + i] = _mm512_shuffle_i64x2::<0xdd>(from[i], from[4 + i]);
    }
    to
}

#[rustfmt::skip]
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001, 0x0000_0000_0000_8082, 0x8000_0000_0000_808a, 0x8000_0000_8000_8000,
    0x0000_0000_0000_808b, 0x0000_0000_8000_0001, 0x8000_0000_8000_8081, 0x8000_0000_0000_8009,
    0x0000_0000_0000_008a, 0x0000_0000_0000_0088, 0x0000_0000_8000_8009, 0x0000_0000_8000_000a,
    0x0000_0000_8000_808b, 0x8000_0000_0000_008b, 0x8000_0000_0000_8089, 0x8000_0000_0000_8003,
    0x8000_0000_0000_8002, 0x8000_0000_0000_0080, 0x0000_0000_0000_800a, 0x8000_0000_8000_000a,
    0x8000_0000_8000_8081, 0x8000_0000_0000_8080, 0x0000_0000_8000_0001, 0x8000_0000_8000_8008,
];

/// Keccak-f[1600]; word `5 * y + x` of the state is the lane (x, y) of FIPS 202.
#[inline]
#[target_feature(enable = "avx512f")]
fn permute<const SIZE: usize>(mut a: [__m512i; 25]) -> [__m512i; 25] {
    macro_rules! xor3 {
        ($x:expr, $y:expr, $z:expr) => {
            _mm512_ternarylogic_epi64::<0x96>($x, $y, $z)
        };
    }
    // Five words of the old state, moved and rotated by rho and pi, make a row of the next. Row by
    // row, so that few values are alive.
    macro_rules! row {
        ($next:ident $theta:ident $row:literal: $($x:literal $y:literal $by:literal),*) => {{
            let b = [$(_mm512_rol_epi64::<$by>(_mm512_xor_si512(a[5 * $y + $x], $theta[$x]))),*];
            for x in 0..5 {
                // Chi: b ^ (!c & d)
                $next[5 * $row + x] = _mm512_ternarylogic_epi64::<0xd2>(b[x], b[(x + 1) % 5], b[(x + 2) % 5]);
            }
        }};
    }
    macro_rules! round {
        ($constant:expr) => {
            let mut parity = [_mm512_setzero_si512(); 5];
            for x in 0..5 {
                parity[x] = xor3!(a[x], a[5 + x], xor3!(a[10 + x], a[15 + x], a[20 + x]));
            }
            let mut theta = parity;
            for x in 0..5 {
                theta[x] = _mm512_xor_si512(parity[(x + 4) % 5], _mm512_rol_epi64::<1>(parity[(x + 1) % 5]));
            }
            let mut next = a;
            row!(next theta 0: 0 0 0, 1 1 44, 2 2 43, 3 3 21, 4 4 14);
            row!(next theta 1: 3 0 28, 4 1 20, 0 2 3, 1 3 45, 2 4 61);
            row!(next theta 2: 1 0 1, 2 1 6, 3 2 25, 4 3 8, 0 4 18);
            row!(next theta 3: 4 0 27, 0 1 36, 1 2 10, 2 3 15, 3 4 56);
            row!(next theta 4: 2 0 62, 3 1 55, 4 2 39, 0 3 41, 1 4 2);
            next[0] = _mm512_xor_si512(next[0], _mm512_set1_epi64($constant as i64));
            a = next;
        };
    }
    // The state moves through the registers from round to round; after four, few moves are left.
    for [first, second, third, fourth] in ROUNDS.as_chunks::<4>().0 {
        round!(*first);
        round!(*second);
        round!(*third);
        round!(*fourth);
    }
    a
}
