//! The boundary's packet rules, written as nf_tables netlink messages.
//!
//! Same effect as this program for `nft`, without needing that binary:
//!
//! ```text
//! table inet stockade {
//!   chain pre { type filter hook prerouting priority -150; policy accept;
//!     ip daddr 127.0.0.0/8 tcp dport != TCP socket wildcard {0,1} accept
//!     ip daddr 127.0.0.0/8 tcp dport != TCP tproxy ip to 127.0.0.1:TCP accept
//!     (the same for ip6 ::1)
//!   }
//!   chain nat { type nat hook output priority -100; policy accept;
//!     ip daddr 127.0.0.0/8 accept
//!     ip6 daddr ::1 accept
//!     meta l4proto tcp redirect to :TCP
//!     udp dport 53 redirect to :DNS
//!   }
//!   chain out { type filter hook output priority 0; policy drop;
//!     meta l4proto tcp accept
//!     ct state established,related accept
//!     udp dport DNS accept
//!     ip daddr 127.0.0.0/8 udp accept
//!     ip6 daddr ::1 udp accept
//!   }
//! }
//! ```
//!
//! `pre` lets the sandbox talk to its own loopback servers and turns a loopback
//! connection nobody listens for into one the Guard sees. Without IPv6 sockets the
//! first rule of `out` drops all of IPv6. Numbers are those of linux/netfilter/nf_tables.h.

use std::io;

use nix::sys::socket::SockProtocol;

use super::netlink::{F_APPEND, F_CREATE, Requests};

const TABLE: &str = "stockade";
const INET: u8 = 1;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Ports of the boundary's sockets inside the namespace.
#[derive(Clone, Copy)]
pub(super) struct Ports {
    pub(super) tcp: u16,
    pub(super) dns: u16,
}

/// Installs the rules in the calling process's network namespace, all or nothing.
pub(super) fn install(ports: Ports, ipv6: bool) -> io::Result<()> {
    let mut batch = Batch::begin();
    batch.chain("pre", "filter", HOOK_PREROUTING, -150, ACCEPT);
    batch.chain("nat", "nat", HOOK_OUTPUT, -100, ACCEPT);
    batch.chain("out", "filter", HOOK_OUTPUT, 0, DROP);
    for family in [IPV4, IPV6] {
        if family == IPV6 && !ipv6 {
            continue;
        }
        batch.rule("pre", |e| {
            e.when_to_loopback(family).protocol(TCP).port(ports.tcp, false);
            e.has_socket().verdict(ACCEPT);
        });
        batch.rule("pre", |e| {
            e.when_to_loopback(family).protocol(TCP).port(ports.tcp, false);
            e.tproxy(family, ports.tcp).verdict(ACCEPT);
        });
    }
    for family in [IPV4, IPV6] {
        batch.rule("nat", |e| {
            e.when_to_loopback(family).verdict(ACCEPT);
        });
    }
    batch.rule("nat", |e| {
        e.protocol(TCP).redirect(ports.tcp);
    });
    batch.rule("nat", |e| {
        e.protocol(UDP).port(53, true).redirect(ports.dns);
    });
    if !ipv6 {
        batch.rule("out", |e| {
            e.family(IPV6).verdict(DROP);
        });
    }
    batch.rule("out", |e| {
        e.protocol(TCP).verdict(ACCEPT);
    });
    batch.rule("out", |e| {
        e.known_connection().verdict(ACCEPT);
    });
    batch.rule("out", |e| {
        e.protocol(UDP).port(ports.dns, true).verdict(ACCEPT);
    });
    for family in [IPV4, IPV6] {
        batch.rule("out", |e| {
            e.when_to_loopback(family).protocol(UDP).verdict(ACCEPT);
        });
    }
    batch.commit()
}

struct Batch(Requests);

impl Batch {
    fn begin() -> Self {
        let mut requests = Requests::new();
        requests.message(BATCH_BEGIN, 0, false, &nfgenmsg(0, SUBSYSTEM));
        requests.message(NEW_TABLE, F_CREATE, true, &nfgenmsg(INET, 0));
        requests.text(1, TABLE);
        Self(requests)
    }

    fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32, policy: u32) {
        let r = &mut self.0;
        r.message(NEW_CHAIN, F_CREATE, true, &nfgenmsg(INET, 0));
        r.text(1, TABLE);
        r.text(3, name);
        r.nest(4, |r| {
            r.be32(1, hook);
            r.be32(2, priority.cast_unsigned());
        });
        r.be32(5, policy);
        r.text(7, kind);
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Expressions<'_>)) {
        let r = &mut self.0;
        r.message(NEW_RULE, F_CREATE | F_APPEND, true, &nfgenmsg(INET, 0));
        r.text(1, TABLE);
        r.text(2, chain);
        r.nest(4, |r| fill(&mut Expressions(r)));
    }

    fn commit(mut self) -> io::Result<()> {
        self.0.message(BATCH_END, 0, false, &nfgenmsg(0, SUBSYSTEM));
        self.0.submit(SockProtocol::NetlinkNetFilter)
    }
}

fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The expressions of one rule. Register 1 holds what is compared, 0 the verdict.
struct Expressions<'r>(&'r mut Requests);

impl Expressions<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Requests)) -> &mut Self {
        self.0.nest(1, |r| {
            r.text(1, name);
            r.nest(2, fill);
        });
        self
    }

    fn meta(&mut self, key: u32) -> &mut Self {
        self.expression("meta", |r| {
            r.be32(1, 1);
            r.be32(2, key);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, len: u32) -> &mut Self {
        self.expression("payload", |r| {
            r.be32(1, 1);
            r.be32(2, base);
            r.be32(3, offset);
            r.be32(4, len);
        })
    }

    fn compare(&mut self, equal: bool, value: &[u8]) -> &mut Self {
        self.expression("cmp", |r| {
            r.be32(1, 1);
            r.be32(2, u32::from(!equal));
            r.nest(3, |r| r.attribute(1, value));
        })
    }

    fn load(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |r| {
            r.be32(1, register);
            r.nest(2, |r| r.attribute(1, value));
        })
    }

    fn verdict(&mut self, verdict: u32) -> &mut Self {
        self.expression("immediate", |r| {
            r.be32(1, 0);
            r.nest(2, |r| r.nest(2, |r| r.be32(1, verdict)));
        })
    }

    fn family(&mut self, family: u8) -> &mut Self {
        self.meta(15).compare(true, &[family])
    }

    fn protocol(&mut self, protocol: u8) -> &mut Self {
        self.meta(16).compare(true, &[protocol])
    }

    fn when_to_loopback(&mut self, family: u8) -> &mut Self {
        self.family(family);
        if family == IPV4 {
            self.payload(1, 16, 1).compare(true, &[127])
        } else {
            self.payload(1, 24, 16).compare(true, &LOOPBACK_V6)
        }
    }

    /// Destination port of TCP or UDP.
    fn port(&mut self, port: u16, equal: bool) -> &mut Self {
        self.payload(2, 2, 2).compare(equal, &port.to_be_bytes())
    }

    /// Continues only where some local socket, wildcard or not, takes the packet.
    fn has_socket(&mut self) -> &mut Self {
        self.expression("socket", |r| {
            r.be32(1, 2);
            r.be32(2, 1);
        })
    }

    /// Connection tracking knows it: established or related.
    fn known_connection(&mut self) -> &mut Self {
        self.expression("ct", |r| {
            r.be32(1, 1);
            r.be32(2, 0);
        });
        self.expression("bitwise", |r| {
            r.be32(1, 1);
            r.be32(2, 1);
            r.be32(3, 4);
            r.nest(4, |r| r.attribute(1, &6u32.to_ne_bytes()));
            r.nest(5, |r| r.attribute(1, &[0; 4]));
        });
        self.compare(false, &[0; 4])
    }

    fn tproxy(&mut self, family: u8, port: u16) -> &mut Self {
        if family == IPV4 {
            self.load(1, &[127, 0, 0, 1]);
        } else {
            self.load(1, &LOOPBACK_V6);
        }
        self.load(2, &port.to_be_bytes());
        self.expression("tproxy", |r| {
            r.be32(1, u32::from(family));
            r.be32(2, 1);
            r.be32(3, 2);
        })
    }

    fn redirect(&mut self, port: u16) -> &mut Self {
        self.load(1, &port.to_be_bytes());
        self.expression("redir", |r| {
            r.be32(1, 1);
            r.be32(2, 1);
            r.be32(3, 2);
        })
    }
}
