//! SHA-256 through the processor's own instructions, four messages interleaved: one message alone
//! waits for the result of each instruction before the next.
#![allow(
    unsafe_code,
    reason = "Rust knows the length of every block and state that is read and written here; what it cannot \
              know is that the processor has the instructions, and the one value through which callers get \
              here is made by asking it."
)]

use std::arch::x86_64::*;

use super::sha256::{BLOCK, INITIAL, Padded, ROUNDS};

/// Proof that the processor has the SHA extensions and SSE4.1.
#[derive(Clone, Copy)]
pub(super) struct ShaNi(());

impl ShaNi {
    pub(super) const LANES: usize = 4;

    pub(super) fn detect() -> Option<ShaNi> {
        let found = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        found.then_some(ShaNi(()))
    }

    pub(super) fn hash(
        self,
        messages: &[Padded<'_>; Self::LANES],
        next: &[&[u8]],
        hashes: &mut [[u8; 32]; Self::LANES],
    ) {
        // SAFETY: `self` exists only where the features were detected.
        unsafe { digest(messages, next, hashes) }
    }
}

/// The state as the instructions want it: words a b e f and c d g h, the last named lowest.
type State = [__m128i; 2];

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn digest(messages: &[Padded<'_>; 4], next: &[&[u8]], hashes: &mut [[u8; 32]; 4]) {
    let [a, b, c, d, e, f, g, h] = INITIAL.map(|word| word as i32);
    let mut states = [[_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]; 4];
    let most = messages.iter().map(Padded::count).max().unwrap_or(0);
    for index in 0..most {
        let blocks = [0, 1, 2, 3].map(|lane| messages[lane].block(index));
        for message in next.iter().take(4) {
            _mm_prefetch::<_MM_HINT_T0>(message.as_ptr().wrapping_add(BLOCK * index).cast());
        }
        let sums = compress(states, blocks);
        for lane in 0..4 {
            // A message that has ended keeps its state.
            if index < messages[lane].count() {
                states[lane] = sums[lane];
            }
        }
    }
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    for ([abef, cdgh], hash) in states.into_iter().zip(hashes) {
        let (feba, dchg) = (_mm_shuffle_epi32::<0x1b>(abef), _mm_shuffle_epi32::<0xb1>(cdgh));
        let abcd = _mm_shuffle_epi8(_mm_blend_epi16::<0xf0>(feba, dchg), swap);
        let efgh = _mm_shuffle_epi8(_mm_alignr_epi8::<8>(dchg, feba), swap);
        // SAFETY: a hash has the 2 x 16 bytes that are written, at any alignment.
        unsafe {
            _mm_storeu_si128(hash.as_mut_ptr().cast(), abcd);
            _mm_storeu_si128(hash.as_mut_ptr().add(16).cast(), efgh);
        }
    }
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress(mut states: [State; 4], blocks: [&[u8; BLOCK]; 4]) -> [State; 4] {
    let before = states;
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let mut words = [[_mm_setzero_si128(); 4]; 4];
    for lane in 0..4 {
        for (i, words) in words[lane].iter_mut().enumerate() {
            // SAFETY: a block has 64 bytes, of which 16 are read, at any alignment.
            let row = unsafe { _mm_loadu_si128(blocks[lane].as_ptr().add(16 * i).cast()) };
            *words = _mm_shuffle_epi8(row, swap);
        }
    }
    for group in 0..16 {
        let k = &ROUNDS[4 * group..4 * group + 4];
        let k = _mm_set_epi32(k[3] as i32, k[2] as i32, k[1] as i32, k[0] as i32);
        for lane in 0..4 {
            let ([abef, cdgh], w, i) = (&mut states[lane], &mut words[lane], group % 4);
            if group >= 4 {
                let sum = _mm_sha256msg1_epu32(w[i], w[(i + 1) % 4]);
                let sum = _mm_add_epi32(sum, _mm_alignr_epi8::<4>(w[(i + 3) % 4], w[(i + 2) % 4]));
                w[i] = _mm_sha256msg2_epu32(sum, w[(i + 3) % 4]);
            }
            let sum = _mm_add_epi32(w[i], k);
            *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
            *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(sum));
        }
    }
    for lane in 0..4 {
        for i in 0..2 {
            states[lane][i] = _mm_add_epi32(states[lane][i], before[lane][i]);
        }
    }
    states
}
