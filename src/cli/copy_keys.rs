//! `TARGET,key=value,…`: what is said of one copy.
//!
//! A comma is part of a name, or of a value, unless a known key follows: `a,b.log` is one name, `a,keep=2` a name and a
//! key.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::Duration;

use clap::ValueEnum;

use super::choices::{Compression, Restart, TextMode};
use crate::error::Error;
use crate::relay::{OnFull, Stream};
use crate::units::{read_size, read_time};

/// The keys, and whether each takes a value.
const KEYS: [(&str, Takes); 13] = [
    ("append", Takes::Nothing),
    ("text", Takes::Value),
    ("streams", Takes::Value),
    ("full", Takes::Value),
    ("rotate", Takes::Value),
    ("every", Takes::Value),
    ("keep", Takes::Value),
    ("total", Takes::Value),
    ("compress", Takes::Value),
    ("reopen", Takes::Nothing),
    ("wait", Takes::Value),
    ("restart", Takes::Value),
    ("spool", Takes::Value),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

/// What was said of one copy; what was not said is the flags' to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// What exists stays.
    pub append: bool,
    /// Text modes.
    pub text: Option<Vec<TextMode>>,
    /// Which streams.
    pub streams: Option<Vec<Stream>>,
    /// When it cannot keep up.
    pub full: Option<OnFull>,
    /// Bytes of a segment.
    pub rotate: Option<u64>,
    /// Age of a segment.
    pub every: Option<Duration>,
    /// How many finished segments stay.
    pub keep: Option<usize>,
    /// Bytes of all segments.
    pub total: Option<u64>,
    /// What finished segments are compressed with.
    pub compress: Option<Compression>,
    /// A path that was renamed is opened again.
    pub reopen: bool,
    /// How long the end waits for it.
    pub wait: Option<Duration>,
    /// Whether a command is started again.
    pub restart: Option<Restart>,
    /// Where a collector's absence is bridged, and by how many bytes at the most.
    pub spool: Option<(OsString, Option<u64>)>,
}

/// Divides what was said into the target's name and the keys.
///
/// # Errors
/// One line that names the key whose value cannot be.
pub fn divide(word: &OsStr) -> Result<(OsString, Keys), Error> {
    let bytes = word.as_bytes();
    let starts: Vec<usize> = key_starts(bytes).collect();
    let name_end = starts.first().map_or(bytes.len(), |start| start - 1);
    let mut keys = Keys::default();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(bytes.len(), |next| next - 1);
        let item = &bytes[*start..end];
        let text = String::from_utf8_lossy(item).into_owned();
        let (key, value) = match item.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], Some(OsStr::from_bytes(&item[at + 1..]))),
            None => (text.as_str(), None),
        };
        let refused = |why: String| match unknown_key(item) {
            Some(key) => Error::usage(format!("--tee {}", show(word)), no_such_key(&key)),
            None => Error::usage(format!("--tee {}: {text}", show(word)), why),
        };
        keys.set(key, value).map_err(refused)?;
    }
    Ok((OsString::from_vec(bytes[..name_end].to_vec()), keys))
}

/// What stands behind a comma as a key does, and is none: part of a name, or a slip of the hand.
pub fn unknown_key(bytes: &[u8]) -> Option<String> {
    let mut items = bytes.split(|byte| *byte == b',').skip(1);
    items.find_map(|item| {
        let at = item.iter().position(|byte| *byte == b'=')?;
        let key = std::str::from_utf8(&item[..at]).ok()?;
        let is_word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase());
        is_word.then(|| key.to_owned())
    })
}

/// Whether a word is so much like a key that one may have been meant.
pub fn is_like_a_key(word: &str) -> bool {
    KEYS.iter().any(|(key, _)| key[..1] == word[..1] && key.len().abs_diff(word.len()) <= 2)
}

/// How that is told.
pub fn no_such_key(key: &str) -> String {
    let names = KEYS.map(|(name, _)| name).join(", ");
    format!("{key} is no key: expected one of {names}")
}

fn show(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

/// Where the known keys begin, each behind a comma.
fn key_starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let commas = bytes.iter().enumerate().filter(|(_, byte)| **byte == b',');
    commas.map(|(at, _)| at + 1).filter(|start| {
        let rest = &bytes[*start..];
        KEYS.iter().any(|(key, takes)| {
            let after = rest.strip_prefix(key.as_bytes()).map(<[u8]>::first);
            match takes {
                // Without a value it is a mistake worth telling, not a part of the name.
                Takes::Value => matches!(after, Some(Some(b'='))),
                Takes::Nothing => matches!(after, Some(None | Some(b',' | b'='))),
            }
        })
    })
}

impl Keys {
    fn set(&mut self, key: &str, value: Option<&OsStr>) -> Result<(), String> {
        let text = value.map(|value| value.to_string_lossy().into_owned());
        let text = text.as_deref();
        let needed = || match text {
            None | Some("") => Err("expected a value".to_owned()),
            Some(text) => Ok(text),
        };
        match (key, value) {
            ("append" | "reopen", Some(_)) => return Err("takes no value".to_owned()),
            ("append", None) => self.append = true,
            ("reopen", None) => self.reopen = true,
            ("text", _) => self.text = Some(list(needed()?)?),
            ("streams", _) => self.streams = Some(list(needed()?)?),
            ("full", _) => self.full = Some(one(needed()?)?),
            ("rotate", _) => self.rotate = Some(size(needed()?)?),
            ("total", _) => self.total = Some(size(needed()?)?),
            ("every", _) => self.every = Some(time(needed()?)?),
            ("wait", _) => self.wait = Some(read_time(needed()?)?),
            ("compress", _) => self.compress = Some(one(needed()?)?),
            ("restart", _) => self.restart = Some(one(needed()?)?),
            ("spool", _) => {
                needed()?;
                self.spool = value.map(spool);
            }
            ("keep", _) => {
                let count = needed()?.parse();
                self.keep = Some(count.map_err(|_| "expected a number of segments".to_owned())?);
            }
            _ => return Err("no such key".to_owned()),
        }
        Ok(())
    }
}

fn size(text: &str) -> Result<u64, String> {
    match read_size(text)? {
        0 => Err("expected more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

/// `DIR:MAX`, or `DIR` alone; a colon is part of the name unless a size follows.
fn spool(value: &OsStr) -> (OsString, Option<u64>) {
    let bytes = value.as_bytes();
    let divided = bytes.iter().rposition(|byte| *byte == b':').and_then(|at| {
        let max = size(std::str::from_utf8(&bytes[at + 1..]).ok()?).ok()?;
        Some((&bytes[..at], max)).filter(|(directory, _)| !directory.is_empty())
    });
    match divided {
        Some((directory, max)) => (OsStr::from_bytes(directory).to_owned(), Some(max)),
        None => (value.to_owned(), None),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    match read_time(text)? {
        time if time < Duration::from_millis(100) => Err("expected 100ms or more".to_owned()),
        time => Ok(time),
    }
}

fn one<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        format!("expected {}", names.join(" or "))
    })
}

fn list<T: ValueEnum>(text: &str) -> Result<Vec<T>, String> {
    text.split('+').map(one).collect::<Result<_, _>>().map_err(|why| format!("{why}, joined by +"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn divided(word: &str) -> (String, Keys) {
        let (name, keys) = divide(OsStr::new(word)).expect(word);
        (name.into_string().expect("text"), keys)
    }

    #[test]
    fn a_comma_is_part_of_a_name_unless_a_key_follows() {
        for name in
            ["log", "a,b", "a,", ",", "log,appendix", "log,keeper=3", "|cut -d, -f1", "a,keep"]
        {
            assert_eq!(divided(name), (name.to_owned(), Keys::default()), "{name}");
        }
        let (name, keys) = divided("|cut -d, -f1,restart=on-failure,full=drop");
        assert_eq!(name, "|cut -d, -f1");
        assert_eq!((keys.restart, keys.full), (Some(Restart::OnFailure), Some(OnFull::Drop)));
        let (name, keys) = divided("a,b,append,rotate=64M,keep=5,reopen,every=1h");
        assert_eq!((name.as_str(), keys.append, keys.reopen), ("a,b", true, true));
        assert_eq!((keys.rotate, keys.keep), (Some(64 << 20), Some(5)));
        assert_eq!(keys.every, Some(Duration::from_secs(3600)));
        let (_, keys) = divided("log,text=strip-ansi+transform,streams=stderr");
        assert_eq!(keys.text, Some(vec![TextMode::StripAnsi, TextMode::Transform]));
        assert_eq!(keys.streams, Some(vec![Stream::Stderr]));
    }

    #[test]
    fn a_spool_is_a_directory_and_a_size() {
        for (word, directory, max) in [
            ("tcp:h:1,spool=/d", "/d", None),
            ("tcp:h:1,spool=/d:64M", "/d", Some(64 << 20)),
            ("tcp:h:1,spool=/d:e,wait=1s", "/d:e", None),
            ("tcp:h:1,spool=/d:e:5K", "/d:e", Some(5 << 10)),
            ("tcp:h:1,spool=/a,b:0", "/a,b:0", None),
        ] {
            let expected = Some((OsString::from(directory), max));
            assert_eq!(divided(word).1.spool, expected, "{word}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_named() {
        for (word, why) in [
            ("log,rotate=", "rotate=: expected a value"),
            ("log,rotate=five", "rotate=five: expected a size"),
            ("log,rotate=0", "more than 0"),
            ("log,keep=many", "keep=many: expected a number"),
            ("log,full=wait", "full=wait: expected block or drop"),
            ("log,compress=xz", "expected gzip or zstd"),
            ("log,text=bold", "joined by +"),
            ("log,append=yes", "takes no value"),
            ("log,every=1ms", "100ms or more"),
            ("log,rotate=5M,foo=1", "foo is no key: expected one of append, text,"),
        ] {
            let said = divide(OsStr::new(word)).expect_err(word).to_string();
            assert!(said.contains(why) && said.starts_with("--tee log,"), "{said}");
        }
    }

    proptest! {
        /// Whatever a name is made of: it comes back as it was, unless it holds a key itself.
        #[test]
        fn names_stay_as_they_are(name in "[a-z,=|:. ]{1,40}", keep in 0usize..1000) {
            prop_assume!(key_starts(name.as_bytes()).next().is_none());
            let word = format!("{name},keep={keep}");
            let (divided, keys) = divided(&word);
            prop_assert_eq!(divided, name);
            prop_assert_eq!(keys.keep, Some(keep));
        }
    }
}
