//! The threads that write copies where writing may take its time: into files, to collectors, into commands.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::intake::{Intake, Stop};
use crate::config::Verbosity;
use crate::error::Error;
use crate::notice;
use crate::relay::{Beyond, Relay, Role};
use crate::ring::{Fd, Op, Operation, Ring, Token, bell};

/// A thread's stack: it keeps its buffers on the heap.
const STACK: usize = 256 << 10;

/// How long a copy that takes nothing is waited for once the run was asked to end by a signal.
const ASKED_TO_END: Duration = Duration::from_millis(500);

/// What is done with the bytes of a copy, in a thread of its own.
pub(crate) trait Work: Debug + Send {
    /// Works until the copy has ended and all of it is written, or until it is asked to leave the rest.
    ///
    /// # Errors
    /// Why no more can be written. What was not written is lost.
    fn run(self: Box<Self>, intake: Intake) -> Result<(), Error>;
}

/// The threads of a run.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    writers: Vec<Writer>,
    /// Rung when one of them has ended.
    doorbell: Option<Fd>,
    polled: bool,
}

#[derive(Debug)]
struct Writer {
    /// Which of the copies it is.
    copy: usize,
    name: String,
    stop: Arc<Stop>,
    beyond: Arc<Beyond>,
    /// How long the end of the run waits for it while nobody takes anything; a file is waited for.
    wait: Option<Duration>,
    state: State,
    /// How far it was when that last changed, and when that was.
    seen: (u64, Instant),
    /// Bytes were waiting for it then.
    waited: bool,
}

#[derive(Debug)]
enum State {
    Ready(Box<dyn Work>, Box<Intake>),
    Running(JoinHandle<Result<(), Error>>),
    /// It was asked to leave the rest, at that moment.
    Leaving(JoinHandle<Result<(), Error>>, Instant),
    Over,
}

/// What is known of the end of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing: more may come for long.
    NotYet,
    /// The command has ended, and its last bytes are on their way.
    CommandEnded,
    /// Somebody has asked for it by a signal.
    AskedFor,
}

/// How long a thread that was asked to leave may take to do so: it may have a spool to write to.
const LEAVING: Duration = Duration::from_secs(2);

impl Writers {
    /// Takes a copy's work on. Returns its books.
    ///
    /// # Errors
    /// What eventfd(2) and pipe(2) say.
    pub(crate) fn add(
        &mut self,
        copy: usize,
        name: &str,
        pipe: OwnedFd,
        work: Box<dyn Work>,
        wait: Option<Duration>,
        verbosity: Verbosity,
    ) -> io::Result<Arc<Beyond>> {
        let (stop, beyond) = (Arc::new(Stop::new()?), Arc::new(Beyond::default()));
        let (name, books) = (name.to_owned(), beyond.clone());
        let intake =
            Intake::new(pipe, stop.clone(), beyond.clone(), name.clone(), wait, verbosity)?;
        let state = State::Ready(work, Box::new(intake));
        let seen = (0, Instant::now());
        let waited = false;
        self.writers.push(Writer { copy, name, stop, beyond, wait, state, seen, waited });
        Ok(books)
    }

    /// Starts the threads. Before this there must be no fork(2) left to come that goes on in this program.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        if self.writers.is_empty() {
            return Ok(());
        }
        let bell =
            bell::new().map_err(|errno| Error::os("make an eventfd for the copies", errno))?;
        for writer in &mut self.writers {
            let State::Ready(work, intake) = std::mem::replace(&mut writer.state, State::Over)
            else {
                continue;
            };
            let tried = |error| Error::os(format!("start a thread for {}", writer.name), error);
            let bell = bell.try_clone().map_err(tried)?;
            let end = RingsAtEnd { beyond: writer.beyond.clone(), bell };
            let run = move || {
                let _end = end;
                work.run(*intake)
            };
            let thread = std::thread::Builder::new().name("copy".into()).stack_size(STACK);
            writer.state = State::Running(thread.spawn(run).map_err(tried)?);
            writer.seen.1 = Instant::now();
        }
        self.doorbell = Some(Rc::new(bell));
        Ok(())
    }

    /// Gives up what gets nowhere at the end of the run, and keeps the doorbell polled.
    ///
    /// # Errors
    /// Only if the ring itself fails.
    pub(crate) fn turn(
        &mut self,
        relays: &[Relay],
        ending: Ending,
        ring: &mut Ring,
        now: Instant,
    ) -> io::Result<()> {
        let over = only_copies_are_left(relays);
        if over || ending != Ending::NotYet {
            self.leave_stalled(relays, over, ending, now);
        }
        if let Some(bell) = &self.doorbell
            && !self.polled
            && !self.all_ended()
        {
            ring.submit(Token::session(Operation::CopyWritten), Op::poll(bell, PollFlags::POLLIN))?;
            self.polled = true;
        }
        Ok(())
    }

    /// The doorbell has rung: says why copies have ended, if not by themselves. True if any has failed.
    pub(crate) fn collect(&mut self) -> bool {
        self.polled = false;
        if let Some(bell) = &self.doorbell {
            bell::hush(bell);
        }
        let mut failed = false;
        for writer in &mut self.writers {
            match std::mem::replace(&mut writer.state, State::Over) {
                // It has nothing left to do but to end.
                State::Running(thread) | State::Leaving(thread, _)
                    if writer.beyond.is_finished() =>
                {
                    let fault = || Error::usage(format!("copy to {}", writer.name), "it panicked");
                    if let Err(error) = thread.join().unwrap_or_else(|_| Err(fault())) {
                        notice::error(&error);
                        failed = true;
                    }
                }
                state => writer.state = state,
            }
        }
        failed
    }

    /// Whether all have ended, or were given up.
    pub(crate) fn all_ended(&self) -> bool {
        self.writers.iter().all(|writer| matches!(writer.state, State::Over))
    }

    /// Gives up what takes nothing for as long as it may. While streams are open, one for which nothing has come is
    /// waited for.
    fn leave_stalled(&mut self, relays: &[Relay], over: bool, ending: Ending, now: Instant) {
        let copies = || relays.iter().filter(|relay| relay.role() == Role::Copy);
        for writer in &mut self.writers {
            let written = writer.beyond.progress();
            let waits = over || copies().nth(writer.copy).is_some_and(has_more);
            // What waits now may have come only now.
            if written != writer.seen.0 || !waits || !writer.waited {
                writer.seen = (written, now);
            }
            writer.waited = waits;
            let Some(at) = writer.deadline(ending) else { continue };
            if now < at {
                continue;
            }
            match std::mem::replace(&mut writer.state, State::Over) {
                State::Running(thread) => {
                    match ending {
                        Ending::AskedFor => writer.stop.hurry(),
                        Ending::NotYet | Ending::CommandEnded => writer.stop.ask(),
                    }
                    writer.state = State::Leaving(thread, now);
                }
                // It does not come back: something holds it up in the kernel.
                State::Leaving(..) => writer.beyond.finish(),
                state => writer.state = state,
            }
        }
    }

    /// Gives up what has not ended: nobody waits any more.
    pub(crate) fn give_up(&mut self) {
        for writer in &mut self.writers {
            if !matches!(writer.state, State::Over) {
                writer.beyond.finish();
                writer.state = State::Over;
            }
        }
    }

    /// The streams are over: what is waited for counts from now.
    pub(crate) fn restart_patience(&mut self, now: Instant) {
        self.writers.iter_mut().for_each(|writer| writer.seen = (writer.beyond.progress(), now));
    }

    /// When one that gets nowhere is given up.
    pub(crate) fn deadline(&self, relays: &[Relay], ending: Ending) -> Option<Instant> {
        if ending == Ending::NotYet && !only_copies_are_left(relays) {
            return None;
        }
        self.writers.iter().filter_map(|writer| writer.deadline(ending)).min()
    }
}

/// Whether every stream has ended.
pub(crate) fn only_copies_are_left(relays: &[Relay]) -> bool {
    let mut open = relays.iter().filter(|relay| relay.ended().is_none());
    open.all(|relay| relay.role() == Role::Copy)
}

/// Whether bytes wait for the thread behind a copy's relay.
fn has_more(copy: &Relay) -> bool {
    let handed = copy.counters().bytes;
    copy.beyond().is_some_and(|beyond| beyond.taken() + beyond.lost(handed) < handed)
}

/// Tells of the end of a thread, whatever it ends by.
struct RingsAtEnd {
    beyond: Arc<Beyond>,
    bell: OwnedFd,
}

impl Drop for RingsAtEnd {
    fn drop(&mut self) {
        self.beyond.finish();
        bell::ring(&self.bell);
    }
}

impl Writer {
    fn deadline(&self, ending: Ending) -> Option<Instant> {
        let wait = match ending {
            Ending::AskedFor => Some(ASKED_TO_END),
            Ending::NotYet | Ending::CommandEnded => self.wait,
        };
        match &self.state {
            State::Running(_) => Some(self.seen.1 + wait?),
            State::Leaving(_, since) => Some(*since + LEAVING),
            State::Ready(..) | State::Over => None,
        }
    }
}
