//! The program under test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::nats::Server;

/// `nproxy-ship PATH --to SERVER --subject logs.test`, without what this machine's environment says.
pub(crate) fn command(path: &Path, server: &Server) -> Command {
    bound();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nproxy-ship"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NPROXY_SHIP_") {
            command.env_remove(name);
        }
    }
    command.arg(path).args(["--to", &server.url(), "--subject", "logs.test"]);
    command
}

/// Ends all of it, if a program under test never ends or never says what it is waited for.
fn bound() {
    const LONGEST: Duration = Duration::from_secs(15 * 60);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(LONGEST);
            let _ = std::io::stderr().write_all(b"\nthe tests of nproxy-ship take too long\n");
            std::process::exit(101);
        });
    });
}

/// Runs `command --once` to its end; returns status and stderr.
pub(crate) fn once(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        run(command.arg("--once").stdin(Stdio::null()).stderr(Stdio::piped()));
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn run(command: &mut Command) -> Output {
    command.spawn().and_then(Child::wait_with_output).expect("run nproxy-ship")
}

/// A shipper that follows; it is killed when it is dropped.
pub(crate) struct Following {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

pub(crate) fn follow(mut command: Command) -> Following {
    let mut child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start nproxy-ship");
    let stderr = BufReader::new(child.stderr.take().expect("stderr"));
    Following { child, stderr }
}

impl Following {
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The next line that it says.
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).expect("read stderr");
        line
    }

    /// SIGTERM; returns status and stderr.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill");
        assert!(sent.success());
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("read stderr");
        (self.child.wait().expect("wait").code(), text)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done`, or fails saying `what`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
