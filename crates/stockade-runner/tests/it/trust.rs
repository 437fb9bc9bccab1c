//! The run's certificate authority on its way into the sandbox.

use serde_json::json;
use stockade_ports::Trust;

use crate::support::{
    Wish, World,
    agent::agent,
    model::{Answer, Answers},
};

const SHOW: &str = "echo \"$SSL_CERT_FILE $NODE_EXTRA_CA_CERTS $JAVA_TOOL_OPTIONS\"";

fn trust() -> Trust {
    Trust {
        authority: "-----BEGIN CERTIFICATE-----\nthe run's\n-----END CERTIFICATE-----\n".to_owned(),
        bundle: "-----BEGIN CERTIFICATE-----\nthe web's and the run's\n".to_owned(),
        subject_hash: "1a2b3c4d".to_owned(),
        java: vec![0xfe, 0xed],
    }
}

/// What a command of the built-in loop printed.
async fn shown(world: &World) -> String {
    world.work().await.unwrap();
    let asked = world.answers.asked();
    let result = &asked[1]["messages"].as_array().unwrap().last().unwrap()["content"][0];
    result["content"].as_str().unwrap().trim().to_owned()
}

fn showing() -> Wish {
    Wish {
        answers: Answers::of(vec![
            Answer::Says("", vec![("bash", json!({ "command": SHOW }))]),
            Answer::Says("Done.", vec![]),
        ]),
        ..Wish::default()
    }
}

#[tokio::test]
async fn the_agents_commands_are_told_where_the_authority_is() {
    let world = World::new(showing()).await;
    *world.sessions.trust.lock().unwrap() = Some(trust());
    let shown = shown(&world).await;
    // The simulated sandbox puts its real place where the agent's home is named.
    let home = world.sandbox.dir_of(world.id).unwrap().join("home/.stockade/trust");
    let dir = home.display();
    assert_eq!(
        shown,
        format!(
            "{dir}/bundle.pem {dir}/authority.pem \
             -Djavax.net.ssl.trustStore={dir}/java.jks -Djavax.net.ssl.trustStoreType=JKS"
        )
    );
    let read = |name: &str| std::fs::read(home.join(name)).unwrap();
    assert_eq!(read("authority.pem"), trust().authority.as_bytes());
    assert_eq!(read("java.jks"), trust().java);
    let bundle = String::from_utf8(read("bundle.pem")).unwrap();
    assert!(
        bundle.ends_with(&trust().authority) || bundle == trust().bundle,
        "{bundle}"
    );
}

#[tokio::test]
async fn an_agent_of_its_own_is_told_too() {
    let world = World::new(Wish {
        kind: agent(&format!("{SHOW} > told; open; finish; hear")),
        ..Wish::default()
    })
    .await;
    *world.sessions.trust.lock().unwrap() = Some(trust());
    world.work().await.unwrap();
    let told = std::fs::read_to_string(world.workspace("told")).unwrap();
    assert!(told.contains("/.stockade/trust/bundle.pem "), "{told}");
}

#[tokio::test]
async fn where_nothing_is_inspected_a_sandbox_stays_as_it_is() {
    let world = World::new(showing()).await;
    assert_eq!(shown(&world).await, "");
    assert!(!world.workspace("../home/.stockade").exists());
}
