//! The pack of a push, kept until somebody has looked into it: in memory while it is small,
//! then in a file that goes with the spool.

use std::{io, path::PathBuf};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use stockade_ports::{InternalBody, PackBytes};
use tempfile::NamedTempFile;
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

/// Bytes read from the file at a time.
const PIECE: usize = 64 << 10;

/// A pack that grows.
#[derive(Debug)]
pub(super) struct Spool {
    memory: BytesMut,
    file: Option<(NamedTempFile, File)>,
    dir: PathBuf,
    in_memory: usize,
    length: u64,
}

/// A pack that is complete.
#[derive(Debug)]
pub(super) struct Spooled {
    memory: Bytes,
    file: Option<NamedTempFile>,
    length: u64,
}

impl Spool {
    /// Keeps so many bytes in memory; a file is made in `dir`.
    pub(super) fn new(dir: PathBuf, in_memory: usize) -> Self {
        Self {
            memory: BytesMut::new(),
            file: None,
            dir,
            in_memory,
            length: 0,
        }
    }

    /// Adds bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.file.is_none() && self.memory.len() + bytes.len() <= self.in_memory {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        if self.file.is_none() {
            let made = NamedTempFile::with_prefix_in("pack-", &self.dir)?;
            let mut file = File::from_std(made.reopen()?);
            file.write_all(&self.memory).await?;
            self.memory = BytesMut::new();
            self.file = Some((made, file));
        }
        match &mut self.file {
            Some((_, file)) => file.write_all(bytes).await,
            None => Ok(()),
        }
    }

    /// No more comes.
    pub(super) async fn finish(mut self) -> io::Result<Spooled> {
        if let Some((_, file)) = &mut self.file {
            file.flush().await?;
        }
        Ok(Spooled {
            memory: self.memory.freeze(),
            file: self.file.map(|(made, _)| made),
            length: self.length,
        })
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.length
    }
}

impl Spooled {
    /// Bytes in all.
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// For the inspector.
    pub(super) fn pack(&self) -> PackBytes {
        match &self.file {
            None if self.length == 0 => PackBytes::None,
            None => PackBytes::Memory(self.memory.clone()),
            Some(file) => PackBytes::File(file.path().to_owned()),
        }
    }

    /// A body of something in front, then the pack. The spool must outlive the first read.
    pub(super) async fn body(&self, front: Bytes) -> io::Result<InternalBody> {
        let Some(file) = &self.file else {
            let whole = [front, self.memory.clone()].concat();
            return Ok(InternalBody::new(
                Full::new(Bytes::from(whole)).map_err(|never| match never {}),
            ));
        };
        let file = File::from_std(file.reopen()?);
        let pieces = futures::stream::try_unfold((Some(front), file), |(front, mut file)| async move {
            if let Some(front) = front {
                return Ok(Some((Frame::data(front), (None, file))));
            }
            let mut piece = BytesMut::with_capacity(PIECE);
            let read = file.read_buf(&mut piece).await?;
            io::Result::Ok((read > 0).then(|| (Frame::data(piece.freeze()), (None, file))))
        });
        Ok(InternalBody::new(StreamBody::new(pieces).map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_packs_stay_in_memory_and_large_ones_leave_no_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        for (size, on_disk) in [(0_usize, 0), (100, 0), (101, 1), (300_000, 1)] {
            let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let mut spool = Spool::new(dir.path().to_owned(), 100);
            for piece in content.chunks(7000) {
                spool.write(piece).await.unwrap();
            }
            assert_eq!(spool.len(), size as u64);
            let spooled = spool.finish().await.unwrap();
            assert_eq!((files(), spooled.len()), (on_disk, size as u64));
            let body = spooled.body(Bytes::from_static(b"front")).await.unwrap();
            let sent = body.collect().await.unwrap().to_bytes();
            assert_eq!(sent, [b"front", content.as_slice()].concat());
            match spooled.pack() {
                PackBytes::None => assert_eq!(size, 0),
                PackBytes::Memory(bytes) => assert_eq!(bytes, content),
                PackBytes::File(path) => assert_eq!(std::fs::read(path).unwrap(), content),
            }
            drop(spooled);
            assert_eq!(files(), 0);
        }
    }
}
