//! Reading one segment: bytes to pieces, and which of them have been acknowledged.

use std::io::{self, Read as _};

use crate::config::WINDOW_BYTES;
use crate::cursor::Known;
use crate::cut::{Cutter, End, Piece, Rule};
use crate::directory::Found;
use crate::segment::SegmentId;
use crate::source::{Prefix, Source};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// A segment that is being shipped.
pub(crate) struct Reader {
    /// Which one.
    pub(crate) id: SegmentId,
    /// Counts how often the file was found changed.
    pub(crate) generation: u32,
    source: Source,
    cutter: Cutter,
    crc: crc32fast::Hasher,
    /// Bytes acknowledged.
    offset: u64,
    /// Where reading stops although there is more.
    limit: Option<u64>,
    buffer: Vec<u8>,
    /// Whether the line that comes next continues a piece.
    inside_line: bool,
}

impl Reader {
    /// Opens `found`, of which `known` says how far it has been shipped. `InvalidData` if it holds something else.
    pub(crate) fn open(known: &Known, found: &Found, limit: Option<u64>) -> io::Result<Self> {
        let prefix = Prefix { len: known.offset, crc: known.crc };
        Ok(Reader {
            id: known.id.clone(),
            generation: known.generation,
            source: Source::open(&found.path, &found.id, found.form, prefix)?,
            cutter: Cutter::at(known.offset),
            crc: crc32fast::Hasher::new_with_initial_len(known.crc, known.offset),
            offset: known.offset,
            limit,
            buffer: vec![0; CHUNK],
            inside_line: false,
        })
    }

    /// Messages for a window of `count` at most. Fewer, or none, if the segment has no more complete ones.
    pub(crate) fn pieces(
        &mut self,
        rule: Rule,
        count: usize,
        planned: &mut Vec<usize>,
    ) -> io::Result<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        while pieces.len() < count && bytes < WINDOW_BYTES {
            // What was on its way when the last run ended is cut as it was then.
            let next = match planned.first() {
                Some(&len) => self.cutter.next_of(len),
                None => self.cutter.next(rule),
            };
            match next {
                Some(piece) => {
                    if !planned.is_empty() {
                        planned.remove(0);
                    }
                    bytes += piece.payload.len();
                    pieces.push(piece);
                }
                None if self.read()? == 0 => {
                    if planned.is_empty() {
                        break;
                    }
                    planned.clear();
                }
                None => {}
            }
        }
        Ok(pieces)
    }

    /// Reads once more; 0 at the end of what is there.
    pub(crate) fn read(&mut self) -> io::Result<usize> {
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.cutter.end()));
        let most = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = self.source.read(&mut self.buffer[..most])?;
        self.cutter.push(&self.buffer[..got]);
        Ok(got)
    }

    /// Nobody will write any more: all there is counts.
    pub(crate) fn lift_limit(&mut self) {
        self.limit = None;
    }

    /// A last line without an end, when nothing more will come.
    pub(crate) fn rest(&mut self) -> Option<Piece> {
        self.cutter.rest()
    }

    /// Bytes that wait for the end of their line.
    pub(crate) fn pending(&self) -> usize {
        self.cutter.pending()
    }

    /// Whether `piece` is the first of a line that is sent in pieces.
    pub(crate) fn begins_long_line(&mut self, piece: &Piece) -> bool {
        let began = piece.end == End::Open && !self.inside_line;
        self.inside_line = piece.end == End::Open;
        began
    }

    /// Takes the acknowledgement of `piece`. Returns how much is acknowledged now.
    pub(crate) fn acknowledged(&mut self, piece: &Piece) -> Prefix {
        self.crc.update(&piece.payload);
        if piece.end == End::Line {
            self.crc.update(b"\n");
        }
        self.offset += piece.len();
        Prefix { len: self.offset, crc: self.crc.clone().finalize() }
    }

    /// Goes back to what is acknowledged, so that the rest is cut anew; false if that needs opening it again.
    pub(crate) fn rewind(&mut self) -> bool {
        self.cutter = Cutter::at(self.offset);
        self.inside_line = false;
        self.source.rewind(self.offset)
    }

    /// The file while it may still grow.
    pub(crate) fn plain(&self) -> Option<&std::fs::File> {
        self.source.plain()
    }

    /// Bytes of a plain file that are not acknowledged.
    pub(crate) fn lag(&self) -> Option<u64> {
        self.source.size().map(|size| size.saturating_sub(self.offset))
    }
}
