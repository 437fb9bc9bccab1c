use stockade_api::{ClientError, ProblemCode};
use stockade_domain::Verdict;

use crate::harness::Harness;

#[tokio::test]
async fn an_environment_explains_a_url_over_http() {
    let harness = Harness::start().await;
    let client = harness.client();
    let open = client
        .explain("open", "https://PyPI.org/simple", None, None)
        .await
        .unwrap();
    assert_eq!(
        (open.verdict, open.rule.as_str()),
        (Verdict::Allow, "env.trusted:pypi.org")
    );
    assert_eq!(
        (open.url.as_str(), open.environment.as_str()),
        ("https://pypi.org/simple", "open")
    );
    assert!(open.steps.last().unwrap().decided);
    let closed = client
        .explain("default", "https://pypi.org/", Some("POST"), None)
        .await
        .unwrap();
    assert_eq!((closed.verdict, closed.rule.as_str()), (Verdict::Deny, "env.none"));
    let code = async |environment: &str, url: &str, agent: Option<&str>| match client
        .explain(environment, url, None, agent)
        .await
    {
        Err(ClientError::Problem(problem)) => problem.code(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        code("absent", "https://pypi.org/", None).await,
        Some(ProblemCode::UnknownEnvironment)
    );
    assert_eq!(
        code("open", "https://pypi.org/", Some("absent")).await,
        Some(ProblemCode::UnknownAgent)
    );
    assert_eq!(code("open", "pypi.org", None).await, Some(ProblemCode::InvalidQuery));
    for path in [
        "/v1/environments/open/explain",
        "/v1/environments/open/explain?url=https://a.example.com/&uri=x",
    ] {
        assert_eq!(harness.get(path).await.code(), "invalid_query", "{path}");
    }
}
