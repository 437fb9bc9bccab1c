//! Pins: the synthetic address of every name, for one session.
//!
//! A name keeps its address for as long as the session lives, so a connection to the address
//! is a connection to the name whatever the client cached, and a real address is never
//! handed into the sandbox.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
};

use stockade_policy::{HostName, SYNTHETIC_RANGE};

/// The first address handed out; those before it are the name server's and spare.
const FIRST: u32 = 16;

/// Names and their addresses.
#[derive(Debug)]
pub(crate) struct Pins {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<HostName, Ipv4Addr>,
    by_place: Vec<HostName>,
}

impl Pins {
    /// A table for so many names.
    pub(crate) fn new(limit: usize) -> Self {
        let room = usize::try_from(u32::MAX >> SYNTHETIC_RANGE.prefix_len()).unwrap_or(usize::MAX) - 16;
        Self {
            limit: limit.min(room),
            table: Mutex::default(),
        }
    }

    /// The address of a name, a new one if it has none; `None` when there are too many names.
    pub(crate) fn pin(&self, name: &HostName) -> Option<Ipv4Addr> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = table.by_name.get(name) {
            return Some(*address);
        }
        let place = table.by_place.len();
        if place >= self.limit {
            return None;
        }
        let offset = FIRST + u32::try_from(place).ok()?;
        let address = Ipv4Addr::from(u32::from(SYNTHETIC_RANGE.network()) + offset);
        table.by_name.insert(name.clone(), address);
        table.by_place.push(name.clone());
        Some(address)
    }

    /// The name behind an address of this session.
    pub(crate) fn name(&self, address: Ipv4Addr) -> Option<HostName> {
        let offset = u32::from(address).checked_sub(u32::from(SYNTHETIC_RANGE.network()) + FIRST)?;
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.by_place.get(usize::try_from(offset).ok()?).cloned()
    }

    /// Whether an address is one that only a Guard hands out.
    pub(crate) fn is_synthetic(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if SYNTHETIC_RANGE.contains(&v4))
    }
}

#[cfg(test)]
mod tests {
    use stockade_policy::Host;

    use super::*;

    fn name(text: &str) -> HostName {
        Host::parse(text).unwrap().name().unwrap().clone()
    }

    #[test]
    fn a_name_keeps_its_address_and_an_address_its_name() {
        let pins = Pins::new(10);
        let a = pins.pin(&name("a.example.com")).unwrap();
        let b = pins.pin(&name("b.example.com")).unwrap();
        assert_eq!(a, Ipv4Addr::new(198, 18, 0, 16));
        assert_ne!(a, b);
        assert_eq!(pins.pin(&name("A.example.com.")), Some(a));
        assert_eq!(pins.name(b), Some(name("b.example.com")));
    }

    #[test]
    fn what_was_not_handed_out_has_no_name() {
        let pins = Pins::new(1);
        pins.pin(&name("a.example.com")).unwrap();
        for other in [
            "198.18.0.1",
            "198.18.0.15",
            "198.18.0.17",
            "198.17.0.1",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            assert_eq!(pins.name(other.parse().unwrap()), None, "{other}");
        }
        assert_eq!(pins.pin(&name("b.example.com")), None, "one name only");
    }
}
