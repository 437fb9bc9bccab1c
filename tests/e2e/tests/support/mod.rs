//! What the tests stand on: an installation of their own, servers to reach, a story to read.

pub(crate) mod anthropic;
pub(crate) mod forge;
pub(crate) mod installation;
pub(crate) mod names;
pub(crate) mod program;
pub(crate) mod raw;
pub(crate) mod receipt;
pub(crate) mod repository;
pub(crate) mod server;
pub(crate) mod story;
pub(crate) mod turns;
pub(crate) mod web;

/// A port of loopback that was free a moment ago, for servers that have to be told.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Waits until something listens on that port; otherwise fails the test with what the server says.
pub(crate) fn reachable(port: u16, says: impl Fn() -> String) {
    for _ in 0..500 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("nothing listens on port {port}; the server says:\n{}", says());
}
