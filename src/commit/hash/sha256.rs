//! SHA-256 of leaves and nodes (FIPS 180-4, RFC 9162).

use sha2::block_api::compress256;

use super::{Domain, TreeHash};

/// RFC 9162: `SHA-256(0x00 || leaf)` and `SHA-256(0x01 || left || right)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha256;

pub(super) const BLOCK: usize = 64;
pub(super) const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

impl TreeHash for Sha256 {
    const CHUNK: usize = 1024;
    // SHA-256 of nothing.
    const EMPTY: [u8; 32] = [
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
        0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ];

    fn hash(domain: Domain, messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
        if messages.windows(2).all(|pair| pair[0].len() == pair[1].len()) {
            return in_lanes(domain, messages, hashes);
        }
        // Lanes work as long as their longest message: neighbours should have similar lengths.
        let mut order: Vec<usize> = (0..messages.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(messages[index].len()));
        let sorted: Vec<&[u8]> = order.iter().map(|&index| messages[index]).collect();
        let mut found = vec![[0; 32]; messages.len()];
        in_lanes(domain, &sorted, &mut found);
        for (index, hash) in order.into_iter().zip(found) {
            hashes[index] = hash;
        }
    }
}

/// Each backend takes the groups that fill its lanes and leaves the rest to the next.
fn in_lanes(domain: Domain, messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
    let prefix = domain as u8;
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    #[cfg(target_arch = "x86_64")]
    let done = {
        use super::{Backend, sha256_avx512::Avx512, sha256_ni::ShaNi};
        let mut done = 0;
        if let Some(backend) = Avx512::detect().filter(|_| Backend::Avx512.allowed()) {
            done = match domain {
                Domain::Leaf => whole_groups::<{ Sha256::CHUNK / BLOCK }>(backend, prefix, messages, hashes),
                Domain::Node => whole_groups::<1>(backend, prefix, messages, hashes),
            };
        }
        if let Some(backend) = ShaNi::detect().filter(|_| Backend::ShaNi.allowed()) {
            let (messages, hashes) = (&messages[done..], &mut hashes[done..]);
            done += groups(prefix, messages, hashes, |group, next, found| backend.hash(group, next, found));
        }
        done
    };
    let hash =
        |[message]: &[Padded<'_>; 1], _: &[&[u8]], [hash]: &mut [[u8; 32]; 1]| *hash = portable(message);
    groups(prefix, &messages[done..], &mut hashes[done..], hash);
}

/// Hashes the first messages of exactly `N` blocks, as many as fill all lanes, and returns their number.
#[cfg(target_arch = "x86_64")]
fn whole_groups<const N: usize>(
    backend: super::sha256_avx512::Avx512,
    prefix: u8,
    messages: &[&[u8]],
    hashes: &mut [[u8; 32]],
) -> usize {
    use super::sha256_avx512::LANES;
    let mut done = 0;
    for (group, found) in messages.as_chunks::<LANES>().0.iter().zip(hashes.as_chunks_mut().0) {
        let blocks: [Option<&[[u8; BLOCK]; N]>; LANES] =
            group.map(|message| message.as_chunks().0.try_into().ok().filter(|_| message.len() == N * BLOCK));
        let Some(blocks) = super::all(blocks) else { break };
        done += LANES;
        backend.hash(prefix, &blocks, &messages[done..], found);
    }
    done
}

/// Hashes as many messages as make whole groups, and returns their number. The backend gets a group,
/// the messages behind it, to have them fetched from memory, and the place of the hashes.
#[inline]
fn groups<'a, const LANES: usize>(
    prefix: u8,
    messages: &[&'a [u8]],
    hashes: &mut [[u8; 32]],
    mut hash: impl FnMut(&[Padded<'a>; LANES], &[&[u8]], &mut [[u8; 32]; LANES]),
) -> usize {
    let mut padded = [const { Padded::EMPTY }; LANES];
    let found = hashes.as_chunks_mut().0;
    for (index, (group, found)) in messages.as_chunks::<LANES>().0.iter().zip(found).enumerate() {
        for (padded, message) in padded.iter_mut().zip(group) {
            padded.fill(prefix, message);
        }
        hash(&padded, &messages[LANES * (index + 1)..], found);
    }
    messages.len() - messages.len() % LANES
}

fn portable(message: &Padded<'_>) -> [u8; 32] {
    let mut state = INITIAL;
    for run in message.runs() {
        compress256(&mut state, run);
    }
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// `prefix || message` as the blocks that SHA-256 compresses. The prefix shifts the message by one
/// byte, so the blocks between the first and the last lie in the message as they are.
pub(super) struct Padded<'a> {
    first: [[u8; BLOCK]; 1],
    middle: &'a [[u8; BLOCK]],
    last: [[u8; BLOCK]; 2],
    /// How many blocks hold nothing but prefix and message, and how many there are.
    whole: usize,
    count: usize,
}

impl<'a> Padded<'a> {
    const EMPTY: Self =
        Padded { first: [[0; BLOCK]], middle: &[], last: [[0; BLOCK]; 2], whole: 0, count: 0 };

    #[inline]
    fn fill(&mut self, prefix: u8, message: &'a [u8]) {
        let length = message.len() + 1;
        (self.whole, self.count) = (length / BLOCK, (length + 9).div_ceil(BLOCK));
        self.last = [[0; BLOCK]; 2];
        let last = self.last.as_flattened_mut();
        let rest = match message.split_first_chunk() {
            None => {
                last[0] = prefix;
                last[1..length].copy_from_slice(message);
                self.middle = &[];
                length
            }
            Some((head, message)) => {
                let head: &[u8; BLOCK - 1] = head;
                self.first[0][0] = prefix;
                self.first[0][1..].copy_from_slice(head);
                let (middle, rest) = message.as_chunks();
                self.middle = middle;
                match rest {
                    // Every full leaf and every node; not a call to copy one byte.
                    [byte] => last[0] = *byte,
                    _ => last[..rest.len()].copy_from_slice(rest),
                }
                rest.len()
            }
        };
        last[rest] = 0x80;
        let end = BLOCK * (self.count - self.whole);
        last[end - 8..end].copy_from_slice(&(8 * length as u64).to_be_bytes());
    }

    fn runs(&self) -> [&[[u8; BLOCK]]; 3] {
        [&self.first[..self.whole.min(1)], self.middle, &self.last[..self.count - self.whole]]
    }

    /// Number of blocks.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// One of the blocks; anything behind the last one.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(super) fn block(&self, index: usize) -> &[u8; BLOCK] {
        match self.middle.get(index.wrapping_sub(1)) {
            Some(block) => block,
            None if index < self.whole => &self.first[0],
            None => &self.last[(index - self.whole).min(1)],
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
pub(super) const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];
