//! Data in names.

use std::num::NonZeroU64;

use hickory_proto::{op::ResponseCode, rr::RecordType};
use stockade_domain::NetworkLevel;

use crate::{
    rig::{Plan, talk},
    world::http_server,
};

/// Text in base32, as a tunnel would spell it.
fn piece(n: u64) -> String {
    let mut state = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(state >> 20) as usize % 32])
    };
    (0..60).map(letter).collect()
}

fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn names_that_carry_data_are_stopped_and_not_looked_up() {
    for plan in [
        Plan::custom(&["*.tunnel.example", "*.other.example"]),
        Plan::level(NetworkLevel::Full, &[]),
    ] {
        let mut rig = plan.start().await;
        let mut refused = 0;
        for n in 0..200 {
            let name = format!("{}.tunnel.example", piece(n));
            rig.host(&name, "93.184.216.34", 80, "127.0.0.1:9".parse().unwrap());
            match rig.resolve(&name, RecordType::A).await {
                (ResponseCode::NoError, addresses) => {
                    let mut stream = rig.connect(&format!("{}:80", addresses[0])).await;
                    talk(&mut stream, &get(&name)).await;
                }
                (code, _) => {
                    assert_eq!(code, ResponseCode::NXDomain);
                    refused += 1;
                }
            }
        }
        // Some read like words by chance.
        assert!((176..=184).contains(&refused), "{refused}");
        let asked = rig.names.asked().len() as u64;
        assert_eq!(asked, 200 - refused, "what was refused was not looked up");
        rig.address_of("www.other.example").await;
        rig.close().await;
        assert_eq!(rig.refused("stockade.dns_tunnel").await, refused);
        let records = rig.denied().await;
        assert!(records.len() < 60, "sampled: {}", records.len());
    }
}

#[tokio::test]
async fn what_people_use_is_not_hit() {
    let rig = Plan::custom(&[
        "pypi.org",
        "*.pythonhosted.example",
        "*.s3.example.com",
        "*.cdn.example",
    ])
    .start()
    .await;
    let web = http_server().await;
    let mut names: Vec<String> = ["pypi.org", "files.pythonhosted.example"].map(str::to_owned).to_vec();
    names.extend((0..60).map(|n| format!("acme-production-{n}-artifacts.s3.example.com")));
    names.extend((0..8).map(|n| format!("d{n}11111abcdef8.cdn.example")));
    names.push("bucket.with.dots.s3.example.com".to_owned());
    for name in &names {
        rig.host(name, "93.184.216.34", 80, web);
        let mut stream = rig.connect_to(name, 80).await;
        assert!(
            talk(&mut stream, &get(name)).await.starts_with("HTTP/1.1 200"),
            "{name}"
        );
    }
    assert!(rig.denied().await.is_empty(), "{:?}", rig.denied().await);
    assert_eq!(rig.names.asked().len(), names.len());
}

#[tokio::test]
async fn a_name_spelled_out_is_never_limited() {
    let exact: Vec<String> = (0..40).map(|n| format!("{}.tunnel.example", piece(n))).collect();
    let mut listed: Vec<&str> = exact.iter().map(String::as_str).collect();
    listed.push("*.tunnel.example");
    let mut plan = Plan::custom(&listed);
    plan.config.tunnel.names_per_minute = NonZeroU64::new(1).unwrap();
    let rig = plan.start().await;
    for name in &exact {
        rig.address_of(name).await;
    }
    rig.address_of("one.tunnel.example").await;
    let (code, _) = rig.resolve("two.tunnel.example", RecordType::A).await;
    assert_eq!(code, ResponseCode::NXDomain, "control: the wildcard is");
}
