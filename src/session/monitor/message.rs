//! What nproxy and the monitor say to each other: packets of fixed size.

use nix::errno::Errno;

use crate::session::child::Exit;

/// Size of a packet in bytes: kind, detail, two unused, and a number.
pub(super) const LEN: usize = 8;

/// Where in its terminal the child's group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Ground {
    /// It may read and gets the keys' signals.
    Foreground,
    /// Reading, or setting modes, stops it.
    Background,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Target {
    /// The child's own process.
    Child,
    /// The group that it leads.
    Group,
    /// The foreground group of its terminal; its own group if that has none but the monitor's.
    Foreground,
}

/// From nproxy to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Order {
    /// Start the child.
    Start(Ground),
    /// Continue the child's group.
    Continue(Ground),
    /// Send this signal.
    Signal(i32, Target),
    /// Send the foreground group this signal, because the terminal is about to be hung up, and report when
    /// that has been done.
    Farewell(i32),
}

/// From the monitor to nproxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Report {
    /// The child runs under this pid.
    Started(i32),
    /// It could not be executed.
    Refused(Errno),
    /// The terminal could not be made the session's.
    Unseated(Errno),
    /// The child was stopped by this signal.
    Stopped(i32),
    /// The child was continued.
    Continued,
    /// The child has ended.
    Ended(Exit),
    /// The farewell has been sent.
    Told,
}

impl Order {
    pub(super) fn encode(self) -> [u8; LEN] {
        match self {
            Order::Start(ground) => packet(0, ground as u8, 0),
            Order::Continue(ground) => packet(1, ground as u8, 0),
            Order::Signal(signal, target) => packet(2, target as u8, signal),
            Order::Farewell(signal) => packet(3, 0, signal),
        }
    }

    pub(super) fn decode(bytes: &[u8; LEN]) -> Option<Order> {
        let (kind, detail, number) = unpack(bytes);
        let ground = [Ground::Foreground, Ground::Background].into_iter();
        let ground = ground.clone().find(|ground| *ground as u8 == detail);
        let target = [Target::Child, Target::Group, Target::Foreground].into_iter();
        let target = target.clone().find(|target| *target as u8 == detail);
        match kind {
            0 => ground.map(Order::Start),
            1 => ground.map(Order::Continue),
            2 => target.map(|target| Order::Signal(number, target)),
            3 => Some(Order::Farewell(number)),
            _ => None,
        }
    }
}

impl Report {
    pub(super) fn encode(self) -> [u8; LEN] {
        match self {
            Report::Started(pid) => packet(0, 0, pid),
            Report::Refused(errno) => packet(1, 0, errno as i32),
            Report::Unseated(errno) => packet(2, 0, errno as i32),
            Report::Stopped(signal) => packet(3, 0, signal),
            Report::Continued => packet(4, 0, 0),
            Report::Ended(Exit::Status(status)) => packet(5, 0, status.into()),
            Report::Ended(Exit::Signal(signal)) => packet(5, 1, signal),
            Report::Told => packet(6, 0, 0),
        }
    }

    pub(super) fn decode(bytes: &[u8; LEN]) -> Option<Report> {
        let (kind, detail, number) = unpack(bytes);
        match (kind, detail) {
            (0, _) => Some(Report::Started(number)),
            (1, _) => Some(Report::Refused(Errno::from_raw(number))),
            (2, _) => Some(Report::Unseated(Errno::from_raw(number))),
            (3, _) => Some(Report::Stopped(number)),
            (4, _) => Some(Report::Continued),
            (5, 0) => Some(Report::Ended(Exit::Status(number as u8))),
            (5, _) => Some(Report::Ended(Exit::Signal(number))),
            (6, _) => Some(Report::Told),
            _ => None,
        }
    }
}

fn packet(kind: u8, detail: u8, number: i32) -> [u8; LEN] {
    let [a, b, c, d] = number.to_ne_bytes();
    [kind, detail, 0, 0, a, b, c, d]
}

fn unpack(bytes: &[u8; LEN]) -> (u8, u8, i32) {
    let [kind, detail, _, _, a, b, c, d] = *bytes;
    (kind, detail, i32::from_ne_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_round_trip() {
        let orders = [
            Order::Start(Ground::Foreground),
            Order::Start(Ground::Background),
            Order::Continue(Ground::Foreground),
            Order::Continue(Ground::Background),
            Order::Signal(libc::SIGINT, Target::Child),
            Order::Signal(64, Target::Group),
            Order::Signal(libc::SIGTSTP, Target::Foreground),
            Order::Farewell(libc::SIGPIPE),
        ];
        for order in orders {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let reports = [
            Report::Started(4_194_303),
            Report::Refused(Errno::ENOENT),
            Report::Unseated(Errno::EPERM),
            Report::Stopped(libc::SIGTTIN),
            Report::Continued,
            Report::Ended(Exit::Status(255)),
            Report::Ended(Exit::Signal(64)),
            Report::Told,
        ];
        for report in reports {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        assert_eq!(Order::decode(&[9; LEN]), None);
        assert_eq!(Report::decode(&[9; LEN]), None);
    }
}
