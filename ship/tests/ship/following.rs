//! Somebody writes while the shipper follows: rotation, compression, kills, a server that goes away.

use serde_json::json;
use std::time::Duration;

use crate::nats::server;
use crate::segments::{Segments, assert_same, gzip, numbered, zstd};
use crate::shipper::{command, follow, until};

/// Whether something that looks like a shipped segment is left.
fn left(segments: &Segments) -> usize {
    let name = segments.path.file_name().expect("a name").to_string_lossy().into_owned() + ".";
    let dir = segments.path.parent().expect("a directory");
    std::fs::read_dir(dir)
        .expect("read the directory")
        .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with(&name)))
        .count()
}

#[test]
fn what_is_written_later_is_shipped_through_rotation_and_compression() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    client.create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    let following = follow(command(&segments.path, &server));
    for n in 0..12 {
        segments.lines(n * 1000, n * 1000 + 900);
        // Half a line, whose other half comes after the shipper has seen the first.
        segments.write("ha");
        if n % 3 == 0 {
            client.wait_for(n * 1001 + 900);
        }
        segments.write("lf\n");
        segments.lines(n * 1000 + 900, n * 1000 + 1000);
        let finished = segments.rotate();
        match n % 4 {
            1 if finished.exists() => gzip_if_there(&finished),
            2 if finished.exists() => zstd_if_there(&finished),
            _ => {}
        }
    }
    segments.lines(12_000, 12_001);
    client.wait_for(12 * 1001 + 1);
    until("shipped segments are not deleted", || left(&segments) == 0);
    let (status, said) = following.stop();
    assert_eq!((status, said.as_str()), (Some(0), ""));
    let mut expected = Vec::new();
    for n in 0..12 {
        expected.extend(numbered(n * 1000, n * 1000 + 900));
        expected.extend(b"half\n");
        expected.extend(numbered(n * 1000 + 900, n * 1000 + 1000));
    }
    expected.extend(numbered(12_000, 12_001));
    assert_same(&client.text(), &expected, "");
}

/// The shipper may delete a segment while it is being compressed; that is no fault of the compressor's.
fn gzip_if_there(path: &std::path::Path) {
    let _ = std::panic::catch_unwind(|| gzip(path));
}

fn zstd_if_there(path: &std::path::Path) {
    let _ = std::panic::catch_unwind(|| zstd(path));
}

#[test]
fn kills_of_the_shipper_lose_and_double_nothing() {
    for extra in [&[][..], &["--batch", "3000"], &["--window", "1"]] {
        let Some(server) = server("") else { return };
        let mut client = server.client();
        client.create(json!({}));
        let dir = tempfile::tempdir().expect("a directory");
        let mut segments = Segments::new(&dir.path().join("log"));
        let total = if extra.contains(&"--window") { 3000 } else { 60_000 };
        let step = total / 30;
        for n in 0..30 {
            let mut command = command(&segments.path, &server);
            command.args(extra);
            let following = follow(command);
            segments.lines(n * step, (n + 1) * step);
            if n % 4 == 3 {
                segments.rotate();
            }
            // A moment that the number spreads over the run: before, while and after it connects and sends.
            std::thread::sleep(Duration::from_millis(n * 7 % 60));
            following.kill();
        }
        let mut last = command(&segments.path, &server);
        last.args(extra);
        let (status, said) = crate::shipper::once(last);
        assert_eq!((status, said.as_str()), (Some(0), ""));
        assert_same(&client.text(), &numbered(0, total), "");
    }
}

#[test]
fn what_the_stream_has_forgotten_as_seen_is_looked_up() {
    let Some(server) = server("") else { return };
    let mut client = server.client();
    // The shortest that a server takes.
    client.create(json!({ "duplicate_window": 100_000_000 }));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 20_000);
    let (mut shipped, mut kills) = (0, 0);
    while shipped < 20_000 {
        let mut command = command(&segments.path, &server);
        // Small windows, so that a kill falls between sending and the cursor.
        command.args(["--window", "50"]);
        let following = follow(command);
        let goal = (shipped + 3000).min(20_000);
        until("nothing is shipped", || client.count() >= goal);
        following.kill();
        kills += 1;
        shipped = client.count();
        std::thread::sleep(Duration::from_millis(1200));
    }
    assert!(kills > 2, "{kills}");
    let (status, said) = crate::shipper::once(command(&segments.path, &server));
    assert_eq!((status, said.as_str()), (Some(0), ""));
    assert_same(&client.text(), &numbered(0, 20_000), "");
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_told_twice_and_nothing_is_lost() {
    let Some(mut server) = server("") else { return };
    server.client().create(json!({}));
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    let following = follow(command(&segments.path, &server));
    for n in 0..3 {
        segments.lines(n * 3000, n * 3000 + 1500);
        server.client().wait_for(n * 3000 + 1000);
        server.kill();
        segments.lines(n * 3000 + 1500, (n + 1) * 3000);
        segments.rotate();
        std::thread::sleep(Duration::from_millis(700));
        server.start();
        server.client().wait_for((n + 1) * 3000);
    }
    let (status, said) = following.stop();
    assert_eq!(status, Some(0), "{said}");
    assert_same(&server.client().text(), &numbered(0, 9000), "");
    assert_eq!(said.matches("going on after").count(), 3, "{said}");
}

#[test]
fn a_segment_that_is_removed_before_it_is_shipped_is_a_gap_with_its_size() {
    let Some(mut server) = server("") else { return };
    server.client().create(json!({}));
    server.kill();
    let dir = tempfile::tempdir().expect("a directory");
    let mut segments = Segments::new(&dir.path().join("log"));
    segments.lines(0, 100);
    let first = segments.rotate();
    segments.lines(100, 300);
    let second = segments.rotate();
    segments.lines(300, 400);
    let size = second.metadata().expect("metadata").len();
    let metrics = dir.path().join("metrics.prom");
    let mut command = command(&segments.path, &server);
    command.arg("--metrics").arg(&metrics).arg("--stats");
    let mut following = follow(command);
    // It has seen them once it has said that there is no server.
    let told = following.read_line();
    assert!(told.contains("Connection refused"), "{told}");
    std::fs::remove_file(&second).expect("remove");
    let told = following.read_line();
    assert!(
        told.contains("gap: log.") && told.contains(&format!("{size} of {size} bytes are missing")),
        "{told}"
    );
    server.start();
    server.client().wait_for(200);
    until("shipped segments are not deleted", || !first.exists());
    let (status, said) = following.stop();
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains(&format!(" gaps=1 gap_bytes={size} ")), "{said}");
    let text = std::fs::read_to_string(metrics).expect("the metrics");
    assert!(text.contains(&format!("}} {size}\n")), "{text}");
    let mut expected = numbered(0, 100);
    expected.extend(numbered(300, 400));
    assert_same(&server.client().text(), &expected, "");
}
