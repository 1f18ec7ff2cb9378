//! What `nproxy.js` loads into a Node process: figures of the V8 heap in a page that nproxy reads, a line before V8 gives
//! up, collections when memory is short; and where no nproxy is around the process, the memory guard and the text modes too.
//!
//! ```text
//!     nproxy.js ─ attach ─▶ v8 (found by name) ─▶ heap: after each collection, near the limit ─▶ slot of the page
//!               ─ text ───▶ nproxy's filters                                                      │
//!                           thread: requests, or the guard ◀──────────────────────────────────────┘
//! ```
//!
//! Everything is called on the main thread, but for `thread` and what it owns.

mod heap;
mod napi;
mod notice;
mod page;
mod text;
mod thread;
mod v8;
mod watch;

use std::ffi::c_void;
use std::sync::Mutex;
use std::time::Instant;

use nproxy::cli::{Cli, Request};
use nproxy::config::{Config, Machine, StdinIs, Verbosity};
use nproxy::memory::heap::is_alive;
use nproxy::memory::heap_page::{Page, Slot, VARIABLE};
use nproxy::memory::policy::{Degrade, Stage};

use heap::{Heap, Snapshot, Told};
use napi::{Answer, Call, RawEnv, RawInfo, RawValue};
use text::{TextStream, Wanted};
use thread::Thread;
use v8::V8;
use watch::Watch;

/// What this process has: one, whatever loads us.
static PROCESS: Mutex<Option<Process>> = Mutex::new(None);

struct Process {
    page: Page<'static>,
    slot: Slot<'static>,
    heap: Option<&'static Heap>,
    thread: Option<Thread>,
    text: [Option<TextStream>; 2],
    degrade: Degrade,
}

/// What Node's own flags say of the heap.
#[derive(Clone, Copy)]
struct Asked {
    /// What the old generation may have, in bytes; 0 if it was not named.
    limit: u64,
    snapshot: Snapshot,
}

/// Answers of `attach` that are no message.
const ALONE: &str = "alone";
const WRAPPED: &str = "wrapped";

impl Process {
    /// `known` is what Node says of the heap: held, used and external bytes.
    fn attach(known: [u64; 3], asked: Asked) -> Result<(Process, &'static str), String> {
        // SAFETY: both calls only ask.
        if unsafe { libc::gettid() != libc::getpid() } {
            return Err("not the main thread".to_owned());
        }
        let [total, used, external] = known;
        let v8 = V8::find(total, used, external);
        match std::env::var(VARIABLE) {
            Ok(path) => Process::wrapped(&path, v8, asked),
            Err(_) => Process::alone(v8, asked),
        }
    }

    /// Under an nproxy, which reads our page and does everything else itself.
    fn wrapped(
        path: &str,
        v8: Option<V8>,
        asked: Asked,
    ) -> Result<(Process, &'static str), String> {
        let v8 = v8.ok_or("this version's V8 is not known")?;
        let page = page::shared(path).map_err(|error| format!("open {path}: {error}"))?;
        if !page.is_of(page::pid_namespace()) {
            return Err("in another PID namespace than nproxy".to_owned());
        }
        let slot = page.register(std::process::id(), is_alive).ok_or("no slot is free")?;
        let told = if page.is_quiet() { Told::No } else { Told::Yes };
        let heap = Heap::new(v8, slot, asked.limit, told, asked.snapshot);
        let thread = Thread::start(slot, Some(heap), None).ok();
        let (text, degrade) = ([None, None], Degrade::Never);
        Ok((Process { page, slot, heap: Some(heap), thread, text, degrade }, WRAPPED))
    }

    /// With no nproxy around us.
    fn alone(v8: Option<V8>, asked: Asked) -> Result<(Process, &'static str), String> {
        let config = match Cli::parse_words(vec!["nproxy".into()]) {
            Ok(cli) => Config::new(cli, StdinIs::Stream, &Machine::default())
                .map_err(|error| format!("{error} (see nproxy --help)"))?,
            Err(Request::Refuse(why) | Request::Print(why)) => return Err(why),
        };
        let page = page::own();
        let slot = page.register(std::process::id(), is_alive).ok_or("no slot is free")?;
        let now = Instant::now();
        let watch = Watch::new(&config, page, now);
        let told = if config.verbosity == Verbosity::Quiet { Told::No } else { Told::Yes };
        let heap = match &watch {
            Some(_) => v8.map(|v8| Heap::new(v8, slot, asked.limit, told, asked.snapshot)),
            None => None,
        };
        let thread = watch.and_then(|watch| Thread::start(slot, heap, Some(watch)).ok());
        let text = [1, 2].map(|fd| TextStream::new(&config.output.text, fd, now));
        let degrade = config.memory.settings.degrade;
        Ok((Process { page, slot, heap, thread, text, degrade }, ALONE))
    }

    fn detach(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
        // What exit handlers still do with the heap goes nowhere: the slot may be another process's.
        self.heap.iter().for_each(|heap| heap.forget_slot());
        // This runs twice, and by then the slot may be another's.
        self.slot.bury(std::process::id());
    }
}

/// Calls `then` with what this process has, once `attach` has made it.
fn with_process<T>(then: impl FnOnce(&mut Process) -> T) -> Option<T> {
    PROCESS.lock().ok()?.as_mut().map(then)
}

/// `attach(heapTotal, heapUsed, external, oldSpaceLimit, snapshotIsAsked)`: begins. Answers `alone`, `wrapped`, or why it does nothing.
fn attach(call: Call) -> Answer {
    let known = [0, 1, 2].map(|index| call.number(index) as u64);
    let snapshot = if call.number(4) != 0.0 { Snapshot::Asked } else { Snapshot::None };
    let answer = Process::attach(known, Asked { limit: call.number(3) as u64, snapshot });
    match answer {
        Ok((process, how)) => {
            *PROCESS.lock().ok()? = Some(process);
            call.answer_text(how)
        }
        Err(why) => call.answer_text(&why),
    }
}

/// `detach()`: no thread of ours runs when it returns. What has been registered with V8 stays.
fn detach(_: Call) -> Answer {
    with_process(Process::detach);
    None
}

/// `stage()`: 0 for monitoring, to 4 for emergency.
fn stage(call: Call) -> Answer {
    let place = with_process(|process| process.page.stage()).unwrap_or(0);
    call.answer_number(place as f64)
}

/// `hasText(fd)`: 1 if something is done to what goes to fd 1 or 2, else 0.
fn has_text(call: Call) -> Answer {
    let has = with_process(|process| {
        let index = if call.number(0) == 1.0 { 0 } else { 1 };
        process.text[index].is_some()
    });
    call.answer_number(if has == Some(true) { 1.0 } else { 0.0 })
}

/// `filter(fd, buffer)`: what becomes of the Buffer, as another one.
fn filter(call: Call) -> Answer {
    with_process(|process| {
        let stage = Stage::ALL.get(process.page.stage()).copied().unwrap_or(Stage::Monitoring);
        let wanted = match process.degrade {
            Degrade::Auto if stage >= Stage::Pressure => Wanted::Off,
            _ => Wanted::On,
        };
        let index = if call.number(0) == 1.0 { 0 } else { 1 };
        let stream = process.text[index].as_mut()?;
        call.with_bytes(1, |bytes| call.answer_bytes(stream.filter(bytes, wanted)))?
    })?
}

macro_rules! callbacks {
    ($($function:ident as $callback:ident),+ $(,)?) => {$(
        unsafe extern "C" fn $callback(env: RawEnv, info: RawInfo) -> RawValue {
            // SAFETY: Node has just called us with these.
            let call = unsafe { Call::new(env, info) };
            $function(call).unwrap_or(std::ptr::null_mut())
        }
    )+};
}

callbacks!(
    attach as on_attach,
    detach as on_detach,
    stage as on_stage,
    has_text as on_has_text,
    filter as on_filter,
);

unsafe extern "C" fn before_end(_: *mut c_void) {
    with_process(Process::detach);
}

/// Node calls this when the addon is loaded, in each thread that loads it.
///
/// # Safety
/// For Node to call, on the thread of the environment.
#[unsafe(no_mangle)]
unsafe extern "C" fn napi_register_module_v1(env: RawEnv, exports: RawValue) -> RawValue {
    // SAFETY: Node has just called us with these.
    unsafe {
        napi::export(env, exports, c"attach", on_attach);
        napi::export(env, exports, c"detach", on_detach);
        napi::export(env, exports, c"stage", on_stage);
        napi::export(env, exports, c"hasText", on_has_text);
        napi::export(env, exports, c"filter", on_filter);
        // SAFETY: both calls only ask.
        if libc::gettid() == libc::getpid() {
            napi::before_end(env, before_end);
        }
    }
    exports
}
