//! The open road: a gateway that looks up every name and dials every address it is asked for. It is where controls
//! show that an attack works when nothing stops it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::World;

/// Longest first line.
const LINE: usize = 512;

pub(super) async fn serve(world: Arc<World>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let world = Arc::clone(&world);
        tokio::spawn(async move { carry(&world, stream).await });
    }
}

async fn carry(world: &World, mut stream: TcpStream) -> Option<()> {
    let line = timeout(Duration::from_secs(2), line(&mut stream)).await.ok()??;
    let (host, port) = line.split_once(' ')?;
    let port = port.parse().ok()?;
    let address = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => *world.zone.addresses(host).first()?,
    };
    let mut other = TcpStream::connect(world.place((address, port).into())).await.ok()?;
    copy_bidirectional(&mut stream, &mut other).await.ok()?;
    other.shutdown().await.ok()
}

/// `HOST PORT` without the line break.
async fn line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    while line.len() < LINE {
        match stream.read_u8().await.ok()? {
            b'\n' => return String::from_utf8(line).ok(),
            byte => line.push(byte),
        }
    }
    None
}
