//! The name server, asked anything.

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RData,
};
use stockade_policy::{Host, SYNTHETIC_RANGE};

use super::{second, world};
use crate::dns;

/// A host in canonical form is read as itself.
pub(super) fn stays_itself(host: &Host) {
    assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(host));
}

pub(super) fn question(data: &[u8]) {
    world::with(|runtime, world| runtime.block_on(asked(world, data)));
}

async fn asked(world: &world::World, data: &[u8]) {
    let Some(bytes) = dns::answer(&world.session, data).await else {
        return;
    };
    assert!(
        bytes.len() <= data.len() + 512,
        "an answer much larger than its question"
    );
    let answer = Message::from_vec(&bytes).expect("an answer that can be read");
    assert_eq!(&bytes[..2], &data[..2], "the answer is to this question");
    let addresses: Vec<IpAddr> = answer
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(address) => IpAddr::from(address.0),
            other => panic!("an answer of another type: {other:?}"),
        })
        .collect();
    if answer.metadata.response_code != ResponseCode::NoError {
        assert!(addresses.is_empty());
        return;
    }
    let [address] = addresses.as_slice() else {
        assert!(addresses.is_empty());
        return;
    };
    let IpAddr::V4(address) = address else {
        panic!("{address}")
    };
    assert!(SYNTHETIC_RANGE.contains(address), "a real address went in");
    let (name, kind, class) = second::question(data).expect("a question that was answered");
    assert_eq!((kind, class), (1, 1));
    let bare = name
        .split('.')
        .skip_while(|label| label.starts_with('_'))
        .collect::<Vec<_>>()
        .join(".");
    let host = Host::parse(&bare).expect("a name that was answered");
    let pinned = world.session.pins.name(*address).expect("a pin");
    assert_eq!(host, Host::Name(pinned), "the address is another name's");
    assert!(
        world::ALLOWED
            .iter()
            .any(|allowed| *allowed == host.to_string() || host.to_string().ends_with(".below.example")),
        "{host}"
    );
}
