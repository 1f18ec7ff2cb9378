//! What one process would give back by dying: its anonymous and its shared memory, never the pages of files.
//!
//! `statm` says how much is resident and how much of that is shared, in one call: the difference is anonymous. Two
//! things it does not say. Whether anonymous pages are shared with relatives, as after a fork: counted in each of them
//! they count too often. And whether shared pages are a file's or shared memory: counted as files they count too
//! little. Both are read seldom, from `smaps_rollup`, which walks the page tables (about 1 ms for 100 MiB), or, for a
//! process whose memory nobody shares, from `status`; until the next time, growth is added to what was found.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Figures of `statm`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statm {
    pub(super) anonymous: u64,
    /// Pages of files, and of shared memory.
    pub(super) shared: u64,
}

impl Statm {
    /// Reads an open `/proc/PID/statm`.
    ///
    /// # Errors
    /// ESRCH: the process that it was opened for is gone.
    pub(super) fn read(file: &File, page: u64) -> io::Result<Statm> {
        let mut text = [0; 128];
        let len = file.read_at(&mut text, 0)?;
        Statm::parse(&text[..len], page).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// See proc_pid_statm(5): size, resident, shared, …
    fn parse(text: &[u8], page: u64) -> Option<Statm> {
        let mut fields = std::str::from_utf8(text).ok()?.split(' ').skip(1);
        let mut pages = || fields.next()?.parse::<u64>().ok();
        let (resident, shared) = (pages()?, pages()?);
        Some(Statm { anonymous: resident.saturating_sub(shared) * page, shared: shared * page })
    }
}

/// Whether others may share a process's anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nobody that counts.
    Alone,
    /// Its relatives.
    Possible,
}

/// What was found out about a process, and what it had then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    then: Statm,
    /// Its part of what counts, in bytes.
    counted: u64,
    known: bool,
}

impl Footprint {
    /// Measures it. Where that is not allowed, as at a process with other rights, what `statm` says stands. One that has
    /// ended meanwhile has nothing any more.
    pub(super) fn measure(pid: u32, now: Statm, sharing: Sharing) -> Footprint {
        let rollup = || fs::read(format!("/proc/{pid}/smaps_rollup")).ok();
        let proportional = || sum(&rollup()?, &["Pss_Anon:", "Pss_Shmem:"]);
        let plain = || match fs::read(format!("/proc/{pid}/status")) {
            Ok(text) => Some(sum(&text, &["RssAnon:", "RssShmem:"]).unwrap_or(0)),
            Err(error) if is_gone(&error) => Some(0),
            Err(_) => None,
        };
        let counted = match sharing {
            Sharing::Possible => proportional().or_else(plain),
            Sharing::Alone => plain(),
        };
        Footprint { then: now, counted: counted.unwrap_or(now.anonymous), known: true }
    }

    /// Does not measure: what is shared is a file's, as it mostly is.
    pub(super) fn assumed(now: Statm) -> Footprint {
        Footprint { then: now, counted: now.anonymous, known: true }
    }

    /// What counts now, as far as is known.
    pub(super) fn bytes(&self, now: Statm) -> u64 {
        (self.counted + now.anonymous).saturating_sub(self.then.anonymous)
    }

    /// What might count besides: shared pages of which nobody knows whose they are.
    pub(super) fn hidden(&self, now: Statm) -> u64 {
        now.shared.saturating_sub(self.then.shared)
    }

    /// What it has besides that counts elsewhere: shared with relatives when it was measured.
    pub(super) fn in_common(&self, now: Statm) -> u64 {
        if self.known { now.anonymous.saturating_sub(self.bytes(now)) } else { 0 }
    }

    /// Whether it has been measured.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The sum of some fields of a file that gives them in kibibytes; `None` if not all are there.
fn sum(text: &[u8], names: &[&str]) -> Option<u64> {
    let text = String::from_utf8_lossy(text);
    let field = |name: &&str| {
        let value = text.lines().find_map(|line| line.strip_prefix(*name))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    names.iter().map(field).sum::<Option<u64>>().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shared_is_anonymous() {
        let read = |text: &[u8]| Statm::parse(text, 4096);
        assert_eq!(
            read(b"900 100 30 1 0 50 0\n"),
            Some(Statm { anonymous: 70 * 4096, shared: 30 * 4096 })
        );
        assert_eq!(read(b"900 100"), None);
    }

    #[test]
    fn fields_are_added_whatever_the_name_is() {
        let text = b"Name:\ta\xffb\nRssAnon:\t    12 kB\nRssFile:\t 500 kB\nRssShmem:\t     8 kB\n";
        assert_eq!(sum(text, &["RssAnon:", "RssShmem:"]), Some(20 << 10));
        assert_eq!(sum(text, &["RssAnon:", "Pss_Shmem:"]), None);
    }

    #[test]
    fn growth_is_added_to_what_was_found() {
        let then = Statm { anonymous: 80, shared: 50 };
        let found = Footprint { then, counted: 20, known: true };
        assert_eq!(found.bytes(Statm { anonymous: 90, ..then }), 30);
        assert_eq!(found.bytes(Statm { anonymous: 10, ..then }), 0);
        assert_eq!(found.hidden(Statm { shared: 70, ..then }), 20);
        assert_eq!(found.in_common(then), 60);
        let nothing = Footprint::default();
        assert_eq!((nothing.bytes(then), nothing.hidden(then)), (80, 50));
    }

    #[test]
    fn who_has_ended_has_nothing() {
        let now = Statm { anonymous: 80, shared: 0 };
        let mut child = std::process::Command::new("true").spawn().expect("start true");
        let status = || fs::read_to_string(format!("/proc/{}/status", child.id()));
        while !status().is_ok_and(|text| text.contains("Z (zombie)")) {
            std::thread::yield_now();
        }
        for sharing in [Sharing::Alone, Sharing::Possible] {
            assert_eq!(Footprint::measure(child.id(), now, sharing).bytes(now), 0, "a zombie");
        }
        child.wait().expect("wait");
    }

    #[test]
    fn our_own_is_anonymous_memory() {
        let file = File::open("/proc/self/statm").expect("open");
        let memory = vec![1u8; 32 << 20];
        let now = Statm::read(&file, 4096).expect("statm");
        std::hint::black_box(&memory);
        for sharing in [Sharing::Alone, Sharing::Possible] {
            let counted = Footprint::measure(std::process::id(), now, sharing).bytes(now);
            assert!(counted > 32 << 20, "{sharing:?}: {counted}");
        }
    }
}
