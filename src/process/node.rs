//! What makes Node processes load the preload: two variables.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::heap_page::HeapPage;
use crate::config::{NodePreload, Verbosity, Wrap};
use crate::error::Error;
use crate::memory::heap_page::VARIABLE;
use crate::notice;

/// What the preload is called, wherever it is.
const NAME: &str = "nproxy.js";

/// Where it is, from the directory that nproxy itself is in: as installed, and as built in a checkout.
const PLACES: [&str; 3] = ["../lib/nproxy/node", "../../node", "../../../node"];

const OPTIONS: &str = "NODE_OPTIONS";

/// The page that Node processes write to, and the variables that make them do so.
#[derive(Debug)]
pub(crate) struct Preload {
    pub(crate) page: HeapPage,
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// Prepares what the command's Node processes get; `None` if they get nothing.
///
/// # Errors
/// If the preload was asked for and is not there, or there can be no page.
pub(crate) fn prepare(wrap: &Wrap, verbosity: Verbosity) -> Result<Option<Preload>, Error> {
    let options = std::env::var_os(OPTIONS).unwrap_or_default();
    let has_preload = contains(&options, NAME);
    let max_old = match wrap.node {
        NodePreload::Given(max_old) => max_old,
        NodePreload::AsItIs if has_preload => None,
        NodePreload::AsItIs => return Ok(None),
    };
    if let Some(flag) = forbidding_flag(wrap, &options) {
        let text = format!("--node: without effect, as {flag} would refuse what it loads");
        notice::notice(verbosity, &text);
        return Ok(None);
    }
    let page = HeapPage::new().map_err(|error| Error::os("make a page for Node's heaps", error))?;
    if verbosity == Verbosity::Quiet {
        page.page().set_quiet();
    }
    let mut variables = vec![(OsString::from(VARIABLE), page.path())];
    let mut more = Vec::new();
    if !has_preload {
        more.push(required(&find()?));
    }
    if let Some(mib) = max_old {
        more.push(format!("--max-old-space-size={mib}").into());
    }
    if !more.is_empty() {
        let words = [options].into_iter().chain(more).filter(|words| !words.is_empty());
        let words = words.collect::<Vec<_>>().join(OsStr::new(" "));
        variables.push((OPTIONS.into(), words));
    }
    Ok(Some(Preload { page, variables }))
}

/// A flag under which Node refuses to load an addon, or the preload itself, and would not start: in NODE_OPTIONS, or in
/// front of the named command's script.
fn forbidding_flag(wrap: &Wrap, options: &OsStr) -> Option<&'static str> {
    const FLAGS: [&str; 3] = ["--permission", "--experimental-permission", "--no-addons"];
    let words = options.as_bytes().split(|byte| byte.is_ascii_whitespace());
    let words = words.map(OsStr::from_bytes).chain(wrap.arguments.iter().map(OsString::as_os_str));
    let mut words = words.collect::<Vec<_>>().into_iter();
    words.find_map(|word| FLAGS.into_iter().find(|flag| word == *flag))
}

fn contains(text: &OsStr, part: &str) -> bool {
    text.as_bytes().windows(part.len()).any(|window| window == part.as_bytes())
}

fn find() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().unwrap_or_default();
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places = PLACES.map(|place| directory.join(place).join(NAME));
    let found = places.iter().find_map(|place| place.canonicalize().ok());
    found.ok_or_else(|| {
        let looked = PLACES.map(|place| format!("{}/{place}", directory.display())).join(", ");
        Error::usage("--node", format!("{NAME} is not in {looked}"))
    })
}

/// The option that loads a file, as NODE_OPTIONS wants it written.
fn required(path: &Path) -> OsString {
    let mut words = b"--require \"".to_vec();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            words.push(b'\\');
        }
        words.push(*byte);
    }
    words.push(b'"');
    OsString::from_vec(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted() {
        assert_eq!(required(Path::new("/a b/\"c\"\\d")), r#"--require "/a b/\"c\"\\d""#);
    }

    #[test]
    fn the_preload_is_recognized() {
        assert!(contains(OsStr::new("-r /x/node/nproxy.js --x"), NAME));
        assert!(!contains(OsStr::new("-r /x/nproxy"), NAME));
    }
}
