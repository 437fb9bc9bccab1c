//! Settings: flags over the environment over the configuration file over defaults, checked.
//!
//! This is the only place that reads settings from the environment; what concerns the screen
//! alone (`NO_COLOR`, `STOCKADE_LOG`) is read in [`crate::terminal`].

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::SecretString;
use serde::Deserialize;
use stockade_domain::{AgentSpec, Environment, Limits, LimitsPatch, NetworkLevel};
use stockade_gate::model::Price;

use crate::{cli::Global, exit::Complaint, exit::Exit, git_hosts::GitSettings, yaml};

/// What the program works with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) state_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) provider: Option<Provider>,
    pub(crate) record: Option<PathBuf>,
    pub(crate) model: Option<String>,
    pub(crate) prices: BTreeMap<String, PriceLine>,
    pub(crate) agents_dir: PathBuf,
    pub(crate) nameservers: Vec<SocketAddr>,
    /// Authorities that inspected servers may be vouched for by, beside the web's.
    pub(crate) certificate_authorities: Vec<CertificateDer<'static>>,
    pub(crate) environments: Vec<Environment>,
    pub(crate) agents: Vec<AgentSpec>,
    pub(crate) default_agent: String,
    pub(crate) default_environment: String,
    pub(crate) limits: Limits,
    /// Refuse what is unsafe instead of saying so.
    pub(crate) production: bool,
    pub(crate) sandbox: SandboxSettings,
    pub(crate) images: ImageSettings,
    /// Where the key lies that secrets are sealed with.
    pub(crate) secrets_key: KeySource,
    /// Git servers by name.
    pub(crate) git: GitSettings,
    /// Whom the CLI's token stands for in decisions and receipts.
    pub(crate) operator: String,
    /// A server to talk to instead of one's own.
    pub(crate) remote: Option<Remote>,
    /// Whether flags or variables chose a provider, which a running server cannot take over.
    pub(crate) provider_asked: bool,
}

/// Which sandboxes there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SandboxSettings {
    /// Backends that runs may name, the default first.
    pub(crate) backends: Vec<String>,
    /// Native sandboxes that are kept ready.
    pub(crate) warm: u32,
    /// Where a local Docker Engine listens.
    pub(crate) docker_socket: PathBuf,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            backends: ["native", "runc", "crun", "runsc", "docker"]
                .map(str::to_owned)
                .to_vec(),
            warm: 0,
            docker_socket: PathBuf::from("/var/run/docker.sock"),
        }
    }
}

/// Where images come from and how long they stay.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ImageSettings {
    /// Credentials by registry host.
    pub(crate) registries: BTreeMap<String, RegistryLogin>,
    /// Days an image stays after its last use.
    pub(crate) keep_days: u32,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            keep_days: 14,
        }
    }
}

/// Who we are at a registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryLogin {
    pub(crate) username: String,
    /// Name of the environment variable that holds the password.
    password_variable: String,
    #[serde(skip)]
    pub(crate) password: SecretString,
}

/// Takes the registries' passwords from where the file says they are.
fn with_passwords(mut images: ImageSettings) -> Result<ImageSettings, Complaint> {
    for (host, login) in &mut images.registries {
        let name = &login.password_variable;
        let password = variable(name).ok_or_else(|| {
            Complaint::usage(format!(
                "images.registries: {name}, the password for {host}, is not set"
            ))
            .hint(format!("set {name} in the environment"))
        })?;
        login.password = password.into();
    }
    Ok(images)
}

/// Where the key lies that secrets are sealed with.
#[derive(Debug, Clone)]
pub(crate) enum KeySource {
    /// In the state directory, made at first use.
    Own,
    /// In a file that somebody else keeps.
    File(PathBuf),
    /// In an environment variable: its name and what it holds.
    Variable(String, SecretString),
}

/// Where the file says the key lies.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SecretsFile {
    key_file: Option<PathBuf>,
    key_variable: Option<String>,
}

impl SecretsFile {
    fn source(self, base: &Path) -> Result<KeySource, Complaint> {
        match (self.key_file, self.key_variable) {
            (None, None) => Ok(KeySource::Own),
            (Some(path), None) => Ok(KeySource::File(base.join(path))),
            (None, Some(name)) => {
                let text = variable(&name).ok_or_else(|| {
                    Complaint::usage(format!("secrets: {name}, the key of the secrets, is not set"))
                        .hint(format!("set {name} to 64 hexadecimal digits"))
                })?;
                Ok(KeySource::Variable(name, text.into()))
            }
            (Some(_), Some(_)) => Err(Complaint::usage(
                "secrets: both key_file and key_variable are given, and they could differ",
            )
            .hint("leave one of them out")),
        }
    }
}

/// A server somewhere else.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) url: String,
    pub(crate) token: String,
}

/// Where model calls go.
#[derive(Debug)]
pub(crate) enum Provider {
    Anthropic { url: String, key: SecretString },
    Openai { url: String, key: SecretString },
    Scripted { file: PathBuf },
    Replay { dir: PathBuf },
}

impl Provider {
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Anthropic { url, .. } => format!("Anthropic-compatible at {url}"),
            Self::Openai { url, .. } => format!("OpenAI-compatible at {url}"),
            Self::Scripted { file } => format!("scripted by {}", file.display()),
            Self::Replay { dir } => format!("replayed from {}", dir.display()),
        }
    }

    fn default_model(&self) -> &'static str {
        match self {
            Self::Anthropic { .. } => "claude-sonnet-4-5",
            Self::Openai { .. } => "gpt-5.1",
            Self::Scripted { .. } | Self::Replay { .. } => "scripted",
        }
    }
}

/// What the models cost whose names begin so, in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceLine {
    input: f64,
    output: f64,
    /// Input read from a cache; as other input when absent.
    #[serde(default)]
    cache_read: Option<f64>,
    /// Input written to a cache; as other input when absent.
    #[serde(default)]
    cache_write: Option<f64>,
}

impl PriceLine {
    /// The price in the gate's units; `None` for a number that is no price.
    pub(crate) fn price(self) -> Option<Price> {
        let unit = |dollars: f64| {
            (dollars.is_finite() && (0.0..=1e6).contains(&dollars)).then(|| (dollars * 1000.0).round() as u64)
        };
        Some(Price {
            input: unit(self.input)?,
            output: unit(self.output)?,
            cache_read: unit(self.cache_read.unwrap_or(self.input))?,
            cache_write: unit(self.cache_write.unwrap_or(self.input))?,
        })
    }
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    listen: Option<SocketAddr>,
    provider: Option<String>,
    record: Option<PathBuf>,
    model: Option<String>,
    prices: BTreeMap<String, PriceLine>,
    agents_dir: Option<PathBuf>,
    nameservers: Vec<SocketAddr>,
    certificate_authorities: Vec<PathBuf>,
    environments: Vec<Environment>,
    agents: Vec<PathBuf>,
    default_agent: Option<String>,
    default_environment: Option<String>,
    limits: LimitsPatch,
    production: bool,
    sandbox: SandboxSettings,
    images: ImageSettings,
    secrets: SecretsFile,
    git: GitSettings,
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Reads everything and checks it.
pub(crate) fn load(global: &Global) -> Result<Settings, Complaint> {
    let state_dir = state_dir(global)?;
    let (file, base) = config_file(global, &state_dir)?;
    let listen = file.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7070)));
    loopback(listen)?;
    let asked = global.provider.clone().or_else(|| variable("STOCKADE_PROVIDER"));
    let provider = match asked.clone().or(file.provider) {
        Some(spec) => Some(provider(&spec, asked.is_none().then_some(base.as_path()))?),
        None => provider_from_keys(),
    };
    // The built-in ones run on the host's own programs, which is for development.
    let mut environments = match file.production {
        true => Vec::new(),
        false => vec![
            Environment::named("default", NetworkLevel::Trusted),
            Environment::named("offline", NetworkLevel::None),
        ],
    };
    for environment in file.environments {
        environments.retain(|known| known.name != environment.name);
        environments.push(environment);
    }
    let git = file.git.checked()?;
    for environment in &mut environments {
        let hosts = &mut environment.git.hosts;
        let more = git.places().into_iter().filter(|place| !hosts.contains(place));
        hosts.extend(more.collect::<Vec<_>>());
    }
    let agents = file
        .agents
        .iter()
        .map(|path| yaml::read(&base.join(path)))
        .collect::<Result<_, _>>()?;
    Ok(Settings {
        listen,
        model: variable("STOCKADE_MODEL")
            .or(file.model)
            .or_else(|| provider.as_ref().map(|p| p.default_model().to_owned())),
        provider,
        record: file.record.map(|dir| base.join(dir)),
        agents_dir: variable("STOCKADE_AGENTS_DIR")
            .map(PathBuf::from)
            .or_else(|| file.agents_dir.map(|dir| base.join(dir)))
            .unwrap_or_else(|| state_dir.join("agents")),
        prices: checked_prices(file.prices)?,
        nameservers: file.nameservers,
        certificate_authorities: authorities(&file.certificate_authorities, &base)?,
        environments,
        agents,
        default_agent: file.default_agent.unwrap_or_else(|| "builtin".to_owned()),
        default_environment: file.default_environment.unwrap_or_else(|| "default".to_owned()),
        limits: Limits::default().patched(&file.limits),
        production: file.production,
        sandbox: file.sandbox,
        images: with_passwords(file.images)?,
        secrets_key: file.secrets.source(&base)?,
        git,
        operator: variable("USER").unwrap_or_else(|| "operator".to_owned()),
        remote: remote()?,
        provider_asked: asked.is_some() || global.config.is_some(),
        state_dir,
    })
}

/// The certificates in these files, each of which has one at least.
fn authorities(files: &[PathBuf], base: &Path) -> Result<Vec<CertificateDer<'static>>, Complaint> {
    let mut found = Vec::new();
    for file in files {
        let path = base.join(file);
        let wrong = |error: String| {
            Complaint::usage(format!("certificate_authorities: {}: {error}", path.display()))
                .hint("give a file with certificates in PEM")
        };
        let before = found.len();
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|e| wrong(e.to_string()))? {
            found.push(certificate.map_err(|e| wrong(e.to_string()))?);
        }
        if found.len() == before {
            return Err(wrong("there is no certificate in it".to_owned()));
        }
    }
    Ok(found)
}

fn state_dir(global: &Global) -> Result<PathBuf, Complaint> {
    let chosen = global
        .state_dir
        .clone()
        .or_else(|| variable("STOCKADE_STATE_DIR").map(PathBuf::from));
    let dir = match chosen {
        Some(dir) => dir,
        None => match (variable("XDG_DATA_HOME"), variable("HOME")) {
            (Some(data), _) => Path::new(&data).join("stockade"),
            (None, Some(home)) => Path::new(&home).join(".local/share/stockade"),
            (None, None) => {
                return Err(
                    Complaint::usage("no state directory: neither --state-dir nor HOME is set")
                        .hint("pass --state-dir DIR"),
                );
            }
        },
    };
    let broken = |e: std::io::Error| {
        Complaint::usage(format!("cannot use the state directory {}: {e}", dir.display()))
            .hint("pass another one with --state-dir DIR")
    };
    fs::create_dir_all(&dir).map_err(broken)?;
    let dir = fs::canonicalize(&dir).map_err(broken)?;
    private(&dir)?;
    Ok(dir)
}

/// Runs, keys and the token are nobody else's business.
fn private(dir: &Path) -> Result<(), Complaint> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|e| {
        Complaint::new(Exit::Unsafe, format!("cannot make {} private: {e}", dir.display()))
            .hint("use a directory that belongs to you")
    })
}

fn config_file(global: &Global, state_dir: &Path) -> Result<(ConfigFile, PathBuf), Complaint> {
    let chosen = global
        .config
        .clone()
        .or_else(|| variable("STOCKADE_CONFIG").map(PathBuf::from));
    let path = match chosen {
        Some(path) => path,
        None => {
            let default = state_dir.join("stockade.yaml");
            if !default.exists() {
                return Ok((ConfigFile::default(), state_dir.to_owned()));
            }
            default
        }
    };
    let base = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned();
    let file = yaml::read(&path)?;
    Ok((file, base))
}

/// Without transport security and single sign-on the API stays on this machine.
pub(crate) fn loopback(listen: SocketAddr) -> Result<(), Complaint> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    Err(Complaint::new(
        Exit::Unsafe,
        format!("refusing to listen on {listen}: the API has no TLS, so it stays on loopback"),
    )
    .hint("listen on 127.0.0.1 and put a TLS proxy or an SSH tunnel in front"))
}

fn provider(spec: &str, base: Option<&Path>) -> Result<Provider, Complaint> {
    let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
    let place = || base.map_or_else(|| PathBuf::from(rest), |base| base.join(rest));
    match kind {
        "anthropic" => Ok(Provider::Anthropic {
            url: url(rest, ANTHROPIC),
            key: key("ANTHROPIC_API_KEY")?,
        }),
        "openai" => Ok(Provider::Openai {
            url: url(rest, OPENAI),
            key: key("OPENAI_API_KEY")?,
        }),
        "scripted" if place().is_file() => Ok(Provider::Scripted { file: place() }),
        "scripted" => Err(Complaint::usage(format!("no script at '{rest}'")).hint("write --provider scripted:FILE")),
        "replay" if place().is_dir() => Ok(Provider::Replay { dir: place() }),
        "replay" => Err(Complaint::usage(format!("no recordings at '{rest}'")).hint("write --provider replay:DIR")),
        _ => Err(Complaint::usage(format!("unknown provider '{kind}'"))
            .hint("use anthropic[:URL], openai[:URL], scripted:FILE or replay:DIR")),
    }
}

const ANTHROPIC: (&str, &str) = ("ANTHROPIC_BASE_URL", "https://api.anthropic.com");
const OPENAI: (&str, &str) = ("OPENAI_BASE_URL", "https://api.openai.com");

fn url(given: &str, (name, default): (&str, &str)) -> String {
    if given.is_empty() {
        variable(name).unwrap_or_else(|| default.to_owned())
    } else {
        given.to_owned()
    }
}

fn key(name: &str) -> Result<SecretString, Complaint> {
    variable(name).map(SecretString::from).ok_or_else(|| {
        Complaint::usage(format!("no model key: {name} is not set")).hint(format!("set {name} in the environment"))
    })
}

fn provider_from_keys() -> Option<Provider> {
    ["anthropic", "openai"]
        .into_iter()
        .find_map(|kind| provider(kind, None).ok())
}

fn checked_prices(prices: BTreeMap<String, PriceLine>) -> Result<BTreeMap<String, PriceLine>, Complaint> {
    match prices.iter().find(|(_, line)| line.price().is_none()) {
        None => Ok(prices),
        Some((model, _)) => Err(Complaint::usage(format!(
            "prices: '{model}' has a price below zero or beyond a million dollars"
        ))
        .hint("prices are US dollars for a million tokens")),
    }
}

fn remote() -> Result<Option<Remote>, Complaint> {
    let Some(url) = variable("STOCKADE_URL") else {
        return Ok(None);
    };
    let token = variable("STOCKADE_TOKEN")
        .ok_or_else(|| Complaint::usage("STOCKADE_URL is set and STOCKADE_TOKEN is not").hint("set both"))?;
    Ok(Some(Remote { url, token }))
}

/// What a person is told who has no model.
pub(crate) fn no_model() -> Complaint {
    Complaint::usage("no model: there is no key and no provider")
        .hint("set ANTHROPIC_API_KEY or OPENAI_API_KEY, or pass --provider scripted:FILE (see docs/scripted-models.md)")
}
