//! Each thing that the cluster or the user can get wrong is one clear line, and nothing is skipped for it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::nats::{Server, server};
use crate::segments::{Segments, assert_same, gzip, numbered};
use crate::shipper::{command, follow, once};

/// Two accounts' worth of users: `all` may do everything, `narrow` may not publish to logs.test.
const USERS: &str = r#"accounts { A { jetstream: enabled, users: [
    { user: all, password: "pass word" }
    { user: narrow, password: y, permissions: { publish: { deny: ["logs.test"] } } }
    { user: blind, password: z, permissions: { subscribe: { deny: ["_INBOX.>"] } } }
] } }"#;

fn segments(dir: &tempfile::TempDir) -> Segments {
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 1000);
    segments
}

/// One pass that must fail within two seconds' patience: what it said.
fn refused(mut command: Command) -> String {
    command.args(["--patience", "2s", "--ack-timeout", "30s"]);
    let (status, said) = once(command);
    assert_eq!(status, Some(125), "{said}");
    assert_eq!(said.matches("trying again").count(), 1, "one line each: {said}");
    assert_eq!(said.matches("bytes stay behind").count(), 1, "{said}");
    said
}

fn as_user(mut command: Command, user: &str, password: &str) -> Command {
    command.args(["--user", user]).env("NPROXY_SHIP_PASSWORD", password);
    command
}

#[test]
fn a_subject_that_no_stream_takes() {
    let Some(server) = server("") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    // No stream at all, then one for other subjects.
    let said = refused(command(&segments.path, &server));
    assert!(said.contains("publish to logs.test: no stream takes this subject"), "{said}");
    let mut client = server.client();
    client.create(json!({ "subjects": ["other.>"] }));
    let said = refused(command(&segments.path, &server));
    assert!(said.contains("publish to logs.test: no stream takes this subject"), "{said}");
    client.ask("STREAM.DELETE.LOGS", &Value::Null);
    client.create(json!({}));
    assert_eq!(once(command(&segments.path, &server)), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 1000), "");
}

fn with_users() -> Option<(Server, tempfile::TempDir, Segments)> {
    let server = server(USERS)?;
    server.client_as(json!({ "user": "all", "pass": "pass word" })).create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    Some((server, dir, segments))
}

#[test]
fn a_wrong_password_or_none() {
    let Some((server, _dir, segments)) = with_users() else { return };
    for command in [
        command(&segments.path, &server),
        as_user(command(&segments.path, &server), "all", "wrong"),
    ] {
        let said = refused(command);
        assert!(said.to_lowercase().contains("authorization violation"), "{said}");
        assert!(!said.contains("wrong"), "no secret is shown: {said}");
    }
}

#[test]
fn no_permission_to_publish_or_to_hear_the_answer() {
    let Some((server, _dir, segments)) = with_users() else { return };
    let said = refused(as_user(command(&segments.path, &server), "narrow", "y"));
    assert!(said.contains("publish to logs.test: "), "{said}");
    assert!(
        said.to_lowercase().contains("permissions violation for publish to \"logs.test\""),
        "{said}"
    );
    let said = refused(as_user(command(&segments.path, &server), "blind", "z"));
    assert!(said.to_lowercase().contains("permissions violation for subscription"), "{said}");
    let mut client = server.client_as(json!({ "user": "all", "pass": "pass word" }));
    let password = segments.path.with_file_name(".password");
    std::fs::write(&password, "pass word\n").expect("write");
    let mut right = command(&segments.path, &server);
    right.args(["--user", "all"]).arg("--password-file").arg(&password);
    assert_eq!(once(right), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 1000), "");
}

#[test]
fn a_token() {
    let Some(server) = server("authorization { token: \"s3cret\" }") else { return };
    let mut client = server.client_as(json!({ "auth_token": "s3cret" }));
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    let mut right = command(&segments.path, &server);
    right.env("NPROXY_SHIP_TOKEN", "s3cret");
    assert_eq!(once(right), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 1000), "");
}

#[test]
fn an_nkey() {
    let pair = nkeys::KeyPair::new_user();
    let users = format!(
        "accounts {{ A {{ jetstream: enabled, users: [ {{ user: all, password: x }}, {{ nkey: {} }} ] }} }}",
        pair.public_key()
    );
    let Some(server) = server(&users) else { return };
    let mut client = server.client_as(json!({ "user": "all", "pass": "x" }));
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    let seed = dir.path().join(".seed");
    std::fs::write(&seed, pair.seed().expect("a seed") + "\n").expect("write");
    let mut right = command(&segments.path, &server);
    right.arg("--nkey-file").arg(&seed);
    assert_eq!(once(right), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 1000), "");
}

/// A certificate for 127.0.0.1 that signs itself, made by openssl(1): the files of certificate and key.
fn certificate(dir: &tempfile::TempDir) -> Option<(String, String)> {
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args([
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-out",
            &certificate,
            "-keyout",
            &key,
        ])
        .output();
    if made.is_ok_and(|output| output.status.success()) {
        return Some((certificate, key));
    }
    assert!(std::env::var_os("NPROXY_REQUIRE_ALL").is_none(), "no openssl");
    eprintln!("skipped: no openssl");
    None
}

#[test]
fn tls_with_an_authority_that_is_trusted_and_with_one_that_is_not() {
    let keys = tempfile::tempdir().expect("a directory");
    let Some((certificate, key)) = certificate(&keys) else { return };
    // Plain connections are allowed too, so that the test's own client needs no TLS.
    let tls =
        format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\nallow_non_tls: true");
    let Some(server) = server(&tls) else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    let tls = |authority: Option<&str>| {
        let mut command = command(&segments.path, &server);
        command.arg("--tls");
        if let Some(authority) = authority {
            command.args(["--tls-ca", authority]);
        }
        command
    };
    let said = refused(tls(None));
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(once(tls(Some(&certificate))), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 1000), "");
}

#[test]
fn a_full_stream_is_waited_for() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    for atomic in [false, true] {
        client.create(json!({ "max_msgs": 300, "discard": "new", "allow_atomic": atomic }));
        let dir = tempfile::tempdir().expect("a directory");
        let segments = segments(&dir);
        let said = refused(command(&segments.path, &server));
        assert!(
            said.contains("publish to logs.test: the stream refuses it: maximum messages exceeded"),
            "{said}"
        );
        let held = client.count();
        let mut text = client.text();
        // The first pass has left off where the stream was full; what it holds is taken away, the rest follows.
        client.ask("STREAM.PURGE.LOGS", &Value::Null);
        client.ask("STREAM.UPDATE.LOGS", &json!({
            "name": "LOGS", "subjects": ["logs.>"], "storage": "file", "discard": "new", "allow_atomic": atomic,
        }));
        assert_eq!(once(command(&segments.path, &server)), (Some(0), String::new()));
        text.extend(client.text());
        assert!(held <= 300);
        assert_same(&text, &numbered(0, 1000), "");
        client.ask("STREAM.DELETE.LOGS", &Value::Null);
    }
}

#[test]
fn a_second_shipper_of_the_same_segments_is_refused() {
    let Some(server) = server("") else { return };
    server.client().create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    let _first = follow(command(&segments.path, &server));
    server.client().wait_for(1000);
    let (status, said) = once(command(&segments.path, &server));
    assert_eq!(status, Some(125));
    assert!(said.contains("another nproxy-ship ships these segments"), "{said}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_starts() {
    let program = env!("CARGO_BIN_EXE_nproxy-ship");
    for (arguments, word) in [
        (&["x", "--to", "nats://me:secret@h:1", "--subject", "s"][..], "do not belong into a URL"),
        (&["x", "--to", "nats://h:1", "--subject", "a b"], "words joined by dots"),
        (&["x", "--to", "nats://h:1", "--subject", "s", "--batch", "0"], "a size above 0"),
        (&["x", "--to", "nats://h:1", "--subject", "s", "--user", "u"], "no --password-file"),
        (&["x", "y", "--to", "nats://h:1", "--subject", "s", "--cursor", "c"], "several SEGMENTS"),
        (&["/nowhere/x", "--to", "nats://h:1", "--subject", "s", "--once"], "No such file"),
        (&["x", "--subject", "s"], "--to"),
    ] {
        let output =
            Command::new(program).args(arguments).env_clear().output().expect("run nproxy-ship");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert!(!said.contains("secret@"), "{said}");
    }
}

#[test]
fn a_compressed_segment_that_is_cut_short_is_a_gap() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 20_000);
    let finished = segments.rotate();
    gzip(&finished);
    let compressed = PathBuf::from(format!("{}.gz", finished.display()));
    let bytes = std::fs::read(&compressed).expect("read");
    std::fs::write(&compressed, &bytes[..bytes.len() / 2]).expect("write");
    segments.lines(20_000, 20_100);
    let (status, said) = once(command(&segments.path, &server));
    assert_eq!(status, Some(125), "{said}");
    assert_eq!(said.matches("an unknown number of bytes is missing").count(), 1, "{said}");
    assert!(compressed.exists(), "it is left for people to look at");
    let (text, last) = (client.text(), numbered(20_000, 20_100));
    let begun = text.strip_suffix(&last[..]).expect("the next segment is shipped");
    assert!(!begun.is_empty() && numbered(0, 20_000).starts_with(begun));
}

#[test]
fn a_pass_that_a_signal_ends_says_what_stays_behind() {
    let Some(mut server) = server("") else { return };
    server.kill();
    let dir = tempfile::tempdir().expect("a directory");
    let segments = segments(&dir);
    let size = segments.path.metadata().expect("metadata").len();
    let mut command = command(&segments.path, &server);
    command.args(["--once", "--stats=100ms"]);
    let mut pass = follow(command);
    // Once it tells its figures, it hears signals.
    loop {
        let told = pass.read_line();
        assert!(!told.is_empty(), "it has ended");
        if told.contains(" published=0 ") {
            break;
        }
    }
    let (status, said) = pass.stop();
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains(&format!("{size} bytes stay behind: interrupted")), "{said}");
}
