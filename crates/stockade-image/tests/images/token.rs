//! Registries that want a token from somebody else (distribution specification, "Token Authentication").

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertifiedKey, KeyPair, SigningKey as _};
use secrecy::SecretString;
use serde_json::{Value, json};
use stockade_image::Credential;
use stockade_ports::{ImageError, ImageTree};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    craft::{Image, Layer, Store, tree},
    server::{PASSWORD, Server, USER},
};

const SERVICE: &str = "test registry";
const ISSUER: &str = "test issuer";

/// What somebody asked the token server for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    service: String,
    scope: String,
    named: bool,
}

/// Gives tokens for `private/…` to [`USER`] with [`PASSWORD`], and for `public/…` to everybody.
struct Tokens {
    port: u16,
    certificate: String,
    asked: Arc<Mutex<BTreeSet<Asked>>>,
    serving: JoinHandle<()>,
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Tokens {
    async fn serve() -> Self {
        let key = rcgen::generate_simple_self_signed(["tokens".to_owned()]).expect("a key");
        let certificate = pem(key.cert.der());
        let key = Arc::new(key);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("address").port();
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&key), Arc::clone(&seen)));
            }
        });
        Self {
            port,
            certificate,
            asked,
            serving,
        }
    }

    /// The registry's `auth` that trusts this server.
    fn auth(&self, dir: &tempfile::TempDir) -> String {
        let bundle = dir.path().join("tokens.pem");
        fs::write(&bundle, &self.certificate).expect("writes");
        format!(
            "token: {{realm: \"http://127.0.0.1:{}/token\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}}}",
            self.port,
            bundle.display()
        )
    }

    fn asked(&self) -> BTreeSet<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(mut stream: TcpStream, key: Arc<CertifiedKey<KeyPair>>, seen: Arc<Mutex<BTreeSet<Asked>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let target = head.split(' ').nth(1).expect("a target").to_owned();
    let query = |name: &str| {
        let pairs = target.split_once('?').map_or("", |(_, query)| query).split('&');
        let value = pairs.filter_map(|pair| pair.strip_prefix(&format!("{name}="))).next();
        decoded(value.unwrap_or_default())
    };
    let login = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .starts_with("authorization: basic ")
            .then(|| &line[21..])
    });
    let asked = Asked {
        service: query("service"),
        scope: query("scope"),
        named: login.is_some(),
    };
    let right = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let (status, body) = match login {
        Some(login) if login != right => ("401 Unauthorized", json!({"details": "no such user or password"})),
        _ => ("200 OK", json!({"token": token(&key, &asked)})),
    };
    seen.lock().unwrap_or_else(PoisonError::into_inner).insert(asked);
    let body = body.to_string();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// A certificate as text (RFC 7468).
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// Undoes what a query does to a space and to punctuation.
fn decoded(text: &str) -> String {
    text.replace('+', " ")
        .replace("%3A", ":")
        .replace("%2F", "/")
        .replace("%20", " ")
}

/// A signed token (JSON Web Token) for what may be done.
fn token(key: &CertifiedKey<KeyPair>, asked: &Asked) -> String {
    let name = asked.scope.split(':').nth(1).unwrap_or_default();
    let allowed = asked.named || name.starts_with("public/");
    let access = allowed.then(|| json!({"type": "repository", "name": name, "actions": ["pull"]}));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(key.cert.der())]}));
    let claims = part(json!({
        "iss": ISSUER, "sub": "", "aud": SERVICE, "jti": "1",
        "iat": now, "nbf": now - 10, "exp": now + 60,
        "access": access.into_iter().collect::<Vec<_>>(),
    }));
    let signed = format!("{head}.{claims}");
    let signature = key.signing_key.sign(signed.as_bytes()).expect("signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(plain(&signature)))
}

/// The two numbers of an ECDSA signature in 32 bytes each (RFC 7518, 3.4), out of their DER.
fn plain(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut out = Vec::new();
    for _ in 0..2 {
        let (head, tail) = rest.split_at(2);
        let (number, tail) = tail.split_at(usize::from(head[1]));
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        out.resize(out.len() + 32 - number.len(), 0);
        out.extend_from_slice(number);
        rest = tail;
    }
    out
}

/// A registry with one image of each kind, behind a token server.
struct Closed {
    tokens: Tokens,
    server: Server,
    private: String,
    public: String,
    _dir: tempfile::TempDir,
}

async fn closed() -> Closed {
    let (open, dir, tokens) = (
        Server::start(),
        tempfile::tempdir().expect("temp dir"),
        Tokens::serve().await,
    );
    let mut digests = Vec::new();
    for name in ["private/app", "public/app"] {
        let pinned = Image::gzip(Layer::new().file("whose", name)).push(&open, name).await;
        digests.push(pinned.split_once('@').expect("a digest").1.to_owned());
    }
    let server = open.asking_for(&tokens.auth(&dir));
    let pinned = |name: &str, digest: &str| format!("{}@{digest}", server.name(name));
    Closed {
        private: pinned("private/app", &digests[0]),
        public: pinned("public/app", &digests[1]),
        tokens,
        server,
        _dir: dir,
    }
}

impl Closed {
    async fn pull(&self, reference: &str, password: Option<&str>) -> Result<(Arc<ImageTree>, Store), ImageError> {
        let store = Store::with(|config| {
            if let Some(password) = password {
                let credential = Credential::Password {
                    user: USER.to_owned(),
                    password: SecretString::from(password),
                };
                let host = format!("127.0.0.1:{}", self.server.port);
                config.credentials.insert(host, credential);
            }
        });
        store.pull(reference).await.map(|image| (image, store))
    }
}

fn whose(image: &ImageTree) -> String {
    fs::read_to_string(tree(image).join("whose")).expect("reads")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_what_is_pulled_and_no_more() {
    let closed = closed().await;
    let (image, _store) = closed.pull(&closed.private, Some(PASSWORD)).await.expect("pulled");
    assert_eq!(whose(&image), "private/app");
    let asked = Asked {
        service: SERVICE.to_owned(),
        scope: "repository:private/app:pull".to_owned(),
        named: true,
    };
    assert_eq!(closed.tokens.asked(), BTreeSet::from([asked]));
    // Without a name what is for everybody is there, and nothing else.
    let (image, _store) = closed.pull(&closed.public, None).await.expect("pulled");
    assert_eq!(whose(&image), "public/app");
    let error = closed.pull(&closed.private, None).await.map(drop).expect_err("private");
    assert!(matches!(error, ImageError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("credentials"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_by_who_knows() {
    let closed = closed().await;
    for reference in [&closed.private, &closed.public] {
        let error = closed
            .pull(reference, Some("mistyped"))
            .await
            .map(drop)
            .expect_err("refused");
        assert!(matches!(error, ImageError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("credentials") && text.contains("no such user or password"),
            "{text}"
        );
        assert!(!text.contains("mistyped") && !text.contains(PASSWORD), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_gone_or_not_trusted_is_named() {
    let mut closed = closed().await;
    // Its tokens are signed by another key than the registry trusts.
    let stranger = Tokens::serve().await;
    let dir = tempfile::tempdir().expect("temp dir");
    let auth = closed
        .tokens
        .auth(&dir)
        .replace(&closed.tokens.port.to_string(), &stranger.port.to_string());
    let old = format!("127.0.0.1:{}/", closed.server.port);
    closed.server = closed.server.asking_for(&auth);
    closed.private = closed
        .private
        .replace(&old, &format!("127.0.0.1:{}/", closed.server.port));
    let error = closed
        .pull(&closed.private, Some(PASSWORD))
        .await
        .map(drop)
        .expect_err("refused");
    assert!(matches!(error, ImageError::Refused { .. }), "{error}");
    assert!(!stranger.asked().is_empty());
    let gone = stranger.port;
    drop(stranger);
    let error = closed
        .pull(&closed.private, Some(PASSWORD))
        .await
        .map(drop)
        .expect_err("nobody there");
    assert!(matches!(error, ImageError::Unavailable { .. }), "{error}");
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{gone}/token")),
        "{error}"
    );
}
