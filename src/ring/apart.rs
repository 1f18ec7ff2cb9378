//! Writes to regular files, each file's in a thread of its own: a disk that takes nothing for a while then holds up nobody
//! but the streams that go there. Those to one file are made in the order in which they were submitted.
//!
//! What a write owns stays with the loop until the thread has said how it ended. A thread may never say so (a network file
//! system that has gone away); then what it uses is never freed either.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd;

use super::bell;
use super::op::{Action, Completion, Fd, Op, Outcome, Token};
use super::sync::restart;

/// A thread's stack: all that it does is write(2).
const STACK: usize = 64 << 10;

/// The threads, and what they have been given to write.
#[derive(Debug)]
pub(super) struct Apart {
    threads: Vec<Thread>,
    in_flight: Vec<InFlight>,
    ends: (Sender<End>, Receiver<End>),
    /// Made with the first thread.
    bell: Option<Fd>,
    is_polled: bool,
}

/// A file's thread. It ends once nothing more can come from here.
#[derive(Debug)]
struct Thread {
    /// Not held open by this: closing it is its stream's business.
    file: Weak<OwnedFd>,
    /// Device and inode: what two descriptors of one file have in common. Both then have one thread.
    identity: (u64, u64),
    jobs: Sender<Job>,
}

#[derive(Debug)]
struct InFlight {
    token: Token,
    op: Op,
    submitted: Instant,
}

/// One write: what lies there stays there until its [`End`] has been taken note of.
struct Job {
    token: Token,
    file: RawFd,
    bytes: *const u8,
    len: usize,
}

// SAFETY: the pointer is only read through, and what it points to is neither moved, written to nor freed before the thread
// has reported the end of the job: `Apart::in_flight` owns it, and leaks it rather than free it earlier.
unsafe impl Send for Job {}

#[derive(Debug)]
struct End {
    token: Token,
    result: Result<usize, Errno>,
}

impl Apart {
    pub(super) fn new() -> Apart {
        let (threads, in_flight) = (Vec::new(), Vec::new());
        Apart { threads, in_flight, ends: channel(), bell: None, is_polled: false }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// What can be read when a write has ended, if it has to be polled and is not.
    pub(super) fn unheard(&mut self) -> Option<Fd> {
        if self.is_polled || self.is_idle() {
            return None;
        }
        self.is_polled = true;
        self.bell.clone()
    }

    /// Gives a write to its file's thread. Hands back what is no write to a file, and all if there can be no thread: then
    /// the loop makes it.
    pub(super) fn submit(&mut self, token: Token, op: Op, submitted: Instant) -> Option<Op> {
        let Action::WriteFile { fd, buffer, range } = &op.action else { return Some(op) };
        let bytes = &buffer.bytes()[range.clone()];
        let (bytes, len) = (bytes.as_ptr(), bytes.len());
        let job = Job { token, file: fd.as_raw_fd(), bytes, len };
        let given = self.thread(fd).is_ok_and(|thread| thread.jobs.send(job).is_ok());
        if !given {
            return Some(op);
        }
        self.in_flight.push(InFlight { token, op, submitted });
        None
    }

    fn thread(&mut self, file: &Fd) -> io::Result<&Thread> {
        let is_its = |thread: &Thread| thread.file.as_ptr() == Rc::as_ptr(file);
        let known = self.threads.iter().position(is_its);
        let index = match known {
            Some(index) => index,
            None => {
                let stat = fstat(file)?;
                let identity = (stat.st_dev, stat.st_ino);
                let jobs = match self.threads.iter().find(|thread| thread.identity == identity) {
                    Some(thread) => thread.jobs.clone(),
                    None => self.start()?,
                };
                self.threads.push(Thread { file: Rc::downgrade(file), identity, jobs });
                self.threads.len() - 1
            }
        };
        Ok(&self.threads[index])
    }

    /// Starts a thread.
    fn start(&mut self) -> io::Result<Sender<Job>> {
        let bell = match &self.bell {
            Some(bell) => bell,
            None => self.bell.insert(Rc::new(bell::new()?)),
        };
        let (jobs, given) = channel();
        let (ends, bell) = (self.ends.0.clone(), bell.try_clone()?);
        let thread = std::thread::Builder::new().name("file".into()).stack_size(STACK);
        thread.spawn(move || write_each(given, ends, bell))?;
        Ok(jobs)
    }

    /// The bell has been heard: takes note of what has ended.
    pub(super) fn collect(&mut self, completed: &mut VecDeque<Completion>) {
        self.is_polled = false;
        self.bell.iter().for_each(bell::hush);
        while let Ok(End { token, result }) = self.ends.1.try_recv() {
            let Some(index) = self.in_flight.iter().position(|one| one.token == token) else {
                continue;
            };
            let InFlight { token, op, submitted } = self.in_flight.swap_remove(index);
            let outcome = Outcome::from_errno(result);
            completed.push_back(Completion { token, outcome, buffer: op.into_buffer(), submitted });
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Whoever waits for a disk may wait for ever: what it reads from is left where it is.
        self.in_flight.drain(..).for_each(std::mem::forget);
    }
}

/// What a thread does: the writes that it is given, until no more can come.
fn write_each(jobs: Receiver<Job>, ends: Sender<End>, bell: OwnedFd) {
    for Job { token, file, bytes, len } in jobs {
        // SAFETY: see `Job`; the loop keeps both the bytes and the file until it has this job's end.
        let (file, bytes) =
            unsafe { (BorrowedFd::borrow_raw(file), std::slice::from_raw_parts(bytes, len)) };
        let result = restart(|| unistd::write(file, bytes));
        if ends.send(End { token, result }).is_err() {
            return;
        }
        bell::ring(&bell);
    }
}
