//! The child's terminal, a pty, and ours: which of the child's streams go through it, who gets the keys,
//! and what size it has.
//!
//! Our terminal is raw only while nproxy has its foreground and the child is to have the keys. Everything
//! else about stopping and continuing is in `session/job_control.rs`.

mod pty;
mod screen;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::sys::stat::fstat;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

use crate::config::{PtyMode, StdinMode, Verbosity, Wrap};
use crate::error::Error;
use crate::notice;
use crate::process::monitor::SessionTerminal;
use crate::process::spawn::Placement;
use crate::process::startup;
use crate::relay::{Endpoint, Kind, Reading};
use crate::text::newline::Newlines;
use crate::text::screen::ScreenSize;
use pty::{BackgroundOutput, Echo, Processing, Settings};
use screen::{Screen, Size, WhileRaw};

/// What gives the child's terminal its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Our terminal, which is also the child's stdin: whenever we have its foreground.
    WhenOurs,
    /// Our terminal, once the child has shown that it wants keys: its stdin is something else.
    OnDemand,
    /// Our stdin, which is no terminal, or nothing at all.
    Elsewhere,
}

/// The child's terminal and ours.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Until the terminal is hung up.
    leader: Option<Endpoint>,
    /// The leader of stderr's own pty.
    side: Option<Endpoint>,
    screen: Option<Screen>,
    keys: Keys,
    output: WhileRaw,
    size: Size,
    /// What the child's side is, as a device.
    device: u64,
    settings: Settings,
    /// The modes of our terminal that the child's were set from, for as long as it is the child's.
    copied: Option<Termios>,
    pub(crate) stop: Option<Stop>,
    hang_up: HangUp,
}

/// Whether the users of the child's terminal know that it will be hung up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUp {
    /// It will not.
    None,
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

/// A terminal just opened: the child's ends are still ours to give away.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) terminal: Terminal,
    leader: Endpoint,
    follower: OwnedFd,
    side: Option<OwnedFd>,
    /// What a second pty starts with.
    settings: Settings,
}

impl Opened {
    /// The size of the child's side, as a filter has to know it.
    pub(crate) fn screen_size(&self) -> ScreenSize {
        self.terminal.size.as_screen()
    }

    /// Opens a pty if the run calls for one: `auto` does if our stdout is a terminal.
    ///
    /// # Errors
    /// If there is no pty to be had and one was asked for.
    pub(crate) fn open(wrap: &Wrap, verbosity: Verbosity) -> Result<Option<Opened>, Error> {
        let screen = if startup::was_closed(1) { None } else { Screen::open(io::stdout().as_fd()) };
        let on_screen = screen.is_some();
        let screen = match wrap.pty {
            PtyMode::Never => return Ok(None),
            PtyMode::Auto if screen.is_none() => return Ok(None),
            PtyMode::Auto | PtyMode::Always => screen.or_else(Screen::controlling),
        };
        let keys = Keys::choose(wrap, screen.as_ref(), on_screen);
        let ours = screen.as_ref().is_some_and(Screen::is_ours);
        let modes = screen.as_ref().and_then(Screen::modes);
        let copied = modes.clone().filter(|_| ours);
        let modes = copied.clone().or(modes.map(pty::between_programs));
        let background_output = match keys {
            Keys::WhenOurs => BackgroundOutput::Terminal,
            Keys::OnDemand | Keys::Elsewhere => BackgroundOutput::Allowed,
        };
        let size = screen.as_ref().and_then(Screen::size).unwrap_or(Size::DEFAULT);
        let processing = if on_screen { Processing::Terminal } else { Processing::Plain };
        let fed = keys == Keys::Elsewhere && wrap.stdin == StdinMode::Relay;
        let echo = if fed { Echo::Off } else { Echo::Terminal };
        let settings = Settings { modes, size, processing, echo, background_output };
        let failed = |errno| Error::os("open a pty", errno);
        let opened = pty::open(&settings).and_then(|(leader, follower)| {
            let device = fstat(&follower)?.st_rdev;
            Ok((leader, follower, device))
        });
        let (leader, follower, device) = match opened {
            Ok(opened) => opened,
            Err(errno) if wrap.pty == PtyMode::Auto => {
                let text = format!("{}; going on with pipes", failed(errno));
                notice::decision(verbosity, &text);
                return Ok(None);
            }
            Err(errno) => return Err(failed(errno)),
        };
        let output = if on_screen { WhileRaw::PlainOutput } else { WhileRaw::ProcessOutput };
        let terminal = Terminal {
            leader: Some(leader.clone()),
            side: None,
            screen,
            keys,
            output,
            size,
            device,
            settings: settings.clone(),
            copied,
            stop: None,
            hang_up: HangUp::None,
        };
        Ok(Some(Opened { terminal, leader, follower, side: None, settings }))
    }

    /// Whether one of our own streams is the terminal that this one stands for.
    pub(crate) fn stands_for(&self, fd: impl AsFd) -> bool {
        let screen = self.terminal.screen.as_ref();
        self.terminal.output == WhileRaw::PlainOutput
            && screen.is_some_and(|screen| screen.is(fd.as_fd()))
    }

    /// The end for the relays.
    pub(crate) fn leader(&self) -> Endpoint {
        self.leader.clone()
    }

    /// How lines end in what comes from that end.
    pub(crate) fn newlines(&self) -> Newlines {
        self.settings.newlines()
    }

    /// Another end of the child's side.
    ///
    /// # Errors
    /// If there are no more fds.
    pub(crate) fn follower(&self) -> Result<OwnedFd, Error> {
        self.follower.try_clone().map_err(|error| Error::os("open a pty", error))
    }

    /// Opens a second pty for stderr, which controls no session: the end to read from, how lines end
    /// there, and the child's end.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open_side(&mut self, sink: Kind) -> Result<(Endpoint, Newlines, OwnedFd), Error> {
        let failed = |error: io::Error| Error::os("open a pty for stderr", error);
        let processing = match sink {
            Kind::Terminal => Processing::Terminal,
            _ => Processing::Plain,
        };
        let settings = Settings { processing, ..self.settings.clone() };
        let (leader, follower) = pty::open(&settings).map_err(|errno| failed(errno.into()))?;
        self.side = Some(follower.try_clone().map_err(failed)?);
        self.terminal.side = Some(leader.clone());
        Ok((leader, settings.newlines(), follower))
    }

    /// The terminal for the loop, and the child's side of it for the monitor.
    pub(crate) fn divide(self) -> (Terminal, SessionTerminal) {
        (self.terminal, SessionTerminal { terminal: self.follower, stderr: self.side })
    }
}

impl Keys {
    fn choose(wrap: &Wrap, screen: Option<&Screen>, on_screen: bool) -> Keys {
        let Some(screen) = screen else { return Keys::Elsewhere };
        let stdin_is_screen = !startup::was_closed(0) && screen.is(io::stdin().as_fd());
        match wrap.stdin {
            StdinMode::Inherit if stdin_is_screen && on_screen => Keys::WhenOurs,
            StdinMode::Relay if stdin_is_screen => Keys::WhenOurs,
            StdinMode::Relay if wrap.pty == PtyMode::Always => Keys::Elsewhere,
            StdinMode::Inherit | StdinMode::Null | StdinMode::Relay => Keys::OnDemand,
        }
    }
}

impl Terminal {
    pub(crate) fn keys(&self) -> Keys {
        self.keys
    }

    /// The end that the child's output is read from and keys are written to, until it is hung up.
    pub(crate) fn leader(&self) -> Option<&Endpoint> {
        self.leader.as_ref()
    }

    /// Where keys come from.
    pub(crate) fn screen_end(&self) -> Option<&Endpoint> {
        self.screen.as_ref().map(Screen::end)
    }

    /// What the child's side is, as a device number.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// Whether we have our terminal's foreground.
    pub(crate) fn is_ours(&self) -> bool {
        self.screen.as_ref().is_some_and(Screen::is_ours)
    }

    /// Whether the child has the keys.
    pub(crate) fn is_taken(&self) -> bool {
        self.screen.as_ref().is_some_and(Screen::is_taken)
    }

    /// Where the child's group belongs now: in the foreground if it can have what it would read there.
    pub(crate) fn placement(&self) -> Placement {
        let foreground = match self.keys {
            Keys::WhenOurs => self.is_ours(),
            Keys::OnDemand => false,
            Keys::Elsewhere => true,
        };
        if foreground { Placement::Foreground } else { Placement::Background }
    }

    /// Whether keys may be read: nobody else's, and none while we are about to stop.
    pub(crate) fn reading(&self) -> Reading {
        let open = self.keys == Keys::Elsewhere || (self.is_taken() && self.stop.is_none());
        if open { Reading::Allowed } else { Reading::Paused }
    }

    /// Takes our terminal for the child. Messages wait until it is given back.
    pub(crate) fn take(&mut self) {
        self.resize();
        let Some(screen) = &mut self.screen else { return };
        let before = screen.take(self.output);
        if screen.is_taken() && screen.is(io::stderr().as_fd()) {
            notice::hold();
        }
        if before.is_some() && before != self.copied {
            // What the shell has set, now that this is the foreground, is what the child would find.
            self.copied = before;
            self.copy_modes();
        }
    }

    fn copy_modes(&self) {
        if let (Some(modes), Some(leader)) = (&self.copied, &self.leader) {
            let _ = tcsetattr(leader.fd(), SetArg::TCSANOW, &self.settings.adapt(modes.clone()));
        }
    }

    /// Leaves our terminal as the child has left its own: stty(1) changes it on purpose.
    pub(crate) fn adopt_modes(&mut self) {
        let (Some(copied), Some(leader)) = (&self.copied, &self.leader) else { return };
        let Ok(left) = tcgetattr(leader.fd()) else { return };
        if left != self.settings.adapt(copied.clone())
            && self.settings.is_faithful()
            && let Some(screen) = &mut self.screen
        {
            screen.change_before(left);
        }
    }

    /// Gives the shell what was typed for it while the child ran: whatever the child has not read.
    pub(crate) fn pass_on_unread(&self) {
        if let (Keys::WhenOurs, Some(leader), Some(screen)) =
            (self.keys, &self.leader, &self.screen)
            && screen.is_taken()
            && let Ok(bytes) = pty::take_unread(leader.fd().as_raw_fd())
        {
            screen.unread(&bytes);
        }
    }

    /// Gives our terminal back as it was.
    pub(crate) fn give_back(&mut self) {
        if let Some(screen) = &mut self.screen
            && screen.is_taken()
        {
            screen.give_back();
            self.copied = None;
        }
        notice::release();
    }

    /// Passes our terminal's size on, if it has changed. The kernel tells the child's foreground group.
    pub(crate) fn resize(&mut self) {
        let Some(size) = self.screen.as_ref().and_then(Screen::size) else { return };
        if size != self.size {
            self.size = size;
            for leader in [&self.leader, &self.side].into_iter().flatten() {
                size.set(leader.fd().as_raw_fd());
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

    /// Lets go of the child's terminal: once no relay holds it either, the kernel hangs it up.
    pub(crate) fn hang_up(&mut self) {
        self.leader = None;
        self.side = None;
    }

    /// Lets go of stderr's own pty: whoever read it has left.
    pub(crate) fn close_side(&mut self) {
        self.side = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// How many columns the terminal behind an fd has, if it is one and says so.
pub(crate) fn columns(fd: RawFd) -> Option<u16> {
    Size::of(fd).map(Size::columns)
}
