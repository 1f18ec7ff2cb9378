//! What one pass ships.

use serde_json::json;

use crate::nats::server;
use crate::segments::{Segments, assert_same, gzip, numbered, zstd};
use crate::shipper::{command, once};

#[test]
fn lines_are_messages_in_order_and_a_second_pass_sends_nothing() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 30_000);
    segments.write(b"\n\n\0binary \xff\n");
    let (status, said) = once(command(&segments.path, &server));
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let messages = client.all();
    assert_eq!(messages.len(), 30_003);
    assert_eq!(messages[7].payload, b"line 7 abcdefg");
    assert_same(&client.text(), &std::fs::read(&segments.path).expect("read"), "");
    let mut again = command(&segments.path, &server);
    again.arg("--stats");
    let (status, said) = once(again);
    assert_eq!(status, Some(0));
    assert!(said.contains(" published=0 ") && said.contains(" duplicates=0 "), "{said}");
    assert_eq!(client.count(), 30_003);
}

#[test]
fn a_half_line_waits_for_its_writer() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let mut segments = Segments::new(&path);
    segments.write("one\nhal");
    assert_eq!(once(command(&path, &server)).0, Some(0));
    assert_same(&client.text(), b"one\n", "");
    segments.write("f\nlast");
    assert_eq!(once(command(&path, &server)).0, Some(0));
    assert_same(&client.text(), b"one\nhalf\n", "");
    drop(segments);
    assert_eq!(once(command(&path, &server)).0, Some(0));
    assert_same(&client.text(), b"one\nhalf\nlast", "");
    assert_eq!(client.count(), 3);
}

#[test]
fn finished_segments_are_shipped_first_and_deleted_or_kept() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    let mut finished = Vec::new();
    for n in 0..4 {
        segments.lines(n * 1000, (n + 1) * 1000);
        finished.push(segments.rotate());
    }
    gzip(&finished[1]);
    zstd(&finished[2]);
    segments.lines(4000, 4500);
    let mut keeping = command(&segments.path, &server);
    keeping.arg("--keep");
    assert_eq!(once(keeping), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 4500), "");
    assert!(finished[0].exists() && finished[1].with_extension("20261125T200000002.gz").exists());
    // The same without --keep: nothing is sent again, and the finished ones go.
    assert_eq!(once(command(&segments.path, &server)), (Some(0), String::new()));
    assert_eq!(client.count(), 4500);
    let mut left: Vec<String> = std::fs::read_dir(dir.path())
        .expect("read the directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    left.sort();
    assert_eq!(left, ["log"]);
}

#[test]
fn a_segment_is_the_same_when_it_was_renamed_and_compressed_between_two_passes() {
    for compress in [gzip, zstd] {
        let Some(server) = server("") else { return };
        let mut client = server.client();
        client.create(json!({}));
        let dir = tempfile::tempdir().expect("a directory");
        let mut segments = Segments::new(&dir.path().join("log"));
        segments.lines(0, 2000);
        assert_eq!(once(command(&segments.path, &server)).0, Some(0));
        segments.lines(2000, 3000);
        let finished = segments.rotate();
        compress(&finished);
        segments.lines(3000, 3100);
        let mut pass = command(&segments.path, &server);
        pass.arg("--stats");
        let (status, said) = once(pass);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains(" published=1100 ") && said.contains(" duplicates=0 "), "{said}");
        assert_same(&client.text(), &numbered(0, 3100), "");
    }
}

#[test]
fn a_line_above_what_the_server_takes_goes_in_pieces_and_is_named() {
    let Some(server) = server("max_payload: 4096") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.write("short\n");
    segments.write("x".repeat(3584) + "\n");
    segments.write("y".repeat(20_000) + "\n");
    segments.write("z".repeat(7168) + "\nend\n");
    let (status, said) = once(command(&segments.path, &server));
    assert_eq!(status, Some(0), "{said}");
    assert_same(&client.text(), &std::fs::read(&segments.path).expect("read"), "");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("the line at byte 3591 is longer than a message may be"), "{said}");
}

#[test]
fn a_stream_that_takes_only_small_messages_is_believed() {
    // Without the right to ask for the stream's settings the size is found by trying.
    for rights in ["", ", deny: [\"$JS.API.STREAM.NAMES\"]"] {
        let users = format!(
            "accounts {{ A {{ jetstream: enabled, users: [ {{user: all, password: x}}, \
             {{user: ship, password: y, permissions: {{ publish: {{ allow: [\">\"]{rights} }} }} }} ] }} }}"
        );
        let Some(server) = server(&users) else { return };
        let mut client = server.client_as(json!({ "user": "all", "pass": "x" }));
        client.create(json!({ "max_msg_size": 1000 }));
        let dir = tempfile::tempdir().expect("a directory");
        let mut segments = Segments::new(&dir.path().join("log"));
        segments.lines(0, 500);
        segments.write("y".repeat(5000) + "\n");
        segments.lines(500, 1000);
        let mut command = command(&segments.path, &server);
        command.args(["--user", "ship"]).env("NPROXY_SHIP_PASSWORD", "y");
        let (status, said) = once(command);
        assert_eq!(status, Some(0), "{said}");
        assert_same(&client.text(), &std::fs::read(&segments.path).expect("read"), &said);
    }
}

#[test]
fn batches_hold_whole_lines() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 20_000);
    let mut command = command(&segments.path, &server);
    command.args(["--batch", "64K"]);
    assert_eq!(once(command), (Some(0), String::new()));
    assert_same(&client.text(), &numbered(0, 20_000), "");
    assert!((10..=20).contains(&client.count()), "{} messages", client.count());
}

#[test]
fn a_stream_that_allows_it_gets_windows_as_one() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    let made = client.create(json!({ "allow_atomic": true }));
    if made["config"]["allow_atomic"] != true {
        assert!(std::env::var_os("NPROXY_REQUIRE_ALL").is_none(), "a server before 2.12");
        eprintln!("skipped: a server before 2.12 has no atomic publishing");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 5000);
    let (status, said) = once(command(&segments.path, &server));
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let messages = client.all();
    assert!(messages[3].headers.contains("Nats-Batch-Sequence: 4"), "{}", messages[3].headers);
    assert_same(&client.text(), &numbered(0, 5000), "");
    // Without the cursor everything is sent again, and refused.
    for file in [".log.ship", ".log.ship.spare"] {
        std::fs::remove_file(dir.path().join(file)).expect("remove");
    }
    let mut again = command(&segments.path, &server);
    again.arg("--stats");
    let (status, said) = once(again);
    assert_eq!(status, Some(0));
    assert!(said.contains(" published=0 ") && said.contains(" duplicates=5000 "), "{said}");
    assert_eq!(client.count(), 5000);
}
