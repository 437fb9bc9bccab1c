//! A name server (RFC 1035) that knows a few names, all of them here, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::net::UdpSocket;

const A: u16 = 1;

/// A name server on the loopback.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    /// Serves these names, each as 127.0.0.1.
    pub(crate) async fn serve(names: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let this = Self {
            address: socket.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let asked = Arc::clone(&this.asked);
        tokio::spawn(async move {
            let mut packet = [0u8; 1500];
            while let Ok((size, from)) = socket.recv_from(&mut packet).await {
                let Some((name, kind, question)) = question(&packet[..size]) else {
                    continue;
                };
                asked.lock().unwrap().push(name.clone());
                let known = names.contains(&name);
                let reply = answer(&packet[..12], question, known, known && kind == A);
                let _ = socket.send_to(&reply, from).await;
            }
        });
        this
    }

    /// Every name that was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The name, the type and the bytes of the one question.
fn question(packet: &[u8]) -> Option<(String, u16, &[u8])> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes(packet.get(at + 1..at + 3)?.try_into().ok()?);
    Some((labels.join("."), kind, packet.get(12..at + 5)?))
}

fn answer(head: &[u8], question: &[u8], known: bool, address: bool) -> Vec<u8> {
    let mut reply = head[..2].to_vec();
    // Response, authoritative; NXDOMAIN (3) for strangers.
    reply.extend([0x84 | (head[2] & 1), if known { 0 } else { 3 }]);
    reply.extend([0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    reply.extend(question);
    if address {
        // A pointer to the question's name, type A, class IN, 60 seconds, four bytes.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    reply
}
