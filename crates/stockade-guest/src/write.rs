//! A file on its way from the host: written beside its place, then put there whole.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use crate::{
    files::too_large,
    path::{self, Failure, Place, failure, invalid},
    sysfile,
};

/// How its end is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// So many bytes follow.
    Exactly(u64),
    /// The host says when; more than this is refused.
    AtMost(u64),
}

/// One file being written.
pub(crate) struct WriteJob {
    path: String,
    place: Place,
    temporary: CString,
    file: File,
    size: Size,
    left: u64,
    mode: u32,
    kept: bool,
}

impl WriteJob {
    pub(crate) fn start(path: &str, mode: u32, size: Size) -> Result<Self, Failure> {
        let place = path::place(path, true)?;
        let (temporary, file) = beside(&place).map_err(|e| {
            place.forget_directories();
            failure(path, &e)
        })?;
        let (Size::Exactly(left) | Size::AtMost(left)) = size;
        Ok(Self {
            path: path.to_owned(),
            place,
            temporary,
            file,
            size,
            left,
            mode,
            kept: false,
        })
    }

    /// Whether all announced bytes have arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.left == 0 && matches!(self.size, Size::Exactly(_))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| match self.size {
            Size::Exactly(_) => invalid("more bytes than announced".to_owned()),
            Size::AtMost(_) => too_large(&self.path),
        })?;
        self.file.write_all(bytes).map_err(|e| failure(&self.path, &e))
    }

    /// Puts the whole file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let parent = self.place.parent.as_fd();
        sysfile::set_mode(self.file.as_fd(), self.mode)
            .and_then(|()| sysfile::rename_at((parent, &self.temporary), (parent, &self.place.name)))
            .map_err(|e| failure(&self.path, &e))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for WriteJob {
    fn drop(&mut self) {
        if !self.kept {
            let _ = sysfile::unlink_at(self.place.parent.as_fd(), &self.temporary, false);
            self.place.forget_directories();
        }
    }
}

/// Makes a file beside a place under a name nobody can know before.
fn beside(place: &Place) -> io::Result<(CString, File)> {
    let name = format!(".stockade-{:016x}", sysfile::random()?);
    let name = CString::new(name).map_err(io::Error::other)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | sysfile::CAREFUL;
    let file = sysfile::open_at(place.parent.as_fd(), &name, flags, 0o600)?;
    Ok((name, file.into()))
}
