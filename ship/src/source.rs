//! A segment's bytes, from a place in it on, whether it is compressed or not.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::directory::{Form, Found};
use crate::segment::SegmentId;

/// An open segment. It stays readable when it is renamed or removed.
pub(crate) enum Source {
    /// The file itself.
    Plain(File),
    /// Through gzip.
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
    /// Through zstd.
    Zstd(Box<zstd::Decoder<'static, BufReader<File>>>),
}

/// What a segment is known to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Its length in bytes.
    pub(crate) len: u64,
    /// Its CRC-32.
    pub(crate) crc: u32,
}

impl Source {
    /// Opens the file `id` at `path` behind `prefix`. `NotFound` if another file has that name by now, `InvalidData` if
    /// it does not begin with that.
    pub(crate) fn open(
        path: &Path,
        id: &SegmentId,
        form: Form,
        prefix: Prefix,
    ) -> io::Result<Self> {
        let file = File::open(path)?;
        if SegmentId::of(&file.metadata()?)? != *id {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut source = Source::decode(file, form)?;
        if source.prefix(prefix.len)? != Some(prefix.crc) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it no longer begins with what was shipped of it",
            ));
        }
        Ok(source)
    }

    /// Whether a segment begins with `prefix` and is at least `size` bytes long.
    pub(crate) fn holds(found: &Found, prefix: Prefix, size: u64) -> bool {
        let rest = Source::open(&found.path, &found.id, found.form, prefix)
            .and_then(|s| io::copy(&mut { s }, &mut io::sink()));
        rest.is_ok_and(|rest| prefix.len + rest >= size)
    }

    fn decode(file: File, form: Form) -> io::Result<Self> {
        Ok(match form {
            Form::Plain => Source::Plain(file),
            Form::Gzip => Source::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
            Form::Zstd => Source::Zstd(Box::new(zstd::Decoder::with_buffer(BufReader::new(file))?)),
        })
    }

    /// The CRC-32 of the next `len` bytes, none if there are fewer.
    fn prefix(&mut self, len: u64) -> io::Result<Option<u32>> {
        let mut hash = crc32fast::Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        let mut left = len;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = self.read(&mut buffer[..most])?;
            if got == 0 {
                return Ok(None);
            }
            hash.update(&buffer[..got]);
            left -= got as u64;
        }
        Ok(Some(hash.finalize()))
    }

    /// The file, if it is a plain one, which may still grow.
    pub(crate) fn plain(&self) -> Option<&File> {
        match self {
            Source::Plain(file) => Some(file),
            Source::Gzip(_) | Source::Zstd(_) => None,
        }
    }

    /// Bytes of a plain file.
    pub(crate) fn size(&self) -> Option<u64> {
        self.plain().and_then(|file| file.metadata().ok()).map(|m| m.len())
    }

    /// Goes back to `offset` of a plain file; false if it is not one.
    pub(crate) fn rewind(&mut self, offset: u64) -> bool {
        match self {
            Source::Plain(file) => file.seek(SeekFrom::Start(offset)).is_ok(),
            Source::Gzip(_) | Source::Zstd(_) => false,
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read(buffer),
            Source::Gzip(decoder) => decoder.read(buffer),
            Source::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TEXT: &[u8] = b"first line\nsecond line\n";

    fn rest(form: Form, bytes: &[u8], len: u64, crc: u32) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("segment");
        std::fs::write(&path, bytes)?;
        let mut rest = Vec::new();
        Source::open(&path, &SegmentId::of(&path.metadata()?)?, form, Prefix { len, crc })?
            .read_to_end(&mut rest)?;
        Ok(rest)
    }

    #[test]
    fn every_form_is_read_from_behind_its_prefix() {
        // Two members, as `cat a.gz b.gz` makes them.
        let mut gzip = Vec::new();
        for half in TEXT.chunks(12) {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(half).expect("compress");
            gzip.extend(encoder.finish().expect("compress"));
        }
        let zstd = zstd::encode_all(TEXT, 1).expect("compress");
        let crc = crc32fast::hash(&TEXT[..5]);
        for (form, bytes) in [(Form::Plain, TEXT), (Form::Gzip, &gzip), (Form::Zstd, &zstd)] {
            assert_eq!(rest(form, bytes, 5, crc).expect("read"), &TEXT[5..], "{form:?}");
            assert!(rest(form, bytes, 5, crc ^ 1).is_err(), "{form:?}: another beginning");
            assert!(rest(form, bytes, 500, crc).is_err(), "{form:?}: shorter");
        }
        assert!(rest(Form::Gzip, &gzip[..gzip.len() - 9], 0, 0).is_err(), "a cut file is no end");
    }
}
