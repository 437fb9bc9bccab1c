//! The layers of Stockade as one table. Arrows point down only; ARCHITECTURE.md draws the same picture.

/// Where a crate stands. A crate imports from its own row of [`TABLE`] and never upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// 0: pure: no runtime, no clock, no input or output.
    Core,
    /// 1: traits, messages and data that cross a boundary.
    Contract,
    /// 2: one outside thing each: a database, the kernel, a model provider.
    Adapter,
    /// 3: what the product does, written against contracts.
    Role,
    /// 4: configuration and wiring.
    Binary,
    /// Beside the layers: developer commands and black-box tests.
    Beside,
}

impl Layer {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Core => "0 core",
            Self::Contract => "1 contract",
            Self::Adapter => "2 adapter",
            Self::Role => "3 role",
            Self::Binary => "4 binary",
            Self::Beside => "beside",
        }
    }
}

/// One crate: its layer and the crates of ours it may import.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) layer: Layer,
    pub(crate) imports: &'static [&'static str],
}

const fn row(name: &'static str, layer: Layer, imports: &'static [&'static str]) -> Row {
    Row { name, layer, imports }
}

const DOMAIN: &str = "stockade-domain";
const POLICY: &str = "stockade-policy";
const PORTS: &str = "stockade-ports";
const PROTO: &str = "stockade-guest-proto";
const API: &str = "stockade-api";
const ARCHIVE: &str = "stockade-archive";
const GATE: &str = "stockade-gate";

/// Every crate of the workspace. A crate that is not here fails the check, and so does a row without a crate.
#[rustfmt::skip]
pub(crate) const TABLE: &[Row] = &[
    row(DOMAIN,             Layer::Core,     &[]),
    row(POLICY,             Layer::Core,     &[DOMAIN]),
    row(PORTS,              Layer::Contract, &[DOMAIN, POLICY]),
    row(PROTO,              Layer::Contract, &[]),
    row(API,                Layer::Contract, &[DOMAIN]),
    // Data that crosses a boundary: an image layer on its way in, a snapshot on its way in and out. Two adapters read
    // such streams, and one must not import the other, so the one careful reader of them stands below both.
    row(ARCHIVE,            Layer::Contract, &[]),
    // Servers that tests talk to. They stand this low so that tests of every layer may start them; only
    // dev-dependencies name them.
    row("stockade-origins", Layer::Contract, &[]),
    row("stockade-store",   Layer::Adapter,  &[DOMAIN, POLICY, PORTS]),
    row("stockade-vault",   Layer::Adapter,  &[DOMAIN, PORTS]),
    row("stockade-bus",     Layer::Adapter,  &[DOMAIN, POLICY, PORTS]),
    row("stockade-sandbox", Layer::Adapter,  &[DOMAIN, POLICY, PORTS, PROTO, ARCHIVE]),
    row("stockade-image",   Layer::Adapter,  &[DOMAIN, PORTS, ARCHIVE]),
    row("stockade-guest",   Layer::Adapter,  &[PROTO]),
    // Static and alone, like the Guest; the red team carries it as bytes.
    row("stockade-attacker", Layer::Adapter, &[]),
    row("stockade-engine",  Layer::Adapter,  &[DOMAIN, POLICY, PORTS]),
    row("stockade-model",   Layer::Adapter,  &[DOMAIN, POLICY, PORTS]),
    // The gate is the one role the other roles may import: it is the chokepoint they act through.
    row(GATE,               Layer::Role,     &[DOMAIN, POLICY, PORTS]),
    row("stockade-guard",   Layer::Role,     &[DOMAIN, POLICY, PORTS, GATE]),
    row("stockade-runner",  Layer::Role,     &[DOMAIN, POLICY, PORTS, GATE]),
    row("stockade-redteam", Layer::Role,     &[DOMAIN, POLICY, PORTS]),
    row("stockade-gateway", Layer::Role,     &[DOMAIN, POLICY, PORTS, GATE, API]),
    row("stockade",         Layer::Binary,   &[DOMAIN, POLICY, PORTS, PROTO, API, "stockade-store", "stockade-vault", "stockade-bus",
                                               "stockade-sandbox", "stockade-image", "stockade-engine", "stockade-model", GATE,
                                               "stockade-guard", "stockade-runner", "stockade-gateway", "stockade-redteam"]),
    // Black box: through the binary and the public data of its HTTP interface.
    row("stockade-e2e",     Layer::Beside,   &[API, "stockade-origins"]),
    row("xtask",            Layer::Beside,   &[]),
];

/// What the pure core and the in-sandbox binary may use from outside. Anything else fails: a new dependency here
/// changes the architecture, so it is a line in this table and a sentence in the review.
pub(crate) const ALLOWED_EXTERNAL: &[(&str, &[&str])] = &[
    (
        DOMAIN,
        &[
            "base64",
            "ed25519-dalek",
            "hex",
            "jiff",
            "serde",
            "serde_json",
            "serde_json_canonicalizer",
            "sha2",
            "thiserror",
            "uuid",
        ],
    ),
    (
        POLICY,
        &["cedar-policy", "idna", "ipnet", "serde", "serde_json", "thiserror"],
    ),
    (PROTO, &["serde", "serde_json", "thiserror"]),
    ("stockade-guest", &["libc", "serde_json"]),
    ("stockade-attacker", &["libc", "serde_json"]),
];

/// Outside crates that have owners: who may name them in normal or build dependencies, and why nobody else.
pub(crate) const FENCED: &[(&str, &[&str], &str)] = &[
    ("sqlx", &["stockade-store"], "SQL is the store's business"),
    (
        "axum",
        &["stockade-gateway"],
        "HTTP routes live in the gateway, where the route map checks them",
    ),
    (
        "reqwest",
        &[API, "stockade-model"],
        "a client that dials anything is a way around the guard",
    ),
    (
        "hickory-resolver",
        &["stockade-guard"],
        "names are resolved where the addresses are checked",
    ),
    ("hickory-proto", &["stockade-guard"], "DNS is answered by the guard"),
    (
        "rustls",
        &[
            "stockade-guard",
            "stockade-model",
            "stockade-image",
            API,
            "stockade-redteam",
            "stockade",
        ],
        "TLS ends at the edges; the binary picks the provider; the red team attacks it",
    ),
    (
        "ring",
        &["stockade-vault", "stockade-guard"],
        "secrets are sealed in one place; the guard signs for GitHub Apps",
    ),
    (
        "oci-client",
        &["stockade-image"],
        "registries are asked by the image store, which checks what they answer",
    ),
    (
        "nix",
        &["stockade-sandbox", "stockade-guest"],
        "system calls are the sandbox's business",
    ),
    (
        "bollard",
        &["stockade-sandbox"],
        "Docker is asked by the sandbox's backend alone",
    ),
    (
        "agent-client-protocol",
        &["stockade-runner"],
        "harnesses are driven by the runner",
    ),
    ("clap", &["stockade", "xtask"], "only programs have a command line"),
    (
        "anyhow",
        &["stockade", "xtask", "stockade-e2e"],
        "libraries have typed errors",
    ),
    (
        "tracing-subscriber",
        &["stockade"],
        "who listens to traces is the program's choice",
    ),
];

/// The row of a crate.
pub(crate) fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}
