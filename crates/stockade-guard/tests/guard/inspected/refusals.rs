//! What must not be reached, each with its reason, beside what may.

use std::sync::Arc;

use http::StatusCode;
use stockade_domain::EventType;
use tokio::io::AsyncWriteExt;

use super::{World, origin::Setup, pki::Pki, plan, read, to_host, trusting};
use crate::rig::is_shut;

const NAMES: [&str; 2] = ["a.example.com", "b.example.com"];

/// The reason of the only refusal, whose rule is checked.
async fn reason(world: &World, rule: &str) -> String {
    let events = world.rig.events().await;
    let denied: Vec<_> = events.iter().filter(|e| e.kind == EventType::EgressDenied).collect();
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0].data["rule"], rule, "{denied:?}");
    denied[0].data["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_server_whose_certificate_does_not_hold_is_refused_with_the_reason() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    for (identity, expected) in [
        (pki.expired(&NAMES), "the certificate of a.example.com has expired"),
        (
            pki.server(&["c.example.com"]),
            "the certificate of a.example.com is for another name",
        ),
        (
            stranger.server(&NAMES),
            "the certificate of a.example.com was signed by an authority that this Guard does not know",
        ),
    ] {
        let world = World::of(plan(&pki), Setup::tls(identity)).await;
        let error = world.shake_hands("a.example.com", world.client(&[])).await.unwrap_err();
        assert!(error.contains("AccessDenied"), "no certificate of ours: {error}");
        assert_eq!(reason(&world, "stockade.upstream_certificate").await, expected);
        let settled = world.rig.settled(1).await.remove(0);
        assert_eq!(settled["outcome"]["result"], "failed");
        assert_eq!(settled["outcome"]["error"], expected);
        assert!(world.origin.seen().is_empty());
    }
    // Control: the same Guard settings with a certificate that holds.
    let world = World::of(plan(&pki), Setup::tls(pki.server(&NAMES))).await;
    let mut sender = world.http1().await;
    assert_eq!(read(sender.send_request(to_host("/x"))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_pins_another_authority_is_told_from_one_that_went_away() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let world = World::new().await;
        let pinned = trusting(&Pki::new().root, &[], &[version]);
        let error = world.shake_hands("a.example.com", pinned).await.unwrap_err();
        assert!(error.contains("invalid peer certificate"), "{error}");
        let settled = world.rig.settled(1).await.remove(0);
        assert_eq!(settled["outcome"]["result"], "failed");
        let reason = reason(&world, "stockade.client_trust").await;
        assert!(
            reason.contains("rule 'paths'") && reason.contains("refused the certificate of the run's authority"),
            "{reason}"
        );
        assert!(world.origin.seen().is_empty());
        // Control: the same session serves a client that believes it.
        let mut sender = world.http1().await;
        assert_eq!(read(sender.send_request(to_host("/x"))).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn another_server_name_is_refused_before_anything_is_opened() {
    let world = World::new().await;
    let stream = world.rig.connect_to("b.example.com", 443).await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(world.client(&[])));
    let name = rustls::pki_types::ServerName::try_from("a.example.com").unwrap();
    assert!(connector.connect(name, stream).await.is_err());
    assert_eq!(
        world.rig.denied().await,
        ["connect b.example.com:443 stockade.name_mismatch"]
    );
    assert!(world.rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn tls_without_a_server_name_is_refused() {
    let world = World::new().await;
    let mut config = world.client(&[]);
    config.enable_sni = false;
    assert!(world.shake_hands("a.example.com", config).await.is_err());
    assert_eq!(world.rig.denied().await, ["connect a.example.com:443 stockade.no_sni"]);
    assert!(world.rig.internet.dialled().is_empty());
}

#[tokio::test]
async fn what_is_no_http_cannot_be_inspected() {
    let world = World::new().await;
    let error = world
        .shake_hands("a.example.com", world.client(&["postgresql"]))
        .await
        .unwrap_err();
    assert!(error.contains("AccessDenied"), "{error}");
    let reason = reason(&world, "stockade.inspection").await;
    assert!(reason.contains("offers no HTTP"), "{reason}");
}

#[tokio::test]
async fn bytes_that_cannot_be_read_do_not_pass_where_a_rule_needs_to_read() {
    let pki = Pki::new();
    let mut plan = plan(&pki);
    plan.environment.domains = vec!["a.example.com:9000".to_owned(), "b.example.com:9000".to_owned()];
    let rig = plan.start().await;
    let echo = crate::world::echo_server().await;
    for name in NAMES {
        rig.host(name, "93.184.216.34", 9000, echo);
    }
    for wait in [false, true] {
        let mut stream = rig.connect_to("a.example.com", 9000).await;
        if wait {
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        }
        let _ = stream.write_all(b"\0\0\0\x08").await;
        assert!(is_shut(&mut stream).await);
        assert_eq!(
            rig.denied().await.pop().as_deref(),
            Some("connect a.example.com:9000 stockade.inspection")
        );
    }
    // Control: the same bytes where no rule needs to read them.
    let mut stream = rig.connect_to("b.example.com", 9000).await;
    assert_eq!(crate::rig::talk(&mut stream, b"\0\0\0\x08").await.len(), 4);
}
