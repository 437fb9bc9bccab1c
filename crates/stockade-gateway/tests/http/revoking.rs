use stockade_api::{ClientError, ProblemCode, v1::CreateRevocation};
use stockade_ports::{Store, Topic};

use crate::harness::Harness;

fn hosts(hosts: &str) -> CreateRevocation {
    CreateRevocation {
        hosts: hosts.to_owned(),
        reason: "a leak".to_owned(),
    }
}

#[tokio::test]
async fn hosts_are_taken_away_and_given_back_and_who_did_it_is_kept() {
    let harness = Harness::start().await;
    let client = harness.client();
    let made = client.revoke("default", &hosts("*.Leak.example.")).await.unwrap();
    assert_eq!(
        (
            made.hosts.as_str(),
            made.by.as_str(),
            made.reason.as_str(),
            made.lifted_at
        ),
        ("*.leak.example", "alice", "a leak", None)
    );
    assert!(
        harness.bus.said().contains(&Topic::Revocations),
        "a hint for who serves runs"
    );
    let everything = client.revoke("default", &hosts("*")).await.unwrap();
    let listed = client.revocations("default", false).await.unwrap().items;
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&made) && listed.contains(&everything));
    assert!(client.revocations("open", false).await.unwrap().items.is_empty());
    let stored = harness.store.revocations(None, Some("default"), true).await.unwrap();
    assert_eq!(stored.len(), 2);

    let lifted = client.lift_revocation("default", made.id).await.unwrap();
    assert_eq!(lifted.lifted_by.as_deref(), Some("alice"));
    assert_eq!(client.revocations("default", false).await.unwrap().items, [everything]);
    let all = client.revocations("default", true).await.unwrap().items;
    assert!(
        all.len() == 2 && all.contains(&lifted),
        "the audit trail has it: {all:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_revoked_is_refused_with_what_to_do() {
    let harness = Harness::start().await;
    let client = harness.client();
    let code = |answer: Result<_, ClientError>| match answer.map(|made: stockade_api::v1::Revocation| made.id) {
        Err(ClientError::Problem(problem)) => problem.code(),
        other => panic!("{other:?}"),
    };
    for wrong in ["", "https://a.example.com/", "a.example.com:443", "*.com", "a b"] {
        let answer = client.revoke("default", &hosts(wrong)).await;
        assert_eq!(code(answer), Some(ProblemCode::InvalidBody), "{wrong}");
    }
    let answer = client.revoke("absent", &hosts("*")).await;
    assert_eq!(code(answer), Some(ProblemCode::UnknownEnvironment));
    let made = client.revoke("default", &hosts("a.example.com")).await.unwrap();
    let elsewhere = client.lift_revocation("open", made.id).await;
    assert_eq!(code(elsewhere), Some(ProblemCode::NotFound));
    let strangers = harness.client_of_other_team().lift_revocation("default", made.id).await;
    assert_eq!(code(strangers), Some(ProblemCode::NotFound));
    assert!(
        harness
            .client_of_other_team()
            .revocations("default", true)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        client.revocations("default", false).await.unwrap().items,
        [made],
        "it is in force"
    );
}
