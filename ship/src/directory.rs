//! Which segments of a path there are: PATH itself, and PATH.TIME, PATH.TIME.gz, PATH.TIME.zst.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::segment::SegmentId;

/// How a segment's bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// As they were written.
    Plain,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

/// A segment that is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Of the file, which for a compressed one is not the file that was written.
    pub(crate) id: SegmentId,
    /// PATH.TIME of a finished segment, without what compression adds; none for the current one.
    pub(crate) stem: Option<String>,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How its bytes are kept.
    pub(crate) form: Form,
    /// Bytes on disk.
    pub(crate) size: u64,
}

/// All segments of `path`, in the order in which they were written. Beside a plain segment its compressed
/// successor does not count yet.
pub(crate) fn scan(path: &Path) -> io::Result<Vec<Found>> {
    let name = path.file_name().unwrap_or_default();
    let mut finished: BTreeMap<(String, Form), Found> = BTreeMap::new();
    let mut current = None;
    for entry in std::fs::read_dir(directory_of(path))? {
        let entry = entry?;
        let Some(place) = place(name, &entry.file_name()) else { continue };
        // It may have been renamed or removed since; whoever looks next sees it under its new name.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let id = SegmentId::of(&metadata)?;
        let found = |stem, form| Found { id, stem, path: entry.path(), form, size: metadata.len() };
        match place {
            Place::Current => current = Some(found(None, Form::Plain)),
            Place::Finished(stem, form) => {
                finished.insert((stem.clone(), form), found(Some(stem), form));
            }
        }
    }
    let mut all: Vec<Found> = Vec::with_capacity(finished.len() + 1);
    for ((stem, _), found) in finished {
        if all.last().and_then(|last| last.stem.as_ref()) != Some(&stem) {
            all.push(found);
        }
    }
    // A segment that was renamed while we read the directory may have been met under both names.
    if let Some(current) = current
        && all.iter().all(|found| found.id != current.id)
    {
        all.push(current);
    }
    Ok(all)
}

/// The directory that holds `path`.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The stem of `name` if it is that of a finished segment of `path`.
pub(crate) fn stem_of(path: &Path, name: &str) -> Option<String> {
    match place(path.file_name()?, OsStr::new(name)) {
        Some(Place::Finished(stem, _)) => Some(stem),
        Some(Place::Current) | None => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Current,
    Finished(String, Form),
}

/// What `name` is among the segments of `base`. TIME begins with a digit: `app.log` is no segment of `app`.
fn place(base: &OsStr, name: &OsStr) -> Option<Place> {
    let rest = name.as_bytes().strip_prefix(base.as_bytes())?;
    if rest.is_empty() {
        return Some(Place::Current);
    }
    let time = rest.strip_prefix(b".")?;
    if !time.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let whole = name.to_string_lossy();
    Some(match whole.rsplit_once('.') {
        Some((stem, "gz")) => Place::Finished(stem.to_owned(), Form::Gzip),
        Some((stem, "zst")) => Place::Finished(stem.to_owned(), Form::Zstd),
        _ => Place::Finished(whole.into_owned(), Form::Plain),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_time_are_segments() {
        let place = |name: &str| place(OsStr::new("app"), OsStr::new(name));
        assert_eq!(place("app"), Some(Place::Current));
        assert_eq!(
            place("app.20260101"),
            Some(Place::Finished("app.20260101".into(), Form::Plain))
        );
        assert_eq!(place("app.2026.gz"), Some(Place::Finished("app.2026".into(), Form::Gzip)));
        assert_eq!(place("app.2026.zst"), Some(Place::Finished("app.2026".into(), Form::Zstd)));
        for other in ["app.log", ".app.ship", "apple", "app.", "ap", "app.log.2026"] {
            assert_eq!(place(other), None, "{other}");
        }
    }

    #[test]
    fn segments_come_in_order_and_a_plain_one_hides_its_compressed_one() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "a.2", "a.1.gz", "a.1", "a.3.zst", ".a.tmp", "a.log"] {
            std::fs::write(dir.path().join(name), name).expect("write");
        }
        let names: Vec<String> = scan(&dir.path().join("a"))
            .expect("scan")
            .iter()
            .map(|f| f.path.file_name().expect("a name").to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["a.1", "a.2", "a.3.zst", "a"]);
    }
}
