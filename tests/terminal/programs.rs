//! More programs whose screens are the same bare and wrapped: those that draw, ask, or pass raw keys on.

use tempfile::tempdir;

use super::screens::{Step, compare};
use crate::harness::{Engine, need, on_both_engines, skip};

on_both_engines![
    small_editor,
    chooser,
    dialogs,
    other_shell,
    node_prompt,
    patches_one_by_one,
    another_user,
    a_password_asked_by_su,
    raw_client,
    list_of_processes,
    windows_inside,
    components_in_node,
    shell_on_another_machine,
];

fn small_editor(engine: Engine) {
    if !need(&["nano", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(&["$W nano -I file", "Enter"], "line 18 of"),
            Step::Keys(&["Down", "Down", "C-k", "HELLO"], "HELLOline 4"),
            Step::Size("70", "15", "HELLOline 4"),
            Step::Keys(&["C-w", "line 150", "Enter"], "line 150"),
            Step::Keys(&["C-x"], "Save modified buffer"),
            Step::Keys(&["y", "Enter"], "nano -I file\n>"),
            Step::Keys(&["echo status=$?; head -n 4 file", "Enter"], "HELLOline 4"),
        ],
    );
}

fn chooser(engine: Engine) {
    if !need(&["fzf", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(
                &["cp file f; seq 500 | $W fzf --multi --preview 'echo of {}'", "Enter"],
                "500/500",
            ),
            Step::Keys(&["4", "2"], "of 42"),
            Step::Keys(&["Up", "Tab"], "(1)"),
            Step::Size("70", "15", "(1)"),
            Step::Keys(&["Enter"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
            Step::Keys(&["x=$(seq 9 | $W fzf --height 5)", "Enter"], "9/9"),
            Step::Keys(&["C-c"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=130"),
        ],
    );
}

fn dialogs(engine: Engine) {
    if !need(&["dialog", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(&["$W dialog --yesno 'Go on?' 8 40; echo st''atus=$?", "Enter"], "Go on?"),
            Step::Keys(&["Tab"], "Go on?"),
            Step::Keys(&["Enter"], "status=1"),
            Step::Keys(
                &["x=$($W dialog --inputbox Name 8 40 3>&1 1>&2 2>&3); echo g''ot=$x", "Enter"],
                "Name",
            ),
            Step::Keys(&["typed", "BSpace"], "type"),
            Step::Keys(&["Enter"], "got=type"),
        ],
    );
}

fn other_shell(engine: Engine) {
    if !need(&["zsh", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(&["$W env PS1=zsh: zsh -f -i", "Enter"], "zsh:"),
            Step::Keys(&["stty size", "Enter"], "24 80"),
            Step::Keys(&["cat fi", "Tab", "C-a", "less ", "C-e", "C-u"], "zsh:"),
            Step::Keys(&["less file", "Enter"], "line 23"),
            Step::Keys(&["C-z"], "suspended"),
            Step::Keys(&["fg", "Enter"], "line 23"),
            Step::Size("70", "15", "line 13"),
            Step::Keys(&["q"], "zsh:"),
            Step::Keys(&["clear; cat", "Enter", "typed"], "typed"),
            Step::Keys(&["C-c"], "^C"),
            Step::Keys(&["echo inner=$?", "Enter"], "inner=130"),
            Step::Keys(&["exit 5", "Enter"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=5"),
        ],
    );
}

fn node_prompt(engine: Engine) {
    if !need(&["node", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(&["$W env NODE_REPL_HISTORY= node", "Enter"], ".help"),
            Step::Keys(&["[1, 2].map(x => x * 21)", "Enter"], "42"),
            Step::Keys(&["process.stdin.isRaw", "Enter"], "false"),
            Step::Keys(&["C-c"], "To exit"),
            Step::Size("60", "20", ">"),
            Step::Keys(&["process.stdout.columns", "Enter"], "60"),
            Step::Keys(&["C-d"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

fn patches_one_by_one(engine: Engine) {
    if !need(&["git", "--version"]) {
        return;
    }
    compare(
        engine,
        &[
            Step::Keys(
                &["git init -q . && git add file && sed -i '5d;150d' file; clear", "Enter"],
                ">",
            ),
            Step::Keys(&["$W git add -p", "Enter"], "Stage this hunk"),
            Step::Keys(&["y", "Enter"], "(2/2)"),
            Step::Keys(&["n", "Enter"], "\n>"),
            Step::Keys(&["clear; $W git -c core.pager=less diff --cached", "Enter"], "line 8"),
            Step::Keys(&["q"], ">"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

fn another_user(engine: Engine) {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("only root becomes somebody else without a password");
        return;
    }
    let mut ways = vec![("su -s /bin/bash nobody", "$")];
    if need(&["sudo", "-n", "true"]) {
        // It keeps PS1.
        ways.push(("sudo -u nobody bash --norc", ">"));
    }
    for (way, prompt) in ways {
        let command = format!("clear; $W {way}; echo st''atus=$?");
        compare(
            engine,
            &[
                Step::Keys(&["cd /", "Enter"], ">"),
                Step::Keys(&[&command, "Enter"], prompt),
                Step::Keys(&["PS1=in:; clear", "Enter"], "in:"),
                Step::Keys(&["id -un", "Enter"], "nobody"),
                Step::Keys(&["sleep 100", "Enter"], "sleep 100"),
                Step::Keys(&["C-z"], "Stopped"),
                Step::Keys(&["fg", "Enter"], "fg\nsleep"),
                Step::Keys(&["C-c"], "^C"),
                Step::Size("70", "15", "^C"),
                Step::Keys(&["stty size", "Enter"], "15 70"),
                Step::Keys(&["exit 5", "Enter"], "status=5"),
            ],
        );
    }
}

/// What reads the password is another user's process, which nproxy may see here because it is root's.
fn a_password_asked_by_su(engine: Engine) {
    if !nix::unistd::geteuid().is_root() {
        skip("only root becomes nobody");
        return;
    }
    let su = "$W setpriv --reuid 65534 --regid 65534 --clear-groups su -c true root";
    compare(
        engine,
        &[
            Step::Keys(&[su, "Enter"], "Password:"),
            Step::Keys(&["wrong", "Enter"], "failure"),
            Step::Keys(&["echo status=$?", "Enter"], "status=1"),
            Step::Keys(&[su, "Enter"], "1\n"),
            Step::Keys(&["C-c"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=130"),
        ],
    );
}

/// What ssh and `docker run -it` do: every key goes to the other side, which has a terminal of its own.
fn raw_client(engine: Engine) {
    if !need(&["socat", "-V"]) {
        return;
    }
    let client = "$W socat -,raw,echo=0 EXEC:'sh inner',pty,setsid,ctty,stderr";
    compare(
        engine,
        &[
            Step::Keys(&["echo 'PS1=in: exec bash --norc -i' > inner; clear", "Enter"], ">"),
            Step::Keys(&[client, "Enter"], "in:"),
            Step::Keys(&["sleep 100", "Enter"], "sleep 100"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "fg\nsleep"),
            Step::Keys(&["C-c"], "^C"),
            Step::Keys(&["less file", "Enter"], "line 2 of"),
            Step::Keys(&["q"], "in:"),
            Step::Keys(&["exit", "Enter"], "\n>"),
            Step::Keys(&["stty -a | grep -o -e '-*icanon'", "Enter"], "\nicanon"),
        ],
    );
}

/// What it shows of the machine differs from second to second: only the row of a shell that sleeps is left.
fn list_of_processes(engine: Engine) {
    if !need(&["htop", "--version"]) {
        return;
    }
    let settings = "htop_version=3.2.2\nconfig_reader_min_version=3\nfields=48 1\ndelay=600\n\
        header_layout=one_100\ncolumn_meters_0=Hostname\ncolumn_meter_modes_0=2\n\
        screen:Main=USER Command\n.sort_key=USER\n.tree_view=0\n";
    compare(
        engine,
        &[
            Step::Keys(
                &[&format!("printf '{}' >rc; clear", settings.replace('\n', "\\n")), "Enter"],
                ">",
            ),
            Step::Keys(&["HTOPRC=$PWD/rc $W htop -p $$", "Enter"], "--norc"),
            Step::Keys(&["F9"], "SIGHUP"),
            Step::Size("70", "15", "SIGTERM"),
            Step::Keys(&["Down", "Down"], "SIGTERM"),
            Step::Keys(&["Escape"], "F2"),
            Step::Keys(&["F4", "no such"], "no such"),
            Step::Keys(&["Escape"], "--norc"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "--norc"),
            Step::Keys(&["q"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

/// Its client hands the terminal to the server, which is in another session, and outlives a client that is detached or stopped.
///
/// The server throws away what the terminal has not shown yet (TCOFLUSH) when it takes it. Bare, that may be what the shell
/// has just said: so the shell says nothing just before, or clears it away before screens are compared.
fn windows_inside(engine: Engine) {
    let tmux = "TMUX= $W tmux -f conf -S inner";
    let settings = "set -g status off\\nset -g default-command \"exec env PS1=in: bash --norc\"\\n\
        set -sg escape-time 0\\n";
    compare(
        engine,
        &[
            Step::Keys(&[&format!("printf '{settings}' >conf; clear"), "Enter"], ">"),
            Step::Keys(&[&format!("{tmux} new"), "Enter"], "in:"),
            Step::Keys(&["C-b", "%"], "in:"),
            Step::Keys(&["less file", "Enter"], "line 20"),
            Step::Size("70", "15", "line 11"),
            Step::Keys(&["C-b", "o", "sleep 100", "Enter"], "sleep 100"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["C-b", "d"], "detached"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
            Step::Keys(&[&format!("sleep .3; {tmux} attach"), "Enter"], "Stopped"),
            Step::Keys(&["C-b", "C-z"], "[1]+"),
            Step::Keys(&["fg; clear", "Enter"], "line 11"),
            Step::Keys(&["C-b", "d"], ">"),
            Step::Keys(&["tmux -S inner kill-server", "Enter"], "server\n>"),
        ],
    );
}

/// An application of Ink, which draws what React components say, as many assistants for the terminal do.
fn components_in_node(engine: Engine) {
    let Some(ink) = std::env::var_os("NPROXY_TEST_INK") else {
        skip("NPROXY_TEST_INK does not say where Ink is: scripts/ink fetches it");
        return;
    };
    let directory = tempdir().expect("directory");
    let application = directory.path().join("application.mjs");
    std::fs::write(&application, include_str!("application.mjs")).expect("application");
    // Where it takes itself to be run by a CI service it draws nothing.
    let run = format!("CI=false INK={} $W node {}", ink.display(), application.display());
    compare(
        engine,
        &[
            Step::Keys(&[&format!("clear; {run}"), "Enter"], "80 columns"),
            Step::Keys(&["Down"], "row 1 is chosen"),
            Step::Keys(&["typed"], "text: typed"),
            Step::Keys(&["BSpace"], "raw: true"),
            Step::Keys(&["C-z"], "control z"),
            Step::Size("60", "20", "60 columns"),
            Step::Keys(&["Enter"], "done: type"),
            Step::Keys(&["Escape"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=3"),
            Step::Keys(&[&format!("clear; {run}"), "Enter"], "60 columns"),
            Step::Keys(&["C-c"], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=0"),
        ],
    );
}

/// A real ssh and a real sshd, which talk through pipes: no port, and nothing that runs on. Debian's sshd wants a directory in /run.
fn shell_on_another_machine(engine: Engine) {
    let directory = tempdir().expect("directory");
    let at = directory.path().display();
    let server = "/usr/sbin/sshd -i -f";
    let server = if nix::unistd::geteuid().is_root() {
        format!(
            "unshare -m sh -c 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec {server} {at}/server'"
        )
    } else {
        format!("{server} {at}/server")
    };
    let client = format!(
        "Host *\nIdentityFile {at}/key\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\n\
         UserKnownHostsFile /dev/null\nLogLevel ERROR\nEscapeChar ~\nSendEnv TEST_*\nProxyCommand {server}\n"
    );
    let server = format!(
        "HostKey {at}/key\nAuthorizedKeysFile {at}/key.pub\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n\
         PidFile none\nAcceptEnv TEST_*\n"
    );
    std::fs::write(directory.path().join("client"), client).expect("client's settings");
    std::fs::write(directory.path().join("server"), server).expect("server's settings");
    let key = format!("{at}/key");
    let settings = format!("{at}/client");
    if !need(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key])
        || !need(&["ssh", "-F", &settings, "far", "true"])
    {
        return;
    }
    let ssh =
        format!("clear; $W ssh -F {settings} -t far \"cd $PWD; PS1=in: exec bash --norc -i\"");
    compare(
        engine,
        &[
            Step::Keys(&[&ssh, "Enter"], "in:"),
            Step::Keys(&["sleep 100", "Enter"], "sleep 100"),
            Step::Keys(&["C-z"], "Stopped"),
            Step::Keys(&["fg", "Enter"], "fg\nsleep"),
            Step::Keys(&["C-c"], "^C"),
            Step::Keys(&["less file", "Enter"], "line 2 of"),
            Step::Size("70", "15", "line 14"),
            Step::Keys(&["q", "Enter"], "in:"),
            // ssh's own escapes: stop, and go on.
            Step::Keys(&["~", "C-z"], "[1]+"),
            Step::Keys(&["stty -a | grep -o -e '-*icanon'", "Enter"], "\nicanon"),
            Step::Keys(&["fg", "Enter"], "fg"),
            Step::Keys(&["clear; stty size", "Enter"], "15 70"),
            Step::Keys(&["exit 5", "Enter"], "\n>"),
            // Cut off by ~. in the middle of a program.
            Step::Keys(&[&format!("echo st''atus=$?; {ssh}"), "Enter"], "in:"),
            Step::Keys(&["cat", "Enter"], "cat"),
            Step::Keys(&["typed", "Enter"], "typed\ntyped"),
            Step::Keys(&["~."], "\n>"),
            Step::Keys(&["echo status=$?", "Enter"], "status=255"),
        ],
    );
}
