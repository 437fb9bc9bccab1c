//! One question, one answer.

use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::A},
};
use stockade_policy::{Fault, Host, HostName, egress::PROXY_HOST};

use crate::{ask, lend, session::Session};

/// How long a client may keep an answer, in seconds. Pins outlive it; a denial is not cached.
const TTL: u32 = 30;
/// Size of a DNS header (RFC 1035 4.1.1).
const HEADER: usize = 12;
/// Largest question that is read, in bytes; questions are small.
pub(super) const MAX_QUESTION: usize = 1232;

/// What a question comes to.
enum Verdict {
    /// The name exists, with this address or with no record of the type asked for.
    Exists(Option<Ipv4Addr>),
    /// The name does not exist for this sandbox.
    Denied,
    /// The question is not answered.
    Code(ResponseCode),
}

/// Answers a question; `None` where even an error would be too much.
pub(crate) async fn answer(session: &Session, question: &[u8]) -> Option<Vec<u8>> {
    // Only questions are answered, or two servers could keep each other busy.
    if question.len() < HEADER || question.len() > MAX_QUESTION || question[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([question[0], question[1]]);
    let Ok(message) = Message::from_vec(question) else {
        return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
            .to_vec()
            .ok();
    };
    if message.metadata.message_type != MessageType::Query {
        return None;
    }
    let verdict = match (message.metadata.op_code, message.queries.as_slice()) {
        (OpCode::Query, [query]) => judge(session, query).await,
        (OpCode::Query, _) => Verdict::Code(ResponseCode::FormErr),
        _ => Verdict::Code(ResponseCode::NotImp),
    };
    response(&message, verdict).to_vec().ok()
}

async fn judge(session: &Session, query: &Query) -> Verdict {
    let kind = query.query_type();
    if query.query_class() != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return Verdict::Code(ResponseCode::Refused);
    }
    if query.name().is_root() {
        return Verdict::Exists(None);
    }
    let action = |name: &str| ask::resolve(name, &kind.to_string());
    let name = match read(query.name()) {
        Ok(name) => name,
        Err(spelled) => {
            session.refuse(action(&spelled)).await;
            return Verdict::Denied;
        }
    };
    let internal = session.internal_name(name.as_str()).is_some() || name.as_str() == PROXY_HOST;
    if !internal && session.is_denied(&action(name.as_str())) {
        session.refuse(action(name.as_str())).await;
        return Verdict::Denied;
    }
    if !internal && let Some(refused) = session.tunnelled(&name, &action(name.as_str())) {
        session.refuse(refused).await;
        return Verdict::Denied;
    }
    if let Some(withheld) = lend::withheld_name(session, &Host::Name(name.clone())) {
        let refused = session.refuse_because(action(name.as_str()), &withheld.rule, &withheld.reason);
        refused.await;
        return Verdict::Denied;
    }
    if kind != RecordType::A {
        return Verdict::Exists(None);
    }
    match session.pins.pin(&name) {
        Some(address) => Verdict::Exists(Some(address)),
        None => {
            session
                .refuse(ask::faulty(action(name.as_str()), Fault::TooManyNames))
                .await;
            Verdict::Code(ResponseCode::ServFail)
        }
    }
}

/// The host name a question is about, or how it is spelled where it is none.
///
/// Labels are joined only after each was looked at: a dot inside a label would otherwise
/// make one name look like another. Service labels (`_https._tcp`, RFC 2782) ask about the
/// host behind them.
fn read(name: &Name) -> Result<HostName, String> {
    let labels: Vec<&[u8]> = name.iter().skip_while(|label| label.first() == Some(&b'_')).collect();
    let plain = |label: &&[u8]| label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    if labels.is_empty() || !labels.iter().all(plain) {
        return Err(name.to_ascii().escape_default().to_string());
    }
    let text: Vec<String> = labels.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
    match Host::parse(&text.join(".")) {
        Ok(Host::Name(name)) => Ok(name),
        Ok(Host::Address(_)) | Err(_) => Err(name.to_ascii().escape_default().to_string()),
    }
}

fn response(request: &Message, verdict: Verdict) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.queries.clone_from(&request.queries);
    match verdict {
        Verdict::Exists(address) => {
            if let (Some(address), Some(query)) = (address, request.queries.first()) {
                let data = RData::A(A(address));
                response
                    .answers
                    .push(Record::from_rdata(query.name().clone(), TTL, data));
            }
        }
        Verdict::Denied => response.metadata.response_code = ResponseCode::NXDomain,
        Verdict::Code(code) => response.metadata.response_code = code,
    }
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        response.edns = Some(edns);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(labels: &[&[u8]]) -> Name {
        Name::from_labels(labels.iter().copied()).unwrap()
    }

    #[test]
    fn a_dot_inside_a_label_makes_no_other_name() {
        assert!(read(&name(&[b"www", b"example", b"com"])).is_ok());
        for bad in [
            &[b"evil.com\0".as_slice(), b"example", b"com"] as &[&[u8]],
            &[b"a.example", b"com"],
            &[b"a b", b"com"],
            &[b"\xff\xfe", b"com"],
            &[b"a", b"_b", b"com"],
            &[b"1", b"2", b"3", b"4"],
            &[b"_only"],
        ] {
            assert!(read(&name(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn service_labels_ask_about_the_host() {
        let read = read(&name(&[b"_https", b"_tcp", b"Deb", b"debian", b"org"])).unwrap();
        assert_eq!(read.as_str(), "deb.debian.org");
    }
}
