//! `nproxy-ship` against a real nats-server, with a segment writer and a client that share no code with it.
//!
//! The server is `$NPROXY_NATS_SERVER`, or the one on the path; `scripts/nats-server` fetches one. Without one every
//! test is skipped, which is printed, and with `NPROXY_REQUIRE_ALL` failed.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `credentials.rs` | a login by a credentials file, where an operator's server knows accounts only |
//! | `following.rs` | rotation, renaming, compression, kills and restarts while somebody writes |
//! | `once.rs` | what one pass ships: lines, halves, pieces, batches |
//! | `refusals.rs` | one clear line each, and nothing skipped |
//! | `nats.rs`, `segments.rs`, `shipper.rs` | the peers: server and client, writer, the program |

mod credentials;
mod following;
mod nats;
mod once;
mod refusals;
mod segments;
mod shipper;
