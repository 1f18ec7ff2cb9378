//! What nproxy and the monitor say to each other: packets of fixed size.

use nix::errno::Errno;

use crate::process::exit::Exit;
use crate::process::spawn::Placement;

/// Size of a packet in bytes: kind, detail, two unused, and a number.
pub(crate) const LEN: usize = 8;

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipient {
    /// The child's own process.
    Child,
    /// The group that it leads.
    Group,
    /// The foreground group of its terminal; its own group if that has none but the monitor's.
    Foreground,
}

/// From nproxy to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start the child.
    Start(Placement),
    /// Continue the child's group.
    Continue(Placement),
    /// Send this signal.
    Signal(i32, Recipient),
    /// Send the foreground group this signal, because the terminal is about to be hung up, and report when
    /// that has been done.
    AnnounceHangUp(i32),
}

/// From the monitor to nproxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MonitorEvent {
    /// The child runs under this pid.
    Started(i32),
    /// It could not be executed.
    Refused(Errno),
    /// The terminal could not be made the session's.
    NoTerminal(Errno),
    /// The child was stopped by this signal.
    Stopped(i32),
    /// The child was continued.
    Continued,
    /// The child has ended.
    Ended(Exit),
    /// The last message has been sent.
    HangUpAnnounced,
}

impl Order {
    pub(crate) fn encode(self) -> [u8; LEN] {
        match self {
            Order::Start(placement) => packet(0, placement as u8, 0),
            Order::Continue(placement) => packet(1, placement as u8, 0),
            Order::Signal(signal, target) => packet(2, target as u8, signal),
            Order::AnnounceHangUp(signal) => packet(3, 0, signal),
        }
    }

    pub(crate) fn decode(bytes: &[u8; LEN]) -> Option<Order> {
        let (kind, detail, number) = unpack(bytes);
        let placement = [Placement::Foreground, Placement::Background].into_iter();
        let placement = placement.clone().find(|placement| *placement as u8 == detail);
        let target = [Recipient::Child, Recipient::Group, Recipient::Foreground].into_iter();
        let target = target.clone().find(|target| *target as u8 == detail);
        match kind {
            0 => placement.map(Order::Start),
            1 => placement.map(Order::Continue),
            2 => target.map(|target| Order::Signal(number, target)),
            3 => Some(Order::AnnounceHangUp(number)),
            _ => None,
        }
    }
}

impl MonitorEvent {
    pub(crate) fn encode(self) -> [u8; LEN] {
        match self {
            MonitorEvent::Started(pid) => packet(0, 0, pid),
            MonitorEvent::Refused(errno) => packet(1, 0, errno as i32),
            MonitorEvent::NoTerminal(errno) => packet(2, 0, errno as i32),
            MonitorEvent::Stopped(signal) => packet(3, 0, signal),
            MonitorEvent::Continued => packet(4, 0, 0),
            MonitorEvent::Ended(Exit::Status(status)) => packet(5, 0, status.into()),
            MonitorEvent::Ended(Exit::Signal(signal)) => packet(5, 1, signal),
            MonitorEvent::HangUpAnnounced => packet(6, 0, 0),
        }
    }

    pub(crate) fn decode(bytes: &[u8; LEN]) -> Option<MonitorEvent> {
        let (kind, detail, number) = unpack(bytes);
        match (kind, detail) {
            (0, _) => Some(MonitorEvent::Started(number)),
            (1, _) => Some(MonitorEvent::Refused(Errno::from_raw(number))),
            (2, _) => Some(MonitorEvent::NoTerminal(Errno::from_raw(number))),
            (3, _) => Some(MonitorEvent::Stopped(number)),
            (4, _) => Some(MonitorEvent::Continued),
            (5, 0) => Some(MonitorEvent::Ended(Exit::Status(number as u8))),
            (5, _) => Some(MonitorEvent::Ended(Exit::Signal(number))),
            (6, _) => Some(MonitorEvent::HangUpAnnounced),
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
            Order::Start(Placement::Foreground),
            Order::Start(Placement::Background),
            Order::Continue(Placement::Foreground),
            Order::Continue(Placement::Background),
            Order::Signal(libc::SIGINT, Recipient::Child),
            Order::Signal(64, Recipient::Group),
            Order::Signal(libc::SIGTSTP, Recipient::Foreground),
            Order::AnnounceHangUp(libc::SIGPIPE),
        ];
        for order in orders {
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let reports = [
            MonitorEvent::Started(4_194_303),
            MonitorEvent::Refused(Errno::ENOENT),
            MonitorEvent::NoTerminal(Errno::EPERM),
            MonitorEvent::Stopped(libc::SIGTTIN),
            MonitorEvent::Continued,
            MonitorEvent::Ended(Exit::Status(255)),
            MonitorEvent::Ended(Exit::Signal(64)),
            MonitorEvent::HangUpAnnounced,
        ];
        for report in reports {
            assert_eq!(MonitorEvent::decode(&report.encode()), Some(report));
        }
        assert_eq!(Order::decode(&[9; LEN]), None);
        assert_eq!(MonitorEvent::decode(&[9; LEN]), None);
    }
}
