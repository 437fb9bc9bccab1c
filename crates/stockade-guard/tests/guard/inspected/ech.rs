//! Encrypted ClientHello: pretended by browsers everywhere, meant by a client that got a key.
//!
//! The sealing of the tests is no cryptography. That does not matter: nobody but the server
//! that has the key could open it, and the Guard must not depend on doing so.

use http::StatusCode;
use rustls::{
    ClientConfig, Error, RootCertStore,
    client::{EchConfig, EchGreaseConfig, EchMode},
    crypto::hpke::{EncapsulatedSecret, Hpke, HpkeOpener, HpkePrivateKey, HpkePublicKey, HpkeSealer, HpkeSuite},
    internal::msgs::enums::{HpkeAead, HpkeKdf, HpkeKem},
    internal::msgs::handshake::HpkeSymmetricCipherSuite,
    pki_types::EchConfigListBytes,
};
use std::sync::Arc;
use stockade_domain::EventType;

use super::{World, read, to_host};

#[derive(Debug)]
struct Unsealed;

impl Hpke for Unsealed {
    fn seal(&self, _: &[u8], _: &[u8], text: &[u8], _: &HpkePublicKey) -> Result<(EncapsulatedSecret, Vec<u8>), Error> {
        Ok((EncapsulatedSecret(vec![5; 32]), [text, &[0; 16]].concat()))
    }

    fn setup_sealer(&self, _: &[u8], _: &HpkePublicKey) -> Result<(EncapsulatedSecret, Box<dyn HpkeSealer>), Error> {
        Ok((EncapsulatedSecret(vec![5; 32]), Box::new(Self)))
    }

    fn open(&self, _: &EncapsulatedSecret, _: &[u8], _: &[u8], _: &[u8], _: &HpkePrivateKey) -> Result<Vec<u8>, Error> {
        Err(Error::General("a client opens nothing".to_owned()))
    }

    fn setup_opener(&self, _: &EncapsulatedSecret, _: &[u8], _: &HpkePrivateKey) -> Result<Box<dyn HpkeOpener>, Error> {
        Err(Error::General("a client opens nothing".to_owned()))
    }

    fn generate_key_pair(&self) -> Result<(HpkePublicKey, HpkePrivateKey), Error> {
        Ok((HpkePublicKey(vec![9; 32]), HpkePrivateKey::from(vec![9; 32])))
    }

    fn suite(&self) -> HpkeSuite {
        HpkeSuite {
            kem: HpkeKem::DHKEM_X25519_HKDF_SHA256,
            sym: HpkeSymmetricCipherSuite {
                kdf_id: HpkeKdf::HKDF_SHA256,
                aead_id: HpkeAead::AES_128_GCM,
            },
        }
    }
}

impl HpkeSealer for Unsealed {
    fn seal(&mut self, _: &[u8], text: &[u8]) -> Result<Vec<u8>, Error> {
        Ok([text, &[0; 16]].concat())
    }
}

/// A list with one configuration (RFC 9849 4) whose public name is the inspected one.
fn configuration(public: &str) -> EchConfigListBytes<'static> {
    let mut contents = vec![7];
    contents.extend([0, 0x20, 0, 32]);
    contents.extend([9; 32]);
    contents.extend([0, 4, 0, 1, 0, 1]);
    contents.push(0);
    contents.push(u8::try_from(public.len()).unwrap());
    contents.extend(public.as_bytes());
    contents.extend([0, 0]);
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    let one = [&[0xfe, 0x0d], length.as_slice(), &contents].concat();
    let length = u16::try_from(one.len()).unwrap().to_be_bytes();
    EchConfigListBytes::from([length.as_slice(), &one].concat())
}

fn client(world: &World, mode: EchMode) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(world.authority()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_ech(mode)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn a_pretended_encrypted_hello_changes_nothing() {
    let world = World::new().await;
    let grease = EchMode::Grease(EchGreaseConfig::new(&Unsealed, HpkePublicKey(vec![9; 32])));
    let stream = world
        .shake_hands("a.example.com", client(&world, grease))
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    assert_eq!(read(sender.send_request(to_host("/x"))).await.0, StatusCode::OK);
    drop(sender);
    assert_eq!(world.rig.settled(1).await[0]["details"]["ech_offered"], true);
}

#[tokio::test]
async fn a_hidden_server_name_is_refused_and_the_client_learns_nothing_but_the_outer_name() {
    let world = World::new().await;
    let config = EchConfig::new(configuration("a.example.com"), &[&Unsealed]).unwrap();
    let config = client(&world, EchMode::Enable(config));
    // What is hidden is another name; the outer one is that of the connection.
    let stream = world.rig.connect_to("a.example.com", 443).await;
    let hidden = rustls::pki_types::ServerName::try_from("hidden.example.com").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let error = connector.connect(hidden, stream).await.unwrap_err().to_string();
    assert!(error.contains("EncryptedClientHello"), "{error}");
    let settled = world.rig.settled(1).await.remove(0);
    assert_eq!(settled["outcome"]["result"], "failed");
    assert_eq!(settled["details"]["ech_offered"], true);
    let events = world.rig.events().await;
    let denied = events
        .iter()
        .find(|e| e.kind == EventType::EgressDenied)
        .expect("a denial");
    assert_eq!(denied.data["rule"], "stockade.encrypted_hello");
    assert!(world.origin.seen().is_empty());
}
