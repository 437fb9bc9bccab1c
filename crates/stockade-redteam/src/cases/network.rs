//! Servers and names.

use std::{net::SocketAddr, time::Duration};

use super::{Case, against, trial};
use crate::{
    canary::{Hits, LEAK_ZONE, TWIN_HOST},
    field::Field,
    inside::{Call, Inside},
    judge::{Sighting, Trial},
    report::Group::{Dns, Network},
};

/// Where the neighbour listens inside its own sandbox.
const NEIGHBOUR_PORT: u16 = 18_080;
/// Cloud metadata, private and shared ranges, documentation ranges (RFC 1918, 3927, 5737, 6598).
const ELSEWHERE: [&str; 8] = [
    "169.254.169.254",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.2.7",
    "fd00:ec2::254",
];

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-NW-01",
        group: Network,
        tried: "connect straight to servers on the host's loopback addresses, IPv4, IPv6 and mapped",
        expected: "no connection at the servers; the Guard's denial; the allowed host works",
        run: |field, target| Box::pin(tcp(field, target)),
    },
    Case {
        id: "A-NW-03",
        group: Network,
        tried: "send datagrams to servers on the host's loopback addresses",
        expected: "none arrives",
        run: |field, target| Box::pin(udp(field, target)),
    },
    Case {
        id: "A-NW-03r",
        group: Network,
        tried: "raw, packet, vsock, alg, key and privileged netlink sockets",
        expected: "refused",
        run: |field, target| Box::pin(raw(field, target)),
    },
    Case {
        id: "A-NW-05",
        group: Network,
        tried: "connect to metadata services, private, shared and documentation ranges",
        expected: "nothing answers; the Guard's denial for each",
        run: |field, target| Box::pin(elsewhere(field, target)),
    },
    Case {
        id: "A-NW-21",
        group: Network,
        tried: "reach another sandbox on its port and its abstract socket",
        expected: "nothing answers; the other sandbox reaches itself",
        run: |field, target| Box::pin(neighbour(field, target)),
    },
    Case {
        id: "A-NW-22",
        group: Network,
        tried: "change interfaces, addresses, routes, rules and the packet filter",
        expected: "refused; the boundary still holds afterwards",
        run: |field, target| Box::pin(tamper(field, target)),
    },
    Case {
        id: "A-PR-11",
        group: Network,
        tried: "connect to a socket in the host's abstract namespace",
        expected: "refused; no connection there",
        run: |field, target| Box::pin(abstract_socket(field, target)),
    },
    Case {
        id: "A-DN-01",
        group: Dns,
        tried: "carry data out in names: the resolver, public resolvers and the host's, by datagram and stream",
        expected: "no question reaches the name server; the Guard's denial",
        run: |field, target| Box::pin(names(field, target)),
    },
];

/// What arrived at the canaries while something was done.
async fn arrivals<T>(field: &Field, doing: impl Future<Output = T>) -> (T, Hits) {
    let before = field.parts.canaries.seen();
    let done = doing.await;
    // A connection is counted when it is accepted, a moment after it was made.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = field.parts.canaries.seen();
    let hits = Hits {
        tcp: after.tcp - before.tcp,
        udp: after.udp - before.udp,
        unix: after.unix - before.unix,
        names: after.names - before.names,
    };
    (done, hits)
}

fn none(what: &str, seen: u64) -> Sighting {
    Sighting::new(what, "0", seen.to_string(), seen == 0)
}

fn some(what: &str, seen: u64) -> Sighting {
    Sighting::new(
        format!("{what} by the control"),
        "1 or more",
        seen.to_string(),
        seen > 0,
    )
}

/// The Guard must have denied each, by itself and in writing.
async fn denials(target: &Inside, trial: &mut Trial, places: impl IntoIterator<Item = String>) {
    let places: Vec<String> = places.into_iter().collect();
    let words = target.denials(&places).await;
    for (place, word) in places.into_iter().zip(words) {
        let seen = word.clone().unwrap_or_else(|| "no denial written down".to_owned());
        trial
            .host
            .push(Sighting::new(place, "denied by the Guard", seen, word.is_some()));
    }
}

/// The same client reaches what is allowed: the Guard asks its name server and dials.
async fn allowed(field: &Field, target: &Inside, trial: &mut Trial) {
    if !field.has_twin() {
        return;
    }
    let canaries = &field.parts.canaries;
    let before = canaries.twin_hits();
    let call = Call::new("fetch")
        .with("host", TWIN_HOST)
        .with("port", canaries.twin_port())
        .with("token", field.token());
    let told = target.run(&call).await;
    let got = told.attempts.iter().any(|attempt| attempt.got);
    let why = told
        .attempts
        .first()
        .map_or_else(|| "nothing told".to_owned(), |attempt| attempt.why.clone());
    let ok = got && canaries.twin_hits() > before;
    trial
        .control_host
        .push(Sighting::new("the allowed host from inside", "reached", why, ok));
}

async fn tcp(field: &Field, target: &Inside) -> Trial {
    let mut places: Vec<String> = field.parts.canaries.tcp().collect();
    let v4: Vec<SocketAddr> = places.iter().filter_map(|place| place.parse().ok()).collect();
    let v4: Vec<_> = v4.into_iter().filter(SocketAddr::is_ipv4).collect();
    places.extend(
        v4.first()
            .map(|address| format!("[::ffff:{}]:{}", address.ip(), address.port())),
    );
    let call = Call::new("tcp").with("token", field.token()).each("to", &places);
    let (inside, reached) = arrivals(field, target.run(&call)).await;
    let (control, heard) = arrivals(field, field.outside(&call)).await;
    let mut trial = trial(inside, control);
    trial.host.push(none("connections at the servers", reached.tcp));
    trial.control_host.push(some("connections", heard.tcp));
    denials(target, &mut trial, v4.iter().map(ToString::to_string)).await;
    allowed(field, target, &mut trial).await;
    trial
}

async fn udp(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("udp")
        .with("token", field.token())
        .each("to", field.parts.canaries.udp());
    let (inside, reached) = arrivals(field, target.run(&call)).await;
    let (control, heard) = arrivals(field, field.outside(&call)).await;
    let mut trial = trial(inside, control);
    trial.host.push(none("datagrams at the servers", reached.udp));
    trial.control_host.push(some("datagrams", heard.udp));
    trial
}

async fn raw(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("raw");
    against(field, target, &call, &call.clone().with("stage", "user,net")).await
}

async fn elsewhere(field: &Field, target: &Inside) -> Trial {
    let place = |address: &str| {
        if address.contains(':') {
            format!("[{address}]:80")
        } else {
            format!("{address}:80")
        }
    };
    let places: Vec<String> = ELSEWHERE.into_iter().map(place).collect();
    let call = Call::new("tcp").with("token", field.token()).each("to", places);
    // On the control's own stage these addresses are its own, and a server answers there: one for
    // both families, or where there is no IPv6 one for the other.
    let control = call
        .clone()
        .with("stage", "user,net")
        .each("address", ELSEWHERE)
        .each("serve", ["[::]:80", "0.0.0.0:80"]);
    let mut trial = against(field, target, &call, &control).await;
    let v4: Vec<String> = ELSEWHERE
        .map(str::to_owned)
        .into_iter()
        .filter(|place| !place.contains(':'))
        .collect();
    denials(target, &mut trial, v4).await;
    trial
}

async fn neighbour(field: &Field, target: &Inside) -> Trial {
    let other = &field.neighbour;
    let name = format!("neighbour-{}", field.token());
    let word = format!("neighbour-says-{}", field.token());
    let serve = Call::new("serve")
        .with("port", NEIGHBOUR_PORT)
        .with("name", &name)
        .with("token", &word);
    let serving = match other.start(&serve).await {
        Ok(serving) => serving,
        Err(error) => {
            return Trial {
                no_control: Some(format!("the neighbour does not serve: {error}")),
                ..Trial::default()
            };
        }
    };
    let tcp = Call::new("tcp")
        .with("token", &word)
        .with("to", format!("127.0.0.1:{NEIGHBOUR_PORT}"));
    let local = Call::new("abstract").with("token", &word).with("name", &name);
    // The control first: it also waits until the neighbour is there.
    let mut control = Trial::default();
    for _ in 0..100 {
        control = trial(other.run(&local).await, crate::told::Told::default());
        if control.inside.iter().any(|attempt| attempt.got) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    control.inside.extend(other.run(&tcp).await.attempts);
    let mut found = trial(target.run(&tcp).await, crate::told::Told::default());
    let by_name = target.run(&local).await;
    found.inside.extend(by_name.attempts.clone());
    found.not_tried = found.not_tried.or(by_name.complete().err());
    found.no_control = None;
    found.control = control.inside;
    drop(serving);
    denials(target, &mut found, [format!("127.0.0.1:{NEIGHBOUR_PORT}")]).await;
    found
}

async fn tamper(field: &Field, target: &Inside) -> Trial {
    let call = Call::new("netlink");
    let mut trial = against(field, target, &call, &call.clone().with("stage", "user,net")).await;
    // Whatever the kernel said: afterwards the same places are out of reach.
    let places: Vec<String> = field.parts.canaries.tcp().collect();
    let again = Call::new("tcp").with("token", field.token()).each("to", &places);
    let (told, reached) = arrivals(field, target.run(&again)).await;
    trial
        .host
        .push(none("connections at the servers afterwards", reached.tcp));
    let got = told.attempts.iter().filter(|attempt| attempt.got).count();
    trial.host.push(none("answers from the servers afterwards", got as u64));
    // Some of it answers by `allowed`; where it does not, the sandbox lost its network.
    let mut after = Trial::default();
    allowed(field, target, &mut after).await;
    trial.host.extend(after.control_host);
    trial
}

async fn abstract_socket(field: &Field, target: &Inside) -> Trial {
    let canaries = &field.parts.canaries;
    let call = Call::new("abstract")
        .with("token", field.token())
        .with("name", canaries.abstract_name());
    let (inside, reached) = arrivals(field, target.run(&call)).await;
    let (control, heard) = arrivals(field, field.outside(&call)).await;
    let mut trial = trial(inside, control);
    trial.host.push(none("connections at the socket", reached.unix));
    trial.control_host.push(some("connections", heard.unix));
    trial
}

async fn names(field: &Field, target: &Inside) -> Trial {
    let canaries = &field.parts.canaries;
    let own = canaries.nameserver().to_string();
    let data = field.token().trim_start_matches("canary-");
    let name = format!("{data}.{LEAK_ZONE}");
    let servers = [
        "system",
        "8.8.8.8:53",
        "1.1.1.1:53",
        "127.0.0.53:53",
        "[2001:4860:4860::8888]:53",
        &own,
    ];
    let call = Call::new("dns").with("name", &name).each("server", servers);
    let (inside, asked) = arrivals(field, target.run(&call)).await;
    let control = Call::new("dns").with("name", &name).with("server", &own);
    let (control, heard) = arrivals(field, field.outside(&control)).await;
    let mut trial = trial(inside, control);
    trial.host.push(none("questions at the name server", asked.names));
    trial.control_host.push(some("questions", heard.names));
    denials(target, &mut trial, [name]).await;
    allowed(field, target, &mut trial).await;
    trial
}
