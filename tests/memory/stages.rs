//! A child that grows: stages in order, effects in mid-stream, and back.

use std::io::Write;
use std::time::Duration;

use crate::harness::{Engine, Launch, on_both_engines};
use crate::outcome::Finished;
use crate::proc;

on_both_engines!(
    transform_goes_off_and_comes_back_at_line_starts,
    strip_goes_off_and_comes_back_with_no_sequence_torn,
    a_screen_goes_off_and_comes_back_with_no_line_torn,
    text_stays_with_degrade_never,
    nothing_happens_with_monitor_off,
    quiet_is_quiet,
    what_passes_text_modes_goes_to_an_appended_null_device,
    counting_lines_is_no_text_mode_to_switch_off,
);

const THRESHOLDS: &str = "--attention=30M --pressure=60M --critical=120M --emergency=1G";

/// A child that grows by one stage each time when the last one has been told, lets go of it all, and writes on until that
/// has been told as well.
fn through_the_stages(engine: Engine, flags: &str) -> Finished {
    let (reader, mut orders) = std::io::pipe().expect("pipe");
    let nproxy = Launch::nproxy(engine).words(THRESHOLDS).words(flags);
    let run = nproxy.words("-- peer resize").stdin(reader).start();
    let told = run.stderr.as_ref().expect("captured");
    let shown = run.stdout.as_ref().expect("captured");
    let some_lines = || shown.wait_for_bytes(shown.so_far().digest.bytes + 500);
    some_lines();
    let steps = [(40, "attention"), (80, "pressure"), (140, "critical"), (0, "monitoring")];
    for (mib, stage) in steps {
        writeln!(orders, "{mib}").expect("the child reads");
        told.wait_for(&format!("nproxy: memory: {stage}"), 1);
        some_lines();
    }
    drop(orders);
    run.finish()
}

/// A child that grows to 160 MiB at 160 MiB a second, keeps that for 300 ms, and writes for 3.5 s more.
fn growing(engine: Engine, flags: &str) -> Finished {
    let nproxy = Launch::nproxy(engine).words(THRESHOLDS).words(flags);
    nproxy.words("-- peer grow 160M 160M 300 3500").finish()
}

/// What the child writes as line `number`.
fn line(number: usize) -> String {
    format!("line {number} \x1b[31mred\x1b[0m")
}

/// The stages that the notices name, in order.
fn stages(finished: &Finished) -> Vec<String> {
    let text = finished.stderr.text();
    let notices = text.lines().filter_map(|line| line.strip_prefix("nproxy: memory: "));
    notices.filter_map(|notice| notice.split(' ').next().map(str::to_owned)).collect()
}

#[track_caller]
fn expect_rise_and_fall(finished: &Finished) {
    let stages = stages(finished);
    let rise = ["attention", "pressure", "critical"];
    finished.expect(
        stages.len() > 3 && stages[..3] == rise && stages.last().is_some_and(|s| s == "monitoring"),
        &format!("expected the stages in order and back, got {stages:?}"),
    );
}

/// Which lines were worked on: (worked on, how many) for each run of lines.
fn runs(worked: impl Iterator<Item = bool>) -> Vec<(bool, usize)> {
    let mut runs: Vec<(bool, usize)> = Vec::new();
    for on in worked {
        match runs.last_mut() {
            Some((last, count)) if *last == on => *count += 1,
            _ => runs.push((on, 1)),
        }
    }
    runs
}

#[track_caller]
fn expect_on_off_on(finished: &Finished, runs: &[(bool, usize)]) {
    let kinds: Vec<bool> = runs.iter().map(|(on, _)| *on).collect();
    finished.expect(kinds == [true, false, true], &format!("expected on, off, on: {runs:?}"));
}

fn transform_goes_off_and_comes_back_at_line_starts(engine: Engine) {
    let finished = through_the_stages(engine, "--text=transform --timestamp= --line-numbers");
    finished.expect_code(0);
    expect_rise_and_fall(&finished);
    let text = finished.stdout.text();
    let lines = text.lines().enumerate().map(|(number, found)| {
        let bare =
            found.trim_start_matches([' ', '1', '2', '3', '4', '5', '6', '7', '8', '9', '0']);
        let bare = bare.strip_prefix('\t').unwrap_or(bare);
        finished.expect(bare == line(number), &format!("line {number} is {found:?}"));
        bare.len() < found.len()
    });
    expect_on_off_on(&finished, &runs(lines));
}

fn strip_goes_off_and_comes_back_with_no_sequence_torn(engine: Engine) {
    let finished = through_the_stages(engine, "--text=strip-ansi");
    finished.expect_code(0);
    expect_rise_and_fall(&finished);
    let text = finished.stdout.text();
    let lines = text.lines().enumerate().map(|(number, found)| {
        let stripped = format!("line {number} red");
        // The one line in which the filter stops may keep what follows the sequence it was in.
        let whole = [stripped.clone(), format!("{stripped}\x1b[0m"), line(number)];
        finished.expect(whole.iter().any(|form| form == found), &format!("torn: {found:?}"));
        found == stripped
    });
    expect_on_off_on(&finished, &runs(lines));
}

/// What the screen holds goes out before what passes it, and a copy's screen stays.
fn a_screen_goes_off_and_comes_back_with_no_line_torn(engine: Engine) {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("log");
    let flags = format!("--text=screen --tee-text=screen --tee {}", log.display());
    let finished = through_the_stages(engine, &flags);
    finished.expect_code(0);
    expect_rise_and_fall(&finished);
    let text = finished.stdout.text();
    let lines = text.lines().enumerate().map(|(number, found)| {
        let shown = format!("line {number} red");
        let whole = [shown.clone(), format!("{shown}\x1b[0m"), line(number)];
        finished.expect(whole.iter().any(|form| form == found), &format!("torn: {found:?}"));
        found == shown
    });
    expect_on_off_on(&finished, &runs(lines));
    let log = std::fs::read_to_string(log).expect("a log");
    let clean = log.lines().enumerate().all(|(number, line)| line == format!("line {number} red"));
    finished.expect(clean, "the log is as asked, at every stage");
    finished.expect(log.lines().count() == text.lines().count(), "the log is complete");
}

fn text_stays_with_degrade_never(engine: Engine) {
    let finished = through_the_stages(engine, "--text=strip-ansi --degrade=never");
    finished.expect_code(0);
    expect_rise_and_fall(&finished);
    finished.expect(!finished.stdout.text().contains('\x1b'), "expected every sequence stripped");
}

fn nothing_happens_with_monitor_off(engine: Engine) {
    let finished = growing(engine, "--text=strip-ansi --monitor=off --stats=json");
    finished.expect_code(0);
    // Before the statistics it says that the thresholds have no effect.
    finished.expect(finished.trailing_stats()["memory"].is_null(), "expected no memory figures");
    finished.expect(!finished.stdout.text().contains('\x1b'), "expected every sequence stripped");
}

fn quiet_is_quiet(engine: Engine) {
    let finished = growing(engine, "-q");
    finished.expect_code(0).expect_silent();
}

/// Splice is refused there, so it does not take the place of the buffers.
fn what_passes_text_modes_goes_to_an_appended_null_device(engine: Engine) {
    let command = format!("nproxy {THRESHOLDS} --text=strip-ansi -- peer grow 160M 160M 300 1500");
    let run = Launch::shell(engine, &format!("{command} >>/dev/null")).finish();
    run.expect_code(0);
    run.expect(run.stderr.text().contains("pressure"), "the stage was reached");
}

fn counting_lines_is_no_text_mode_to_switch_off(engine: Engine) {
    let finished = growing(engine, "--progress=always --progress-lines");
    finished.expect_code(0);
    let text = finished.stderr.text();
    finished.expect(text.contains("pressure"), "the stage was reached");
    finished.expect(!text.contains("--text is off"), "nobody asked for --text");
}

/// Where a seccomp filter forbids splice, what passes the text modes goes through the buffers too.
#[test]
fn text_goes_off_where_splice_is_forbidden() {
    let run = Launch::program("peer")
        .args(["with", "refuse=EPERM:io_uring_setup+splice+tee", "--", "nproxy"])
        .words(THRESHOLDS)
        .words("--text=strip-ansi -- peer grow 160M 160M 300 1500")
        .finish();
    run.expect_code(0);
    let text = run.stdout.text();
    let whole = text.lines().enumerate().all(|(number, line)| {
        line.strip_prefix(&format!("line {number} ")).is_some_and(|rest| rest.contains("red"))
    });
    run.expect(whole && text.contains('\x1b'), "every line, and some with their colours");
}

/// The first sample comes before the tick is over, and what is due meanwhile is waited for.
#[test]
fn a_long_tick_neither_spins_nor_sees_nothing() {
    let words = "--tick=60s --memlog=1 --stats=json -- peer hold 20M 0 1500";
    let finished = Launch::nproxy(Engine::Epoll).words(words).finish();
    finished.expect_code(0);
    let stats = finished.trailing_stats();
    let calls = stats["system_calls"].as_u64().unwrap_or(u64::MAX);
    finished.expect(calls < 5000, &format!("{calls} system calls"));
    finished.expect(stats["memory"]["samples"].as_u64() > Some(0), "it was looked at");
}

#[test]
fn the_title_names_command_and_stage() {
    let words = format!("{THRESHOLDS} -- peer hold 100M 0 60000");
    let run = Launch::nproxy(Engine::Epoll).words(&words).start();
    let pid = run.pid();
    let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    proc::until("the stage in the title", || {
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let title = String::from_utf8_lossy(&title);
        (title == "nproxy: peer [pressure:60 MiB]\0" && name() == "nproxy:pressure\n").then_some(())
    });
    run.signal(nix::sys::signal::Signal::SIGTERM);
    run.finish().expect_signal(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn memory_is_told_every_so_many_seconds() {
    let run = Launch::nproxy(Engine::Epoll).words("--memlog=1 -- peer hold 20M 0 1500");
    let finished = run.finish();
    finished.expect_code(0);
    let text = finished.stderr.text();
    let told = text.lines().filter(|line| line.contains("in 1 process, peak")).count();
    let seconds = finished.elapsed.as_secs() as usize;
    finished.expect((1..=seconds).contains(&told), "expected one line of memory a second");
    finished.expect(finished.elapsed < Duration::from_secs(20), "took too long");
}
