//! Our own terminal: its foreground, its size, and its modes, which are raw only while the child has it.
//!
//! Raw modes are undone on every way out: by [`Screen::give_back`], by dropping the [`Screen`], by the
//! panic hook, and by handlers for the signals that say that nproxy itself is at fault. The last two find
//! what they need in one static, because nothing else is in their reach.

#![allow(unsafe_code)]

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::termios::{
    InputFlags, LocalFlags, OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr,
};
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

    /// Sets it on a pty. The kernel tells the foreground group there, if the size is a new one.
    pub(crate) fn set(self, leader: RawFd) {
        // SAFETY: TIOCSWINSZ reads the struct that it is given.
        unsafe { libc::ioctl(leader, libc::TIOCSWINSZ, &self.0) };
    }
}

/// Our terminal, on an open file of our own that never blocks.
#[derive(Debug)]
pub(crate) struct Screen {
    end: Endpoint,
    hold: Hold,
}

/// Who has set the terminal's modes.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, and it is never moved while it is taken"
)]
enum Hold {
    /// Whoever else is there.
    Away,
    /// We have: the modes as they were, and as we set them.
    Taken { before: Termios, raw: Termios },
}

/// Whether the terminal processes output itself while it is raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhileRaw {
    /// The child's terminal has done that already.
    PlainOutput,
    /// What comes to the screen does not come through the child's terminal.
    ProcessOutput,
}

impl Screen {
    /// Opens the terminal that `fd` refers to. Its own name may not be ours to open (after su(1)), but
    /// /dev/tty is, if it is the same.
    pub(crate) fn open(fd: BorrowedFd<'_>) -> Option<Screen> {
        let wanted = device(fd.as_raw_fd())?;
        let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut opened = [own.as_str(), "/dev/tty"].into_iter().filter_map(Screen::open_path);
        opened.find(|screen| device(screen.fd()) == Some(wanted))
    }

    /// Opens the terminal that controls this session.
    pub(crate) fn controlling() -> Option<Screen> {
        Screen::open_path("/dev/tty")
    }

    fn open_path(path: &str) -> Option<Screen> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let end = Endpoint::new(options.open(path).ok()?.into()).ok()?;
        Some(Screen { end, hold: Hold::Away })
    }

    /// The terminal as the end of a relay.
    pub(crate) fn end(&self) -> &Endpoint {
        &self.end
    }

    fn fd(&self) -> RawFd {
        self.end.fd().as_raw_fd()
    }

    /// Whether `fd` is this terminal.
    pub(crate) fn is(&self, fd: BorrowedFd<'_>) -> bool {
        device(fd.as_raw_fd()).is_some_and(|device_| Some(device_) == device(self.fd()))
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

    pub(crate) fn modes(&self) -> Option<Termios> {
        tcgetattr(self.end.fd()).ok()
    }

    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.hold, Hold::Taken { .. })
    }

    /// Sets the terminal raw: every key reaches the child's terminal as a byte, which makes of it what
    /// ours would have. In the background this stops us, until it may be done. Returns the modes as they
    /// were before.
    pub(crate) fn take(&mut self, output: WhileRaw) -> Option<Termios> {
        let now = self.modes()?;
        let before = match &self.hold {
            // We were stopped without notice, and nobody has touched the modes since.
            Hold::Taken { before, raw } if *raw == now => before.clone(),
            _ => now,
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // What cfmakeraw(3) clears beyond what has to be cleared, and what it leaves.
        raw.input_flags.remove(InputFlags::IXOFF | InputFlags::IXANY | InputFlags::IUCLC);
        raw.local_flags.remove(LocalFlags::TOSTOP);
        if output == WhileRaw::ProcessOutput {
            raw.output_flags |= before.output_flags & OutputFlags::OPOST;
        }
        guard(self.fd(), &before);
        if set_modes(self.fd(), &raw).is_ok() {
            // As the kernel has it: it may not take every flag.
            let raw = self.modes().unwrap_or(raw);
            self.hold = Hold::Taken { before: before.clone(), raw };
        }
        Some(before)
    }

    /// Gives back bytes that were read here and meant for whoever reads next. While the terminal is raw
    /// nothing of it is shown twice. Kernels that forbid this (dev.tty.legacy_tiocsti = 0, Linux 6.2) lose it.
    pub(crate) fn unread(&self, bytes: &[u8]) {
        // SAFETY: TIOCSTI reads the one byte that it is given.
        let mut typed = bytes
            .iter()
            .map(|byte| unsafe { libc::ioctl(self.fd(), libc::TIOCSTI, std::ptr::from_ref(byte)) });
        let _ = typed.all(|result| result == 0);
    }

    /// Changes what [`Screen::give_back`] will set.
    pub(crate) fn change_before(&mut self, modes: Termios) {
        if let Hold::Taken { before, .. } = &mut self.hold {
            *before = modes;
            guard(self.end.fd().as_raw_fd(), before);
        }
    }

    /// Puts the modes back as they were, if the terminal is still ours. Whoever else has it now has
    /// set modes of their own.
    pub(crate) fn give_back(&mut self) {
        let was = std::mem::replace(&mut self.hold, Hold::Away);
        unguard();
        if let Hold::Taken { before, .. } = was
            && self.is_ours()
        {
            let _ = set_modes(self.fd(), &before);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
    }
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
fn device(fd: RawFd) -> Option<u32> {
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
