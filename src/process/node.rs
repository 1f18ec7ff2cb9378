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
    let has_preload = names_preload(&options);
    let max_old = match wrap.node {
        NodePreload::Given(max_old) => max_old,
        NodePreload::AsItIs if has_preload => None,
        NodePreload::AsItIs => return Ok(None),
    };
    // Who has the preload by habit has asked this run for nothing.
    let was_asked = wrap.node != NodePreload::AsItIs;
    if let Some(flag) = forbidding_flag(wrap, &options) {
        if was_asked {
            let text = format!("--node: without effect, as {flag} would refuse what it loads");
            notice::notice(verbosity, &text);
        }
        return Ok(None);
    }
    let page = match HeapPage::new() {
        Ok(page) => page,
        Err(error) if was_asked => return Err(Error::os("make a page for Node's heaps", error)),
        Err(_) => return Ok(None),
    };
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

/// A flag under which Node refuses to load an addon, or the preload itself, and would not start: in NODE_OPTIONS, or behind
/// the name of Node in the command.
fn forbidding_flag(wrap: &Wrap, options: &OsStr) -> Option<&'static str> {
    const FLAGS: [&str; 3] = ["--permission", "--experimental-permission", "--no-addons"];
    let is_node = |word: &OsStr| base_name(word.as_bytes()).starts_with(b"node");
    let command = [&wrap.program].into_iter().chain(&wrap.arguments).map(OsString::as_os_str);
    let behind_node =
        command.skip_while(|word| !is_node(word)).map(|word| word.as_bytes().to_vec());
    let mut words = words(options).into_iter().chain(behind_node);
    words.find_map(|word| FLAGS.into_iter().find(|flag| word == flag.as_bytes()))
}

/// Whether one of the words names a file that is called as the preload is.
fn names_preload(options: &OsStr) -> bool {
    let file = |word: &Vec<u8>| {
        let value = word.rsplit(|byte| *byte == b'=').next().unwrap_or_default();
        base_name(value) == NAME.as_bytes()
    };
    words(options).iter().any(file)
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The words of NODE_OPTIONS, without their quotes.
fn words(options: &OsStr) -> Vec<Vec<u8>> {
    let mut words = vec![Vec::new()];
    let (mut quoted, mut escaped) = (false, false);
    for byte in options.as_bytes() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b'\\' if quoted && !escaped => {
                escaped = true;
                continue;
            }
            b' ' if !quoted => words.push(Vec::new()),
            _ => words.last_mut().into_iter().for_each(|word| word.push(*byte)),
        }
        escaped = false;
    }
    words
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

/// The option that loads a file, as NODE_OPTIONS wants it written. Only what needs quotes gets them: Node did not know any
/// before its version 12.
fn required(path: &Path) -> OsString {
    let path = path.as_os_str().as_bytes();
    if !path.iter().any(|byte| matches!(byte, b' ' | b'"' | b'\\')) {
        return OsString::from_vec([b"--require ", path].concat());
    }
    let mut words = b"--require \"".to_vec();
    for byte in path {
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
        let wanted = required(Path::new("/a b/\"c\"\\d"));
        assert_eq!(wanted, r#"--require "/a b/\"c\"\\d""#);
        assert_eq!(words(&wanted), [&b"--require"[..], b"/a b/\"c\"\\d"]);
        assert_eq!(required(Path::new("/a/b")), "--require /a/b");
    }

    #[test]
    fn the_preload_is_recognized() {
        for options in ["-r /x/node/nproxy.js --x", "--require=nproxy.js", "-r \"/a b/nproxy.js\""]
        {
            assert!(names_preload(OsStr::new(options)), "{options}");
        }
        for options in ["", "-r /x/nproxy", "-r ./cdnproxy.js", "-r /x/nproxy.js/other"] {
            assert!(!names_preload(OsStr::new(options)), "{options}");
        }
    }
}
