//! One engine per store: an exclusive lock on a file.
//!
//! The kernel gives the lock back when the process ends, however it ends, so a lock file
//! that was left behind locks nobody out.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use stockade_ports::EngineError;

/// The held lock; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes this process down as its holder.
    pub(crate) fn take(path: &Path) -> Result<Self, EngineError> {
        let broken = |what: &str, error: std::io::Error| {
            EngineError::Broken(format!("the lock file {} cannot be {what}: {error}", path.display()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(|e| broken("opened", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut file)),
            Err(TryLockError::Error(error)) => return Err(broken("locked", error)),
        }
        let mut write = || {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())?;
            file.flush()
        };
        write().map_err(|e| broken("written", e))?;
        Ok(Self { _file: file })
    }
}

fn held(path: &Path, file: &mut File) -> EngineError {
    let mut holder = String::new();
    let read = file.take(32).read_to_string(&mut holder);
    let holder = match (read, holder.trim()) {
        (Ok(_), pid) if !pid.is_empty() => pid.to_owned(),
        _ => "unknown".to_owned(),
    };
    let place = path.parent().unwrap_or(path).display().to_string();
    EngineError::AlreadyRunning { place, holder }
}
