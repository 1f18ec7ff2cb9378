//! A collector that goes away at any moment, and a run that is killed at any moment: whatever a connection begins with, the
//! collector has read everything before it.

use proptest::prelude::*;

use super::*;

/// What happens to a spool.
#[derive(Clone, Copy, Debug)]
enum Act {
    Write(u64),
    /// The segment is full.
    Finish,
    /// A connection, to a peer with such a window.
    Connect(u64),
    Send(u64),
    /// The connection is lost. Of what may be lost with it, such a part in a thousand is.
    Lose(u64),
    Tidy,
    /// The run is killed, and the next one begins.
    Kill,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1u64..20 << 20).prop_map(Act::Write),
        2 => Just(Act::Finish),
        2 => (0u64..64 << 20).prop_map(Act::Connect),
        6 => (1u64..8 << 20).prop_map(Act::Send),
        2 => (0u64..=1000).prop_map(Act::Lose),
        2 => Just(Act::Tidy),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 0..200)
}

/// Disk and collector.
struct World {
    backlog: Backlog,
    /// What is on disk: inode, size, time.
    disk: VecDeque<Part>,
    record: Record,
    inode: u64,
    /// Up to there the collector has read.
    read: u64,
    /// Where the connection began, and what its peer's kernel may hold.
    connection: Option<(u64, u64)>,
    reached: u64,
    doubled: u64,
    counted: u64,
}

impl World {
    fn new() -> World {
        let current = Part { start: 0, size: 0, inode: 1, time: None };
        let backlog = Backlog::new(vec![current], None);
        let record = backlog.record();
        World {
            backlog,
            disk: [current].into(),
            record,
            inode: 1,
            read: 0,
            connection: None,
            reached: 0,
            doubled: 0,
            counted: 0,
        }
    }

    fn act(&mut self, act: Act) {
        match (act, self.connection) {
            (Act::Write(bytes), _) => {
                self.disk.back_mut().expect("a current one").size += bytes;
                self.backlog.wrote(bytes);
            }
            (Act::Finish, _) => {
                self.inode += 1;
                self.disk.back_mut().expect("a current one").time = Some(self.inode as i64);
                self.disk.push_back(Part { start: 0, size: 0, inode: self.inode, time: None });
                self.backlog.finished(Some(self.inode as i64), self.inode);
            }
            (Act::Connect(window), None) => {
                let (part, safe) = self.backlog.restart();
                // A line's start somewhere before.
                let at = part.map_or(safe, |part| safe - (safe - part.start).min(1000));
                self.backlog.connected(at, window);
                assert!(self.backlog.position() <= self.read, "a gap");
                self.connection = Some((self.backlog.position(), window.max(KEEP)));
            }
            (Act::Send(most), Some(_)) => self.send(most),
            (Act::Lose(part), Some((began, window))) => {
                let sent = self.backlog.position();
                let at_risk = (sent - began).min(window);
                self.read = self.read.max(sent - at_risk * part / 1000);
                self.connection = None;
            }
            (Act::Tidy, _) => self.tidy(),
            (Act::Kill, _) => {
                self.act(Act::Lose(1000));
                self.backlog = Backlog::new(self.disk.iter().copied().collect(), Some(self.record));
                self.record = self.backlog.record();
            }
            _ => {}
        }
    }

    fn send(&mut self, most: u64) {
        let Some((part, at)) = self.backlog.next() else { return };
        let from = self.backlog.position();
        assert_eq!(part.start + at, from, "nothing that is needed was removed");
        let most = most.min(part.size - at);
        if self.backlog.will_send(most) {
            self.record = self.backlog.record();
        }
        // A socket may have less room.
        let bytes = most.div_ceil(2);
        self.counted += self.backlog.has_sent(bytes);
        self.doubled += self.reached.saturating_sub(from).min(bytes);
        self.reached = self.reached.max(from + bytes);
    }

    fn tidy(&mut self) {
        let surplus = self.backlog.surplus();
        self.record = self.backlog.record();
        for part in surplus {
            let gone = self.disk.pop_front().expect("a segment");
            assert_eq!(gone.inode, part.inode);
        }
    }
}

proptest! {
    #[test]
    fn every_connection_begins_with_what_was_read(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
            let backlog = &world.backlog;
            prop_assert!(backlog.safe <= world.read.max(world.backlog.position()));
            prop_assert!(backlog.safe <= backlog.sent && backlog.sent <= backlog.end());
            prop_assert_eq!(backlog.unsent() + backlog.unconfirmed() + backlog.safe, backlog.end());
        }
        // In the end everything arrives.
        world.act(Act::Lose(1000));
        world.act(Act::Connect(0));
        while world.backlog.next().is_some() {
            world.send(u64::MAX);
        }
        world.backlog.confirmed();
        prop_assert_eq!(world.backlog.unsent() + world.backlog.unconfirmed(), 0);
        prop_assert_eq!(world.reached, world.backlog.end());
        prop_assert!(world.doubled <= world.counted, "{} of {}", world.counted, world.doubled);
        world.tidy();
        prop_assert_eq!(world.disk.len(), 1);
    }
}

fn part(inode: u64, size: u64, time: Option<Micros>) -> Part {
    Part { start: 0, size, inode, time }
}

#[test]
fn without_a_record_everything_is_sent() {
    let parts = || vec![part(7, 10, Some(1)), part(8, 5, None)];
    let others = Record { inode: 9, start: 3, safe: 4, sent: 5 };
    for record in [None, Some(others)] {
        let backlog = Backlog::new(parts(), record);
        assert_eq!((backlog.unsent(), backlog.unconfirmed(), backlog.end()), (15, 0, 15));
    }
}

/// A run that was killed between writing it down and removing the segment.
#[test]
fn what_should_have_been_removed_goes() {
    let record = Record { inode: 8, start: 100, safe: 103, sent: 104 };
    let parts = vec![part(7, 10, Some(1)), part(8, 5, None)];
    let mut backlog = Backlog::new(parts, Some(record));
    assert_eq!((backlog.unsent(), backlog.unconfirmed(), backlog.end()), (1, 1, 105));
    let gone = backlog.surplus();
    assert_eq!(gone.iter().map(|part| (part.inode, part.start)).collect::<Vec<_>>(), [(7, 90)]);
}

/// The machine has gone down, and bytes with it.
#[test]
fn a_record_beyond_the_bytes_is_cut() {
    let record = Record { inode: 7, start: 0, safe: 50, sent: 60 };
    let backlog = Backlog::new(vec![part(7, 40, None)], Some(record));
    assert_eq!((backlog.unsent(), backlog.unconfirmed(), backlog.end()), (0, 0, 40));
}

#[test]
fn a_missing_segment_is_passed_over() {
    let mut backlog = Backlog::new(vec![part(7, 10, Some(1)), part(8, 5, None)], None);
    backlog.connected(0, 0);
    backlog.will_send(4);
    assert_eq!(backlog.has_sent(4), 0);
    let (missing, at) = backlog.next().expect("more");
    assert_eq!(at, 4);
    assert_eq!(backlog.skip(missing), 6);
    assert_eq!((backlog.position(), backlog.unsent(), backlog.unconfirmed()), (10, 5, 0));
}

/// A line that was cut ends in the next segment: a connection that begins with its start needs the segment before.
#[test]
fn the_start_of_a_cut_line_is_kept() {
    let record = Record { inode: 7, start: 0, safe: 10, sent: 12 };
    let mut backlog = Backlog::new(vec![part(7, 10, Some(1)), part(8, 5, None)], Some(record));
    let (before, safe) = backlog.restart();
    assert_eq!((before.map(|part| part.inode), safe), (Some(7), 10));
    backlog.connected(4, 0);
    assert_eq!(backlog.surplus(), []);
    assert_eq!(backlog.next().map(|(part, at)| (part.inode, at)), Some((7, 4)));
    backlog.has_sent(6);
    assert_eq!(backlog.surplus().len(), 1);
    assert_eq!(backlog.next().map(|(part, at)| (part.inode, at)), Some((8, 0)));
}
