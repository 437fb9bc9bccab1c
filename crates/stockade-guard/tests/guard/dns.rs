use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use stockade_domain::NetworkLevel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{Plan, read};

#[tokio::test]
async fn an_allowed_name_gets_a_synthetic_address_and_is_not_looked_up() {
    let rig = Plan::custom(&["a.example.com", "*.b.example.com"]).start().await;
    let first = rig.address_of("a.example.com").await;
    assert_eq!(first.to_string(), "198.18.0.16");
    assert_eq!(rig.address_of("A.Example.COM").await, first, "pinned");
    assert_ne!(rig.address_of("x.b.example.com").await, first);
    assert!(
        rig.names.asked().is_empty(),
        "the connection looks up, not the question"
    );
    assert!(rig.denied().await.is_empty() && rig.allowed().await.is_empty());
}

#[tokio::test]
async fn a_denied_name_does_not_exist_is_never_looked_up_and_is_written_down() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    rig.names.set("secret.evil.example", &["93.184.216.34"]);
    for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::HTTPS] {
        let (code, addresses) = rig.resolve("secret.evil.example", kind).await;
        assert_eq!((code, addresses.len()), (ResponseCode::NXDomain, 0), "{kind}");
    }
    assert!(rig.names.asked().is_empty());
    assert_eq!(
        rig.denied().await,
        vec!["resolve secret.evil.example env.custom"; 3],
        "the fourth is only counted"
    );
    // Control: the allowed name does exist.
    rig.address_of("a.example.com").await;
}

#[tokio::test]
async fn what_was_only_counted_is_written_down_on_close() {
    let mut rig = Plan::custom(&[]).start().await;
    for _ in 0..25 {
        rig.resolve("evil.example", RecordType::A).await;
    }
    assert_eq!(rig.denied().await.len(), 4, "1, 2, 3 and 10");
    rig.close().await;
    let last = rig.events().await.pop().unwrap();
    assert_eq!(
        (last.data["target"].as_str(), last.data["args"]["attempts"].as_u64()),
        (Some("evil.example"), Some(25))
    );
}

#[tokio::test]
async fn other_record_types_of_an_allowed_name_are_empty() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    for kind in [
        RecordType::AAAA,
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::TXT,
        RecordType::MX,
    ] {
        assert_eq!(
            rig.resolve("a.example.com", kind).await,
            (ResponseCode::NoError, vec![]),
            "{kind}"
        );
    }
    assert_eq!(
        rig.resolve("_https._tcp.a.example.com", RecordType::SRV).await.0,
        ResponseCode::NoError
    );
    assert_eq!(
        rig.resolve("_https._tcp.evil.example", RecordType::SRV).await.0,
        ResponseCode::NXDomain
    );
}

#[tokio::test]
async fn names_of_infrastructure_are_denied_under_full() {
    let rig = Plan::level(NetworkLevel::Full, &[]).start().await;
    for name in [
        "metadata.google.internal",
        "localhost",
        "db.internal",
        "printer.local",
        "1.2.3.4",
        "0x7f.1",
    ] {
        assert_eq!(
            rig.resolve(name, RecordType::A).await.0,
            ResponseCode::NXDomain,
            "{name}"
        );
    }
    rig.address_of("anything.example").await;
}

#[tokio::test]
async fn streams_get_the_same_answers() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    // To whatever address: port 53 is the Guard's.
    let mut stream = rig.connect("9.9.9.9:53").await;
    for (name, expected) in [
        ("a.example.com", ResponseCode::NoError),
        ("evil.example", ResponseCode::NXDomain),
    ] {
        let mut query = Message::query();
        query.add_query(Query::query(
            Name::from_ascii(format!("{name}.")).unwrap(),
            RecordType::A,
        ));
        let bytes = query.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        let (code, addresses) = read(&answer);
        assert_eq!(code, expected, "{name}");
        assert_eq!(addresses.len(), usize::from(expected == ResponseCode::NoError));
    }
    assert_eq!(rig.denied().await, ["resolve evil.example env.custom"]);
}

#[tokio::test]
async fn malformed_questions_get_an_error_or_nothing() {
    let rig = Plan::custom(&["a.example.com"]).start().await;
    let name = Name::from_ascii("a.example.com.").unwrap();
    let mut query = Message::query();
    query.add_query(Query::query(name.clone(), RecordType::A));
    let good = query.to_vec().unwrap();
    let code = |bytes: Option<Vec<u8>>| bytes.map(|b| read(&b).0);
    assert_eq!(code(rig.ask(&good).await), Some(ResponseCode::NoError));

    let cut = &good[..good.len() - 3];
    assert_eq!(code(rig.ask(cut).await), Some(ResponseCode::FormErr));
    let mut none = good[..12].to_vec();
    none[5] = 0;
    assert_eq!(code(rig.ask(&none).await), Some(ResponseCode::FormErr));
    let mut chaos = Message::query();
    let mut other = Query::query(name, RecordType::A);
    other.set_query_class(DNSClass::CH);
    chaos.add_query(other);
    assert_eq!(
        code(rig.ask(&chaos.to_vec().unwrap()).await),
        Some(ResponseCode::Refused)
    );

    let mut answer = good.clone();
    answer[2] |= 0x80;
    let long = [good.clone(), vec![0; 4000]].concat();
    let (nothing, short, too_long) = tokio::join!(rig.ask(&answer), rig.ask(&good[..5]), rig.ask(&long));
    assert_eq!((nothing, short, too_long), (None, None, None));
}

#[tokio::test]
async fn too_many_names_are_refused_and_the_first_ones_still_work() {
    let mut plan = Plan::custom(&["*.example.com"]);
    plan.config.max_names = 2;
    let rig = plan.start().await;
    let first = rig.address_of("a.example.com").await;
    rig.address_of("b.example.com").await;
    assert_eq!(
        rig.resolve("c.example.com", RecordType::A).await.0,
        ResponseCode::ServFail
    );
    assert_eq!(rig.address_of("a.example.com").await, first);
    assert_eq!(rig.denied().await, ["resolve c.example.com stockade.limit"]);
}
