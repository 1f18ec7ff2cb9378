//! A filesystem of three files, served over /dev/fuse while a command runs: what a network filesystem does now and then,
//! at will.
//!
//! `source` holds seeded bytes, says another size than it has, and is read without the page cache. `sink` takes
//! everything, and says at close(2) that a quota was exceeded. `slow` takes nothing before a file `go` exists where the
//! peer was started; what it takes is kept in a file `taken` there. The protocol is that of fuse.h(7.31).

use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::payload::Payload;
use crate::{Outcome, number};

const ROOT: u64 = 1;
const SOURCE: u64 = 2;
const SINK: u64 = 3;
const SLOW: u64 = 4;

/// Largest request: a write of this much, and its headers.
const LARGEST: usize = 128 << 10;
const HEADER: usize = 40;

/// `fuse DIRECTORY BYTES SIZE COMMAND...`
pub(crate) fn serve(arguments: Vec<OsString>) -> Outcome {
    let [directory, bytes, size, program, words @ ..] = &arguments[..] else {
        return Err("fuse DIRECTORY BYTES SIZE COMMAND...".into());
    };
    let mut content = vec![0; number(Some(bytes))? as usize];
    Payload::new(content.len() as u64, 1).fill(&mut content);
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = CString::new(options)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("peer"), directory.as_os_str(), Some("fuse"), flags, Some(options.as_c_str()))?;
    let server = Server { device, content, size: number(Some(size))? };
    std::thread::spawn(move || server.run());
    let status = Command::new(program).args(words).status();
    umount2(directory.as_os_str(), MntFlags::MNT_DETACH)?;
    Ok(status?.code().unwrap_or(128))
}

struct Server {
    device: File,
    content: Vec<u8>,
    /// What `source` says that it holds.
    size: u64,
}

/// What a request is answered with: bytes, an error, or nothing at all.
type Answer = Option<Result<Vec<u8>, Errno>>;

impl Server {
    fn run(mut self) -> io::Result<()> {
        let mut request = vec![0; LARGEST + 4096];
        loop {
            let length = match self.device.read(&mut request) {
                // Interrupted before the request was taken.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => continue,
                read => read?,
            };
            let (header, body) = request[..length].split_at(HEADER);
            let Some(answer) = self.answer(field(header, 4), wide(header, 16), body) else {
                continue;
            };
            let (error, body) = match answer {
                Ok(body) => (0, body),
                Err(errno) => (-(errno as i32), Vec::new()),
            };
            let mut reply = Vec::with_capacity(16 + body.len());
            reply.extend((16 + body.len() as u32).to_ne_bytes());
            reply.extend(error.to_ne_bytes());
            reply.extend(wide(header, 8).to_ne_bytes());
            reply.extend(body);
            self.device.write_all(&reply)?;
        }
    }

    fn answer(&self, opcode: u32, node: u64, body: &[u8]) -> Answer {
        Some(match opcode {
            // FORGET, INTERRUPT, BATCH_FORGET.
            2 | 36 | 42 => return None,
            // LOOKUP
            1 => match body.strip_suffix(&[0]) {
                Some(b"source") => Ok(self.entry(SOURCE)),
                Some(b"sink") => Ok(self.entry(SINK)),
                Some(b"slow") => Ok(self.entry(SLOW)),
                _ => Err(Errno::ENOENT),
            },
            // GETATTR, SETATTR
            3 | 4 => Ok([&[0; 16][..], &self.attributes(node)].concat()),
            // OPEN: FOPEN_DIRECT_IO is 1.
            14 => Ok(words(&[0, 0, u32::from(node == SOURCE), 0])),
            27 => Ok(words(&[0; 4])),
            // READ
            15 => {
                let start = (wide(body, 8) as usize).min(self.content.len());
                let end = (start + field(body, 16) as usize).min(self.content.len());
                Ok(self.content[start..end].to_vec())
            }
            // WRITE
            16 => {
                while node == SLOW && !Path::new("go").exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if node == SLOW && !keep(body) {
                    return Some(Err(Errno::EIO));
                }
                Ok(words(&[field(body, 16), 0]))
            }
            // FLUSH: what close(2) says.
            25 if node == SINK => Err(Errno::EDQUOT),
            // RELEASE, FSYNC, FLUSH, RELEASEDIR, ACCESS, DESTROY
            18 | 20 | 25 | 29 | 34 | 38 => Ok(Vec::new()),
            // INIT: version 7.31, nothing of what may be wished for, writes of up to LARGEST.
            26 => {
                let mut fields = [0; 16];
                (fields[0], fields[1], fields[5], fields[6]) = (7, 31, LARGEST as u32, 1);
                Ok(words(&fields))
            }
            _ => Err(Errno::ENOSYS),
        })
    }

    fn entry(&self, node: u64) -> Vec<u8> {
        let mut entry = node.to_ne_bytes().to_vec();
        entry.extend([0; 32]);
        entry.extend(self.attributes(node));
        entry
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            ROOT => (0o040_755, 0),
            SOURCE => (0o100_644, self.size),
            _ => (0o100_644, 0),
        };
        let mut attributes = Vec::with_capacity(88);
        for field in [node, size, size.div_ceil(512), 0, 0, 0] {
            attributes.extend(field.to_ne_bytes());
        }
        attributes.extend(words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]));
        attributes
    }
}

/// Puts what was written to `slow` where it belongs in a file `taken`.
fn keep(body: &[u8]) -> bool {
    const FIELDS: usize = 40;
    let bytes = &body[FIELDS..FIELDS + field(body, 16) as usize];
    let file = OpenOptions::new().write(true).create(true).truncate(false).open("taken");
    file.and_then(|file| file.write_all_at(bytes, wide(body, 8))).is_ok()
}

fn words(fields: &[u32]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
}

fn field(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
