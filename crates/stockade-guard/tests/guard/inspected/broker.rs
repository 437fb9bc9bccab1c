//! The place where credentials are put in.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, request::Parts};
use stockade_guard::{Broker, Leaving, Withheld};
use stockade_ports::InternalResponse;

use super::{World, origin::Setup, pki::Pki, plan, read, to, to_host};

/// Puts a token in, and a mark on answers; misbehaves on request.
struct Token;

#[async_trait]
impl Broker for Token {
    async fn request(&self, leaving: &Leaving<'_>, head: &mut Parts) -> Result<(), Withheld> {
        assert!(leaving.secure && leaving.port == 443);
        match head.uri.path() {
            "/withheld" => Err(Withheld {
                rule: "broker.path".to_owned(),
                reason: "not with this token".to_owned(),
            }),
            "/elsewhere" => {
                head.headers.insert("host", HeaderValue::from_static("b.example.com"));
                head.uri = "https://b.example.com/elsewhere".parse().unwrap();
                Ok(())
            }
            _ => {
                let token = format!("Bearer for {}", leaving.host);
                head.headers.insert("authorization", token.parse().unwrap());
                Ok(())
            }
        }
    }

    async fn response(&self, _: &Leaving<'_>, mut response: InternalResponse) -> InternalResponse {
        response
            .headers_mut()
            .insert("x-scrubbed", HeaderValue::from_static("yes"));
        response
    }
}

async fn world() -> World {
    let pki = Pki::new();
    let mut plan = plan(&pki);
    plan.broker = Some(Arc::new(Token));
    World::of(plan, Setup::tls(pki.server(&["a.example.com"]))).await
}

#[tokio::test]
async fn a_judged_request_gets_a_header_and_its_answer_is_seen() {
    let world = world().await;
    let (mut one, mut two) = (world.http1().await, world.http2().await);
    for answer in [
        one.send_request(to_host("/head")).await.unwrap(),
        two.send_request(to("/head")).await.unwrap(),
    ] {
        assert_eq!(answer.headers()["x-scrubbed"], "yes");
        let (_, head) = read(async { Ok::<_, ()>(answer) }).await;
        assert!(head.contains("authorization: Bearer for a.example.com"), "{head}");
    }
    // A denied request is not shown to the broker, and gets nothing.
    assert_eq!(read(two.send_request(to("/denied"))).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_the_broker_withholds_or_would_turn_elsewhere_does_not_leave() {
    let world = world().await;
    let mut sender = world.http2().await;
    let (status, problem) = read(sender.send_request(to("/withheld"))).await;
    assert!(
        status == StatusCode::FORBIDDEN && problem.contains("broker.path"),
        "{problem}"
    );
    let (status, problem) = read(sender.send_request(to("/elsewhere"))).await;
    assert!(
        status == StatusCode::FORBIDDEN && problem.contains("stockade.broker"),
        "{problem}"
    );
    assert!(world.origin.seen().is_empty());
    assert_eq!(
        world.rig.denied().await,
        [
            "connect a.example.com:443 broker.path",
            "connect a.example.com:443 stockade.broker"
        ]
    );
}
