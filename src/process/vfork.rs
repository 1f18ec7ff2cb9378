//! A process that becomes another program and borrows our memory until then, as posix_spawn(3) makes it.
//!
//! fork(2) copies the tables of all our memory, and each page that either process then writes to, for a process that
//! throws them away at once. This one runs on a stack of its own in the same memory, and we stand still until it has
//! become the program or has failed. So it can say why by writing it down.
//!
//! What it does to descriptors, signals, limits and groups is done to itself alone. What it does to memory is done to
//! ours: it must not take a lock that another thread may hold, and what it allocates stays.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;

use nix::errno::Errno;
use nix::unistd::Pid;

/// What system calls, and execvpe(3) with the longest path there can be, need beside one word for each argument.
const STACK: usize = 256 << 10;

/// Makes the new process ready, in the new process. Comes back with a variable that only that one can know.
pub(super) type Prepare<'p> = dyn FnMut() -> Result<Option<CString>, Errno> + 'p;

/// What the new process has to do.
struct Task<'t> {
    prepare: &'t mut Prepare<'t>,
    line: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// Why there is no program; 0 while nothing is known of that.
    failed: i32,
}

/// Starts a process that makes itself ready and becomes the program that the command line's first word names, looked
/// up in PATH.
///
/// # Errors
/// What clone(2), `prepare` or execvpe(3) says. There is no process then.
///
/// # Safety
/// This process has one thread.
pub(super) unsafe fn spawn<'p>(
    line: &[CString],
    environment: &[CString],
    prepare: &'p mut Prepare<'p>,
) -> Result<Pid, Errno> {
    let pointers = |words: &[CString]| -> Vec<*const c_char> {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (line, environment) = (pointers(line), pointers(environment));
    // For a script without an interpreter, execvpe(3) makes a longer command line there.
    let mut stack = Vec::<MaybeUninit<u128>>::with_capacity(
        (STACK + line.len() * size_of::<usize>()) / size_of::<u128>(),
    );
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
    let mut task = Task { prepare, line, environment, failed: 0 };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is aligned and large enough, and it and the task outlive the new process's use of them: this
    // call comes back when that process has become another program or has ended. No other thread is there to meet it.
    let pid = unsafe { libc::clone(run, top.cast(), flags, (&raw mut task).cast()) };
    let pid = Pid::from_raw(Errno::result(pid)?);
    // SAFETY: `task` is alive; read anew, because the new process may have written to it.
    match unsafe { (&raw const task.failed).read_volatile() } {
        0 => Ok(pid),
        errno => {
            while nix::sys::wait::waitpid(pid, None) == Err(Errno::EINTR) {}
            Err(Errno::from_raw(errno))
        }
    }
}

/// The new process's whole life in our memory.
extern "C" fn run(task: *mut c_void) -> i32 {
    // SAFETY: `spawn` hands over its task, which nobody else uses meanwhile.
    let task = unsafe { &mut *task.cast::<Task<'_>>() };
    let failed = match (task.prepare)() {
        Ok(variable) => {
            if let Some(variable) = variable {
                let last = task.environment.len() - 1;
                task.environment.insert(last, variable.into_raw());
            }
            // SAFETY: both arrays end with a null pointer, and their strings outlive this process's use of them.
            unsafe {
                libc::execvpe(task.line[0], task.line.as_ptr(), task.environment.as_ptr());
            }
            Errno::last()
        }
        Err(errno) => errno,
    };
    task.failed = failed as i32;
    // SAFETY: _exit(2) runs nothing of ours.
    unsafe { libc::_exit(127) }
}
