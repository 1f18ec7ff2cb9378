//! The only place that knows how operations run.
//!
//! A [`Ring`] takes operations, carries them out in the kernel, and hands back completions. Two
//! drivers offer the same: io_uring, and epoll for places where io_uring is not allowed. The ring
//! keeps what an operation owns until its completion arrives; dropping the ring cancels what is in
//! flight and waits for every completion before anything is freed. Only a write to a regular file that a thread makes
//! (`apart`) is not waited for: what it uses is never freed.

mod apart;
pub mod bell;
mod buffer;
mod epoll;
mod op;
pub(crate) mod polled;
mod probe;
mod queue;
#[cfg(test)]
pub(crate) mod scripted;
mod slots;
mod sync;
mod timer;
mod transfer;
mod uring;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use apart::Apart;
pub use buffer::Buffer;
pub use op::{Completion, Fd, Full, Op, Operation, Outcome, Token};
pub use probe::Workers;
pub use queue::{unanswered, unread, unsent, widest_window};
use sync::Run;

/// Which driver runs the operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring(7).
    Uring,
    /// Readiness from epoll(7) and non-blocking system calls.
    Epoll,
}

impl Engine {
    /// The name used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Uring => "uring",
            Engine::Epoll => "epoll",
        }
    }
}

/// Operations in flight, and the completions that came back.
#[derive(Debug)]
pub struct Ring {
    driver: Driver,
    completed: VecDeque<Completion>,
    /// See [`Ring::now`].
    now: Instant,
    /// See [`Ring::system_calls`].
    calls: u64,
    /// Who writes regular files, if the loop is not to.
    apart: Option<Apart>,
    /// Waits in a row that had a completion at hand and did not ask the kernel for others.
    unasked: u8,
}

/// How many such waits there may be: what else has happened is seen behind so many transfers at the latest.
const UNASKED: u8 = 8;

#[derive(Debug)]
enum Driver {
    Uring(Box<uring::Uring>),
    Epoll(epoll::Epoll),
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Ring {
    /// Opens a ring on the given engine.
    ///
    /// # Errors
    /// What the kernel says of io_uring_setup(2) or epoll_create1(2), or `Unsupported` naming what
    /// this kernel's io_uring lacks.
    pub fn open(engine: Engine, workers: Workers) -> io::Result<Ring> {
        let driver = match engine {
            Engine::Uring => Driver::Uring(Box::new(uring::Uring::open(workers)?)),
            Engine::Epoll => Driver::Epoll(epoll::Epoll::open()?),
        };
        let (completed, now) = (VecDeque::new(), Instant::now());
        Ok(Ring { driver, completed, now, calls: 0, apart: None, unasked: 0 })
    }

    /// Writes regular files in threads from here on: others wait for this loop, and are not to wait for a disk. After this
    /// there must be no fork(2) that goes on in this program.
    pub fn write_files_apart(&mut self) {
        self.apart = Some(Apart::new());
    }

    /// The engine in use.
    pub fn engine(&self) -> Engine {
        match &self.driver {
            Driver::Uring(_) => Engine::Uring,
            Driver::Epoll(_) => Engine::Epoll,
            #[cfg(test)]
            Driver::Scripted(scripted) => scripted.engine,
        }
    }

    /// A buffer of `len` bytes, registered with the kernel if it lets us.
    pub fn buffer(&mut self, len: usize) -> Buffer {
        let mut buffer = Buffer::new(len);
        if let Driver::Uring(uring) = &mut self.driver {
            uring.register(&mut buffer);
        }
        buffer
    }

    /// Hands an operation to the kernel with the next [`Ring::wait`].
    ///
    /// # Errors
    /// Only if the kernel refuses the submission as such; what the operation itself meets comes with
    /// its completion.
    pub fn submit(&mut self, token: Token, op: Op) -> io::Result<()> {
        #[cfg(test)]
        if let Driver::Scripted(scripted) = &mut self.driver {
            scripted.submit(token, op, self.now);
            return Ok(());
        }
        let op = match &mut self.apart {
            Some(apart) => apart.submit(token, op, self.now),
            None => Some(op),
        };
        let Some(op) = op else {
            self.calls += 1;
            return Ok(());
        };
        match (sync::run(token, op, self.now), &mut self.driver) {
            (Run::Done(done), _) => {
                self.completed.push_back(done);
                self.calls += 1;
            }
            (Run::Left(op), Driver::Uring(uring)) => {
                uring.submit(token, op, self.now, &mut self.completed)?
            }
            (Run::Left(op), Driver::Epoll(epoll)) => epoll.submit(token, op, self.now),
            #[cfg(test)]
            (Run::Left(op), Driver::Scripted(scripted)) => scripted.submit(token, op, self.now),
        }
        Ok(())
    }

    /// Whether a kernel worker waits for as long as this transfer has to.
    pub fn takes_worker(&self, op: &Op) -> bool {
        match &self.driver {
            Driver::Uring(uring) => uring.takes_worker(op),
            Driver::Epoll(_) => false,
            #[cfg(test)]
            Driver::Scripted(scripted) => scripted.engine == Engine::Uring && !op.in_place,
        }
    }

    /// How often the kernel was called to move bytes and to wait: entries into the ring or into
    /// epoll_wait(2), tries of single operations, and reads and writes of regular files.
    pub fn system_calls(&self) -> u64 {
        let tries = match &self.driver {
            Driver::Uring(_) => 0,
            Driver::Epoll(epoll) => epoll.tries(),
            #[cfg(test)]
            Driver::Scripted(_) => 0,
        };
        self.calls + tries
    }

    /// Asks for the operation of this name to be taken back. Its own completion still arrives.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn cancel(&mut self, token: Token) -> io::Result<()> {
        match &mut self.driver {
            Driver::Uring(uring) => uring.cancel(token),
            Driver::Epoll(epoll) => {
                epoll.cancel(token, &mut self.completed);
                Ok(())
            }
            #[cfg(test)]
            Driver::Scripted(scripted) => {
                scripted.cancel(token);
                Ok(())
            }
        }
    }

    /// Waits until at least one operation has completed, a signal arrived, or `timeout` is over. Where one has completed
    /// while it was submitted, the kernel is asked for others only now and then. It may also end for nothing.
    ///
    /// # Errors
    /// What io_uring_enter(2) or epoll_wait(2) says, but for an interrupted or timed-out wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let waited = self.wait_for_completions(timeout);
        self.read_clock();
        waited
    }

    /// The time at which the last wait ended: what the loop goes by until it waits again, so that it reads the clock once
    /// a turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Makes it [`Ring::now`], where something other than a wait has taken time.
    pub fn read_clock(&mut self) {
        self.now = Instant::now();
    }

    fn wait_for_completions(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if let Some(bell) = self.apart.as_mut().and_then(Apart::unheard) {
            let token = Token::session(Operation::FileWritten);
            self.submit(token, Op::poll(&bell, PollFlags::POLLIN))?;
        }
        if let Driver::Epoll(epoll) = &mut self.driver {
            epoll.try_ready(&mut self.completed);
        }
        if !self.completed.is_empty() && self.unasked < UNASKED {
            self.unasked += 1;
            return Ok(());
        }
        self.unasked = 0;
        let timeout = if self.completed.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.calls += 1;
        match &mut self.driver {
            Driver::Uring(uring) => uring.wait(timeout, self.now, &mut self.completed),
            Driver::Epoll(epoll) => epoll.wait(timeout, self.now, &mut self.completed),
            #[cfg(test)]
            Driver::Scripted(_) => Ok(()),
        }
    }

    /// Lets the next wait ask the kernel for other completions: it has some for certain.
    pub fn ask_next(&mut self) {
        self.unasked = UNASKED;
    }

    /// Whether nothing is in flight and nothing has completed.
    pub fn is_idle(&self) -> bool {
        let driver = match &self.driver {
            Driver::Uring(uring) => uring.is_idle(),
            Driver::Epoll(epoll) => epoll.is_idle(),
            #[cfg(test)]
            Driver::Scripted(_) => self.in_flight().is_empty(),
        };
        let apart = self.apart.as_ref().is_none_or(Apart::is_idle);
        driver && apart && self.completed.is_empty()
    }

    /// The next operation that has ended, in the order in which they ended.
    pub fn next_completion(&mut self) -> Option<Completion> {
        while let Some(completion) = self.completed.pop_front() {
            match (completion.token.operation, &mut self.apart) {
                (Operation::FileWritten, Some(apart)) => apart.collect(&mut self.completed),
                _ => return Some(completion),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
