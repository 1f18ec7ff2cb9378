//! How segments are called, and which of them have to go. Pure.
//!
//! The current one is PATH, finished ones are PATH.TIME and sort by it, compressed ones PATH.TIME.gz and PATH.TIME.zst.
//! Whatever else lies beside them begins with a dot.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::config::Compression;

/// TIME: to the microsecond, in UTC, always as long.
const TIME: &str = "%Y%m%dT%H%M%S.%6fZ";

/// Microseconds since 1970.
pub(in crate::copies) type Micros = i64;

/// A finished segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::copies) struct Finished {
    pub(in crate::copies) time: Micros,
    pub(in crate::copies) compressed: Option<Suffix>,
    /// Bytes on disk.
    pub(in crate::copies) size: u64,
}

/// What a compressed segment's name ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::copies) enum Suffix {
    Gz,
    Zst,
}

impl Suffix {
    pub(super) fn of(compression: Compression) -> Suffix {
        match compression {
            Compression::Gzip => Suffix::Gz,
            Compression::Zstd => Suffix::Zst,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Suffix::Gz => ".gz",
            Suffix::Zst => ".zst",
        }
    }
}

/// The name of the segment that was finished then.
pub(super) fn finished(base: &OsStr, time: Micros, suffix: Option<Suffix>) -> OsString {
    let time = Timestamp::from_microsecond(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut name = base.as_bytes().to_vec();
    name.extend(format!(".{}", time.strftime(TIME)).as_bytes());
    name.extend(suffix.map_or("", Suffix::text).as_bytes());
    OsString::from_vec(name)
}

/// What it is called while it is being made.
pub(super) fn unfinished(base: &OsStr, time: Micros, suffix: Suffix) -> OsString {
    let mut name = OsString::from(".");
    name.push(finished(base, time, Some(suffix)));
    name
}

/// When the segment of this name was finished; `None` if it is none.
pub(super) fn parse(base: &OsStr, name: &OsStr) -> Option<(Micros, Option<Suffix>)> {
    let rest = name.as_bytes().strip_prefix(base.as_bytes())?.strip_prefix(b".")?;
    let rest = std::str::from_utf8(rest).ok()?;
    let ends = [(".gz", Some(Suffix::Gz)), (".zst", Some(Suffix::Zst))];
    let ended = ends.iter().find_map(|(end, suffix)| Some((rest.strip_suffix(end)?, *suffix)));
    let (time, suffix) = ended.unwrap_or((rest, None));
    let civil = DateTime::strptime("%Y%m%dT%H%M%S%.fZ", time).ok()?;
    let micros = civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond();
    // What reads as a time and is not written as we do is somebody else's.
    (finished(base, micros, suffix) == name).then_some((micros, suffix))
}

/// Which segments have to go, so that at most `keep` finished ones stay, and all of them with the current one, which has
/// `current` bytes, have at most `total`. The oldest go first. `all` is in order.
pub(super) fn surplus(
    all: &[Finished],
    current: u64,
    keep: Option<usize>,
    total: Option<u64>,
) -> Vec<Finished> {
    let mut times: Vec<Micros> = all.iter().map(|finished| finished.time).collect();
    times.dedup();
    let too_many = keep.map_or(0, |keep| times.len().saturating_sub(keep));
    let mut bytes = all.iter().map(|finished| finished.size).sum::<u64>() + current;
    let mut gone = Vec::new();
    for (index, time) in times.iter().enumerate() {
        if index >= too_many && total.is_none_or(|total| bytes <= total) {
            break;
        }
        for finished in all.iter().filter(|finished| finished.time == *time) {
            bytes -= finished.size;
            gone.push(finished.clone());
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_can_be_read_and_sort_by_time(one in 0i64..4_000_000_000_000_000, two in 0i64..4_000_000_000_000_000) {
            let base = OsStr::new("a.log");
            for suffix in [None, Some(Suffix::Gz), Some(Suffix::Zst)] {
                prop_assert_eq!(parse(base, &finished(base, one, suffix)), Some((one, suffix)));
            }
            let (first, second) = (finished(base, one, None), finished(base, two, None));
            prop_assert_eq!(one.cmp(&two), first.cmp(&second));
        }

        #[test]
        fn the_oldest_go_and_no_more_than_must(
            sizes in prop::collection::vec(0u64..100, 0..20),
            current in 0u64..200,
            keep in prop::option::of(0usize..25),
            total in prop::option::of(0u64..1500),
        ) {
            let all: Vec<Finished> = sizes.iter().enumerate().map(|(time, size)| {
                Finished { time: time as i64, compressed: None, size: *size }
            }).collect();
            let gone = surplus(&all, current, keep, total);
            prop_assert_eq!(&gone[..], &all[..gone.len()]);
            let left = &all[gone.len()..];
            let fits = |left: &[Finished]| {
                keep.is_none_or(|keep| left.len() <= keep)
                    && total.is_none_or(|total| {
                        left.iter().map(|segment| segment.size).sum::<u64>() + current <= total
                    })
            };
            prop_assert!(fits(left) || left.is_empty());
            if let Some(last) = gone.len().checked_sub(1) {
                prop_assert!(!fits(&all[last..]));
            }
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        let base = OsStr::new("log");
        for name in [
            "log",
            "log.1",
            "log.gz",
            "log.20260101",
            "log.20260101T000000Z",
            "log.old",
            ".log.x",
            "log.20260101T000000.000000Z.xz",
            "log.20261301T000000.000000Z",
        ] {
            assert_eq!(parse(base, OsStr::new(name)), None, "{name}");
        }
        assert_eq!(
            parse(base, OsStr::new("log.19700101T000001.000002Z.gz")),
            Some((1_000_002, Some(Suffix::Gz)))
        );
    }

    #[test]
    fn both_forms_of_one_segment_go_together() {
        let all = [
            Finished { time: 1, compressed: None, size: 5 },
            Finished { time: 1, compressed: Some(Suffix::Gz), size: 2 },
            Finished { time: 2, compressed: None, size: 5 },
        ];
        assert_eq!(surplus(&all, 0, Some(1), None), all[..2]);
    }
}
