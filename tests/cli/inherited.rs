//! What a process is given besides its streams, and would have without nproxy.

use crate::harness::{Engine, Launch, need, on_both_engines};

on_both_engines![
    listening_sockets_are_the_commands,
    settings_that_fork_forgets,
    a_signal_keeps_its_payload
];

/// LISTEN_PID names whoever is to take the sockets that systemd(1) hands over.
fn listening_sockets_are_the_commands(engine: Engine) {
    for pty in ["never", "always"] {
        let script = format!(
            "export LISTEN_FDS=1; exec env LISTEN_PID=$$ nproxy --pty={pty} sh -c 'test $LISTEN_PID = $$ && echo \"$@\"' x 'a  b'"
        );
        Launch::shell(engine, &script).finish().expect_code(0).expect_output("a  b\n");
        let script = format!("LISTEN_PID=1 nproxy --pty={pty} sh -c 'echo $LISTEN_PID'");
        Launch::shell(engine, &script).finish().expect_code(0).expect_output("1\n");
    }
}

/// PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER, set before nproxy was started.
fn settings_that_fork_forgets(engine: Engine) {
    if !need(&["python3", "--version"]) {
        return;
    }
    let set = "import ctypes, os, sys; l = ctypes.CDLL(None); l.prctl(1, 15); l.prctl(36, 1); os.execvp(sys.argv[1], sys.argv[1:])";
    let get = "import ctypes; l = ctypes.CDLL(None); a = ctypes.c_int(); b = ctypes.c_int(); \
               l.prctl(2, ctypes.byref(a)); l.prctl(37, ctypes.byref(b)); print(a.value, b.value)";
    for pty in ["never", "always"] {
        let script = format!("python3 -c '{set}' nproxy --pty={pty} python3 -c '{get}'");
        Launch::shell(engine, &script).finish().expect_code(0).expect_output("15 1\n");
    }
}

fn a_signal_keeps_its_payload(engine: Engine) {
    if !need(&["python3", "--version"]) {
        return;
    }
    let wait = "import signal, ctypes, os; signal.pthread_sigmask(0, [10]); print(\"ready\", flush=True); \
                b = (ctypes.c_int * 32)(); ctypes.CDLL(None).sigwaitinfo(ctypes.byref(ctypes.c_uint64(1 << 9)), b); \
                print(b[2] < 0, b[6])";
    let script = format!(
        "nproxy python3 -c '{wait}' > out & until grep -qs ready out; do sleep 0.01; done; \
         python3 -c \"import ctypes; l = ctypes.CDLL(None); l.sigqueue($!, 10, ctypes.c_void_p(77))\"; wait; cat out"
    );
    let directory = tempfile::tempdir().expect("directory");
    Launch::shell(engine, &script)
        .directory(directory.path())
        .finish()
        .expect_code(0)
        .expect_output("ready\nTrue 77\n");
}
