//! Telling what changes in a directory and below it.
//!
//! One inotify instance for each watch. A subdirectory that appears is watched first and read
//! afterwards, so what was put into it before the watch was there is told as well; what is seen
//! both ways is told once. Events are only taken while the host has room: the kernel's queue is
//! bounded and says when it ran over, and that is told as `lost`.

use std::{
    collections::{HashSet, VecDeque},
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
};

use stockade_guest_proto::{ChangeKind, FailureKind, FileChange, FromGuest};

use crate::{
    conn::Conn,
    inotify::{Event, Inotify},
    list::descend,
    path::{self, Failure, failure, invalid},
    sysfile::{self, Dir},
    woods::Woods,
};

/// Directories one watch covers at most. The agent decides how many there are.
const MAX_DIRECTORIES: usize = 16 * 1024;
/// Changes kept for the host before no more are looked for.
const QUEUE: usize = 256;
/// Names looked at in one step.
const STEP: usize = 256;
/// Bytes of paths in one message; written as JSON they may be six times as long.
const MESSAGE: usize = 64 * 1024;
/// Names told before their event arrives that are remembered.
const MAX_TOLD: usize = 4096;

/// A watch in force, or about to be.
pub(crate) struct WatchJob {
    path: String,
    /// Device and inode of the watched directory. It is not kept open: then it could not end.
    identity: (u64, u64),
    recursive: bool,
    inotify: Inotify,
    woods: Woods,
    scans: VecDeque<Scan>,
    now: Option<(Dir, Scan)>,
    told: HashSet<(i32, CString)>,
    /// A directory that got another name which is not known yet, with the event's cookie.
    moving: Option<(u32, i32)>,
    changes: VecDeque<FileChange>,
    credit: u64,
    started: bool,
    lost: bool,
    over: bool,
}

/// A directory to read; `announce` when what is in it is news.
#[derive(Clone, Copy)]
struct Scan {
    watch: i32,
    announce: bool,
}

impl WatchJob {
    pub(crate) fn start(path: &str, recursive: bool, credit: u64) -> Result<Self, Failure> {
        let (dir, identity) = open(path)?;
        let inotify = Inotify::new().map_err(|e| no_watch(path, &e))?;
        let root = inotify.add(dir.as_fd()).map_err(|e| no_watch(path, &e))?;
        let mut job = Self {
            path: path.trim_end_matches('/').to_owned(),
            identity,
            recursive,
            inotify,
            woods: Woods::new(root),
            scans: VecDeque::new(),
            now: None,
            told: HashSet::new(),
            moving: None,
            changes: VecDeque::new(),
            credit,
            started: false,
            lost: false,
            over: false,
        };
        job.scan_quietly(root);
        Ok(job)
    }

    /// Looks for subdirectories that are there already.
    fn scan_quietly(&mut self, watch: i32) {
        if self.recursive {
            let announce = false;
            self.scans.push_back(Scan { watch, announce });
        }
    }

    pub(crate) fn add_credit(&mut self, changes: u64) {
        self.credit = self.credit.saturating_add(changes);
    }

    /// The descriptor to wait for, if events are wanted now.
    pub(crate) fn interest(&self) -> Option<i32> {
        let idle = self.changes.is_empty() && !self.is_scanning();
        let wanted = self.started && !self.over && self.credit > 0 && idle;
        wanted.then(|| self.inotify.raw())
    }

    fn is_scanning(&self) -> bool {
        !self.scans.is_empty() || self.now.is_some()
    }

    /// Whether there is something to do without waiting.
    pub(crate) fn is_runnable(&self) -> bool {
        let telling = !self.changes.is_empty() && self.credit > 0;
        let told_all = self.changes.is_empty() && (self.over || self.lost);
        !self.started || telling || told_all || (self.is_scanning() && self.changes.len() < QUEUE)
    }

    /// Reads some more directories and tells what is known; `true` when the watch is over.
    pub(crate) fn step(&mut self, id: u32, conn: &mut Conn) -> Result<bool, Failure> {
        for _ in 0..STEP {
            if self.changes.len() >= QUEUE || !self.scan()? {
                break;
            }
        }
        if !self.is_scanning() {
            if !std::mem::replace(&mut self.started, true) {
                conn.send(&FromGuest::Started { id });
            }
            if std::mem::take(&mut self.lost) {
                self.note(self.path.clone(), ChangeKind::Lost);
            }
        }
        self.tell(id, conn);
        let over = self.over && self.changes.is_empty();
        if over {
            conn.send(&FromGuest::Done { id });
        }
        Ok(over)
    }

    fn tell(&mut self, id: u32, conn: &mut Conn) {
        let mut changes = Vec::new();
        let mut bytes = 0;
        while self.credit > 0 && bytes < MESSAGE {
            let Some(change) = self.changes.pop_front() else { break };
            bytes += change.path.len();
            self.credit -= 1;
            changes.push(change);
        }
        if !changes.is_empty() {
            conn.send(&FromGuest::Changed { id, changes });
        }
    }

    fn note(&mut self, path: String, what: ChangeKind) {
        let change = FileChange { path, what };
        if self.changes.back() != Some(&change) {
            self.changes.push_back(change);
        }
    }

    /// Takes the events that have arrived.
    pub(crate) fn ready(&mut self) -> Result<(), Failure> {
        // Once there is something to read inside, events wait: they may tell the same.
        while self.changes.len() < QUEUE && self.scans.is_empty() {
            let events = self.inotify.read().map_err(|e| failure(&self.path, &e))?;
            if events.is_empty() {
                self.settle_move(None);
                self.told.clear();
                break;
            }
            for event in events {
                if event.has(libc::IN_Q_OVERFLOW) {
                    return self.begin_again();
                }
                self.event(event);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        let arrived = event.has(libc::IN_MOVED_TO).then_some(event.cookie);
        let moved = self.settle_move(arrived);
        if event.has(libc::IN_IGNORED) {
            return self.woods.fell(event.watch);
        }
        let ends = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF | libc::IN_UNMOUNT;
        if event.watch == self.woods.root() && event.has(ends) {
            self.over = true;
            return self.note(self.path.clone(), ChangeKind::Removed);
        }
        if event.name.is_empty() {
            return;
        }
        let Some(path) = self.shown(event.watch, &event.name) else {
            return;
        };
        let directory = event.has(libc::IN_ISDIR);
        let mask = event.mask;
        let key = (event.watch, event.name);
        if mask & (libc::IN_CREATE | libc::IN_MOVED_TO) != 0 {
            if !self.told.remove(&key) {
                self.note(path, ChangeKind::Created);
            }
            match moved {
                Some(watch) => self.woods.replant(watch, key.0, key.1),
                None if directory => self.enter(key.0, key.1, true),
                None => {}
            }
        } else if mask & libc::IN_MODIFY != 0 {
            self.note(path, ChangeKind::Modified);
        } else if mask & libc::IN_DELETE != 0 {
            self.told.remove(&key);
            self.note(path, ChangeKind::Removed);
        } else if mask & libc::IN_MOVED_FROM != 0 {
            self.told.remove(&key);
            self.note(path, ChangeKind::Moved);
            let watch = directory.then(|| self.woods.at(key.0, &key.1)).flatten();
            self.moving = watch.map(|watch| (event.cookie, watch));
        }
    }

    /// Decides about a directory that lost its name: with the cookie of the event that gives it
    /// another it is returned, otherwise it has left the tree.
    fn settle_move(&mut self, arrived: Option<u32>) -> Option<i32> {
        let (cookie, watch) = self.moving.take()?;
        if arrived == Some(cookie) {
            return Some(watch);
        }
        for watch in self.woods.below(watch) {
            self.inotify.remove(watch);
            self.woods.fell(watch);
        }
        None
    }

    fn shown(&self, watch: i32, name: &CString) -> Option<String> {
        let mut names = self.woods.names(watch)?;
        if !names.is_empty() {
            names.push(b'/');
        }
        names.extend_from_slice(name.as_bytes());
        Some(format!("{}/{}", self.path, String::from_utf8_lossy(&names)))
    }

    fn open(&self, watch: i32) -> Option<OwnedFd> {
        let names = self.woods.names(watch)?;
        let (root, identity) = open(&self.path).ok()?;
        if identity != self.identity {
            return None;
        }
        if names.is_empty() {
            Some(root)
        } else {
            descend(&root, &names)
        }
    }

    /// Begins to watch a subdirectory. Its content is news if it is new itself.
    fn enter(&mut self, parent: i32, name: CString, announce: bool) {
        if !self.recursive {
            return;
        }
        let Some(above) = self.open(parent) else { return };
        let Ok(dir) = path::open_dir(above.as_fd(), &name, "") else {
            return;
        };
        if self.woods.len() >= MAX_DIRECTORIES {
            self.lost = true;
            return;
        }
        match self.inotify.add(dir.as_fd()) {
            Ok(watch) => {
                if self.woods.plant(watch, parent, name) {
                    self.scans.push_back(Scan { watch, announce });
                }
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            // The host's limit on watches: changes in there will not be seen.
            Err(_) => self.lost = true,
        }
    }

    /// Looks at one name of a directory that is new to the watch; `false` when there is none.
    fn scan(&mut self) -> Result<bool, Failure> {
        if self.lost && !self.started {
            let why = format!("{}: more directories below it than can be watched", self.path);
            return Err((FailureKind::Other, why));
        }
        if let Some((dir, scan)) = &mut self.now {
            let scan = *scan;
            let Ok(Some(name)) = dir.next_name() else {
                self.now = None;
                return Ok(true);
            };
            if let Ok(stat) = sysfile::stat_at(dir.as_fd(), &name) {
                self.found(scan, name, &stat);
            }
            return Ok(true);
        }
        let Some(scan) = self.scans.pop_front() else {
            return Ok(false);
        };
        self.now = self.open(scan.watch).map(|dir| (Dir::new(dir), scan));
        Ok(true)
    }

    fn found(&mut self, scan: Scan, name: CString, stat: &sysfile::Stat) {
        if scan.announce
            && let Some(path) = self.shown(scan.watch, &name)
        {
            let news = self.told.len() >= MAX_TOLD || self.told.insert((scan.watch, name.clone()));
            if news {
                self.note(path, ChangeKind::Created);
            }
        }
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            self.enter(scan.watch, name, scan.announce);
        }
    }

    /// Events were lost, and with them perhaps directories: watches everything anew, and says
    /// so afterwards, so that whoever looks then misses nothing.
    fn begin_again(&mut self) -> Result<(), Failure> {
        self.inotify = Inotify::new().map_err(|e| no_watch(&self.path, &e))?;
        self.scans.clear();
        self.told.clear();
        (self.now, self.moving) = (None, None);
        self.lost = true;
        let same = open(&self.path).ok().filter(|(_, identity)| *identity == self.identity);
        let Some((dir, _)) = same else {
            self.over = true;
            self.note(self.path.clone(), ChangeKind::Removed);
            return Ok(());
        };
        let root = self.inotify.add(dir.as_fd()).map_err(|e| no_watch(&self.path, &e))?;
        self.woods = Woods::new(root);
        self.scan_quietly(root);
        Ok(())
    }
}

fn open(path: &str) -> Result<(OwnedFd, (u64, u64)), Failure> {
    let found = path::find(path, true)?;
    if found.kind() != libc::S_IFDIR {
        return Err(invalid(format!("{path} is not a directory")));
    }
    let dir = path::open_dir(found.parent.as_fd(), &found.name, path)?;
    let stat = sysfile::stat(dir.as_fd()).map_err(|e| failure(path, &e))?;
    Ok((dir, (stat.st_dev, stat.st_ino)))
}

fn no_watch(path: &str, error: &io::Error) -> Failure {
    let why = match error.raw_os_error() {
        Some(libc::EMFILE) => "the host allows no more watches: raise fs.inotify.max_user_instances".to_owned(),
        Some(libc::ENOSPC) => "the host allows no more watches: raise fs.inotify.max_user_watches".to_owned(),
        _ => error.to_string(),
    };
    (FailureKind::Other, format!("{path}: {why}"))
}
