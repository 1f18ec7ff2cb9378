//! How the V8 heaps of Node processes are written down in a page of shared memory, and how they are read.
//!
//! The page is made by nproxy, or by the Node preload for itself alone. It holds 64-bit words: a header of eight, then one slot
//! of eight per process. Each process writes its own slot, nproxy reads them all, and nobody waits for anybody: a
//! word is read and written whole, and figures that belong together may be one collection apart.
//!
//! Pure: how the words come to be shared is the business of whoever maps them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the page.
pub const BYTES: usize = WORDS * size_of::<u64>();

/// Words of the page.
pub const WORDS: usize = 512;

/// Words of a slot, and of the header.
const SLOT: usize = 8;

/// Processes that find room.
pub const SLOTS: usize = WORDS / SLOT - 1;

/// The variable that tells Node processes where the page is.
pub const VARIABLE: &str = "NPROXY_NODE_PAGE";

/// The header's first word. It changes with the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"nproxy 1");

/// The header's second word: the stage of the run, as its place in `Stage::ALL`.
const RUN_STAGE: usize = 1;

/// The header's third word: whether Node processes are to say nothing.
const QUIET: usize = 2;

/// The header's fourth word: which PID namespace the numbers of processes are of; 0 if that is not known.
const NAMESPACE: usize = 3;

/// A slot whose process said that it is about to end: beside its number.
const ENDED: u64 = 1 << 32;

/// A slot whose new process has yet to wipe out what the one before it said: beside its number.
const CLAIMED: u64 = 1 << 33;

/// Words of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The process's number, and perhaps [`ENDED`] or [`CLAIMED`]; 0 if the slot was never used.
    Owner,
    /// What the process is asked for; its thread waits for the low half to change.
    Request,
    /// Bytes of heap in use, garbage included.
    Used,
    /// Bytes that the last full collection found alive.
    Live,
    /// Bytes that V8 allows the old generation.
    Limit,
    /// Bytes outside of the heap that objects in it keep.
    External,
    /// Times that V8 said it was about to reach the limit.
    NearLimits,
    /// Full collections.
    Collections,
}

/// How thorough a collection is asked for, as V8's `MemoryPressureLevel` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collection {
    /// Soon, and in steps.
    Moderate,
    /// At once, and as much as can be.
    Critical,
}

/// What a Node process has said of its heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Its process number.
    pub pid: u32,
    /// Bytes in use, garbage included.
    pub used: u64,
    /// Bytes that the last full collection found alive; 0 before the first.
    pub live: u64,
    /// Bytes that V8 allows.
    pub limit: u64,
    /// Bytes outside of the heap that objects in it keep.
    pub external: u64,
    /// Times that V8 said it was about to reach the limit.
    pub near_limits: u64,
    /// Full collections.
    pub collections: u64,
}

/// A view of the page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'p>(&'p [AtomicU64; WORDS]);

/// A view of one process's slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'p>(&'p [AtomicU64]);

impl<'p> Page<'p> {
    /// A page of zeros becomes one that processes may register in.
    pub fn begin(words: &'p [AtomicU64; WORDS]) -> Page<'p> {
        words[0].store(MAGIC, Ordering::Release);
        Page(words)
    }

    /// A page that somebody else has begun; `None` if it is something else, or has another layout.
    pub fn open(words: &'p [AtomicU64; WORDS]) -> Option<Page<'p>> {
        (words[0].load(Ordering::Acquire) == MAGIC).then_some(Page(words))
    }

    fn slots(self) -> impl Iterator<Item = Slot<'p>> {
        self.0[SLOT..].chunks_exact(SLOT).map(Slot)
    }

    /// Finds a slot for the process `pid`: its own of an earlier program, one that nobody has used, or that of a process
    /// that is over, which `is_alive` tells. `None` if all are taken.
    pub fn register(self, pid: u32, is_alive: impl Fn(u32) -> bool) -> Option<Slot<'p>> {
        let owners = || self.slots().map(|slot| (slot, slot.load(Word::Owner)));
        let own = owners().find(|(_, owner)| *owner as u32 == pid);
        let unused = owners().filter(|(_, owner)| *owner == 0);
        let over = owners().filter(|(_, owner)| *owner & ENDED != 0);
        let dead = owners().filter(|(_, owner)| *owner != 0 && !is_alive(*owner as u32));
        // Two processes may want the same one; who comes second looks for another.
        let taken = |(slot, owner): &(Slot<'p>, u64)| {
            let word = slot.word(Word::Owner);
            let new = u64::from(pid) | CLAIMED;
            word.compare_exchange(*owner, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let (slot, _) = own.into_iter().chain(unused).chain(over).chain(dead).find(taken)?;
        for word in [
            Word::Used,
            Word::Live,
            Word::Limit,
            Word::External,
            Word::NearLimits,
            Word::Collections,
            Word::Request,
        ] {
            slot.store(word, 0);
        }
        slot.word(Word::Owner).store(pid.into(), Ordering::Release);
        Some(slot)
    }

    /// What each process that has not ended has said of its heap.
    pub fn heaps(self) -> impl Iterator<Item = Heap> {
        self.slots().filter_map(Slot::heap)
    }

    /// The slot of a process that has not ended.
    pub fn slot_of(self, pid: u32) -> Option<Slot<'p>> {
        self.slots().find(|slot| slot.load(Word::Owner) == u64::from(pid))
    }

    /// Writes down the stage of the run, as its place in `Stage::ALL`.
    pub fn set_stage(self, place: usize) {
        self.0[RUN_STAGE].store(place as u64, Ordering::Relaxed);
    }

    /// Has Node processes say nothing themselves.
    pub fn set_quiet(self) {
        self.0[QUIET].store(1, Ordering::Relaxed);
    }

    /// Whether they are to say nothing.
    pub fn is_quiet(self) -> bool {
        self.0[QUIET].load(Ordering::Relaxed) != 0
    }

    /// Writes down which PID namespace its maker is in, as /proc/self/ns/pid names it (pid_namespaces(7)).
    pub fn set_namespace(self, number: u64) {
        self.0[NAMESPACE].store(number, Ordering::Relaxed);
    }

    /// Whether a process in this PID namespace has a number that the page's maker knows.
    pub fn is_of(self, namespace: u64) -> bool {
        let own = self.0[NAMESPACE].load(Ordering::Relaxed);
        own == 0 || namespace == 0 || own == namespace
    }

    /// The stage of the run, as its place in `Stage::ALL`.
    pub fn stage(self) -> usize {
        self.0[RUN_STAGE].load(Ordering::Relaxed) as usize
    }
}

impl<'p> Slot<'p> {
    fn word(self, word: Word) -> &'p AtomicU64 {
        &self.0[word as usize]
    }

    fn load(self, word: Word) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    fn store(self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    /// What the process has said; `None` if it has ended, or there never was one.
    fn heap(self) -> Option<Heap> {
        let owner = self.word(Word::Owner).load(Ordering::Acquire);
        let pid = u32::try_from(owner).ok().filter(|pid| *pid != 0)?;
        Some(Heap {
            pid,
            used: self.load(Word::Used),
            live: self.load(Word::Live),
            limit: self.load(Word::Limit),
            external: self.load(Word::External),
            near_limits: self.load(Word::NearLimits),
            collections: self.load(Word::Collections),
        })
    }

    /// Writes down what V8 allows.
    pub fn set_limit(self, bytes: u64) {
        self.store(Word::Limit, bytes);
    }

    /// Writes down what is in use, and what is kept outside of the heap.
    pub fn set_used(self, used: u64, external: u64) {
        self.store(Word::Used, used);
        self.store(Word::External, external);
    }

    /// A full collection has left so many bytes.
    pub fn collected(self, live: u64) {
        self.store(Word::Live, live);
        self.word(Word::Collections).fetch_add(1, Ordering::Relaxed);
    }

    /// V8 is about to reach the limit: it is taken at its word, until a full collection finds less alive.
    pub fn near_limit(self) {
        self.store(Word::Live, self.load(Word::Live).max(self.load(Word::Limit)));
        self.word(Word::NearLimits).fetch_add(1, Ordering::Relaxed);
    }

    /// The process is about to end; its slot may be used by another.
    pub fn ended(self) {
        self.word(Word::Owner).fetch_or(ENDED, Ordering::Release);
    }

    /// The slot belongs to whoever wants it: its process is gone and could not say so. Nothing, if another has it by now.
    pub fn bury(self, pid: u32) {
        let (old, new) = (u64::from(pid), u64::from(pid) | ENDED);
        let owner = self.word(Word::Owner);
        let _ = owner.compare_exchange(old, new, Ordering::Release, Ordering::Relaxed);
    }

    /// The word that a request changes, whose low half the process waits for.
    pub fn request_word(self) -> &'p AtomicU64 {
        self.word(Word::Request)
    }

    /// Asks for a collection, unless the process's thread has been asked to end. Whoever waits has to be woken by the caller.
    pub fn request(self, collection: Collection) {
        let level = match collection {
            Collection::Moderate => 1,
            Collection::Critical => 2,
        };
        self.change_request(|before| (before & !COUNT != END).then_some(level));
    }

    /// Asks the process's own thread to end.
    pub fn request_end(self) {
        self.change_request(|_| Some(END));
    }

    /// Two may ask at once, and the end has the last word.
    fn change_request(self, what: impl Fn(u64) -> Option<u64>) {
        let next = |before| Some(((before & COUNT) + FIRST) | what(before)?);
        let word = self.word(Word::Request);
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// Requests are told apart by a count above these bits of a word's low half.
const FIRST: u64 = 4;
const COUNT: u64 = (u32::MAX as u64) & !(FIRST - 1);
const END: u64 = 3;

/// What the low half of a request word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing yet.
    None,
    /// A collection.
    Collect(Collection),
    /// The end of the thread that waits.
    End,
}

impl Request {
    /// Reads the low half of a request word.
    pub fn of(word: u32) -> Request {
        match u64::from(word) & (FIRST - 1) {
            1 => Request::Collect(Collection::Moderate),
            2 => Request::Collect(Collection::Critical),
            END => Request::End,
            _ => Request::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Box<[AtomicU64; WORDS]> {
        Box::new([const { AtomicU64::new(0) }; WORDS])
    }

    #[test]
    fn what_is_written_is_read() {
        let words = words();
        assert!(Page::open(&words).is_none(), "nobody has begun it");
        let page = Page::begin(&words);
        let slot = page.register(7, |_| true).expect("room");
        slot.set_limit(64);
        slot.set_used(50, 3);
        slot.collected(40);
        slot.near_limit();
        let heap = Heap {
            pid: 7,
            used: 50,
            live: 64,
            limit: 64,
            external: 3,
            near_limits: 1,
            collections: 1,
        };
        assert_eq!(Page::open(&words).expect("begun").heaps().collect::<Vec<_>>(), [heap]);
        page.set_stage(3);
        assert_eq!(page.stage(), 3);
        assert!(!page.is_quiet());
        page.set_quiet();
        assert!(Page::open(&words).expect("begun").is_quiet());
        assert!(page.is_of(5), "whose it is, is not known");
        page.set_namespace(4);
        assert!(page.is_of(4) && page.is_of(0) && !page.is_of(5));
    }

    #[test]
    fn slots_are_used_again_and_never_shared() {
        let words = words();
        let page = Page::begin(&words);
        for pid in 1..=SLOTS as u32 {
            page.register(pid, |_| true).expect("room").collected(pid.into());
        }
        assert_eq!(page.heaps().count(), SLOTS);
        assert!(page.register(1000, |_| true).is_none(), "all are alive");
        // Another has it by now.
        page.slot_of(9).expect("there").bury(8);
        assert_eq!(page.heaps().count(), SLOTS);
        page.slot_of(9).expect("there").bury(9);
        assert_eq!(page.heaps().count(), SLOTS - 1);
        page.register(1000, |_| true).expect("the slot of 9");
        assert!(page.slot_of(9).is_none());
        page.register(1001, |pid| pid != 20).expect("the slot of 20");
        assert!(page.slot_of(20).is_none());
        // A process that has executed another program finds its own slot, and begins anew.
        let again = page.register(30, |_| true).expect("its own");
        assert_eq!(again.heap().map(|heap| (heap.pid, heap.live)), Some((30, 0)));
        assert_eq!(page.heaps().count(), SLOTS);
    }

    #[test]
    fn each_request_changes_the_word() {
        let words = words();
        let page = Page::begin(&words);
        let slot = page.register(7, |_| true).expect("room");
        let read = || slot.request_word().load(Ordering::Relaxed) as u32;
        assert_eq!(Request::of(read()), Request::None);
        let mut before = read();
        for collection in [Collection::Critical, Collection::Critical, Collection::Moderate] {
            slot.request(collection);
            assert_ne!(read(), before);
            assert_eq!(Request::of(read()), Request::Collect(collection));
            before = read();
        }
        slot.request_end();
        assert_eq!(Request::of(read()), Request::End);
        slot.request(Collection::Critical);
        assert_eq!(Request::of(read()), Request::End, "the end has the last word");
    }
}
