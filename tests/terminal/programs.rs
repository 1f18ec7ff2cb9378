//! More programs whose screens are the same bare and wrapped: those that draw, ask, or pass raw keys on.

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
