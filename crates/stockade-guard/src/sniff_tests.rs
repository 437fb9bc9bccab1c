use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;

fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn whole(bytes: &[u8]) -> Option<Opening> {
    recognise(bytes, 4096)
}

#[test]
fn a_client_hello_names_its_server() {
    let bytes = client_hello("a.example.com");
    let expected = Opening::Tls(Hello {
        sni: Some("a.example.com".to_owned()),
        ..Hello::default()
    });
    assert_eq!(whole(&bytes), Some(expected));
    for cut in [1, 2, 5, 6, 40, bytes.len() - 1] {
        assert_eq!(whole(&bytes[..cut]), None, "cut at {cut}");
    }
    // Addresses are not sent in SNI.
    assert_eq!(whole(&client_hello("192.0.2.1")), Some(Opening::Tls(Hello::default())));
}

#[test]
fn a_client_hello_in_many_records_is_read_too() {
    let bytes = client_hello("a.example.com");
    let mut split = Vec::new();
    for piece in bytes[5..].chunks(7) {
        split.extend_from_slice(&[HANDSHAKE, 3, 1]);
        split.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
        split.extend_from_slice(piece);
    }
    let expected = Opening::Tls(Hello {
        sni: Some("a.example.com".to_owned()),
        ..Hello::default()
    });
    assert_eq!(whole(&split), Some(expected));
}

#[test]
fn what_begins_like_tls_and_is_not_is_faulty() {
    for bytes in [
        &[HANDSHAKE, 3, 1, 0, 4, 9, 9, 9, 9][..],
        &[HANDSHAKE, 3, 1, 0xff, 0xff, 1][..],
        &[HANDSHAKE, 3, 1, 0, 0][..],
    ] {
        let seen = whole(bytes);
        assert!(
            matches!(seen, Some(Opening::Faulty(Fault::MalformedHello)) | None),
            "{bytes:?}: {seen:?}"
        );
    }
    assert_eq!(whole(&[HANDSHAKE, 9, 9]), Some(Opening::Other));
}

#[test]
fn http_is_told_from_other_protocols() {
    for text in [
        "GET / HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.0\n",
        "\r\nGET http://a/ HTTP/1.1\r\nHost",
        "M-SEARCH * HTTP/1.1\r\n",
    ] {
        assert_eq!(whole(text.as_bytes()), Some(Opening::Http), "{text:?}");
    }
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /\r\n",
        "EHLO a\r\n",
        "PING\r\n",
        "get / HTTP/1.1\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "\0\0\0\u{8}\u{4}",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\n",
    ] {
        assert_eq!(whole(text.as_bytes()), Some(Opening::Other), "{text:?}");
    }
    for text in ["G", "GET", "GET /", "GET / HTTP/1.1\r", ""] {
        assert_eq!(whole(text.as_bytes()), None, "{text:?}");
    }
    let long = format!("GET /{}", "x".repeat(5000));
    assert_eq!(whole(long.as_bytes()), Some(Opening::Faulty(Fault::HeaderTooLarge)));
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn patience() -> Patience {
    Patience {
        first: Duration::from_millis(50),
        rest: Duration::from_millis(50),
        line: 4096,
    }
}

#[tokio::test]
async fn silence_and_hanging_up_are_told_apart() {
    let (client, mut server) = pair().await;
    let mut buffer = BytesMut::new();
    assert_eq!(sniff(&mut server, &mut buffer, patience()).await, Opening::Silent);
    drop(client);
    assert_eq!(sniff(&mut server, &mut buffer, patience()).await, Opening::Closed);
}

#[tokio::test]
async fn a_client_that_stops_half_way_is_faulty_and_nothing_read_is_lost() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"GET / HT").await.unwrap();
    let mut buffer = BytesMut::new();
    let opening = sniff(&mut server, &mut buffer, patience()).await;
    assert_eq!(opening, Opening::Faulty(Fault::MalformedRequest));
    assert_eq!(&buffer[..], b"GET / HT");
}

proptest! {
    /// No bytes make it fall over, and what it said to some it does not take back for more.
    #[test]
    fn any_bytes_are_something(bytes in proptest::collection::vec(any::<u8>(), 0..200), more in proptest::collection::vec(any::<u8>(), 0..50)) {
        let said = whole(&bytes);
        let longer = whole(&[bytes, more].concat());
        if said.is_some() {
            prop_assert_eq!(said, longer);
        }
    }

    /// A ClientHello that was changed somewhere names the server it named, or another valid
    /// name, or is refused; never something that is no name.
    #[test]
    fn a_changed_client_hello_never_names_what_is_no_name(at in 0_usize..300, byte: u8, cut in 0_usize..400) {
        let mut bytes = client_hello("a.example.com");
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        if let Some(Opening::Tls(hello)) = whole(&bytes) {
            let named = hello.sni.as_deref().map(stockade_policy::Host::parse);
            prop_assert!(named.is_none_or(|host| host.is_ok_and(|host| host.name().is_some())), "{:?}", hello);
        }
    }
}
