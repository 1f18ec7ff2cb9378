//! The fast path through the ground state: 64 bytes at a time, and every complete CSI in them at once.
//!
//! A block is either done as the automaton would do it or left to the automaton, from the first byte that
//! needs it. What is done here is the bulk of real streams: text, UTF-8 included, and colours. The set of
//! bytes of one class is a bit mask of the block, so that the length of words and of sequences, which is
//! anything but regular, costs arithmetic and no mispredicted branches.

use std::array;
use std::hint::select_unpredictable;

use wide::{CmpEq, CmpGt, i8x16};

use super::{C1, CursorVisibility, ESC};
use crate::text::Progress;

/// Bytes of a block: one for each bit of a mask.
const BLOCK: usize = 64;
/// Bytes copied at a time. A copy may reach so far beyond the block, on both sides.
const STRIDE: usize = 16;
/// Bytes that a block needs of the input and of the output.
const REACH: usize = BLOCK + STRIDE;

/// Goes on from `at`, which is in the ground state, by as many blocks as it can, and stops in the ground
/// state. What is left, if anything, starts with a byte for the automaton, or is too short.
pub(super) fn filter(
    cursor: CursorVisibility,
    c1: C1,
    input: &[u8],
    output: &mut [u8],
    mut at: Progress,
) -> Progress {
    while let (Some(block), Some(room)) = (
        input[at.consumed..].first_chunk::<REACH>(),
        output[at.produced..].first_chunk_mut::<REACH>(),
    ) {
        let lanes = Lanes::load(block);
        let escapes = lanes.equal(ESC);
        let odd = match c1 {
            C1::Text => escapes,
            C1::Control => lanes.or(escapes),
        };
        if !odd.any() {
            room[..BLOCK].copy_from_slice(&block[..BLOCK]);
            at.consumed += BLOCK;
            at.produced += BLOCK;
            continue;
        }
        if c1 == C1::Control && lanes.any() {
            // Whether a byte is a C1 control is up to the three before it. At the start of the input they
            // are not at hand, and the automaton takes a few bytes.
            let before = at.consumed.checked_sub(3);
            let Some(window) = before.and_then(|start| input[start..].first_chunk()) else {
                break;
            };
            if has_c1(window) {
                break;
            }
        }
        let done = sequences(cursor, block, lanes, escapes.mask(), room);
        if done.consumed == 0 {
            break;
        }
        at.consumed += done.consumed;
        at.produced += done.produced;
    }
    at
}

/// Whether any byte of `window` but the first three is a C1 control: 0x80..=0x9F and no continuation byte
/// of a UTF-8 sequence, as far as its lead byte announces them.
fn has_c1(window: &[u8; BLOCK + 3]) -> bool {
    let continues = |byte: u8| byte & 0xC0 == 0x80;
    let leads = |byte: u8, least: u8| (byte >= least) & (byte < 0xF8);
    let mut any = false;
    for at in 0..BLOCK {
        let [third, second, first, byte] =
            [window[at], window[at + 1], window[at + 2], window[at + 3]];
        let expected = leads(first, 0xC0)
            | (continues(first) & leads(second, 0xE0))
            | (continues(first) & continues(second) & leads(third, 0xF0));
        any |= (byte & 0xE0 == 0x80) & !expected;
    }
    any
}

/// Copies the text of a block and leaves out its control sequences, up to the first that is incomplete or
/// no plain CSI. There is no C1 control in the block that counts.
#[inline(always)]
fn sequences(
    cursor: CursorVisibility,
    block: &[u8; REACH],
    lanes: Lanes,
    mut starts: u64,
    room: &mut [u8; REACH],
) -> Progress {
    if starts == 0 {
        room[..BLOCK].copy_from_slice(&block[..BLOCK]);
        return Progress { consumed: BLOCK, produced: BLOCK };
    }
    // Each start is taken for that of a CSI. Adding the place of its first parameter to the parameters
    // carries through all of them, to the final byte.
    let parameters = lanes.and(0xE0).equal(0x20).mask();
    let mut ends = parameters.wrapping_add(starts << 2) & !parameters;
    // A sequence that goes on beyond the block is left to the next one, which is to start with it. Whether
    // there is one is as good as random, hence no branch.
    let last = starts.ilog2();
    let open = ends >> last == 0;
    let until = select_unpredictable(open, last as usize, BLOCK);
    starts ^= u64::from(open) << last;

    // What is no plain CSI: ESC without [, no final byte (0x40..=0x7E) where one is due, and what is kept.
    let finals = lanes.above(0x3F).mask() & !lanes.equal(0x7F).mask();
    let mut odd = (ends & !finals) | ((starts << 1) & !lanes.equal(b'[').mask());
    if cursor == CursorVisibility::Kept {
        odd |= ends & (lanes.equal(b'h').mask() | lanes.equal(b'l').mask());
    }
    let until = if odd == 0 {
        until
    } else {
        // It began with the last start before it. Sequences before that one are as they should be.
        let before = starts & ((1 << odd.trailing_zeros()) - 1);
        let first = before.checked_ilog2().unwrap_or(0);
        starts &= (1 << first) - 1;
        first as usize
    };

    let (mut text, mut out) = (0, 0);
    while starts != 0 {
        let start = starts.trailing_zeros() as usize;
        let end = ends.trailing_zeros() as usize;
        starts &= starts - 1;
        ends &= ends.wrapping_sub(1);
        copy(block, text, start, room, &mut out);
        text = end + 1;
    }
    copy(block, text, until, room, &mut out);
    Progress { consumed: until, produced: out }
}

/// Copies `block[from..until]` to `room[*out..]`, and more than that: lengths are irregular, so it costs
/// less to copy what will be overwritten than to ask how much it is.
#[inline(always)]
fn copy(
    block: &[u8; REACH],
    mut from: usize,
    until: usize,
    room: &mut [u8; REACH],
    out: &mut usize,
) {
    let mut to = *out;
    *out += until - from;
    loop {
        // Both are below BLOCK, except where there is nothing left to copy; saying so spares a check of
        // the bounds.
        let (source, target) = (from % BLOCK, to % BLOCK);
        room[target..target + STRIDE].copy_from_slice(&block[source..source + STRIDE]);
        from += STRIDE;
        to += STRIDE;
        if from >= until {
            return;
        }
    }
}

/// A block in vector registers, one byte to a lane. `wide` has a safe form of what the compiler does not
/// find by itself: the sign bits of all lanes as one number.
#[derive(Clone, Copy)]
struct Lanes([i8x16; BLOCK / 16]);

impl Lanes {
    #[inline(always)]
    fn load(block: &[u8; REACH]) -> Self {
        let (parts, _) = block.as_chunks::<16>();
        Lanes(array::from_fn(|at| i8x16::new(parts[at].map(|byte| byte as i8))))
    }

    /// All bits of each lane that is `byte`.
    #[inline(always)]
    fn equal(self, byte: u8) -> Self {
        Lanes(self.0.map(|part| part.cmp_eq(i8x16::splat(byte as i8))))
    }

    /// All bits of each lane that is above `byte` and below 0x80.
    #[inline(always)]
    fn above(self, byte: u8) -> Self {
        Lanes(self.0.map(|part| part.cmp_gt(i8x16::splat(byte as i8))))
    }

    #[inline(always)]
    fn and(self, bits: u8) -> Self {
        Lanes(self.0.map(|part| part & i8x16::splat(bits as i8)))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Lanes(array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// Whether the highest bit of any lane is set.
    #[inline(always)]
    fn any(self) -> bool {
        let [a, b, c, d] = self.0;
        (a | b | c | d).move_mask() != 0
    }

    /// The highest bits of all lanes, the first lane's as the lowest bit.
    #[inline(always)]
    fn mask(self) -> u64 {
        let [a, b, c, d] = self.0.map(|part| u64::from(part.move_mask() as u16));
        a | b << 16 | c << 32 | d << 48
    }
}
