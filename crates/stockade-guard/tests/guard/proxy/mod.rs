//! The proxy for clients that insist on one: the same verdicts, by another entrance.

mod clients;
mod connect;
mod forward;

use tokio::net::TcpStream;

use crate::{
    rig::{Plan, Rig, talk},
    world::http_server,
};

const PROXY: &str = "proxy.stockade.internal";

/// Two names of one web server are allowed, and a port to any protocol.
async fn rig() -> Rig {
    let rig = Plan::custom(&["a.example.com", "b.example.com", "a.example.com:22"])
        .start()
        .await;
    let web = http_server().await;
    for name in ["a.example.com", "b.example.com"] {
        rig.host(name, "93.184.216.34", 80, web);
    }
    rig
}

async fn to_proxy(rig: &Rig) -> TcpStream {
    rig.connect_to(PROXY, 3128).await
}

/// What the proxy says to bytes on a connection of their own.
async fn say(rig: &Rig, bytes: &str) -> String {
    talk(&mut to_proxy(rig).await, bytes.as_bytes()).await
}

fn connect(place: &str) -> String {
    format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n")
}

fn get(host: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")
}
