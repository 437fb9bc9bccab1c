//! The connections that are open, so that they can be cut.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use stockade_policy::Host;

use super::cut::{Cut, Severed};

/// Open connections with the hosts each is to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, (Vec<Host>, Arc<Cut>)>,
}

/// A connection in the table, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Entry {
    live: Live,
    place: u64,
}

impl Live {
    /// Enters a connection.
    pub(crate) fn enter(&self, hosts: Vec<Host>, cut: Arc<Cut>) -> Entry {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let place = table.next;
        table.next += 1;
        table.open.insert(place, (hosts, cut));
        Entry {
            live: self.clone(),
            place,
        }
    }

    /// Cuts the connections for which there is a reason, and counts them.
    pub(crate) fn cut(&self, reason: impl Fn(&[Host]) -> Option<Severed>) -> u64 {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (hosts, cut) in table.open.values().filter(|(_, cut)| cut.why().is_none()) {
            if let Some(why) = reason(hosts) {
                cut.cut(why);
                count += 1;
            }
        }
        count
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.live.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.open.remove(&self.place);
    }
}
