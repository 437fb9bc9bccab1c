use super::*;

fn read(text: &str) -> Result<CredentialBinding, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn with(field: &str, value: &str) -> Result<CredentialBinding, String> {
    let mut binding = serde_json::json!({
        "secret": "token", "kind": "bearer", "hosts": ["api.example.com"],
    });
    binding[field] = serde_json::from_str(value).unwrap();
    read(&binding.to_string())
}

#[test]
fn names_of_secrets_have_one_shape() {
    for good in ["a", "GITHUB_TOKEN", "npm.read-only", &"x".repeat(64)] {
        assert_eq!(good.parse::<SecretName>().unwrap().as_str(), good);
    }
    for bad in ["", "1a", "_a", "a/b", "a b", "ä", "a\n", "..", &"x".repeat(65)] {
        let error = bad.parse::<SecretName>().unwrap_err().to_string();
        assert!(error.contains("cannot name a secret: write a letter"), "{error}");
    }
}

#[test]
fn every_kind_is_read_and_written_back_the_same() {
    for kind in [
        r#""bearer""#,
        r#"{"basic":{"username":"robot"}}"#,
        r#"{"header":{"name":"PRIVATE-TOKEN"}}"#,
        r#"{"header":{"name":"X-Key","prefix":"Token "}}"#,
        r#"{"query":{"name":"api_key"}}"#,
        r#"{"github_app":{"app_id":"12345","installation_id":678}}"#,
        r#"{"github_app":{"app_id":"Iv1.8a61","installation_id":678,"api_url":"https://git.example.com/api/v3"}}"#,
        r#"{"oauth_client":{"token_url":"https://id.example.com/token","client_id":"me","scopes":["read","a:b"]}}"#,
    ] {
        let binding = with("kind", kind).unwrap();
        let written = serde_json::to_string(&binding).unwrap();
        assert!(written.contains(kind), "{written}");
        assert_eq!(read(&written).unwrap(), binding);
    }
}

#[test]
fn what_could_be_misread_is_refused_with_the_part_and_the_reason() {
    for (field, value, word) in [
        ("secret", r#""a b""#, "cannot name a secret"),
        ("hosts", "[]", "there is none"),
        ("hosts", r#"["API.example.com"]"#, "lower case"),
        ("hosts", r#"["a.*.com"]"#, "no host name"),
        ("hosts", r#"["*"]"#, "no host name"),
        ("hosts", r#"["*.com"]"#, "too wide"),
        ("hosts", r#"["localhost"]"#, "too wide"),
        ("hosts", r#"["10.0.0.1"]"#, "an address"),
        ("hosts", r#"["a.example.com."]"#, "no host name"),
        ("hosts", r#"["a.example.com/x"]"#, "no host name"),
        ("hosts", r#"["user@a.example.com"]"#, "no host name"),
        ("hosts", r#"["a.example.com:0"]"#, "no port"),
        ("hosts", r#"["a.example.com:+443"]"#, "no port"),
        ("hosts", r#"["bücher.example"]"#, "xn--"),
        ("methods", r#"["get"]"#, "upper case"),
        ("methods", r#"["TRACE"]"#, "sends back"),
        ("methods", r#"["GET POST"]"#, "upper case"),
        ("paths", r#"["repos"]"#, "begin with '/'"),
        ("paths", r#"["/a/../b"]"#, "'..' segment"),
        ("paths", r#"["/a//b"]"#, "empty"),
        ("paths", r#"["/a%2fb"]"#, "several ways"),
        ("paths", r#"["/a?x=1"]"#, "several ways"),
        ("paths", r#"["/a/*"]"#, "'*' has no meaning"),
        ("env", r#""1A""#, "no variable"),
        ("env", r#""LD_PRELOAD""#, "steers programs"),
        ("kind", r#"{"basic":{"username":"a:b"}}"#, "colon"),
        (
            "kind",
            r#"{"header":{"name":"Content-Length"}}"#,
            "how a request is sent",
        ),
        ("kind", r#"{"header":{"name":"a b"}}"#, "no header name"),
        ("kind", r#"{"header":{"name":"X-A","prefix":"a\r\nb"}}"#, "printable"),
        ("kind", r#"{"query":{"name":"a&b"}}"#, "letters"),
        ("kind", r#"{"github_app":{"app_id":"","installation_id":1}}"#, "app_id"),
        (
            "kind",
            r#"{"github_app":{"app_id":"1","installation_id":1,"api_url":"http://a.b"}}"#,
            "https://",
        ),
        (
            "kind",
            r#"{"oauth_client":{"token_url":"https://a.b@c.d/t","client_id":"x"}}"#,
            "plain host",
        ),
        (
            "kind",
            r#"{"oauth_client":{"token_url":"https://a.b/t","client_id":"x","scopes":["a b"]}}"#,
            "scopes",
        ),
        ("kind", r#""cookie""#, "unknown variant"),
        ("path", r#"["/a"]"#, "unknown field"),
    ] {
        let error = with(field, value).expect_err(value);
        assert!(error.contains(word), "{field} {value}: {error}");
    }
    // The control: each part on its own is fine.
    for (field, value) in [
        (
            "hosts",
            r#"["api.example.com", "*.example.com:8443", "xn--bcher-kva.example"]"#,
        ),
        ("methods", r#"["GET", "PROPFIND"]"#),
        ("paths", r#"["/", "/repos/acme", "/@scope/pkg/"]"#),
        ("env", r#""GITHUB_TOKEN""#),
    ] {
        with(field, value).unwrap_or_else(|error| panic!("{field} {value}: {error}"));
    }
}

#[test]
fn an_environment_checks_its_credentials_together() {
    let environment = |credentials: &str| {
        serde_json::from_str::<crate::Environment>(&format!(r#"{{"name":"e","credentials":{credentials}}}"#))
    };
    let one = r#"{"secret":"a","kind":"bearer","hosts":["a.example.com"],"env":"TOKEN"}"#;
    let other = r#"{"secret":"b","kind":"bearer","hosts":["b.example.com"],"env":"TOKEN"}"#;
    assert_eq!(environment(&format!("[{one}]")).unwrap().credentials.len(), 1);
    let error = environment(&format!("[{one},{other}]")).unwrap_err().to_string();
    assert!(
        error.contains("credential 'b': env: 'TOKEN' is set by another"),
        "{error}"
    );
    let many = vec![one.replace(r#","env":"TOKEN""#, ""); 65].join(",");
    assert!(
        environment(&format!("[{many}]"))
            .unwrap_err()
            .to_string()
            .contains("at most 64")
    );
    // An environment without credentials is written as it always was.
    let plain = crate::Environment::named("e", crate::NetworkLevel::None);
    assert!(!serde_json::to_string(&plain).unwrap().contains("credentials"));
}
