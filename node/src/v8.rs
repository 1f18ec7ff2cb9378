//! What V8 offers about its heap and Node-API does not: found by name in the running program.
//!
//! V8 is C++, so a name holds the types of what the function takes. A version that changes them has another name, it is not
//! found, and what needs it is off. What no name holds is checked: the layout of `HeapStatistics` by [`V8::find`], and
//! the number of a full collection, the same since V8 10, by the tests.

use std::ffi::{CStr, c_void};

/// A `v8::Isolate`. Never looked into.
#[repr(C)]
pub(crate) struct Isolate([u8; 0]);

/// `v8::NearHeapLimitCallback`: data, the limit now, the limit at first; answers the new limit.
pub(crate) type NearHeapLimit = unsafe extern "C" fn(*mut c_void, usize, usize) -> usize;

/// `v8::Isolate::GCCallbackWithData`: isolate, kind of collection, flags, data.
pub(crate) type Collected = unsafe extern "C" fn(*mut Isolate, i32, i32, *mut c_void);

/// `v8::GCType`: scavenges, the newer kind of them, and full collections.
pub(crate) const ANY_COLLECTION: i32 = 1 | 2 | FULL_COLLECTION;
pub(crate) const FULL_COLLECTION: i32 = 4;

/// `v8::HeapStatistics`: words, of which later versions have more than earlier ones. This is twice what any has.
#[repr(C, align(16))]
struct RawStatistics([usize; 32]);

/// Places of words in [`RawStatistics`].
const TOTAL: usize = 0;
const USED: usize = 4;
const LIMIT: usize = 5;
const EXTERNAL: usize = 7;

/// What V8 says of its heap, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    /// Held from the system.
    pub(crate) total: u64,
    /// In use, garbage included.
    pub(crate) used: u64,
    /// What the old and the young generation may have together.
    pub(crate) limit: u64,
    /// Kept outside of the heap by objects in it.
    pub(crate) external: u64,
}

/// V8's functions, for the isolate of one thread.
#[derive(Clone, Copy)]
pub(crate) struct V8 {
    isolate: *mut Isolate,
    statistics: unsafe extern "C" fn(*mut Isolate, *mut RawStatistics),
    on_collection: Option<unsafe extern "C" fn(*mut Isolate, Collected, *mut c_void, i32)>,
    on_near_limit: Option<unsafe extern "C" fn(*mut Isolate, NearHeapLimit, *mut c_void)>,
    off_near_limit: Option<unsafe extern "C" fn(*mut Isolate, NearHeapLimit, usize)>,
    restore_limit: Option<unsafe extern "C" fn(*mut Isolate, f64)>,
    pressure: Option<unsafe extern "C" fn(*mut Isolate, i32)>,
}

// SAFETY: of what is reached from another thread, `collect` alone is called there, which V8 allows on any thread while
// the isolate lives; whoever does it is stopped before the isolate ends.
unsafe impl Send for V8 {}
// SAFETY: nothing in it changes.
unsafe impl Sync for V8 {}

/// The address of a function in the running program.
fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym(3) only looks for a name.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

macro_rules! function {
    ($name:literal as $type:ty) => {
        // SAFETY: the mangled name holds the types of the arguments, and these are they; member functions take the
        // object as their first argument (Itanium C++ ABI).
        find($name).map(|address| unsafe { std::mem::transmute::<*mut c_void, $type>(address) })
    };
}

impl V8 {
    /// V8's functions for the isolate of this thread; `None` if this program is no Node whose V8 is known. `total`, `used` and
    /// `external` are what Node itself says of the heap: if V8's statistics, read as we believe they are laid out, say
    /// something else, they are laid out otherwise.
    pub(crate) fn find(total: u64, used: u64, external: u64) -> Option<V8> {
        let current =
            function!(c"_ZN2v87Isolate10GetCurrentEv" as unsafe extern "C" fn() -> *mut Isolate)?;
        let v8 = V8 {
            // SAFETY: a static function that takes nothing.
            isolate: unsafe { current() },
            statistics: function!(c"_ZN2v87Isolate17GetHeapStatisticsEPNS_14HeapStatisticsE"
                as unsafe extern "C" fn(*mut Isolate, *mut RawStatistics))?,
            on_collection: function!(
                c"_ZN2v87Isolate21AddGCEpilogueCallbackEPFvPS0_NS_6GCTypeENS_15GCCallbackFlagsEPvES4_S2_"
                as unsafe extern "C" fn(*mut Isolate, Collected, *mut c_void, i32)),
            on_near_limit: function!(c"_ZN2v87Isolate24AddNearHeapLimitCallbackEPFmPvmmES1_"
                as unsafe extern "C" fn(*mut Isolate, NearHeapLimit, *mut c_void)),
            off_near_limit: function!(c"_ZN2v87Isolate27RemoveNearHeapLimitCallbackEPFmPvmmEm"
                as unsafe extern "C" fn(*mut Isolate, NearHeapLimit, usize)),
            restore_limit: function!(c"_ZN2v87Isolate36AutomaticallyRestoreInitialHeapLimitEd"
                as unsafe extern "C" fn(*mut Isolate, f64)),
            pressure: function!(
                c"_ZN2v87Isolate26MemoryPressureNotificationENS_19MemoryPressureLevelE"
                as unsafe extern "C" fn(*mut Isolate, i32)),
        };
        if v8.isolate.is_null() {
            return None;
        }
        let said = v8.statistics();
        // A call between the two may have allocated a little.
        const SLACK: u64 = 4 << 20;
        let same = said.total.abs_diff(total) <= SLACK
            && said.used.abs_diff(used) <= SLACK
            && said.external.abs_diff(external) <= SLACK
            && said.used <= said.total
            && said.limit >= said.total
            && said.limit.is_multiple_of(1 << 10);
        same.then_some(v8)
    }

    /// What V8 says of its heap. On the isolate's thread only.
    pub(crate) fn statistics(&self) -> Statistics {
        let mut raw = RawStatistics([0; 32]);
        // SAFETY: the isolate is that of this thread, and there is more room than any version fills.
        unsafe { (self.statistics)(self.isolate, &mut raw) };
        let word = |place: usize| raw.0[place] as u64;
        Statistics {
            total: word(TOTAL),
            used: word(USED),
            limit: word(LIMIT),
            external: word(EXTERNAL),
        }
    }

    /// Has `callback` called after each collection, with `data`. Whether V8 could be asked.
    pub(crate) fn on_collection(&self, callback: Collected, data: *mut c_void) -> bool {
        let Some(add) = self.on_collection else { return false };
        // SAFETY: on the isolate's thread; the callback and what `data` points to stay for ever.
        unsafe { add(self.isolate, callback, data, ANY_COLLECTION) };
        true
    }

    /// Has `callback` called before the heap is full, with `data`. V8 asks only who came last. Whether V8 could be asked.
    pub(crate) fn on_near_limit(&self, callback: NearHeapLimit, data: *mut c_void) -> bool {
        // One that could not be taken back would keep others from being asked.
        let (Some(add), Some(_)) = (self.on_near_limit, self.off_near_limit) else {
            return false;
        };
        // SAFETY: as above.
        unsafe { add(self.isolate, callback, data) };
        true
    }

    /// Takes `callback` back. May be called from within it.
    pub(crate) fn off_near_limit(&self, callback: NearHeapLimit) {
        if let Some(remove) = self.off_near_limit {
            // SAFETY: it was added, and is taken back once. V8 has copied what it needs before it calls back. A limit of
            // 0 leaves the limit as it is.
            unsafe { remove(self.isolate, callback, 0) };
        }
    }

    /// Has the limit go back to what it was at first once so large a part of it is alive.
    pub(crate) fn restore_limit_at(&self, part: f64) {
        if let Some(restore) = self.restore_limit {
            // SAFETY: on the isolate's thread; it sets a number.
            unsafe { restore(self.isolate, part) };
        }
    }

    /// Asks for a collection: level 1 is moderate, 2 critical. On any thread while the isolate lives.
    pub(crate) fn collect(&self, level: i32) {
        if let Some(pressure) = self.pressure {
            // SAFETY: see the type's own Send.
            unsafe { pressure(self.isolate, level) };
        }
    }
}
