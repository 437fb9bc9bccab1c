use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use serde_json::json;
use stockade_domain::NetworkLevel;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    rig::{Plan, Rig, is_shut},
    world::serve,
};

/// A TLS server for some names, and a client that trusts it.
async fn tls_server(names: &[&str]) -> (std::net::SocketAddr, TlsConnector) {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await?;
            let mut buffer = [0; 64];
            loop {
                let length = stream.read(&mut buffer).await?;
                if length == 0 {
                    return stream.shutdown().await;
                }
                stream.write_all(&buffer[..length]).await?;
            }
        }
    })
    .await;
    (address, TlsConnector::from(Arc::new(client)))
}

/// A handshake and an echo; the error as text.
async fn greet(connector: &TlsConnector, stream: TcpStream, name: &str) -> Result<String, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    stream.write_all(b"hello").await.map_err(|e| e.to_string())?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.map_err(|e| e.to_string())?;
    stream.shutdown().await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn rig_with(plan: Plan) -> (Rig, TlsConnector) {
    let rig = plan.start().await;
    let (server, connector) = tls_server(&["a.example.com", "b.example.com", "93.184.216.34"]).await;
    for (name, port) in [("a.example.com", 443), ("b.example.com", 443), ("a.example.com", 9443)] {
        rig.host(name, "93.184.216.34", port, server);
    }
    (rig, connector)
}

#[tokio::test]
async fn an_allowed_name_is_reached_through_tls_that_the_guard_does_not_open() {
    let (rig, connector) = rig_with(Plan::custom(&["a.example.com"])).await;
    let stream = rig.connect_to("a.example.com", 443).await;
    assert_eq!(greet(&connector, stream, "a.example.com").await.as_deref(), Ok("hello"));
    let settled = rig.settled(1).await.remove(0);
    assert_eq!(settled["outcome"], json!({ "result": "done" }));
    let details = &settled["details"];
    assert_eq!(details["address"], "93.184.216.34:443");
    assert!(
        details["bytes_up"].as_u64() > Some(100) && details["bytes_down"].as_u64() > Some(500),
        "{details}"
    );
    assert_eq!(
        rig.allowed().await,
        ["connect a.example.com:443 env.custom:a.example.com"]
    );
    assert_eq!(rig.names.asked(), ["a.example.com"]);
}

#[tokio::test]
async fn another_server_name_than_the_one_resolved_is_refused() {
    // Both names are allowed, and lead to the same address: fronting all the same.
    let (rig, connector) = rig_with(Plan::custom(&["a.example.com", "b.example.com"])).await;
    let stream = rig.connect_to("a.example.com", 443).await;
    let error = greet(&connector, stream, "b.example.com").await.unwrap_err();
    assert!(error.contains("AccessDenied"), "{error}");
    assert_eq!(rig.denied().await, ["connect a.example.com:443 stockade.name_mismatch"]);
    assert_eq!(rig.events().await.pop().unwrap().data["args"]["sni"], "b.example.com");
    assert!(rig.internet.dialled().is_empty());
    let stream = rig.connect_to("b.example.com", 443).await;
    assert_eq!(
        greet(&connector, stream, "b.example.com").await.as_deref(),
        Ok("hello"),
        "control"
    );
}

#[tokio::test]
async fn a_handshake_without_a_server_name_is_refused() {
    let (rig, connector) = rig_with(Plan::custom(&["a.example.com"])).await;
    let stream = rig.connect_to("a.example.com", 443).await;
    assert!(greet(&connector, stream, "93.184.216.34").await.is_err());
    assert_eq!(rig.denied().await, ["connect a.example.com:443 stockade.no_sni"]);
    assert!(rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn full_reaches_a_bare_address_through_tls() {
    let (rig, connector) = rig_with(Plan::level(NetworkLevel::Full, &[])).await;
    let stream = rig.connect("93.184.216.34:443").await;
    assert_eq!(greet(&connector, stream, "93.184.216.34").await.as_deref(), Ok("hello"));
    let stream = rig.connect("93.184.216.34:443").await;
    assert_eq!(greet(&connector, stream, "a.example.com").await.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn waiting_before_the_handshake_does_not_hide_the_server_name() {
    let (rig, connector) = rig_with(Plan::custom(&["a.example.com:9443"])).await;
    let stream = rig.connect_to("a.example.com", 9443).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(greet(&connector, stream, "b.example.com").await.is_err());
    assert_eq!(
        rig.denied().await,
        ["connect a.example.com:9443 stockade.name_mismatch"]
    );
    assert_eq!(rig.settled(1).await[0]["outcome"]["result"], "failed");
    // Control: the right name passes, late or not.
    let stream = rig.connect_to("a.example.com", 9443).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(greet(&connector, stream, "a.example.com").await.as_deref(), Ok("hello"));
    let stream = rig.connect_to("a.example.com", 9443).await;
    assert_eq!(greet(&connector, stream, "a.example.com").await.as_deref(), Ok("hello"));
}

#[tokio::test]
async fn a_broken_handshake_is_refused() {
    let (rig, _) = rig_with(Plan::custom(&["a.example.com"])).await;
    let mut stream = rig.connect_to("a.example.com", 443).await;
    stream.write_all(&[22, 3, 1, 0, 4, 9, 9, 9, 9]).await.unwrap();
    assert!(is_shut(&mut stream).await);
    assert_eq!(rig.denied().await, ["connect a.example.com:443 stockade.malformed"]);
}
