//! Requests about files: those that take one step, and those that go on beside everything else.

use std::collections::BTreeMap;

use stockade_guest_proto::{FailureKind, FromGuest, ToGuest};

use crate::{
    conn::Conn,
    files::{self, ReadJob},
    list::ListJob,
    path::Failure,
    remove::RemoveJob,
    watch::WatchJob,
    write::{Size, WriteJob},
};

/// Requests about files that go on at once.
const MAX_JOBS: usize = 128;
/// Watches in force at once: each is an inotify instance, which the host counts for each user.
const MAX_WATCHES: usize = 16;

/// One request that is not answered yet.
enum Job {
    Read(ReadJob),
    Write(Box<WriteJob>),
    List(Box<ListJob>),
    Remove(Box<RemoveJob>),
    Watch(Box<WatchJob>),
}

/// All of them.
#[derive(Default)]
pub(crate) struct Jobs(BTreeMap<u32, Job>);

impl Jobs {
    /// Carries out a message about files; any other is left alone.
    pub(crate) fn message(&mut self, message: ToGuest, conn: &mut Conn) {
        match message {
            ToGuest::ReadFile {
                id,
                path,
                limit,
                credit,
            } => {
                let job = self.free(id).and_then(|()| ReadJob::start(&path, limit, credit));
                self.begin(id, job.map(Job::Read), credit.is_some(), conn);
            }
            ToGuest::WriteFile { id, path, mode, size } => {
                self.write(id, &path, mode, Size::Exactly(size), conn);
                self.written(id, Ok(()), conn);
            }
            ToGuest::Upload { id, path, mode, limit } => self.write(id, &path, mode, Size::AtMost(limit), conn),
            ToGuest::UploadEnd { id } => {
                if let Some(Job::Write(job)) = self.0.remove(&id) {
                    answer(id, job.finish(), conn);
                }
            }
            ToGuest::Cancel { id } => drop(self.0.remove(&id)),
            ToGuest::Stat { id, path } => match files::stat(&path) {
                Ok(entry) => {
                    let (entries, truncated) = (vec![entry], false);
                    conn.send(&FromGuest::Entries { id, entries, truncated });
                    conn.send(&FromGuest::Done { id });
                }
                Err(e) => answer(id, Err(e), conn),
            },
            ToGuest::List { id, path, depth, limit } => {
                let job = self.free(id).and_then(|()| ListJob::start(&path, depth, limit));
                self.begin(id, job.map(|job| Job::List(Box::new(job))), false, conn);
            }
            ToGuest::MakeDir { id, path, mode } => answer(id, files::make_dir(&path, mode), conn),
            ToGuest::Remove { id, path, recursive } => {
                match self.free(id).and_then(|()| RemoveJob::start(&path, recursive)) {
                    Ok(Some(job)) => drop(self.0.insert(id, Job::Remove(Box::new(job)))),
                    Ok(None) => answer(id, Ok(()), conn),
                    Err(e) => answer(id, Err(e), conn),
                }
            }
            ToGuest::Rename { id, from, to } => answer(id, files::rename(&from, &to), conn),
            ToGuest::Watch {
                id,
                path,
                recursive,
                credit,
            } => {
                let free = self.free(id).and_then(|()| self.may_watch());
                let job = free.and_then(|()| WatchJob::start(&path, recursive, credit));
                // It says itself when everything is watched.
                self.begin(id, job.map(|job| Job::Watch(Box::new(job))), false, conn);
            }
            _ => {}
        }
    }

    fn write(&mut self, id: u32, path: &str, mode: u32, size: Size, conn: &mut Conn) {
        let say = matches!(size, Size::AtMost(_));
        let job = self.free(id).and_then(|()| WriteJob::start(path, mode, size));
        self.begin(id, job.map(|job| Job::Write(Box::new(job))), say, conn);
    }

    fn begin(&mut self, id: u32, job: Result<Job, Failure>, say: bool, conn: &mut Conn) {
        match job {
            Ok(job) => {
                self.0.insert(id, job);
                if say {
                    conn.send(&FromGuest::Started { id });
                }
            }
            Err(e) => answer(id, Err(e), conn),
        }
    }

    fn free(&self, id: u32) -> Result<(), Failure> {
        if self.0.contains_key(&id) {
            return Err((FailureKind::Invalid, format!("request {id} is in use")));
        }
        if self.0.len() >= MAX_JOBS {
            let why = format!("{MAX_JOBS} requests about files are going on already");
            return Err((FailureKind::Other, why));
        }
        Ok(())
    }

    fn may_watch(&self) -> Result<(), Failure> {
        let watches = self.0.values().filter(|job| matches!(job, Job::Watch(_)));
        if watches.count() < MAX_WATCHES {
            return Ok(());
        }
        let why = format!("{MAX_WATCHES} directories are watched already");
        Err((FailureKind::Other, why))
    }

    /// Bytes of a file that is being written. Those of one that failed come to nothing.
    pub(crate) fn input(&mut self, id: u32, bytes: &[u8], conn: &mut Conn) {
        if let Some(Job::Write(job)) = self.0.get_mut(&id) {
            let result = job.write(bytes);
            self.written(id, result, conn);
        }
    }

    /// After a step of a write: finishes it when whole, drops it when failed.
    fn written(&mut self, id: u32, result: Result<(), Failure>, conn: &mut Conn) {
        let Some(Job::Write(job)) = self.0.get(&id) else { return };
        if result.is_ok() && !job.is_whole() {
            return;
        }
        if let Some(Job::Write(job)) = self.0.remove(&id) {
            answer(id, result.and_then(|()| job.finish()), conn);
        }
    }

    pub(crate) fn add_credit(&mut self, id: u32, credit: u64) {
        match self.0.get_mut(&id) {
            Some(Job::Read(job)) => job.add_credit(credit),
            Some(Job::Watch(job)) => job.add_credit(credit),
            _ => {}
        }
    }

    /// Whether a job could do something now.
    pub(crate) fn is_runnable(&self) -> bool {
        self.0.values().any(Job::is_runnable)
    }

    /// The descriptors jobs wait for, with the ids of the jobs.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (u32, i32)> {
        self.0.iter().filter_map(|(id, job)| match job {
            Job::Watch(job) => Some((*id, job.interest()?)),
            _ => None,
        })
    }

    /// One job's descriptor is readable.
    pub(crate) fn ready(&mut self, id: u32, conn: &mut Conn) {
        if let Some(Job::Watch(job)) = self.0.get_mut(&id)
            && let Err(e) = job.ready()
        {
            self.0.remove(&id);
            answer(id, Err(e), conn);
        }
    }

    /// Does one step of every job that can do one.
    pub(crate) fn step(&mut self, conn: &mut Conn) {
        self.0.retain(|id, job| {
            if !conn.has_room() || !job.is_runnable() {
                return true;
            }
            match job.step(*id, conn) {
                Ok(over) => !over,
                Err(e) => {
                    answer(*id, Err(e), conn);
                    false
                }
            }
        });
    }
}

impl Job {
    fn is_runnable(&self) -> bool {
        match self {
            Self::Read(job) => job.is_runnable(),
            Self::Watch(job) => job.is_runnable(),
            Self::List(_) | Self::Remove(_) => true,
            Self::Write(_) => false,
        }
    }

    fn step(&mut self, id: u32, conn: &mut Conn) -> Result<bool, Failure> {
        match self {
            Self::Read(job) => job.step(id, conn),
            Self::List(job) => job.step(id, conn),
            Self::Remove(job) => job.step(id, conn),
            Self::Watch(job) => job.step(id, conn),
            Self::Write(_) => Ok(false),
        }
    }
}

fn answer(id: u32, result: Result<(), Failure>, conn: &mut Conn) {
    match result {
        Ok(()) => conn.send(&FromGuest::Done { id }),
        Err((kind, message)) => conn.fail(id, kind, message),
    }
}
