//! What the help and the man page say beyond the options. The man page is made from this and from the
//! definition of the options (`tests/generated.rs`).

/// What nproxy is, in a few sentences.
pub const DESCRIPTION: &str = "\
Relay the bytes of a command or a pipeline without touching them.

With a command, nproxy runs it and relays its stdout and stderr; without one it stands in a pipeline and \
relays stdin to stdout. Between pipes the bytes never leave the kernel, and memory use is constant, whatever \
passes through. Signals and the exit status pass through as if nproxy were not there. On the way nproxy can \
copy the streams, clean or stamp their lines, watch the command's memory and say how the run is going.";

/// The end of `-h`.
pub const SUMMARY_END: &str = "More options, values, variables and examples: nproxy --help";

/// What holds for all options.
pub const OPTIONS: &str = "\
Options end where the command begins; everything from there on is the command's. Most options have a \
variable; the option wins, and an empty variable counts as not set (except NPROXY_TIMESTAMP: no timestamp). Of an option that is given twice the last one counts; --tee, --rlimit and -v add up. Sizes are \
written as 4096, 64K, 1.5M or 2GiB, in powers of 1024 (a bare number is bytes, at --attention to --emergency MiB); times as 200ms, 5s or 1m 30s.";

/// Commands to start from, each with what it does.
pub const EXAMPLES: [(&str, &str); 7] = [
    (
        "nproxy --tee build.log --tee-text=strip-ansi -- make -j8",
        "Build as before, colours and all, and keep a log without escape sequences.",
    ),
    (
        "nproxy --text=strip-ansi,transform --pty=always -- ./server",
        "Print each line of a server at once, without colours, behind a timestamp.",
    ),
    (
        "producer | nproxy --stats --tee copy.bin | consumer",
        "Keep a copy of what passes through a pipeline, and print statistics at the end.",
    ),
    ("nproxy --progress < disk.img | gzip > disk.img.gz", "Show how far a pipeline has come."),
    (
        "nproxy --memory-max 2G --attention 1G -- ./import",
        "Limit a command to 2 GiB of memory, and say so from 1 GiB on.",
    ),
    ("nproxy --status", "List all running sessions, with what each of them waits for."),
    (
        "nproxy --tee fifo,full=drop,wait=1s -- ./measure",
        "Feed a viewer that may be slow: it loses bytes, the command never waits.",
    ),
];

/// What the exit status means.
pub const EXIT_STATUS: [(&str, &str); 5] = [
    (
        "the command's",
        "If a signal killed the command, nproxy dies by the same signal (see --signal-exit). A filter ends with 0, also when its reader leaves while nothing is on its way; with bytes on their way it then ends by SIGPIPE, as cat does.",
    ),
    ("124", "Nothing came for as long as --idle-timeout allows"),
    ("125", "nproxy itself failed, or, if the command ended with 0, bytes could not be delivered"),
    ("126", "The command was found but cannot be executed"),
    ("127", "The command was not found"),
];

/// Variables that are no option's.
pub const VARIABLES: [(&str, &str); 5] = [
    (
        "NPROXY_RUNTIME_DIR",
        "Status sockets are in its directory nproxy. It takes the place of XDG_RUNTIME_DIR",
    ),
    ("NO_COLOR", "If it is set, notices have no colours"),
    ("PATH", "Where the command is looked up"),
    ("NODE_OPTIONS", "With --node, what it holds goes to the command with a --require added to it"),
    ("NODE_OPT_MAX_OLD", "With --node, MiB that become a --max-old-space-size in NODE_OPTIONS"),
];

/// Variables that only the preload for Node reads, or that it is given.
pub const OF_THE_PRELOAD: [&str; 4] =
    ["NPROXY_NODE_ADDON", "NPROXY_NODE_PAGE", "NPROXY_NODE_STREAMS", "NPROXY_TITLE"];

/// Variables that are meant for one run: the command does not inherit them. An nproxy that it starts would empty the
/// same log, stamp every line a second time or print figures that nobody asked it for.
pub const OF_ONE_RUN: [&str; 32] = [
    "NPROXY_BANNER",
    "NPROXY_EVENTS",
    "NPROXY_GROUP",
    "NPROXY_HEARTBEAT",
    "NPROXY_IDLE_TIMEOUT",
    "NPROXY_LIMIT_RATE",
    "NPROXY_LINE_NUMBERS",
    "NPROXY_MEMORY_HIGH",
    "NPROXY_MEMORY_MAX",
    "NPROXY_NODE",
    "NPROXY_ONLY_ON_FAILURE",
    "NPROXY_PREFIX",
    "NPROXY_PROGRESS",
    "NPROXY_PROGRESS_INTERVAL",
    "NPROXY_PROGRESS_LINES",
    "NPROXY_PROGRESS_NAME",
    "NPROXY_RLIMIT",
    "NPROXY_SIZE",
    "NPROXY_STATS",
    "NPROXY_STATS_FILE",
    "NPROXY_STDIN",
    "NPROXY_TEE",
    "NPROXY_TEE_APPEND",
    "NPROXY_TEE_FULL",
    "NPROXY_TEE_OUTPUT_ERROR",
    "NPROXY_TEE_STREAMS",
    "NPROXY_TEE_STRICT",
    "NPROXY_TEE_TEXT",
    "NPROXY_TEXT",
    "NPROXY_TEXT_STREAMS",
    "NPROXY_TIMESTAMP",
    "NPROXY_TIMESTAMP_MODE",
];

/// Variables that say how somebody likes nproxy to work: the command inherits them as it does all others.
pub const HABITS: [&str; 23] = [
    "NPROXY_ATTENTION_MB",
    "NPROXY_C1",
    "NPROXY_COALESCE",
    "NPROXY_CRASH_DIR",
    "NPROXY_CRITICAL_MB",
    "NPROXY_DEBUG",
    "NPROXY_DEGRADE",
    "NPROXY_EMERGENCY_MB",
    "NPROXY_ENGINE",
    "NPROXY_GATE",
    "NPROXY_LINGER",
    "NPROXY_LOCAL_TIME",
    "NPROXY_MEMLOG",
    "NPROXY_MONITOR",
    "NPROXY_NO_CONTROL",
    "NPROXY_OBSERVE",
    "NPROXY_PIPE_SIZE",
    "NPROXY_PRESSURE_MB",
    "NPROXY_PTY",
    "NPROXY_QUIET",
    "NPROXY_SIGNAL_EXIT",
    "NPROXY_STATUS_FORMAT",
    "NPROXY_TICK_MS",
];

/// What the command inherits of these variables, in sentences.
pub fn inheritance() -> String {
    format!(
        "Variables that are meant for one run are not passed on to the command: {}. It inherits these, which say how nproxy is \
         to work: {}.",
        OF_ONE_RUN.join(", "),
        HABITS.join(", ")
    )
}

/// Files that nproxy uses without being told to.
pub const FILES: [(&str, &str); 3] = [
    (
        "$XDG_RUNTIME_DIR/nproxy/PID.sock",
        "The status socket of a session, which only its user and root can use. NPROXY_RUNTIME_DIR takes its place; with neither it is in /tmp/nproxy-UID.",
    ),
    ("DIR/nproxy-crash-TIME-PID.json", "A report of --crash-dump DIR"),
    (
        "PREFIX/share/doc/nproxy/doc/*.schema.json",
        "JSON schemas of the statistics, the events, the status and the crash reports",
    ),
];

/// Other manual pages.
pub const SEE_ALSO: &str = "tee(1), pv(1), script(1), ts(1), stdbuf(1), splice(2), tee(2), io_uring(7), pipe(7), pty(7), cgroups(7)";

/// The end of `--help`.
pub(super) fn help_end() -> String {
    let mut text = String::from("Examples:\n");
    for (command, meaning) in EXAMPLES {
        text.push_str(&format!("  {command}\n      {meaning}\n"));
    }
    text.push_str("\nExit status:\n");
    for (status, meaning) in EXIT_STATUS {
        text.push_str(&format!("  {status:<15}{meaning}\n"));
    }
    text.push_str("\nMore: man nproxy");
    text
}
