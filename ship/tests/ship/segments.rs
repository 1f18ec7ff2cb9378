//! A segment writer that follows nproxy's rules: the current file keeps its name, finished ones are PATH.TIME and end
//! at a newline, a compressed one is renamed into place complete before the plain one goes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub(crate) struct Segments {
    pub(crate) path: PathBuf,
    file: File,
    count: u32,
}

impl Segments {
    pub(crate) fn new(path: &Path) -> Segments {
        let file = File::create(path).expect("create a segment");
        Segments { path: path.to_owned(), file, count: 0 }
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.file.write_all(bytes.as_ref()).expect("write");
    }

    /// The lines `from` to `to` - 1, numbered.
    pub(crate) fn lines(&mut self, from: u64, to: u64) {
        self.write(numbered(from, to));
    }

    /// Ends the current segment and begins the next; returns the finished one's name.
    pub(crate) fn rotate(&mut self) -> PathBuf {
        self.count += 1;
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".20261125T2000{:05}", self.count));
        let finished = PathBuf::from(name);
        std::fs::rename(&self.path, &finished).expect("rename");
        self.file = File::create(&self.path).expect("create a segment");
        finished
    }
}

/// As `seq` would, with a few letters so that lines differ in length.
pub(crate) fn numbered(from: u64, to: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for n in from..to {
        let letters = usize::try_from(n % 60).expect("small");
        writeln!(text, "line {n} {}", "abcdefghij".repeat(6).split_at(letters).0).expect("write");
    }
    text
}

pub(crate) fn gzip(path: &Path) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&std::fs::read(path).expect("read")).expect("compress");
    replace(path, "gz", &encoder.finish().expect("compress"));
}

pub(crate) fn zstd(path: &Path) {
    let bytes = zstd::encode_all(File::open(path).expect("open"), 1).expect("compress");
    replace(path, "zst", &bytes);
}

fn replace(path: &Path, ending: &str, bytes: &[u8]) {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&temporary, bytes).expect("write");
    std::fs::rename(&temporary, path.with_file_name(format!("{name}.{ending}"))).expect("rename");
    std::fs::remove_file(path).expect("remove");
}

/// Fails with the first difference rather than with all of both.
#[track_caller]
pub(crate) fn assert_same(got: &[u8], expected: &[u8], said: &str) {
    if got == expected {
        return;
    }
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let from = at.saturating_sub(30).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..(at + 60).min(bytes.len())]).into_owned()
    };
    panic!(
        "{} bytes for {}, first difference at {at}:\n{:?}\nfor\n{:?}\n{said}",
        got.len(),
        expected.len(),
        around(got),
        around(expected)
    );
}
