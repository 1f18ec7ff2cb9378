//! The rooms of `src/` and who may use whom: nobody imports upwards, no two files import each other, not even by way of
//! others, and what belongs in one place is named there only. Fails with a list of what breaks a rule; a new room is
//! given its place in [`ROOMS`].

mod source;

use std::collections::BTreeMap;
use std::path::Path;

use source::{File, Module, Sources, circles};

/// Every room, from the bottom up, with those below that it may use. A room's name is the path of a module; what is
/// named deeper (`relay::pace`) is a room of its own. The rules behind it are in `doc/design.md`.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    // Sizes and times as they are written.
    ("units", &[]),
    // Pure: no descriptor, no system call.
    ("text", &[]),
    // How V8 heaps are written into a shared page: words and their places.
    ("memory::heap_page", &[]),
    ("memory::policy", &["memory::heap_page"]),
    ("relay::pace", &[]),
    // The one reader of /proc/PID.
    ("process::procfs", &["error"]),
    ("ring", &["error"]),
    // It is told a flow and a text mode; it knows neither what is configured nor why.
    ("relay", &["error", "text", "relay::pace", "ring"]),
    // Pure as well; of the relay it knows the names of streams and their counters.
    ("observe", &["units", "memory::policy", "relay::route"]),
    ("memory", &["error", "units", "memory::heap_page", "memory::policy", "process::procfs"]),
    // What can be chosen: plain values, the same in what is said and in what it means.
    ("cli::choices", &["observe", "ring", "relay", "memory::policy", "text"]),
    // What can be said, and what it means.
    (
        "cli",
        &[
            "error",
            "units",
            "cli::choices",
            "text",
            "ring",
            "relay",
            "observe",
            "memory",
            "memory::policy",
        ],
    ),
    (
        "config",
        &[
            "error",
            "units",
            "cli::choices",
            "text",
            "ring",
            "relay",
            "observe",
            "memory",
            "memory::policy",
            "cli",
        ],
    ),
    ("notice", &["config", "error", "units"]),
    // The two ends: the command and its terminal, the copies.
    (
        "process",
        &[
            "error",
            "cli::choices",
            "ring",
            "relay",
            "memory",
            "memory::heap_page",
            "config",
            "cli::choices",
            "notice",
            "process::procfs",
        ],
    ),
    (
        "terminal",
        &[
            "error",
            "text",
            "ring",
            "relay",
            "config",
            "cli::choices",
            "notice",
            "process",
            "process::procfs",
        ],
    ),
    ("copies", &["error", "text", "ring", "relay", "config", "cli::choices", "notice", "process"]),
    // They are handed plain values.
    (
        "reports",
        &[
            "error",
            "text",
            "ring",
            "relay",
            "observe",
            "memory",
            "memory::heap_page",
            "memory::policy",
            "config",
            "cli::choices",
            "units",
            "notice",
            "process",
            "process::procfs",
            "terminal",
        ],
    ),
    // It wires all of them.
    (
        "session",
        &[
            "error",
            "units",
            "text",
            "ring",
            "relay",
            "observe",
            "memory",
            "memory::heap_page",
            "memory::policy",
            "config",
            "cli::choices",
            "units",
            "notice",
            "process",
            "process::procfs",
            "terminal",
            "copies",
            "reports",
        ],
    ),
    // lib.rs, and the program.
    ("", &["error", "cli", "config", "notice", "process", "reports", "session"]),
    ("main", &[]),
];

/// Rooms that touch nothing outside of the process.
const PURE: &[&str] =
    &["units", "text", "memory::heap_page", "memory::policy", "relay::pace", "observe"];

/// What stands for the outside: crates, and modules of `std`.
const OUTSIDE: &[&str] = &["nix", "libc", "rustix", "io_uring"];
const OUTSIDE_STD: &[&str] = &["env", "fs", "net", "os", "process", "thread"];

/// Leaves whose parts use what the leaf's own file defines: one thing in several files. Everywhere else a module and its
/// parts are files like any others.
const WHOLE: &[&str] = &["text", "memory::policy"];

/// Crates that are named in some modules only.
const NAMED_IN: &[(&str, &[&str])] = &[
    ("io_uring", &["ring::uring", "ring::probe"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("memchr", &["text"]),
];

const FUNCTION_LINES: usize = 60;
const SESSION_LINES: usize = 2600;
/// Files in which a type may have an `impl` of its own: through one, two files are hidden users of each other.
const IMPL_FILES: usize = 2;

/// Everything in which the sources break a rule, one line each.
fn violations(sources: &Sources) -> Vec<String> {
    let mut edges = sources.edges();
    let mut found = Vec::new();
    for (module, file) in &sources.files {
        let shown = show(module);
        if room_of(module).is_none() {
            found.push(format!("{shown} lies in no room that tests/layers knows"));
        }
        found.extend(misplaced_names(module, file));
        let long = file.functions.iter().filter(|(_, lines)| *lines > FUNCTION_LINES);
        found.extend(long.map(|(name, lines)| format!("{shown}: fn {name} has {lines} lines")));
    }
    for ((from, to), path) in &edges {
        if let (Some(user), Some(used)) = (room_of(from), room_of(to))
            && user != used
            && !may_use(user, to)
        {
            found.push(format!("{} uses {} ({path}): {user} may not", show(from), show(to)));
        }
    }
    edges.retain(|(from, to), _| !WHOLE.iter().any(|whole| is_part(from, to, whole)));
    for circle in circles(&edges) {
        let members: Vec<_> = circle.iter().map(show).collect();
        found.push(format!("a circle of imports: {}", members.join(", ")));
        let within = edges.iter().filter(|((a, b), _)| circle.contains(a) && circle.contains(b));
        found.extend(
            within.map(|((a, b), path)| format!("  {} uses {} ({path})", show(a), show(b))),
        );
    }
    found.extend(scattered_impls(sources));
    let lines = lines_of(sources, "session");
    if lines > SESSION_LINES {
        found.push(format!("src/session has {lines} lines, more than {SESSION_LINES}"));
    }
    found
}

fn misplaced_names(module: &Module, file: &File) -> Vec<String> {
    let shown = show(module);
    let elsewhere = NAMED_IN.iter().filter(|(name, places)| {
        file.names.contains(*name) && !places.iter().any(|place| lies_in(module, place))
    });
    let mut found: Vec<_> = elsewhere.map(|(name, _)| format!("{shown} names {name}")).collect();
    if PURE.iter().any(|room| room_of(module) == Some(*room)) {
        let crates = OUTSIDE.iter().filter(|name| file.names.contains(**name));
        found.extend(crates.map(|name| format!("{shown} is to be pure, but names {name}")));
        let std = OUTSIDE_STD.iter().filter(|name| file.mentions(&["std", name]));
        found.extend(std.map(|name| format!("{shown} is to be pure, but names std::{name}")));
    }
    found
}

fn scattered_impls(sources: &Sources) -> Vec<String> {
    let mut places: BTreeMap<(Module, String), Vec<Module>> = BTreeMap::new();
    for (module, file) in &sources.files {
        for name in &file.impls {
            if let Some(definer) = sources.definer_of(module, name) {
                places.entry((definer, name.clone())).or_default().push(module.clone());
            }
        }
    }
    let many = places.into_iter().filter(|(_, places)| places.len() > IMPL_FILES);
    many.map(|((module, name), places)| {
        let places: Vec<_> = places.iter().map(show).collect();
        format!("{}::{name} has an impl in {}", show(&module), places.join(", "))
    })
    .collect()
}

/// Whether a module is that room's or below it.
fn lies_in(module: &Module, room: &str) -> bool {
    let room: Vec<_> = room.split("::").filter(|word| !word.is_empty()).collect();
    module.len() >= room.len() && room.iter().zip(module).all(|(room, word)| room == word)
}

/// Whether a part of a whole uses a module that it is a part of.
fn is_part(part: &Module, module: &Module, whole: &str) -> bool {
    lies_in(module, whole) && part.starts_with(module)
}

/// The innermost room around a module. lib.rs is a room of one file, not one around all.
fn room_of(module: &Module) -> Option<&'static str> {
    let around = ROOMS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| if name.is_empty() { module.is_empty() } else { lies_in(module, name) });
    around.max_by_key(|name| name.len())
}

/// Whether a room may use what lies in `module`: its room is listed, or a module around it.
fn may_use(room: &str, module: &Module) -> bool {
    let listed = ROOMS.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, listed)| listed);
    listed.iter().any(|name| {
        lies_in(module, name) && room_of(module).is_some_and(|room| room.len() <= name.len())
    })
}

fn lines_of(sources: &Sources, room: &str) -> usize {
    let within = sources.files.iter().filter(|(module, _)| lies_in(module, room));
    within.map(|(_, file)| file.lines).sum()
}

fn show(module: &Module) -> String {
    if module.is_empty() { "lib.rs".to_owned() } else { module.join("::") }
}

#[test]
fn the_sources_keep_their_layers() {
    let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.files.len() > 50, "only {} files were read", sources.files.len());
    let found = violations(&sources);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Each room is listed after all that it may use, so that no table of this form can hold a circle.
#[test]
fn the_table_has_no_arrow_upwards() {
    for (index, (name, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            let below = ROOMS[..index]
                .iter()
                .any(|(room, _)| *room == *used || used.starts_with(&format!("{room}::")));
            assert!(below, "{name} uses {used}, which does not stand below it");
        }
    }
}

/// The checker against fabricated trees: each rule is broken once, and nothing else is complained of.
mod checker {
    use super::*;

    fn complaints(texts: &[(&str, &str)]) -> Vec<String> {
        violations(&Sources::parse(texts.iter().copied()))
    }

    #[track_caller]
    fn clean(texts: &[(&str, &str)]) {
        assert_eq!(complaints(texts), Vec::<String>::new());
    }

    #[track_caller]
    fn complains(texts: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(complaints(texts), expected);
    }

    #[test]
    fn a_tree_that_keeps_the_rules() {
        clean(&[
            ("lib.rs", "pub mod ring; mod session; use session::run; fn main() { run() }"),
            ("ring/mod.rs", "mod op; mod uring; pub use op::Op; pub(crate) use uring::Uring;"),
            ("ring/op.rs", "use std::fs::File; pub struct Op(File);"),
            ("ring/uring.rs", "use super::Op; pub struct Uring { io: io_uring::IoUring, op: Op }"),
            ("relay/mod.rs", "use crate::ring::{self, Op}; fn f(_: ring::Uring, _: Op) {}"),
            ("session/mod.rs", "use crate::{relay, ring::Op}; pub fn run() { relay::f() }"),
        ]);
    }

    #[test]
    fn imports_upwards() {
        let session = ("session/mod.rs", "pub struct Session;");
        for import in [
            "use crate::session::Session;",
            "use crate::{error::Error, session::{Session as S}};",
            "use crate::session; fn f(_: session::Session) {}",
            "fn f(_: crate::session::Session) {}",
            "use super::super::session::Session;",
            "mod inner { use super::super::super::session::Session; }",
            "macro_rules! m { () => { $crate::session::Session } }",
        ] {
            let found = complaints(&[session, ("relay/mod.rs", ""), ("relay/flow.rs", import)]);
            assert_eq!(found.len(), 1, "{import}: {found:?}");
            assert!(found[0].starts_with("relay::flow uses session ("), "{}", found[0]);
        }
    }

    #[test]
    fn uses_of_what_a_room_may_not_know() {
        complains(
            &[
                ("memory/policy.rs", "pub struct Stage;"),
                ("memory/mod.rs", "pub mod policy; pub use policy::Stage;"),
                ("relay/mod.rs", "use crate::memory::Stage;"),
                ("observe/mod.rs", "use crate::memory::Stage; use crate::relay::Relay;"),
                ("ring/mod.rs", "fn f() { crate::relay::f() }"),
            ],
            &[
                "observe uses relay (crate::relay::Relay): observe may not",
                "relay uses memory::policy (crate::memory::Stage): relay may not",
                "ring uses relay (crate::relay::f): ring may not",
            ],
        );
    }

    #[test]
    fn a_file_outside_of_every_room() {
        complains(&[("util.rs", "")], &["util lies in no room that tests/layers knows"]);
    }

    #[test]
    fn two_files_that_use_each_other() {
        complains(
            &[
                ("process/mod.rs", "mod signals; mod startup;"),
                ("process/signals.rs", "use super::startup; fn f() { startup::g() }"),
                ("process/startup.rs", "pub fn g() { super::signals::f() }"),
            ],
            &[
                "a circle of imports: process::signals, process::startup",
                "  process::signals uses process::startup (startup::g)",
                "  process::startup uses process::signals (super::signals::f)",
            ],
        );
    }

    /// A module and a part of it are two files as well, but for the leaves that are one thing.
    #[test]
    fn a_module_and_a_part_of_it() {
        let module = "mod op; pub struct Token; fn f() { op::run() }";
        let part = "use super::Token; pub fn run() {}";
        let found = complaints(&[("ring/mod.rs", module), ("ring/op.rs", part)]);
        assert_eq!(found[0], "a circle of imports: ring, ring::op");
        clean(&[("text/mod.rs", module), ("text/op.rs", part)]);
        let parts = [
            ("text/strip.rs", "use super::newline::f;"),
            ("text/newline.rs", "use super::strip::g;"),
        ];
        assert_eq!(complaints(&parts)[0], "a circle of imports: text::newline, text::strip");
    }

    #[test]
    fn a_longer_circle() {
        let found = complaints(&[
            ("reports/a.rs", "use super::b::B; pub struct A;"),
            ("reports/b.rs", "use crate::reports::c::*; pub struct B;"),
            ("reports/c.rs", "fn f() -> Option<super::a::A> { None }"),
            ("reports/d.rs", "use super::a::A;"),
        ]);
        assert_eq!(found[0], "a circle of imports: reports::a, reports::b, reports::c");
        assert_eq!(found.len(), 4);
    }

    /// What is passed on is used where it is defined, by whom it is named.
    #[test]
    fn a_circle_behind_what_is_passed_on() {
        let found = complaints(&[
            ("relay/mod.rs", "mod flow; mod route; pub use flow::Flow; pub use route::*;"),
            ("relay/flow.rs", "use crate::relay::Route; pub struct Flow;"),
            ("relay/route.rs", "use super::Flow; pub struct Route;"),
        ]);
        assert_eq!(found[0], "a circle of imports: relay::flow, relay::route");
    }

    #[test]
    fn tests_may_look_at_everything() {
        clean(&[
            (
                "text/mod.rs",
                "pub struct A; #[cfg(test)] mod tests; #[cfg(test)] mod t { use nix::x; }",
            ),
            ("text/tests.rs", "use crate::session::Session; use std::fs::File; use super::*;"),
            ("session/mod.rs", "#[cfg(test)] use crate::cli::Cli; pub struct Session;"),
            ("cli.rs", "pub struct Cli;"),
        ]);
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        clean(&[
            ("session/mod.rs", "pub struct Session;"),
            (
                "ring/mod.rs",
                "/// crate::session::Session\n// clap memchr\nconst A: &str = \"clap::x\";",
            ),
            ("text/mod.rs", "/* use crate::session::Session; */ const B: &str = r#\"nix::x\"#;"),
        ]);
    }

    #[test]
    fn crates_named_elsewhere() {
        complains(
            &[
                ("config.rs", "use clap::ValueEnum;"),
                ("relay/mod.rs", "fn f() { memchr::memchr(1, b\"\"); }"),
                ("ring/mod.rs", "pub use io_uring::IoUring;"),
            ],
            &["config names clap", "relay names memchr", "ring names io_uring"],
        );
    }

    #[test]
    fn leaves_that_reach_outside() {
        complains(
            &[
                ("memory/policy/gate.rs", "use std::{fs::File, io::Write};"),
                ("relay/pace.rs", "fn f() { std::thread::sleep(D) }"),
                ("text/mod.rs", "use nix::unistd::getpid;"),
            ],
            &[
                "memory::policy::gate is to be pure, but names std::fs",
                "relay::pace is to be pure, but names std::thread",
                "text is to be pure, but names nix",
            ],
        );
    }

    #[test]
    fn long_functions() {
        let body = |lines: usize| format!("fn f() -> u8 {{\n{}}}", "    g();\n".repeat(lines - 2));
        clean(&[("ring/mod.rs", &body(60))]);
        complains(&[("ring/mod.rs", &body(61))], &["ring: fn f has 61 lines"]);
        let method = format!("impl A {{ {} }}", body(70));
        complains(&[("ring/mod.rs", &method)], &["ring: fn f has 70 lines"]);
        clean(&[("ring/mod.rs", &format!("#[cfg(test)]\nmod tests {{ {} }}", body(90)))]);
    }

    #[test]
    fn a_session_that_grows() {
        let lines = "const A: u8 = 1;\n".repeat(1301);
        complains(
            &[("session/mod.rs", &lines), ("session/plan.rs", &lines)],
            &["src/session has 2602 lines, more than 2600"],
        );
    }

    #[test]
    fn a_type_that_is_implemented_all_over() {
        complains(
            &[
                ("session/mod.rs", "pub struct Session; impl Session {}"),
                ("session/plan.rs", "use super::Session; impl Session {}"),
                ("session/linger.rs", "use super::Session; impl<'c> Session<'c> {}"),
                ("session/fds.rs", "use super::Session; impl Drop for Session {}"),
            ],
            &["session::Session has an impl in session, session::linger, session::plan"],
        );
    }
}
