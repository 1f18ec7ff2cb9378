//! Payload and its digest: a seeded stream of pseudo-random bytes, and the hash that says it arrived whole.
//!
//! The stream depends on the seed and the length alone, never on the sizes in which it is taken, so a writer of single
//! bytes and a writer of megabytes send the same bytes and a test compares one hash. Used by the peer and by the tests.

use xxhash_rust::xxh3::Xxh3;

/// Bytes taken per step where the caller does not care.
pub(crate) const CHUNK: usize = 1 << 20;

/// What is left of a seeded stream of a given length.
pub(crate) struct Payload {
    state: u64,
    left: u64,
    /// The last word, of which `spare_len` bytes at the end were not asked for yet.
    spare: [u8; 8],
    spare_len: usize,
}

impl Payload {
    /// The stream of `bytes` bytes that belongs to `seed`.
    pub(crate) fn new(bytes: u64, seed: u64) -> Self {
        Payload {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d,
            left: bytes,
            spare: [0; 8],
            spare_len: 0,
        }
    }

    /// Fills the front of `buffer` with the next bytes and returns how many they are: fewer than asked only at the end.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= length as u64;
        let buffer = &mut buffer[..length];

        let reused = self.spare_len.min(length);
        let from = self.spare.len() - self.spare_len;
        buffer[..reused].copy_from_slice(&self.spare[from..from + reused]);
        self.spare_len -= reused;

        let (words, tail) = buffer[reused..].as_chunks_mut::<8>();
        for word in words {
            *word = self.next_word();
        }
        if !tail.is_empty() {
            self.spare = self.next_word();
            tail.copy_from_slice(&self.spare[..tail.len()]);
            self.spare_len = self.spare.len() - tail.len();
        }
        length
    }

    /// One step of wyrand: fast enough that a 4 GiB run measures the relay and not the generator.
    fn next_word(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.state) * u128::from(self.state ^ 0xe703_7ed1_a0b4_28db);
        ((product >> 64) as u64 ^ product as u64).to_le_bytes()
    }
}

/// How many bytes passed, and their hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) bytes: u64,
    pub(crate) hash: u64,
}

impl Digest {
    /// The digest of the stream that [`Payload::new`] gives for the same arguments.
    pub(crate) fn of_payload(bytes: u64, seed: u64) -> Digest {
        let mut payload = Payload::new(bytes, seed);
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            match payload.fill(&mut chunk) {
                0 => return hasher.digest(),
                length => hasher.update(&chunk[..length]),
            }
        }
    }
}

/// `peer read` prints this, and the tests parse nothing: they print their own and compare.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, xxh3 {:016x}", self.bytes, self.hash)
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A digest in the making.
#[derive(Default)]
pub(crate) struct Hasher {
    bytes: u64,
    state: Box<Xxh3>,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.state.update(bytes);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, hash: self.state.digest() }
    }
}
