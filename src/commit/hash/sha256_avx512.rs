//! SHA-256 of sixteen messages at once: word `i` of lane `n` is word `i` of message `n`.
#![allow(
    unsafe_code,
    reason = "Rust knows the length of all that is read and written here, 64 bytes at a time; what it cannot \
              know is that the processor has the instructions, and the one value through which callers get \
              here is made by asking it."
)]

use std::arch::x86_64::*;

use super::sha256::{BLOCK, INITIAL, ROUNDS};

/// Proof that the processor has AVX-512F and AVX-512BW, and that the system saves their registers.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

pub(super) const LANES: usize = 16;

impl Avx512 {
    pub(super) fn detect() -> Option<Avx512> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        found.then_some(Avx512(()))
    }

    /// Hashes `prefix || message` for messages of `N` blocks, while the next ones are fetched.
    pub(super) fn hash<const N: usize>(
        self,
        prefix: u8,
        messages: &[&[[u8; BLOCK]; N]; LANES],
        next: &[&[u8]],
        hashes: &mut [[u8; 32]; LANES],
    ) {
        // SAFETY: `self` exists only where both features were detected.
        unsafe { digest(prefix, messages, next, hashes) }
    }
}

type Vector = __m512i;

#[target_feature(enable = "avx512f,avx512bw")]
fn digest<const N: usize>(
    prefix: u8,
    messages: &[&[[u8; BLOCK]; N]; LANES],
    next: &[&[u8]],
    hashes: &mut [[u8; 32]; LANES],
) {
    let mut state = [_mm512_setzero_si512(); 8];
    for i in 0..8 {
        state[i] = _mm512_set1_epi32(INITIAL[i] as i32);
    }
    let mut words = [_mm512_setzero_si512(); 16];
    for index in 0..=N {
        // The prefix shifts the message by a byte: all blocks but the first begin one byte early.
        let start = (BLOCK * index).saturating_sub(1);
        if index < N {
            for lane in 0..LANES {
                let block = &messages[lane].as_flattened()[start..start + BLOCK];
                // SAFETY: a block has the 64 bytes that are read, at any alignment.
                words[lane] = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
                if let Some(message) = next.get(lane) {
                    _mm_prefetch::<_MM_HINT_T0>(message.as_ptr().wrapping_add(BLOCK * index).cast());
                }
            }
            words = transpose(words);
            if index == 0 {
                for i in (1..16).rev() {
                    words[i] = shifted(words[i - 1], words[i]);
                }
                words[0] = shifted(_mm512_set1_epi32(prefix.into()), words[0]);
            }
        } else {
            let mut last = [0; LANES];
            for lane in 0..LANES {
                last[lane] = u32::from(messages[lane][N - 1][BLOCK - 1]) << 24 | 0x0080_0000;
            }
            words = [_mm512_setzero_si512(); 16];
            // SAFETY: `last` has the 64 bytes that are read, at any alignment.
            words[0] = unsafe { _mm512_loadu_si512(last.as_ptr().cast()) };
            words[15] = _mm512_set1_epi32(8 * (N * BLOCK + 1) as i32);
        }
        state = compress::<N>(state, words);
    }
    words = [_mm512_setzero_si512(); 16];
    words[..8].copy_from_slice(&state);
    words = transpose(words);
    for lane in 0..LANES {
        let digest = _mm512_castsi512_si256(words[lane]);
        // SAFETY: a hash has the 32 bytes that are written, at any alignment.
        unsafe { _mm256_storeu_si256(hashes[lane].as_mut_ptr().cast(), digest) };
    }
}

/// The words that begin with the last byte of the words before.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shifted(before: Vector, words: Vector) -> Vector {
    _mm512_or_si512(_mm512_slli_epi32::<24>(before), _mm512_srli_epi32::<8>(words))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress<const N: usize>(state: [Vector; 8], mut w: [Vector; 16]) -> [Vector; 8] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
    macro_rules! xor3 {
        ($x:expr, $y:expr, $z:expr) => {
            _mm512_ternarylogic_epi32::<0x96>($x, $y, $z)
        };
    }
    macro_rules! round {
        ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $k:expr, $w:expr) => {{
            let sum1 =
                xor3!(_mm512_ror_epi32::<6>($e), _mm512_ror_epi32::<11>($e), _mm512_ror_epi32::<25>($e));
            let choice = _mm512_ternarylogic_epi32::<0xca>($e, $f, $g);
            let word = _mm512_add_epi32($w, _mm512_set1_epi32($k as i32));
            let first = _mm512_add_epi32(_mm512_add_epi32(_mm512_add_epi32($h, word), choice), sum1);
            let sum0 =
                xor3!(_mm512_ror_epi32::<2>($a), _mm512_ror_epi32::<13>($a), _mm512_ror_epi32::<22>($a));
            let majority = _mm512_ternarylogic_epi32::<0xe8>($a, $b, $c);
            $d = _mm512_add_epi32($d, first);
            $h = _mm512_add_epi32(first, _mm512_add_epi32(sum0, majority));
        }};
    }
    macro_rules! given {
        ($i:expr) => {
            w[$i]
        };
    }
    macro_rules! scheduled {
        ($i:expr) => {{
            let (x, y) = (w[($i + 1) % 16], w[($i + 14) % 16]);
            let sum0 = xor3!(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x));
            let sum1 =
                xor3!(_mm512_ror_epi32::<17>(y), _mm512_ror_epi32::<19>(y), _mm512_srli_epi32::<10>(y));
            w[$i] = _mm512_add_epi32(_mm512_add_epi32(w[$i], sum0), _mm512_add_epi32(w[($i + 9) % 16], sum1));
            w[$i]
        }};
    }
    // The names move instead of the values: after eight rounds they are where they were.
    macro_rules! eight {
        ($word:ident, $t:expr, $i:expr) => {
            round!(a b c d e f g h, ROUNDS[$t + $i], $word!($i));
            round!(h a b c d e f g, ROUNDS[$t + $i + 1], $word!($i + 1));
            round!(g h a b c d e f, ROUNDS[$t + $i + 2], $word!($i + 2));
            round!(f g h a b c d e, ROUNDS[$t + $i + 3], $word!($i + 3));
            round!(e f g h a b c d, ROUNDS[$t + $i + 4], $word!($i + 4));
            round!(d e f g h a b c, ROUNDS[$t + $i + 5], $word!($i + 5));
            round!(c d e f g h a b, ROUNDS[$t + $i + 6], $word!($i + 6));
            round!(b c d e f g h a, ROUNDS[$t + $i + 7], $word!($i + 7));
        };
    }
    eight!(given, 0, 0);
    eight!(given, 0, 8);
    for t in [16, 32, 48] {
        eight!(scheduled, t, 0);
        eight!(scheduled, t, 8);
    }
    let mut sum = [a, b, c, d, e, f, g, h];
    for i in 0..8 {
        sum[i] = _mm512_add_epi32(sum[i], state[i]);
    }
    sum
}

/// From one block a row to one word a row, or back; and from big endian, or to it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(rows: [Vector; 16]) -> [Vector; 16] {
    let (mut from, mut to) = (rows, rows);
    for i in 0..8 {
        to[2 * i] = _mm512_unpacklo_epi32(from[2 * i], from[2 * i + 1]);
        to[2 * i + 1] = _mm512_unpackhi_epi32(from[2 * i], from[2 * i + 1]);
    }
    for i in 0..4 {
        from[4 * i] = _mm512_unpacklo_epi64(to[4 * i], to[4 * i + 2]);
        from[4 * i + 1] = _mm512_unpackhi_epi64(to[4 * i], to[4 * i + 2]);
        from[4 * i + 2] = _mm512_unpacklo_epi64(to[4 * i + 1], to[4 * i + 3]);
        from[4 * i + 3] = _mm512_unpackhi_epi64(to[4 * i + 1], to[4 * i + 3]);
    }
    for i in 0..4 {
        to[i] = _mm512_shuffle_i32x4::<0x88>(from[i], from[4 + i]);
        to[4 + i] = _mm512_shuffle_i32x4::<0xdd>(from[i], from[4 + i]);
        to[8 + i] = _mm512_shuffle_i32x4::<0x88>(from[8 + i], from[12 + i]);
        to[12 + i] = _mm512_shuffle_i32x4::<0xdd>(from[8 + i], from[12 + i]);
    }
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    for i in 0..4 {
        from[i] = _mm512_shuffle_i32x4::<0x88>(to[i], to[8 + i]);
        from[8 + i] = _mm512_shuffle_i32x4::<0xdd>(to[i], to[8 + i]);
        from[4 + i] = _mm512_shuffle_i32x4::<0x88>(to[4 + i], to[12 + i]);
        from[12 + i] = _mm512_shuffle_i32x4::<0xdd>(to[4 + i], to[12 + i]);
    }
    for row in &mut from {
        *row = _mm512_shuffle_epi8(*row, swap);
    }
    from
}
