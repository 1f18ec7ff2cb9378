//! Our own terminal: its foreground, its size, and its modes, which are those that the child has set.
//!
//! If the child does not end by itself, changed modes are undone on every way out: by dropping the [`Screen`], by the
//! panic hook, and by handlers for the signals that say that nproxy itself is at fault. The last two find
//! what they need in one static, because nothing else is in their reach.

#![allow(unsafe_code)]

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::termios::{FlushArg, SetArg, Termios, tcflush, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use crate::relay::Endpoint;
use crate::text::screen::ScreenSize;

/// Rows, columns, and pixels of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(libc::winsize);

impl Size {
    /// What a program assumes that knows nothing of its terminal.
    pub(crate) const DEFAULT: Size =
        Size(libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 });

    /// As a filter has to know it; a side that is 0 is not known.
    pub(crate) fn as_screen(self) -> ScreenSize {
        let default = ScreenSize::default();
        let known = |side, otherwise| if side == 0 { otherwise } else { side };
        ScreenSize {
            rows: known(self.0.ws_row, default.rows),
            columns: known(self.0.ws_col, default.columns),
        }
    }

    /// How many columns it has.
    pub(crate) fn columns(self) -> u16 {
        self.0.ws_col
    }

    pub(crate) fn of(fd: RawFd) -> Option<Size> {
        let mut size = MaybeUninit::<libc::winsize>::zeroed();
        // SAFETY: TIOCGWINSZ fills in the struct that it is given; all zeroes is a valid one.
        let (result, size) =
            unsafe { (libc::ioctl(fd, libc::TIOCGWINSZ, size.as_mut_ptr()), size.assume_init()) };
        (result == 0).then_some(Size(size))
    }

    /// Sets it on a terminal. The kernel tells the foreground group there, if the size is a new one.
    pub(crate) fn set(self, terminal: RawFd) {
        // SAFETY: TIOCSWINSZ reads the struct that it is given.
        unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &self.0) };
    }
}

/// Our terminal, on an open file of our own that never blocks; where it may not be opened anew, on the one that we
/// were given.
#[derive(Debug)]
pub(crate) struct Screen {
    end: Endpoint,
    /// The modes that it had when the run began, once they have been changed for the child.
    before: Option<Termios>,
}

impl Screen {
    /// Opens the terminal that `fd` refers to. Its own name may not be ours to open (after su(1)), but
    /// /dev/tty is, if it is the same.
    pub(crate) fn open(fd: BorrowedFd<'_>) -> Option<Screen> {
        let wanted = device(fd.as_raw_fd())?;
        let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut opened = [own.as_str(), "/dev/tty"].into_iter().filter_map(Screen::open_path);
        let opened = opened.find(|screen| device(screen.fd()) == Some(wanted));
        opened.or_else(|| Screen::new(fd.try_clone_to_owned().ok()?))
    }

    /// Opens the terminal that controls this session.
    pub(crate) fn controlling() -> Option<Screen> {
        Screen::open_path("/dev/tty")
    }

    fn open_path(path: &str) -> Option<Screen> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        Screen::new(options.open(path).ok()?.into())
    }

    fn new(fd: OwnedFd) -> Option<Screen> {
        Some(Screen { end: Endpoint::new(fd).ok()?, before: None })
    }

    pub(crate) fn end(&self) -> &Endpoint {
        &self.end
    }

    fn fd(&self) -> RawFd {
        self.end.fd().as_raw_fd()
    }

    /// Which device it is, whatever the name it was opened by.
    pub(crate) fn device(&self) -> Option<u32> {
        device(self.fd())
    }

    /// Whether `fd` is this terminal.
    pub(crate) fn is(&self, fd: BorrowedFd<'_>) -> bool {
        device(fd.as_raw_fd()).is_some_and(|device| Some(device) == self.device())
    }

    /// Whether we may read from it and set its modes: one that does not control our session knows no
    /// foreground and lets anyone.
    pub(crate) fn is_ours(&self) -> bool {
        match tcgetpgrp(self.end.fd()) {
            Ok(group) => group == getpgrp(),
            Err(errno) => errno == Errno::ENOTTY,
        }
    }

    pub(crate) fn size(&self) -> Option<Size> {
        Size::of(self.fd())
    }

    pub(crate) fn set_size(&self, size: Size) {
        size.set(self.fd());
    }

    pub(crate) fn modes(&self) -> Option<Termios> {
        tcgetattr(self.end.fd()).ok()
    }

    /// Whether its modes are other than those that the run began with.
    pub(crate) fn is_changed(&self) -> bool {
        self.before.is_some()
    }

    /// Sets modes for the child, if we may.
    pub(crate) fn change(&mut self, modes: &Termios) {
        let other = |now: &Termios| !are_equal(now, modes);
        let Some(now) = self.modes().filter(|now| other(now) && self.is_ours()) else { return };
        let before = self.before.take().unwrap_or(now);
        if are_equal(&before, modes) {
            unguard();
        } else {
            guard(self.fd(), &before);
            self.before = Some(before);
        }
        let _ = set_modes(self.fd(), modes);
    }

    /// Throws away what has been typed and not read: the child wants nothing of it.
    pub(crate) fn discard_input(&self) {
        if self.is_ours() {
            let _ = tcflush(self.end.fd(), FlushArg::TCIFLUSH);
        }
    }

    /// Puts the modes back as they were, if the terminal is still ours. Whoever else has it now has
    /// set modes of their own.
    pub(crate) fn restore(&mut self) {
        unguard();
        if let Some(before) = self.before.take()
            && self.is_ours()
        {
            let _ = set_modes(self.fd(), &before);
        }
    }

    /// Leaves the modes as they are now: the child has ended and has left them so.
    pub(crate) fn keep(&mut self) {
        unguard();
        self.before = None;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Whether two sets of modes are the same. (nix compares, beside these, what it was last given by the kernel or gave to it.)
pub(super) fn are_equal(one: &Termios, other: &Termios) -> bool {
    let flags = |modes: &Termios| {
        (modes.input_flags, modes.output_flags, modes.control_flags, modes.local_flags)
    };
    flags(one) == flags(other) && one.control_chars == other.control_chars
}

/// Nothing typed is thrown away (TCSAFLUSH), and nobody is waited for who does not read (TCSADRAIN).
fn set_modes(fd: RawFd, modes: &Termios) -> Result<(), Errno> {
    // SAFETY: the fd is open as long as the `Screen` that it belongs to.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    loop {
        match tcsetattr(fd, SetArg::TCSANOW, modes) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Which device a terminal is: /dev/tty and the name that it stands for are the same.
pub(crate) fn device(fd: RawFd) -> Option<u32> {
    let mut device: libc::c_uint = 0;
    // SAFETY: TIOCGDEV fills in the number that it is given.
    let result = unsafe { libc::ioctl(fd, libc::TIOCGDEV, &mut device) };
    (result == 0).then_some(device)
}

/// What the panic hook and the handlers need.
struct Guarded {
    fd: RawFd,
    before: libc::termios,
}

static GUARDED: AtomicPtr<Guarded> = AtomicPtr::new(ptr::null_mut());

/// The signals that say that nproxy itself is at fault; every other is forwarded, not died of.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
];

fn guard(fd: RawFd, before: &Termios) {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore_guarded();
            inner(info);
        }));
        let flags = SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::Handler(on_fault), flags, SigSet::empty());
        for signal in FAULTS {
            // SAFETY: the handler makes async-signal-safe calls only.
            let _ = unsafe { sigaction(signal, &action) };
        }
    });
    let guarded = Guarded { fd, before: before.clone().into() };
    replace_guarded(Box::into_raw(Box::new(guarded)));
}

fn unguard() {
    replace_guarded(ptr::null_mut());
}

fn replace_guarded(new: *mut Guarded) {
    let old = GUARDED.swap(new, Ordering::AcqRel);
    if !old.is_null() {
        // SAFETY: it came from `Box::into_raw`, and whoever swaps it out is the only one to have it.
        drop(unsafe { Box::from_raw(old) });
    }
}

/// Puts the terminal's modes back from wherever the program is. Async-signal-safe (tcsetattr(3) is);
/// what it takes out is leaked, not freed.
fn restore_guarded() {
    let guarded = GUARDED.swap(ptr::null_mut(), Ordering::AcqRel);
    if !guarded.is_null() {
        // SAFETY: as in `replace_guarded`; the process is about to end.
        unsafe { libc::tcsetattr((*guarded).fd, libc::TCSANOW, &(*guarded).before) };
    }
}

extern "C" fn on_fault(signal: libc::c_int) {
    restore_guarded();
    // SAFETY: raise(3) is async-signal-safe; the handler was installed for one time, so this kills.
    unsafe { libc::raise(signal) };
}
