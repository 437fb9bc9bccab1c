//! Looking for something that must be nowhere: in files, in what processes were started with, in memory.

use std::{
    fs::{self, File},
    io::{Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    args::Args,
    sys::{pids, slurp},
    tell::{attempt, count, refused},
};

/// Files larger than this are read up to here.
const LARGEST: u64 = 8 << 20;
/// Longest the walk may take.
const PATIENCE: Duration = Duration::from_secs(12);

/// What is looked for, kept inverted: this program's own memory, command line and output do not hold it.
struct Needle(Vec<u8>);

impl Needle {
    fn read(hex: &str) -> Self {
        let digit = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16).unwrap_or(0);
        Self((0..hex.len()).step_by(2).map(digit).collect())
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        let Some(first) = self.0.first() else { return false };
        let fits = |window: &[u8]| window.iter().zip(&self.0).all(|(byte, inverted)| *byte == !inverted);
        let mut windows = bytes.windows(self.0.len());
        windows.any(|window| window[0] == !first && fits(window))
    }
}

/// Looks for every `not=` (hexadecimal, each byte inverted) below every `under=`, in `/proc` and in memory. Tells
/// each place as an attempt, and how much was looked through.
pub(crate) fn seek(args: &Args) {
    let needles: Vec<Needle> = args.all("not").map(Needle::read).collect();
    let holds = |bytes: &[u8]| needles.iter().any(|needle| needle.is_in(bytes));
    let begun = Instant::now();
    let (mut files, mut found) = (0_u64, Vec::new());
    for root in args.all("under") {
        let mut ahead = vec![PathBuf::from(root)];
        while let Some(path) = ahead.pop() {
            if begun.elapsed() > PATIENCE {
                break;
            }
            step(&path, &mut ahead, &mut files, &mut |path, bytes| {
                if holds(bytes) {
                    found.push(path.display().to_string());
                }
            });
        }
    }
    tell("files", &found);
    count("files", files);
    let mut found = Vec::new();
    for pid in pids() {
        for part in ["environ", "cmdline", "maps", "status", "mountinfo"] {
            let path = format!("/proc/{pid}/{part}");
            if slurp(&path).is_ok_and(|bytes| holds(&bytes)) {
                found.push(path);
            }
        }
    }
    tell("processes", &found);
    let (mut regions, mut found) = (0_u64, Vec::new());
    for pid in pids() {
        if begun.elapsed() < PATIENCE && memory(pid, &holds, &mut regions) {
            found.push(format!("/proc/{pid}/mem"));
        }
    }
    tell("memory", &found);
    count("regions", regions);
    let table = |name: &&str| slurp(&format!("/proc/net/{name}")).is_ok_and(|bytes| holds(&bytes));
    let names: Vec<_> = ["tcp", "tcp6", "udp", "unix"].into_iter().filter(table).collect();
    tell(
        "sockets",
        &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
    );
}

fn tell(name: &str, found: &[String]) {
    attempt(
        &format!("seek.{name}"),
        match found {
            [] => refused("not there"),
            some => Ok(format!("it is in {}", some.join(", "))),
        },
    );
}

fn step(path: &Path, ahead: &mut Vec<PathBuf>, files: &mut u64, look: &mut dyn FnMut(&Path, &[u8])) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if meta.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        ahead.extend(entries.map(|entry| entry.path()));
    } else if meta.is_file() {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
        *files += u64::from(read.is_ok());
        look(path, &bytes);
    }
}

/// Whether a process's memory, as far as it can be read, holds something.
fn memory(pid: i32, holds: &dyn Fn(&[u8]) -> bool, regions: &mut u64) -> bool {
    let (Ok(maps), Ok(mut memory)) = (
        slurp(&format!("/proc/{pid}/maps")),
        File::open(format!("/proc/{pid}/mem")),
    ) else {
        return false;
    };
    for line in String::from_utf8_lossy(&maps).lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let ends = range.split_once('-').map(|(a, b)| (hex(a), hex(b)));
        let Some((Some(start), Some(end))) = ends.filter(|_| rights.starts_with('r')) else {
            continue;
        };
        let length = end.saturating_sub(start).min(LARGEST);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        if memory.seek(SeekFrom::Start(start)).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            *regions += 1;
            if holds(&bytes) {
                return true;
            }
        }
    }
    false
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}
