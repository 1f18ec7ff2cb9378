//! What ps shows for nproxy: the command, and the memory stage.
//!
//! The kernel reads a process's command line out of its memory. This points it at a buffer of ours
//! (PR_SET_MM_MAP, 3.18, which needs no privilege but a kernel with checkpoint/restore built in); else it writes over the arguments that it was started with, as far as they reach. The environment stays
//! what it was: who looks for processes by it still finds us.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs;

use crate::memory::policy::Stage;

/// Room for a title, with its final zero.
const ROOM: usize = 256;

/// The title of this process. There is one per process, and what the kernel reads is never freed.
#[derive(Debug)]
pub(crate) struct Title {
    command: String,
    area: Area,
}

#[derive(Debug)]
enum Area {
    /// A buffer of ours.
    Redirected(&'static mut [u8; ROOM]),
    /// The arguments that the process was started with.
    Original(&'static mut [u8]),
}

impl Title {
    /// The title of an nproxy that runs `program`; nothing is shown yet.
    pub(crate) fn new(program: &std::ffi::OsStr) -> Title {
        let name = std::path::Path::new(program).file_name().unwrap_or(program);
        let command = name.to_string_lossy().into_owned();
        let buffer: &'static mut [u8; ROOM] = Box::leak(Box::new([0; ROOM]));
        Title { command, area: Area::Redirected(buffer) }
    }

    /// Shows a stage, and the figure that it begins with.
    pub(crate) fn show(&mut self, stage: Stage, figure: &str) {
        let command = &self.command;
        let text = match stage {
            Stage::Monitoring => format!("nproxy: {command}"),
            stage => format!("nproxy: {command} [{stage}:{figure}]"),
        };
        let _ = nix::sys::prctl::set_name(comm(stage));
        if let Area::Redirected(buffer) = &mut self.area {
            let len = fill(buffer.as_mut_slice(), &text);
            // The final zero is part of what is shown.
            let shown = redirect(&buffer[..=len]);
            if shown.is_some() {
                return;
            }
            let Some(area) = original() else { return };
            self.area = Area::Original(area);
        }
        if let Area::Original(area) = &mut self.area {
            fill(area, &text);
        }
    }
}

/// Writes as much of `text` as fits with a zero behind it, and returns how much that is.
fn fill(area: &mut [u8], text: &str) -> usize {
    let len = text.len().min(area.len() - 1);
    area.fill(0);
    area[..len].copy_from_slice(&text.as_bytes()[..len]);
    len
}

/// The name by which killall(1) and pgrep(1) know us, at most 15 bytes; untouched in quiet times.
fn comm(stage: Stage) -> &'static CStr {
    match stage {
        Stage::Monitoring => c"nproxy",
        Stage::Attention => c"nproxy:attentio",
        Stage::Pressure => c"nproxy:pressure",
        Stage::Critical => c"nproxy:critical",
        Stage::Emergency => c"nproxy:emergenc",
    }
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *mut u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Fields of `/proc/self/stat` from the third on; see proc_pid_stat(5) for the numbers.
fn stat_fields() -> Option<Vec<u64>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
}

/// Makes the kernel take `title` for the arguments from now on. It looks whenever somebody asks, and at
/// whatever is there then.
fn redirect(title: &[u8]) -> Option<()> {
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    let fields = stat_fields()?;
    let field = |number: usize| fields.get(number - 3).copied().filter(|value| *value != 0);
    let start = title.as_ptr() as u64;
    let map = MemoryMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        // SAFETY: sbrk(0) only asks where the heap ends.
        brk: unsafe { libc::sbrk(0) } as u64,
        start_stack: field(28)?,
        arg_start: start,
        arg_end: start + title.len() as u64,
        env_start: field(50)?,
        env_end: field(51)?,
        auxv: std::ptr::null_mut(),
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    // SAFETY: the kernel copies the map and checks it; all but the arguments is what it told us itself, and
    // this is the only thread.
    let done = unsafe {
        libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0)
    };
    (done == 0).then_some(())
}

/// The arguments that the process was started with.
fn original() -> Option<&'static mut [u8]> {
    let fields = stat_fields()?;
    let (start, end) = (*fields.get(48 - 3)?, *fields.get(49 - 3)?);
    let len =
        usize::try_from(end.checked_sub(start)?).ok().filter(|len| (2..1 << 20).contains(len))?;
    // SAFETY: the kernel says that the arguments are here, on the stack above every frame, where they stay
    // mapped and writable. Nothing reads them again: clap has made its own copies.
    Some(unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) })
}
