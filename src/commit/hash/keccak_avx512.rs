//! Keccak-256 of eight messages at once: lane `n` of a register holds a word of message `n`.
#![allow(
    unsafe_code,
    reason = "No pointer is used here; what Rust cannot know is that the processor has the instructions, and \
              the value that callers bring is made by asking it."
)]

use std::arch::x86_64::*;

use super::keccak::{RATE, WORDS};
use super::sha256_avx512::Avx512;

pub(super) const LANES: usize = 8;

pub(super) fn digest<const BLOCKS: usize>(
    _proof: Avx512,
    messages: &[[[u8; RATE]; BLOCKS]; LANES],
    hashes: &mut [[u8; 32]; LANES],
) {
    // SAFETY: the proof exists only where AVX-512 was detected.
    unsafe { sponge(messages, hashes) }
}

#[target_feature(enable = "avx512f")]
fn sponge<const BLOCKS: usize>(messages: &[[[u8; RATE]; BLOCKS]; LANES], hashes: &mut [[u8; 32]; LANES]) {
    let mut state = [_mm512_setzero_si512(); 25];
    for block in 0..BLOCKS {
        for word in 0..WORDS {
            let [a, b, c, d, e, f, g, h] = messages.each_ref().map(|message| {
                let words = message[block].as_chunks().0;
                i64::from_le_bytes(words[word])
            });
            state[word] = _mm512_xor_si512(state[word], _mm512_set_epi64(h, g, f, e, d, c, b, a));
        }
        state = permute::<BLOCKS>(state);
    }
    for (word, lanes) in state[..4].iter().enumerate() {
        // SAFETY: both are 64 bytes of plain integers.
        let lanes: [u64; LANES] = unsafe { std::mem::transmute(*lanes) };
        for (hash, lane) in hashes.iter_mut().zip(lanes) {
            hash[8 * word..8 * word + 8].copy_from_slice(&lane.to_le_bytes());
        }
    }
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
fn permute<const BLOCKS: usize>(mut a: [__m512i; 25]) -> [__m512i; 25] {
    macro_rules! xor3 {
        ($x:expr, $y:expr, $z:expr) => {
            _mm512_ternarylogic_epi64::<0x96>($x, $y, $z)
        };
    }
    for constant in ROUNDS {
        let mut parity = [_mm512_setzero_si512(); 5];
        for x in 0..5 {
            parity[x] = xor3!(a[x], a[5 + x], xor3!(a[10 + x], a[15 + x], a[20 + x]));
        }
        let mut theta = parity;
        for x in 0..5 {
            theta[x] = _mm512_xor_si512(parity[(x + 4) % 5], _mm512_rol_epi64::<1>(parity[(x + 1) % 5]));
        }
        let mut next = a;
        // Row by row, so that few values are alive: five words of the old state, moved and rotated by
        // rho and pi, make a row of the next.
        macro_rules! row {
            ($row:literal: $($x:literal $y:literal $by:literal),*) => {{
                let b = [$(_mm512_rol_epi64::<$by>(_mm512_xor_si512(a[5 * $y + $x], theta[$x]))),*];
                for x in 0..5 {
                    // Chi: b ^ (!c & d)
                    next[5 * $row + x] = _mm512_ternarylogic_epi64::<0xd2>(b[x], b[(x + 1) % 5], b[(x + 2) % 5]);
                }
            }};
        }
        row!(0: 0 0 0, 1 1 44, 2 2 43, 3 3 21, 4 4 14);
        row!(1: 3 0 28, 4 1 20, 0 2 3, 1 3 45, 2 4 61);
        row!(2: 1 0 1, 2 1 6, 3 2 25, 4 3 8, 0 4 18);
        row!(3: 4 0 27, 0 1 36, 1 2 10, 2 3 15, 3 4 56);
        row!(4: 2 0 62, 3 1 55, 4 2 39, 0 3 41, 1 4 2);
        next[0] = _mm512_xor_si512(next[0], _mm512_set1_epi64(constant as i64));
        a = next;
    }
    a
}
