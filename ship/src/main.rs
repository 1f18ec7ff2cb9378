//! `nproxy-ship`: hands the segments that `nproxy --tee PATH,rotate=…` writes over to a NATS JetStream cluster.
//!
//! One thread per segment path, each with a current-thread runtime that lives as long as one connection does. What
//! has been acknowledged is written down beside the segments; everything else is sent again.

mod backlog;
mod cli;
mod config;
mod cursor;
mod cut;
mod directory;
mod feed;
mod ledger;
mod link;
mod notice;
mod pause;
mod publish;
mod reader;
mod segment;
mod ship;
mod source;
mod stats;
mod stream;
mod watch;
mod window;
mod writers;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

use crate::config::Config;
use crate::notice::Failure;
use crate::ship::Shipper;
use crate::stats::{Counters, Reporter};

/// nproxy's own status for "something was not delivered, or nproxy-ship itself failed".
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
        }
    };
    match Config::new(cli).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(failure) => {
            notice::say(&failure.to_string());
            ExitCode::from(FAILED)
        }
    }
}

/// Ships every path until all are done or a signal comes. True if nothing that was there is missing in the stream.
fn run(config: Config) -> Result<bool, Failure> {
    let config = Arc::new(config);
    let mut shippers = Vec::new();
    for path in &config.paths {
        shippers.push(Shipper::new(Arc::clone(&config), path, Arc::new(Counters::new(path)))?);
    }
    let reporter =
        Reporter::new(&config, shippers.iter().map(|s| Arc::clone(s.counters())).collect());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new("start the runtime", e))?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (over, mut all_over) = tokio::sync::mpsc::unbounded_channel::<()>();
    let threads: Vec<_> = shippers
        .into_iter()
        .map(|mut shipper| {
            let (stopped, over) = (stopped.clone(), over.clone());
            std::thread::spawn(move || {
                let result = shipper.run(stopped);
                drop(over);
                result
            })
        })
        .collect();
    drop(over);
    runtime.block_on(async {
        let signals = stop_on_signal();
        tokio::pin!(signals);
        loop {
            tokio::select! {
                _ = all_over.recv() => break,
                _ = &mut signals, if !*stop.borrow() => { stop.send_replace(true); }
                () = reporter.pause() => reporter.report(),
            }
        }
    });
    let mut complete = true;
    for thread in threads {
        match thread.join() {
            Ok(Ok(whole)) => complete &= whole,
            Ok(Err(failure)) => {
                notice::say(&failure.to_string());
                complete = false;
            }
            Err(_) => complete = false,
        }
    }
    reporter.finish();
    Ok(complete)
}

/// Returns when SIGTERM or SIGINT has come.
async fn stop_on_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
