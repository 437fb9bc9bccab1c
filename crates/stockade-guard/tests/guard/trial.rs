//! Before a session is opened: everything is judged and counted, nothing gets through.

use hickory_proto::{op::ResponseCode, rr::RecordType};
use stockade_domain::NetworkLevel;
use stockade_ports::ProbePlan;
use tokio::time::timeout;

use crate::{
    rig::{Plan, SOON, is_shut, talk},
    world::http_server,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n";

#[tokio::test]
async fn a_closed_session_lets_nothing_through_and_says_what_it_would_have() {
    let plan = Plan {
        closed: true,
        ..Plan::custom(&["a.example.com"])
    };
    let rig = plan.start().await;
    rig.host("a.example.com", "93.184.216.34", 80, http_server().await);
    let session = rig.session.as_ref().expect("a session");
    let mut early = rig.connect_to("a.example.com", 80).await;
    assert!(!talk(&mut early, GET).await.starts_with("HTTP/1.1 200"));
    assert_eq!(
        rig.resolve("evil.example", RecordType::A).await.0,
        ResponseCode::NXDomain
    );
    let tally = session.tally();
    assert_eq!(tally.allowed, ["a.example.com"]);
    assert_eq!(tally.denied, ["evil.example"]);
    assert!(rig.names.asked().is_empty(), "nobody was asked for an address");
    assert!(
        rig.denied().await.is_empty() && rig.allowed().await.is_empty(),
        "nothing is written down yet"
    );

    session.open();
    let mut late = rig.connect_to("a.example.com", 80).await;
    assert!(talk(&mut late, GET).await.starts_with("HTTP/1.1 200"));
    assert_eq!(session.tally(), tally, "what comes later is no trial");
}

#[tokio::test]
async fn every_level_refuses_what_a_sandbox_is_measured_with() {
    for level in [
        NetworkLevel::None,
        NetworkLevel::Trusted,
        NetworkLevel::Custom,
        NetworkLevel::Full,
    ] {
        let plan = Plan {
            closed: true,
            ..Plan::level(level, &[])
        };
        let rig = plan.start().await;
        let probe = ProbePlan::standard(None);
        for address in &probe.denied {
            let mut stream = rig.connect(&address.to_string()).await;
            let answer = talk(&mut stream, b"GET / HTTP/1.0\r\n\r\n").await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 403"),
                "{level:?} {answer}"
            );
        }
        let (code, addresses) = rig.resolve(&probe.denied_name, RecordType::A).await;
        assert_eq!((code, addresses), (ResponseCode::NXDomain, Vec::new()), "{level:?}");
        let tally = rig.session.as_ref().expect("a session").tally();
        assert!(tally.allowed.is_empty(), "{level:?} {tally:?}");
        for address in &probe.denied {
            assert!(tally.denied.contains(&address.ip().to_string()), "{level:?} {tally:?}");
        }
        assert!(tally.denied.contains(&probe.denied_name), "{level:?} {tally:?}");
    }
}

#[tokio::test]
async fn a_boundary_whose_server_died_is_lost() {
    let mut plan = Plan::custom(&["a.example.com"]);
    // With no place left a connection is turned away by the very task that accepts.
    plan.config.max_connections = 0;
    let rig = plan.start().await;
    let session = rig.session.as_ref().expect("a session");
    assert!(timeout(SOON / 10, session.lost()).await.is_err(), "it is served");
    rig.break_origin();
    let mut stream = tokio::net::TcpStream::connect(rig.tcp4)
        .await
        .expect("the socket is open");
    timeout(SOON, session.lost()).await.expect("told");
    assert!(is_shut(&mut stream).await);
}
