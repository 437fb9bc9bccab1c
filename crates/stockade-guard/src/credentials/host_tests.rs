use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use stockade_ports::{ManualClock, SecretValue, sim::MemoryStore};
use stockade_vault::{InstallationKey, Vault};

use super::*;
use crate::credentials::test_upstream::Upstream;

const APP_KEY: &[u8] = include_bytes!("testdata/app.pkcs1.pem");

struct World {
    clock: Arc<ManualClock>,
    secrets: Arc<Vault>,
    fetch: Arc<dyn Fetch>,
}

impl World {
    async fn new(value: &[u8]) -> Self {
        let clock = Arc::new(ManualClock::at(1_750_000_000_000));
        let store = Arc::new(MemoryStore::default());
        let secrets = Arc::new(Vault::new(store, InstallationKey::generate().unwrap()));
        let (_, fetch) = Upstream::start(&clock).await;
        let value = SecretValue::new(value.to_vec());
        let name = "bot".parse().unwrap();
        secrets.put(TeamId::DEFAULT, &name, value, clock.now()).await.unwrap();
        Self { clock, secrets, fetch }
    }

    async fn header(&self, credential: &str, door: HostDoor) -> Result<String, CredentialFault> {
        let credential: HostCredential = serde_json::from_str(credential).unwrap();
        let parts = HostLoginParts {
            team: TeamId::DEFAULT,
            credential: &credential,
            repository: Repository::of_source("https://github.com/acme/app.git"),
            secrets: self.secrets.clone(),
            fetch: Arc::clone(&self.fetch),
            clock: self.clock.clone(),
        };
        let login = HostLogin::new(parts, door)?;
        let value = login.authorization().await?;
        assert!(value.is_sensitive() && !format!("{login:?}").contains("hunter2"));
        let text = value.to_str().unwrap().to_owned();
        let mut scrubber = login.scrubber();
        let echo = [scrubber.push(Bytes::from(text.clone())), scrubber.finish()].concat();
        assert!(String::from_utf8_lossy(&echo).contains("[redacted]"), "{echo:?}");
        Ok(text)
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[tokio::test]
async fn a_token_is_a_password_for_git_and_a_bearer_token_for_the_api() {
    let world = World::new(b"hunter2-hunter2").await;
    let secret = "hunter2-hunter2";
    let bearer = format!("Bearer {secret}");
    for (credential, git) in [
        (r#""bot""#, basic("x-access-token", secret)),
        (
            r#"{"secret": "bot", "kind": {"basic": {"username": "me"}}}"#,
            basic("me", secret),
        ),
        (r#"{"secret": "bot", "kind": "bearer"}"#, bearer.clone()),
    ] {
        assert_eq!(world.header(credential, HostDoor::Git).await.unwrap(), git);
        assert_eq!(world.header(credential, HostDoor::Api).await.unwrap(), bearer);
    }
    let missing = world.header(r#""other""#, HostDoor::Git).await.unwrap_err();
    assert!(matches!(missing, CredentialFault::Missing(_)), "{missing}");
}

#[tokio::test]
async fn an_app_gets_a_token_for_the_one_repository() {
    let world = World::new(APP_KEY).await;
    let app = r#"{"secret": "bot", "kind": {"github_app": {"app_id": "12345", "installation_id": 77}}}"#;
    let api = world.header(app, HostDoor::Api).await.unwrap();
    let token = api.strip_prefix("Bearer ").unwrap();
    assert!(token.starts_with("ghs_"), "{token}");
    let git = world.header(app, HostDoor::Git).await.unwrap();
    let pair = STANDARD.decode(git.strip_prefix("Basic ").unwrap()).unwrap();
    assert!(pair.starts_with(b"x-access-token:ghs_"), "{git}");
}
