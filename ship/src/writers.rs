//! Whether somebody still has a file open for writing.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// Where not every process may be looked at, a file that has not changed for so long counts as left.
const QUIET: Duration = Duration::from_secs(10);

/// Whether nobody will write to the file any more that `file` is open on. Processes in another PID namespace are not
/// seen.
pub(crate) fn gone(file: &fs::File) -> bool {
    let Ok(metadata) = file.metadata() else { return true };
    match look((metadata.dev(), metadata.ino())) {
        Writers::None => true,
        Writers::Some => false,
        Writers::Unknown => {
            metadata.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age >= QUIET)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Writers {
    None,
    Some,
    /// Another user's process could not be looked at.
    Unknown,
}

fn look(file: (u64, u64)) -> Writers {
    let mut answer = Writers::None;
    let Ok(processes) = fs::read_dir("/proc") else { return Writers::Unknown };
    for process in processes.flatten() {
        if !process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        match fs::read_dir(process.path().join("fd")) {
            Ok(fds) => {
                for fd in fds.flatten() {
                    let same = fs::metadata(fd.path()).is_ok_and(|m| (m.dev(), m.ino()) == file);
                    if same && writes(&process.path().join("fdinfo").join(fd.file_name())) {
                        return Writers::Some;
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => answer = Writers::Unknown,
            Err(_) => {}
        }
    }
    answer
}

/// Whether the description that `fdinfo` tells of is open for writing (proc_pid_fdinfo(5): flags in octal).
fn writes(fdinfo: &std::path::Path) -> bool {
    let text = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|f| u32::from_str_radix(f.trim(), 8).ok()).is_some_and(|f| f & 3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_and_a_reader_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let writer = fs::File::create(&path).expect("create");
        let reader = fs::File::open(&path).expect("open");
        assert!(!gone(&reader));
        drop(writer);
        let metadata = reader.metadata().expect("metadata");
        assert_ne!(look((metadata.dev(), metadata.ino())), Writers::Some);
    }
}
