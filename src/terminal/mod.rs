//! The child's terminal, a pty, and ours.
//!
//! One rule: our terminal's modes are the child's modes. The pty neither edits lines nor echoes nor makes signals of keys
//! (EXTPROC in ioctl_tty(2)); our terminal does, in whatever mode the child asks for, as it would without nproxy. Each
//! change of modes is told by the leader (TIOCPKT) and followed here. Who stops and continues whom is in
//! `session/job_control.rs`.

mod keys;
mod pty;
mod screen;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, isatty, tcgetpgrp};

use crate::config::{PtyMode, StdinMode, Verbosity, Wrap};
use crate::error::Error;
use crate::notice;
use crate::process::fds::standard;
use crate::process::procfs;
use crate::process::spawn::Placement;
use crate::process::startup;
use crate::relay::{Endpoint, Stream};
use crate::ring::{Operation, Ring};
use crate::text::newline::Newlines;
use crate::text::screen::ScreenSize;
use keys::{Ends, Keys, Typist};
use pty::Discipline;
use screen::{Screen, Size, are_equal, device};

/// How long a program that turns EXTPROC off has to look at what it has set, before it is turned on again; longer while it
/// is kept from running, but not for ever.
const READ_BACK: Duration = Duration::from_millis(2);
const LONGEST_READ_BACK: Duration = Duration::from_millis(100);

/// The child has thrown away what was typed (TIOCPKT_FLUSHREAD in ioctl_tty(2)).
const FLUSHREAD: u8 = 1;

/// What a pty can hold, in bytes, and its leader cannot have been asked for yet.
const IN_FLIGHT: u64 = 16 << 10;

/// The child's terminal and ours.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Until the terminal is hung up.
    leader: Option<Endpoint>,
    /// Until the child has ended: without one, the leader would read EIO whenever nobody happens to have it open.
    follower: Option<OwnedFd>,
    /// The leaders of ptys for single streams, which control no session.
    sides: Vec<Weak<OwnedFd>>,
    screen: Option<Screen>,
    /// If our terminal's modes are the child's.
    keys: Option<Keys>,
    /// Which of our streams carries what comes from it.
    carrier: Stream,
    discipline: Discipline,
    size: Size,
    /// What the child's side is, as a device.
    device: u64,
    /// The modes of the child's terminal when they were last looked at, and how lines end that come from it.
    seen: Option<Termios>,
    newlines: Newlines,
    /// Output processing or echo has been turned on: it is to be on for us too once so many bytes have been taken from the
    /// pty. What was written before must not meet it.
    due: Option<u64>,
    pub(crate) stop: Option<Stop>,
    hang_up: HangUp,
}

/// Whether the users of the child's terminal know that it will be hung up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUp {
    /// It will not.
    None,
    /// Our own terminal is gone: they are to be told.
    Due,
    /// They have been told, or are about to be.
    Said,
}

/// The child has stopped, and we are about to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) signal: i32,
    /// When we stop even if output still waits.
    pub(crate) deadline: Instant,
}

/// Whether one of our standard fds is a terminal.
pub(crate) fn is_terminal(number: usize) -> bool {
    !startup::was_closed(number) && isatty(standard(number)).unwrap_or(false)
}

/// Opens a pty for a single stream whose reader is some other terminal or none: it processes no output. The end to read
/// from, and the child's end.
///
/// # Errors
/// What the system says.
pub(crate) fn open_side(
    terminal: Option<&mut Terminal>,
    sink: &Endpoint,
) -> Result<(Endpoint, OwnedFd), Error> {
    let size = Size::of(sink.fd().as_raw_fd()).or(terminal.as_ref().map(|terminal| terminal.size));
    let opened = pty::open(None, size.unwrap_or(Size::DEFAULT), Discipline::Typed);
    let (leader, follower) = opened.map_err(|errno| Error::os("open a pty", errno))?;
    if let Some(terminal) = terminal {
        terminal.sides.push(Rc::downgrade(leader.fd()));
    }
    Ok((leader, follower))
}

impl Terminal {
    /// The size of the child's side, as a filter has to know it.
    pub(crate) fn screen_size(&self) -> ScreenSize {
        self.size.as_screen()
    }

    /// Opens a pty if the run calls for one: `auto` does if our stdout or stderr is the terminal that controls our session,
    /// or any terminal if none does.
    ///
    /// # Errors
    /// If there is no pty to be had and one was asked for.
    pub(crate) fn open(wrap: &Wrap, verbosity: Verbosity) -> Result<Option<Terminal>, Error> {
        let shown = |screen: &Screen, fd| is_terminal(fd) && screen.is(standard(fd));
        let controlling = Screen::controlling();
        let screen = match (wrap.pty, controlling) {
            (PtyMode::Never, _) => return Ok(None),
            (_, Some(screen)) => Some(screen),
            (_, None) => [1, 2]
                .into_iter()
                .filter(|fd| is_terminal(*fd))
                .find_map(|fd| Screen::open(standard(fd))),
        };
        let on = |fd| screen.as_ref().is_some_and(|screen| shown(screen, fd));
        let carrier = if on(2) && !on(1) { Stream::Stderr } else { Stream::Stdout };
        if wrap.pty == PtyMode::Auto && !on(1) && !on(2) {
            return Ok(None);
        }
        let fed = wrap.stdin == StdinMode::Relay && wrap.pty == PtyMode::Always && !on(0);
        let discipline = match &screen {
            _ if fed => Discipline::Fed,
            Some(_) => Discipline::OfOurs,
            None => Discipline::Typed,
        };
        let size = screen.as_ref().and_then(Screen::size).unwrap_or(Size::DEFAULT);
        let modes = screen.as_ref().and_then(Screen::modes);
        let (leader, follower) = match pty::open(modes.as_ref(), size, discipline) {
            Ok(opened) => opened,
            Err(errno) => {
                let error = Error::os("open a pty", errno);
                if wrap.pty == PtyMode::Always {
                    return Err(error);
                }
                notice::decision(verbosity, &format!("{error}; going on with pipes"));
                return Ok(None);
            }
        };
        let mut terminal = Terminal {
            device: device(follower.as_raw_fd()).unwrap_or_default().into(),
            leader: Some(leader),
            follower: Some(follower),
            sides: Vec::new(),
            keys: (discipline == Discipline::OfOurs).then(Keys::new),
            screen,
            carrier,
            discipline,
            size,
            seen: None,
            newlines: Newlines::AsTheyAre,
            due: None,
            stop: None,
            hang_up: HangUp::None,
        };
        if let Some(modes) = terminal.changed_modes() {
            terminal.newlines = pty::newlines(&modes);
        }
        Ok(Some(terminal))
    }

    /// Whether one of our own fds is the terminal that the child's stands for.
    pub(crate) fn stands_for(&self, fd: usize) -> bool {
        is_terminal(fd) && self.screen.as_ref().is_some_and(|screen| screen.is(standard(fd)))
    }

    /// Which of our streams carries what comes from the child's terminal.
    pub(crate) fn carrier(&self) -> Stream {
        self.carrier
    }

    /// Whether our stdin, which is something else, is what is typed at the child's terminal.
    pub(crate) fn is_fed(&self) -> bool {
        self.discipline == Discipline::Fed
    }

    /// Another end of the child's side.
    ///
    /// # Errors
    /// If there are no more fds.
    pub(crate) fn follower(&self) -> Result<OwnedFd, Error> {
        let follower = self.follower.as_ref().map_or(Err(Errno::EIO.into()), OwnedFd::try_clone);
        follower.map_err(|error| Error::os("open a pty", error))
    }

    /// The end that the child's output is read from, until it is hung up.
    pub(crate) fn leader(&self) -> Option<&Endpoint> {
        self.leader.as_ref()
    }

    /// What the child's side is, as a device number.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Whether we have our terminal's foreground.
    pub(crate) fn is_ours(&self) -> bool {
        self.screen.as_ref().is_some_and(Screen::is_ours)
    }

    /// Where the child's group belongs now: where we are.
    pub(crate) fn placement(&self) -> Placement {
        let foreground = self.keys.is_none() || self.is_ours();
        if foreground { Placement::Foreground } else { Placement::Background }
    }

    /// Sends the foreground group of the child's terminal what a key sends. False if that does not do it.
    pub(crate) fn signal(&self, signal: i32) -> bool {
        self.leader.as_ref().is_some_and(|leader| pty::signal(leader.fd(), signal).is_ok())
    }

    /// Passes on what has been typed, if somebody waits for it.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn turn(&mut self, ring: &mut Ring, now: Instant) -> io::Result<()> {
        if let (Some(keys), Some(screen), Some(leader), Some(follower), None) =
            (&mut self.keys, &self.screen, &self.leader, &self.follower, self.stop)
        {
            let ends = Ends { screen, leader: leader.fd(), follower, device: self.device };
            if keys.turn(ends, ring, now)? == Typist::Gone && self.hang_up == HangUp::None {
                self.hang_up = HangUp::Due;
            }
        }
        Ok(())
    }

    pub(crate) fn polled(&mut self, operation: Operation) {
        self.keys.iter_mut().for_each(|keys| keys.polled(operation));
    }

    /// When [`Terminal::turn`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let typed = self.leader.is_some() && self.follower.is_some() && self.stop.is_none();
        self.keys.as_ref()?.deadline().filter(|_| typed)
    }

    /// The leader has told of something (TIOCPKT), and all that was read before has been passed on; `taken` says how much
    /// that is. How lines end that come from here on.
    pub(crate) fn on_status(&mut self, status: u8, taken: u64) -> Newlines {
        if let Some(screen) = &self.screen
            && status & FLUSHREAD != 0
            && self.follower.is_some()
        {
            screen.discard_input();
        }
        self.adopt_size();
        if let Some(childs) = self.changed_modes()
            && let Some(now) = self.screen.as_ref().and_then(Screen::modes)
        {
            // What was written before is still to come, and must not be processed a second time.
            let mut first = childs.clone();
            first.output_flags.remove(OutputFlags::OPOST.difference(now.output_flags));
            first.local_flags.remove(LocalFlags::ECHO.difference(now.local_flags));
            self.due = (first != childs).then_some(taken + IN_FLIGHT);
            self.change(&first);
            self.newlines = pty::newlines(&first);
        }
        self.newlines
    }

    /// Whether something waits to be turned on.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// Turns on what has waited for earlier output, if that is through: so much has been taken from the pty, and nothing
    /// waits there if `empty`. How lines end from here on.
    pub(crate) fn on_passed(&mut self, taken: u64, empty: bool) -> Option<Newlines> {
        self.due.take_if(|due| empty || taken >= *due)?;
        let childs = self.seen.clone()?;
        self.change(&childs);
        self.newlines = pty::newlines(&childs);
        Some(self.newlines)
    }

    /// Makes our terminal's modes those of the child's; hardware and EXTPROC stay.
    fn change(&mut self, childs: &Termios) {
        let Some(screen) = &mut self.screen else { return };
        let Some(mut modes) = screen.modes() else { return };
        let extproc = modes.local_flags.contains(LocalFlags::EXTPROC);
        modes.input_flags = childs.input_flags;
        modes.output_flags = childs.output_flags;
        modes.local_flags = childs.local_flags;
        modes.local_flags.set(LocalFlags::EXTPROC, extproc);
        modes.control_chars = childs.control_chars;
        screen.change(&modes);
        // A line of ours would tear what a program draws.
        match screen.is_changed() && screen.is(io::stderr().as_fd()) {
            true => notice::hold(),
            false => notice::release(),
        }
    }

    /// The modes of the child's terminal, if they are others than when this was last asked. A child that has turned EXTPROC
    /// off with the rest (stty(1) does for `sane`) gets it back.
    fn changed_modes(&mut self) -> Option<Termios> {
        self.keys.as_ref()?;
        let leader = self.leader.as_ref()?.fd();
        let mut childs = tcgetattr(leader).ok()?;
        if !childs.local_flags.contains(LocalFlags::EXTPROC) {
            // stty(1) reads at once what it has set, and complains if it finds something else.
            let group = tcgetpgrp(leader).map(Pid::as_raw);
            let until = Instant::now() + LONGEST_READ_BACK;
            std::thread::sleep(READ_BACK);
            while group.is_ok_and(procfs::group_runs) && Instant::now() < until {
                std::thread::sleep(READ_BACK);
            }
            // It may have set others meanwhile.
            childs = tcgetattr(leader).ok()?;
            if !childs.local_flags.contains(LocalFlags::EXTPROC) {
                childs.local_flags.insert(LocalFlags::EXTPROC);
                let _ = tcsetattr(leader, SetArg::TCSANOW, &childs);
            }
        }
        let is_new = !self.seen.as_ref().is_some_and(|seen| are_equal(seen, &childs));
        self.seen = Some(childs.clone());
        is_new.then_some(childs)
    }

    /// We have the foreground, perhaps anew: what others have made of our terminal is what the child finds.
    pub(crate) fn enter_foreground(&mut self) {
        self.resize();
        if let (Some(_), Some(leader)) = (&self.keys, &self.leader)
            && let Some(mut modes) = self.screen.as_ref().and_then(Screen::modes)
        {
            modes.local_flags.insert(LocalFlags::EXTPROC);
            let _ = tcsetattr(leader.fd(), SetArg::TCSANOW, &modes);
            self.newlines = pty::newlines(&modes);
            self.due = None;
            let _ = self.changed_modes();
        }
    }

    /// The command has ended: from here on the terminal ends with its last user. What is typed is no longer for it.
    pub(crate) fn release(&mut self) {
        self.follower = None;
    }

    /// The run is over: leaves our terminal as the child has left its own, if it came to an end by itself.
    pub(crate) fn conclude(&mut self, left_by_child: bool) {
        if left_by_child && self.is_ours() {
            self.adopt_size();
            if let Some(childs) = self.changed_modes().or(self.due.and(self.seen.clone())) {
                self.change(&childs);
            }
            self.screen.iter_mut().for_each(Screen::keep);
        }
    }

    /// Gives our terminal the size that the child has set on its own.
    fn adopt_size(&mut self) {
        if let (Some(leader), Some(screen), true) =
            (&self.leader, &self.screen, self.keys.is_some())
            && let Some(size) = Size::of(leader.fd().as_raw_fd())
            && size != self.size
        {
            self.size = size;
            screen.set_size(size);
        }
    }

    /// Passes our terminal's size on, if it has changed. The kernel tells the child's foreground group.
    pub(crate) fn resize(&mut self) {
        let Some(size) = self.screen.as_ref().and_then(Screen::size) else { return };
        if size != self.size {
            self.size = size;
            let sides = self.sides.iter().filter_map(Weak::upgrade);
            for leader in sides.chain(self.leader.as_ref().map(|leader| leader.fd().clone())) {
                size.set(leader.as_raw_fd());
            }
        }
    }

    /// Takes note that its users are being told. Only then may it be hung up: a write that fails before
    /// the signal has arrived would be taken for an error.
    pub(crate) fn leave(&mut self) {
        self.hang_up = HangUp::Said;
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.hang_up == HangUp::Said || self.leader.is_none()
    }

    /// Whether our own terminal is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.hang_up == HangUp::Due
    }

    /// Lets go of the child's terminal: once no relay holds it either, the kernel hangs it up.
    pub(crate) fn hang_up(&mut self) {
        self.leader = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.screen.iter_mut().for_each(Screen::restore);
        notice::release();
    }
}

/// How many columns the terminal behind an fd has, if it is one and says so.
pub(crate) fn columns(fd: RawFd) -> Option<u16> {
    Size::of(fd).map(Size::columns)
}
