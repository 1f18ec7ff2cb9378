//! System calls that the kernel refuses, as the seccomp filter of a container does.

use std::error::Error;

use nix::errno::Errno;
use nix::libc;

/// The calls that can be named, by the numbers of this architecture.
const CALLS: [(&str, libc::c_long); 8] = [
    ("splice", libc::SYS_splice),
    ("tee", libc::SYS_tee),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("epoll_pwait2", libc::SYS_epoll_pwait2),
    ("kcmp", libc::SYS_kcmp),
    ("close_range", libc::SYS_close_range),
    ("pwritev2", libc::SYS_pwritev2),
];

/// `ERRNO:CALL+CALL…`: from here on, in this process and all that it starts.
#[allow(unsafe_code, reason = "a filter is handed to the kernel by its address")]
pub(crate) fn apply(setting: &str) -> Result<(), Box<dyn Error>> {
    let (errno, calls) = setting.split_once(':').ok_or("ERRNO:CALL+CALL")?;
    let errno = match errno {
        "EPERM" => Errno::EPERM,
        "ENOSYS" => Errno::ENOSYS,
        _ => return Err("EPERM or ENOSYS".into()),
    };
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls.split('+') {
        let found = CALLS.iter().find(|(name, _)| *name == call);
        let (_, number) = found.ok_or_else(|| format!("{call}: no such call"))?;
        let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
        let is_it = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(statement(is_it, 0, 1, *number as u32));
        filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, refuse));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the filter during the call; program and filter live until after it.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        Errno::result(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program))?;
    }
    Ok(())
}
