//! The control: a relay that reads the first head in its own way and lets all bytes through.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::Line;

type Judged = Arc<Mutex<Vec<(Line, Option<u64>)>>>;

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    judged: Judged,
}

impl Relay {
    pub(super) fn judged(&self) -> Vec<(Line, Option<u64>)> {
        self.judged.lock().unwrap().clone()
    }
}

pub(super) async fn start(to: SocketAddr) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let judged = Judged::default();
    let record = Arc::clone(&judged);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(relay(stream, to, Arc::clone(&record)));
        }
    });
    Relay { address, judged }
}

async fn relay(mut client: TcpStream, to: SocketAddr, judged: Judged) -> io::Result<()> {
    let mut first = vec![0; 16 * 1024];
    let length = client.read(&mut first).await?;
    let text = String::from_utf8_lossy(&first[..length]).into_owned();
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let host = text.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("host:")
            .map(|host| host.trim().to_owned())
    });
    let line = (host.unwrap_or_default(), method.to_owned(), target.to_owned());
    judged.lock().unwrap().push((line, None));
    let mut server = TcpStream::connect(to).await?;
    server.write_all(&first[..length]).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
