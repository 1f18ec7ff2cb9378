//! Which signals nproxy takes, how they reach the loop, and how it dies by one.
//!
//! Everything that may be forwarded is blocked before the child exists and read from a signalfd, so
//! signals and the child's exit come to the loop in order, through the ring. What was ignored when
//! nproxy started stays ignored, here and in the child.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::startup::{self, is_ignored};
use crate::error::Error;
use crate::ring::Fd;

/// Signals that are nproxy's own affair: those that cannot be blocked, those that say that nproxy itself
/// is at fault, and the two with which the terminal stops a reader or writer in the background.
const NEVER_TAKEN: [i32; 10] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The signals taken, and the state they were in before.
#[derive(Debug)]
pub(crate) struct Signals {
    source: SignalFd,
    fd: Fd,
    inherited_mask: SigSet,
    /// SIGCHLD was ignored: the child gets it back that way, we cannot use it so.
    sigchld_was_ignored: bool,
}

/// Who is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// All of our process group: without nproxy the child would have been in it, and sent this to all of it.
    OurGroup,
    /// This process alone.
    Ourselves,
}

/// What the kernel says of one signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) signal: i32,
    /// The terminal (or the kernel in its name) sent it to the whole foreground group.
    pub(crate) from_terminal: bool,
    /// What came with it by sigqueue(3).
    pub(crate) payload: Option<u64>,
}

impl Arrival {
    /// Whether somebody else than the terminal asks us to end.
    pub(crate) fn asks_to_end(self) -> bool {
        ENDS.contains(&self.signal) && !self.from_terminal
    }
}

impl Signals {
    /// Blocks every signal that may be forwarded and opens a signalfd for them.
    ///
    /// # Errors
    /// What signalfd(2) says.
    pub(crate) fn take() -> Result<Signals, Error> {
        let sigchld_was_ignored = is_ignored(libc::SIGCHLD);
        wait_for_children().map_err(not_taken)?;
        Signals::of(takable(), sigchld_was_ignored)
    }

    /// The same for those alone that ask a program to end, but for what was ignored or blocked before; and for SIGCONT,
    /// which tells that there was a stop.
    ///
    /// # Errors
    /// As [`Signals::take`].
    pub(crate) fn take_interrupts() -> Result<Signals, Error> {
        let blocked = SigSet::thread_get_mask().map_err(not_taken)?;
        let mut taken = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCONT] {
            if !is_ignored(signal as i32) && !blocked.contains(signal) {
                taken.add(signal);
            }
        }
        Signals::of(taken, false)
    }

    fn of(taken: SigSet, sigchld_was_ignored: bool) -> Result<Signals, Error> {
        let inherited_mask = taken.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(not_taken)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let source = SignalFd::with_flags(&taken, flags).map_err(not_taken)?;
        let fd = std::os::fd::AsFd::as_fd(&source).try_clone_to_owned();
        let fd: OwnedFd = fd.map_err(not_taken)?;
        Ok(Signals { source, fd: Rc::new(fd), inherited_mask, sigchld_was_ignored })
    }

    /// The fd that becomes readable when a signal has arrived.
    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// The next signal that has arrived, but for those that nproxy sent itself. (SIGCHLD only asks to look once more, and
    /// a SIGCONT from sigqueue(3) stands for somebody else's.)
    pub(crate) fn next(&self) -> Option<Arrival> {
        loop {
            let info = self.source.read_signal().ok().flatten()?;
            let own = info.ssi_code <= 0 && info.ssi_pid == std::process::id();
            let signal = info.ssi_signo as i32;
            let replaced = signal == libc::SIGCONT && info.ssi_code == libc::SI_QUEUE;
            if !own || signal == libc::SIGCHLD || replaced {
                // A timer that was set before exec(2) is ours alone: the kernel speaks, but to nobody else.
                let timer = matches!(signal, libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF);
                let from_terminal = info.ssi_code == libc::SI_KERNEL && !timer;
                let payload = (info.ssi_code == libc::SI_QUEUE).then_some(info.ssi_ptr);
                return Some(Arrival { signal, from_terminal, payload });
            }
        }
    }

    /// What the child needs to start with the signal state that nproxy was started with.
    pub(crate) fn inheritance(&self) -> Inheritance {
        Inheritance {
            mask: self.inherited_mask,
            ignore_sigpipe: startup::sigpipe_was_ignored(),
            ignore_sigxfsz: startup::sigxfsz_was_ignored(),
            ignore_sigchld: self.sigchld_was_ignored,
            parent_death: prctl::get_pdeathsig().ok().flatten(),
            subreaper: prctl::get_child_subreaper().unwrap_or(false),
        }
    }

    /// Gives signals their inherited effect back: from here on they end nproxy, not the child.
    pub(crate) fn release(&self) {
        let _ = self.inherited_mask.thread_set_mask();
    }

    /// Whether a signal was blocked before.
    pub(crate) fn was_blocked(&self, signal: i32) -> bool {
        Signal::try_from(signal).is_ok_and(|signal| self.inherited_mask.contains(signal))
    }

    /// Gives signals their inherited effect back, and this one its effect now.
    pub(crate) fn raise(&self, signal: i32) {
        self.release();
        // SAFETY: raise(3) has no memory effects; no handler of ours but those for faults is installed.
        unsafe { libc::raise(signal) };
    }

    /// Whether a SIGCONT has arrived that nobody has read yet.
    pub(crate) fn continue_is_pending(&self) -> bool {
        is_pending(&[libc::SIGCONT])
    }

    /// Stops this process by `signal` until it is continued, with the signal's default effect.
    ///
    /// Not if it has just been asked to end: whoever does so to what may have stopped (timeout(1), a shell that leaves)
    /// continues it as well, and a SIGCONT that comes before the stop is thrown away by it. Then one that replaces it is
    /// about to be read.
    pub(crate) fn stop(&self, whom: Whom, signal: i32) {
        let stop = if is_ignored(signal) { libc::SIGSTOP } else { signal };
        let mut only = SigSet::empty();
        add(&mut only, stop);
        // The two of a background terminal are never taken.
        let _ = only.thread_block();
        if !is_asked_to_end() {
            // SAFETY: kill(2) and raise(3) have no memory effects; no handler is installed.
            unsafe {
                match whom {
                    Whom::OurGroup if stop == signal => libc::kill(0, signal),
                    Whom::OurGroup | Whom::Ourselves => libc::raise(stop),
                }
            };
        }
        if is_asked_to_end() {
            // SAFETY: neither has memory effects. The first is the one that is read, because it came first.
            unsafe {
                let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
                libc::sigqueue(libc::getpid(), libc::SIGCONT, value);
                if whom == Whom::OurGroup {
                    libc::kill(0, libc::SIGCONT);
                }
            }
        }
        // Blocked until now, it takes effect here, and this returns when SIGCONT comes.
        let _ = only.thread_unblock();
        if stop != libc::SIGTTIN && stop != libc::SIGTTOU {
            let _ = only.thread_block();
        }
    }
}

/// The signal state that the child starts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inheritance {
    mask: SigSet,
    ignore_sigpipe: bool,
    ignore_sigxfsz: bool,
    ignore_sigchld: bool,
    /// Set for nproxy before exec(2), which keeps it; fork(2) does not (prctl(2)).
    parent_death: Option<Signal>,
    subreaper: bool,
}

impl Inheritance {
    /// Sets this process up so. Runs in the child, in our memory: system calls only.
    ///
    /// # Errors
    /// What sigaction(2) or sigprocmask(2) says.
    pub(crate) fn apply(&self) -> Result<(), Errno> {
        let handler = |ignored| if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        set_disposition(libc::SIGPIPE, handler(self.ignore_sigpipe))?;
        set_disposition(libc::SIGXFSZ, handler(self.ignore_sigxfsz))?;
        set_disposition(libc::SIGCHLD, handler(self.ignore_sigchld))?;
        if self.parent_death.is_some() {
            prctl::set_pdeathsig(self.parent_death)?;
        }
        if self.subreaper {
            prctl::set_child_subreaper(true)?;
        }
        self.mask.thread_set_mask()
    }
}

/// Has a write beyond RLIMIT_FSIZE fail with EFBIG, which is then that file's error and no other's, where the kernel
/// would end this process by SIGXFSZ.
pub(crate) fn outlive_file_size_limit() {
    let _ = set_disposition(libc::SIGXFSZ, SigHandler::SigIgn);
}

/// Has children that end wait for us to ask for their status. Where SIGCHLD was ignored when nproxy was started, the kernel would
/// reap them behind our back.
///
/// # Errors
/// What sigaction(2) says.
pub(super) fn wait_for_children() -> Result<(), Errno> {
    match is_ignored(libc::SIGCHLD) {
        true => set_disposition(libc::SIGCHLD, SigHandler::SigDfl),
        false => Ok(()),
    }
}

/// Dies by `signal`, without a core dump: the child has left its own. Returns only if the signal does
/// not kill, as for pid 1.
pub(crate) fn die_by(signal: i32) {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
    let _ = prctl::set_dumpable(false);
    let _ = set_disposition(signal, SigHandler::SigDfl);
    let mut only = SigSet::empty();
    add(&mut only, signal);
    let _ = only.thread_unblock();
    // SAFETY: raise(3) has no memory effects; the default disposition runs no code of ours.
    unsafe { libc::raise(signal) };
}

fn set_disposition(signal: i32, handler: SigHandler) -> Result<(), Errno> {
    // Real-time signals never get here: their disposition is left as it was inherited.
    let Ok(signal) = Signal::try_from(signal) else { return Ok(()) };
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: only default or ignore is ever set, so no code of ours runs in a handler.
    unsafe { sigaction(signal, &action) }.map(drop)
}

fn not_taken(error: impl Into<io::Error>) -> Error {
    Error::os("take over signals", error)
}

/// Every signal that may be forwarded, and SIGCHLD.
fn takable() -> SigSet {
    let mut taken = SigSet::empty();
    for signal in 1..=libc::SIGRTMAX() {
        let ignored = match signal {
            libc::SIGPIPE => startup::sigpipe_was_ignored(),
            libc::SIGXFSZ => startup::sigxfsz_was_ignored(),
            _ => is_ignored(signal),
        };
        if !NEVER_TAKEN.contains(&signal) && !ignored {
            add(&mut taken, signal);
        }
    }
    taken
}

/// The signals by which programs are asked to end.
const ENDS: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Whether such a signal has arrived that is yet to be read. What is ignored is read by nobody.
fn is_asked_to_end() -> bool {
    ENDS.iter().any(|signal| is_pending(&[*signal]) && !is_ignored(*signal))
}

/// Whether one of these has arrived that nobody has read yet.
fn is_pending(signals: &[i32]) -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: sigpending(2) fills in the set that it is given; all zeroes is an empty one.
    unsafe {
        libc::sigpending(pending.as_mut_ptr());
        signals.iter().any(|signal| libc::sigismember(pending.as_ptr(), *signal) == 1)
    }
}

/// Adds a signal that `nix::Signal` may not name, such as a real-time one.
fn add(set: &mut SigSet, signal: i32) {
    let mut raw = *set.as_ref();
    // SAFETY: `raw` is an initialised set; a number the C library keeps for itself is refused, not added.
    unsafe {
        libc::sigaddset(&mut raw, signal);
        *set = SigSet::from_sigset_t_unchecked(raw);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::kill;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork, setpgid};

    use super::*;

    /// What becomes of a process that is to stop after these signals have come unread. If it does not, its exit code says
    /// whether a SIGCONT is to be read.
    fn stopped_after(arrived: &[Signal], stop: i32) -> WaitStatus {
        // Whoever runs the tests may ignore some, as nohup(1) does.
        for signal in ENDS {
            set_disposition(signal, SigHandler::SigDfl).expect("sigaction");
        }
        let signals = Signals::take().expect("signals");
        // SAFETY: the copy makes system calls only.
        let process = match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // The kernel stops no group whose session would not notice.
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                for signal in arrived {
                    // SAFETY: it is blocked.
                    unsafe { libc::raise(*signal as i32) };
                }
                signals.stop(Whom::Ourselves, stop);
                let told = signals.continue_is_pending();
                // SAFETY: ends the copy at once.
                unsafe { libc::_exit(i32::from(told)) }
            }
        };
        signals.release();
        let status = waitpid(process, Some(WaitPidFlag::WUNTRACED)).expect("waitpid");
        if matches!(status, WaitStatus::Stopped(..)) {
            kill(process, Signal::SIGKILL).expect("kill");
            waitpid(process, None).expect("waitpid");
        }
        status
    }

    #[test]
    fn a_stop_does_not_outlast_an_end_that_was_asked_for() {
        for stop in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
            for arrived in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
                let status = stopped_after(&[arrived, Signal::SIGCONT], stop);
                assert!(matches!(status, WaitStatus::Exited(_, 1)), "{arrived} {stop}: {status:?}");
            }
            for arrived in [&[][..], &[Signal::SIGUSR1], &[Signal::SIGCONT]] {
                let status = stopped_after(arrived, stop);
                assert!(
                    matches!(status, WaitStatus::Stopped(..)),
                    "{arrived:?} {stop}: {status:?}"
                );
            }
        }
    }
}
