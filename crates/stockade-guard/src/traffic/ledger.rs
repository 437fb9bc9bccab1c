//! The limits of a rule or of a whole run, with what counts towards them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use stockade_domain::TrafficLimits;

use super::counter::{Counter, Room, Window};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Out of the sandbox.
    Up,
    /// Into it.
    Down,
}

/// A limit that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Whose limit: a rule's id or `env.traffic`.
    of: String,
    /// Which one.
    what: &'static str,
    /// How much it is.
    limit: u64,
}

impl Spent {
    /// The rule in refusals: `env.traffic.bytes_up`.
    pub(crate) fn rule(&self) -> String {
        format!("{}.{}", self.of, self.what)
    }

    pub(crate) fn reason(&self) -> String {
        let (what, limit) = (self.what.replace('_', " "), self.limit);
        let of = match self.of.as_str() {
            Ledger::RUN => "of the run".to_owned(),
            rule => format!("of rule {rule}"),
        };
        format!("the limit {of} is reached: {limit} {what}")
    }

    /// As results spell it.
    pub(crate) fn spelled(&self) -> String {
        format!("{}={}", self.rule(), self.limit)
    }

    /// As `egress.limit` tells it.
    pub(crate) fn told(&self) -> Value {
        json!({ "limit": self.rule(), "value": self.limit, "reason": self.reason() })
    }
}

/// Limits and what was used of them.
#[derive(Debug)]
pub(crate) struct Ledger {
    id: String,
    up: Counter,
    down: Counter,
    connections: Counter,
    requests: Counter,
    connection_rate: Option<Window>,
    request_rate: Option<Window>,
    /// Limits met, each once, and those nobody has told of.
    met: Mutex<Vec<(Spent, bool)>>,
}

impl Ledger {
    /// The id of the limits on a whole run.
    pub(crate) const RUN: &str = "env.traffic";

    pub(crate) fn new(id: &str, limits: &TrafficLimits) -> Self {
        Self {
            id: id.to_owned(),
            up: Counter::new(limits.bytes_up),
            down: Counter::new(limits.bytes_down),
            connections: Counter::new(limits.connections),
            requests: Counter::new(limits.requests),
            connection_rate: limits.connections_per_minute.map(Window::new),
            request_rate: limits.requests_per_minute.map(Window::new),
            met: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn bytes(&self, way: Way) -> &Counter {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// Says that a limit is reached, and remembers it.
    fn spent(&self, what: &'static str, limit: u64) -> Spent {
        let spent = Spent {
            of: self.id.clone(),
            what,
            limit,
        };
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if !met.iter().any(|(known, _)| *known == spent) {
            met.push((spent.clone(), false));
        }
        spent
    }

    fn bytes_spent(&self, way: Way) -> Spent {
        let what = match way {
            Way::Up => "bytes_up",
            Way::Down => "bytes_down",
        };
        self.spent(what, self.bytes(way).limit().unwrap_or_default())
    }

    /// Limits met so far.
    pub(crate) fn met(&self) -> Vec<Spent> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.iter().map(|(spent, _)| spent.clone()).collect()
    }

    /// Limits met that this was not asked for yet.
    pub(crate) fn newly_met(&self) -> Vec<Spent> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = met.iter_mut().filter(|(_, told)| !told);
        fresh
            .map(|(spent, told)| {
                *told = true;
                spent.clone()
            })
            .collect()
    }

    /// Counts a connection that begins; where bytes are all used none begins.
    pub(crate) fn connection(&self) -> Result<(), Spent> {
        self.bytes_left()?;
        if let Some(rate) = self.connection_rate.as_ref().filter(|rate| !rate.one()) {
            return Err(self.spent("connections_per_minute", rate.limit()));
        }
        match self.connections.one() {
            true => Ok(()),
            false => Err(self.spent("connections", self.connections.limit().unwrap_or_default())),
        }
    }

    /// Counts a request that begins.
    pub(crate) fn request(&self) -> Result<(), Spent> {
        self.bytes_left()?;
        if let Some(rate) = self.request_rate.as_ref().filter(|rate| !rate.one()) {
            return Err(self.spent("requests_per_minute", rate.limit()));
        }
        match self.requests.one() {
            true => Ok(()),
            false => Err(self.spent("requests", self.requests.limit().unwrap_or_default())),
        }
    }

    fn bytes_left(&self) -> Result<(), Spent> {
        match [Way::Up, Way::Down].into_iter().find(|way| self.bytes(*way).is_spent()) {
            Some(way) => Err(self.bytes_spent(way)),
            None => Ok(()),
        }
    }

    /// Counts what an earlier process settled.
    pub(crate) fn restore(&self, used: &Value) {
        let number = |key: &str| used[key].as_u64().unwrap_or_default();
        self.up.restore(number("bytes_up"));
        self.down.restore(number("bytes_down"));
        self.requests.restore(number("requests"));
        self.connections.restore(number("connections"));
    }
}

/// What one connection counts towards one ledger.
#[derive(Debug)]
pub(crate) struct Tab {
    ledger: Arc<Ledger>,
    up: AtomicU64,
    down: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Tab {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            ledger: Arc::clone(ledger),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        })
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(crate) fn connection(&self) -> Result<(), Spent> {
        self.ledger.connection()?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn request(&self) -> Result<(), Spent> {
        self.ledger.request()?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn settle(&self, way: Way, reserved: u64, used: u64) {
        self.ledger.bytes(way).settle(reserved, used);
        let counter = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        counter.fetch_add(used, Ordering::Relaxed);
    }

    /// What it counted since this was last asked, as the settlement of a connection keeps it;
    /// [`Ledger::restore`] reads it.
    pub(crate) fn told(&self) -> Value {
        let number = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        json!({
            "bytes_up": number(&self.up), "bytes_down": number(&self.down),
            "requests": number(&self.requests), "connections": number(&self.connections),
        })
    }
}

/// What a reservation with several ledgers comes to.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// So many bytes, at least 1.
    Bytes(usize),
    /// None now; ask again at once.
    Held,
    /// A limit is reached.
    Spent(Spent),
}

/// Reserves bytes with every ledger, as many as all of them have.
pub(crate) fn reserve(tabs: &[Arc<Tab>], way: Way, want: usize) -> Reserved {
    let mut got = want as u64;
    for (place, tab) in tabs.iter().enumerate() {
        let room = tab.ledger.bytes(way).reserve(got);
        let less = match room {
            Room::Some(less) => less,
            Room::Held | Room::Spent => 0,
        };
        for earlier in &tabs[..place] {
            earlier.settle(way, got - less, 0);
        }
        match room {
            Room::Some(_) => got = less,
            Room::Held => return Reserved::Held,
            Room::Spent => return Reserved::Spent(tab.ledger.bytes_spent(way)),
        }
    }
    Reserved::Bytes(usize::try_from(got).unwrap_or(want))
}

/// Settles a reservation with every ledger.
pub(crate) fn settle(tabs: &[Arc<Tab>], way: Way, reserved: usize, used: usize) {
    for tab in tabs {
        tab.settle(way, reserved as u64, used as u64);
    }
}
