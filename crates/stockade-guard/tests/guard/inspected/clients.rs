//! Programs that people use, with what a sandbox has them believe. Where one is not installed
//! its test says nothing; `curl`, `openssl` and `python3` must be.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::World;

/// What a program printed, and whether it ended well.
pub(crate) async fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    // Nothing of the host's settings about certificates.
    for name in [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "JAVA_TOOL_OPTIONS",
    ] {
        command.env_remove(name);
    }
    command
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match timeout(Duration::from_secs(60), command.output())
        .await
        .expect("an end")
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// The files a sandbox gets.
struct Files {
    _dir: tempfile::TempDir,
    bundle: String,
    java: String,
    port: String,
}

async fn files(world: &World) -> Files {
    let trust = world.rig.session.as_ref().unwrap().trust().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    Files {
        bundle: place("bundle.pem", trust.bundle.as_bytes()),
        java: place("java.jks", &trust.java),
        port: world.rig.entrance("a.example.com", 443).await.port().to_string(),
        _dir: dir,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_http2_and_is_told_what_is_denied() {
    let world = World::new().await;
    let files = files(&world).await;
    let lead = format!("a.example.com:443:127.0.0.1:{}", files.port);
    let env = [("CURL_CA_BUNDLE", files.bundle.as_str())];
    let args = |path: &'static str| ["-sS", "--http2", "--connect-to", lead.as_str(), path];
    let (fine, text) = run("curl", &args("https://a.example.com/head"), &env)
        .await
        .expect("curl");
    assert!(
        fine && text.starts_with("GET https://a.example.com/head HTTP/2.0"),
        "{text}"
    );
    let (_, text) = run("curl", &args("https://a.example.com/denied"), &env).await.unwrap();
    assert!(text.contains("\"rule\":\"paths\"") && text.contains("403"), "{text}");
    // Control: without the bundle curl does not believe it, and the Guard knows why.
    let env = [("CURL_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")];
    let (fine, text) = run("curl", &args("https://a.example.com/head"), &env).await.unwrap();
    assert!(!fine, "{text}");
    world.rig.settled(2).await;
    assert!(
        world
            .rig
            .denied()
            .await
            .contains(&"connect a.example.com:443 stockade.client_trust".to_owned()),
        "{:?}",
        world.rig.denied().await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_the_chain_in_both_versions() {
    let world = World::new().await;
    let files = files(&world).await;
    let place = format!("127.0.0.1:{}", files.port);
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [
            "s_client",
            "-connect",
            &place,
            "-servername",
            "a.example.com",
            "-verify_hostname",
            "a.example.com",
            "-verify_return_error",
            "-x509_strict",
            "-CAfile",
            &files.bundle,
            version,
            "-alpn",
            "h2,http/1.1",
        ];
        let (_, text) = run("openssl", &args, &[]).await.expect("openssl");
        assert!(
            text.contains("Verification: OK") && text.contains("ALPN protocol: h2"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_believes_the_bundle() {
    let world = World::new().await;
    let files = files(&world).await;
    let script = "import ssl, socket, sys\n\
        context = ssl.create_default_context()\n\
        raw = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        stream = context.wrap_socket(raw, server_hostname='a.example.com')\n\
        stream.sendall(b'GET /head HTTP/1.1\\r\\nHost: a.example.com\\r\\nConnection: close\\r\\n\\r\\n')\n\
        while piece := stream.recv(4096): print(piece.decode(), end='')\n";
    let env = [("SSL_CERT_FILE", files.bundle.as_str())];
    let (fine, text) = run("python3", &["-c", script, &files.port], &env)
        .await
        .expect("python3");
    assert!(fine && text.contains("GET /head HTTP/1.1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_believes_the_bundle() {
    let world = World::new().await;
    let files = files(&world).await;
    let script = "require('https').get({ host: '127.0.0.1', port: process.argv[1], path: '/head', \
        servername: 'a.example.com', headers: { Host: 'a.example.com' } }, r => r.pipe(process.stdout))";
    let env = [("NODE_EXTRA_CA_CERTS", files.bundle.as_str())];
    if let Some((fine, text)) = run("node", &["-e", script, &files.port], &env).await {
        assert!(fine && text.contains("GET /head HTTP/1.1"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn java_believes_the_key_store() {
    let world = World::new().await;
    let files = files(&world).await;
    let listed = run(
        "keytool",
        &["-list", "-keystore", &files.java, "-storepass", "changeit"],
        &[],
    )
    .await;
    if let Some((fine, text)) = listed {
        assert!(fine && text.contains("trustedCertEntry"), "{text}");
    }
    let source = "import javax.net.ssl.*; import java.net.*; import java.io.*;\n\
        class Fetch { public static void main(String[] a) throws Exception {\n\
        var f = (SSLSocketFactory) SSLSocketFactory.getDefault();\n\
        var s = (SSLSocket) f.createSocket(new Socket(\"127.0.0.1\", Integer.parseInt(a[0])), \"a.example.com\", 443, true);\n\
        var p = s.getSSLParameters(); p.setEndpointIdentificationAlgorithm(\"HTTPS\"); s.setSSLParameters(p);\n\
        s.getOutputStream().write(\"GET /head HTTP/1.1\\r\\nHost: a.example.com\\r\\nConnection: close\\r\\n\\r\\n\".getBytes());\n\
        s.getInputStream().transferTo(System.out); } }\n";
    let path = Path::new(&files.java).with_file_name("Fetch.java");
    std::fs::write(&path, source).unwrap();
    let options = format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=JKS",
        files.java
    );
    let env = [("JAVA_TOOL_OPTIONS", options.as_str())];
    if let Some((fine, text)) = run("java", &[path.to_str().unwrap(), &files.port], &env).await {
        assert!(fine && text.contains("GET /head HTTP/1.1"), "{text}");
    }
}
