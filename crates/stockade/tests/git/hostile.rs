//! Requests no git client makes, over a bare connection.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use stockade_domain::Verdict;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::world::{Wish, World, commit, git, ok, own, text};

const ZERO: &str = "0000000000000000000000000000000000000000";

async fn send(world: &World, method: &str, path: &str, kind: Option<&str>, body: Vec<u8>) -> (StatusCode, String) {
    let host = world.url.trim_start_matches("http://").split('/').next().unwrap();
    let stream = TcpStream::connect(host).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    let answer = sender
        .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
        .await
        .unwrap();
    let status = answer.status();
    (status, text(&answer.into_body().collect().await.unwrap().to_bytes()))
}

async fn push(world: &World, body: Vec<u8>) -> (StatusCode, String) {
    let kind = Some("application/x-git-receive-pack-request");
    send(world, "POST", "/octo/hello.git/git-receive-pack", kind, body).await
}

fn packet(line: &str) -> Vec<u8> {
    format!("{:04x}{line}", line.len() + 4).into_bytes()
}

/// A command with its end.
fn command(old: &str, new: &str, name: &str) -> Vec<u8> {
    [
        packet(&format!("{old} {new} {name}\0report-status side-band-64k")),
        b"0000".to_vec(),
    ]
    .concat()
}

/// A pack of the objects that a list names.
async fn pack(dir: &std::path::Path, names: &[String]) -> Vec<u8> {
    let list = dir.join("list");
    std::fs::write(&list, names.join("\n") + "\n").unwrap();
    let output = tokio::process::Command::new("sh")
        .args(["-c", "git pack-objects --stdout -q < list"])
        .current_dir(dir)
        .output()
        .await
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The new commit of the clone and everything it needs and the server lacks.
async fn honest(work: &std::path::Path) -> (String, Vec<String>) {
    let tip = ok(work, &["rev-parse", "HEAD"]).await;
    let needed = ok(
        work,
        &["rev-list", "--objects", "--no-object-names", "HEAD", "^origin/main"],
    )
    .await;
    (tip, needed.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn what_is_no_push_is_refused_and_nothing_goes_on() {
    let (world, work) = World::cloned(Wish::default()).await;
    let (tip, names) = honest(&work).await;
    let good = pack(&work, &names).await;
    let start = command(ZERO, &tip, &own(""));
    let with = |pack: &[u8]| [start.as_slice(), pack].concat();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let second = command(ZERO, &tip, "refs/heads/main");
    for (what, body, word) in [
        ("nothing", Vec::new(), "no end"),
        ("length 1", b"0001".to_vec(), "another protocol"),
        ("length 2", b"0002".to_vec(), "another protocol"),
        ("length 3", b"0003".to_vec(), "0003"),
        ("too long", b"fff1".to_vec(), "longer than"),
        ("no end", start[..start.len() - 4].to_vec(), "no end"),
        ("no pack", start.clone(), "exactly when"),
        ("no pack at all", with(b"not a pack"), "not one that git takes"),
        ("half a pack", with(&good[..good.len() / 2]), "not one that git takes"),
        ("a broken pack", with(&flipped), "not one that git takes"),
        (
            "bytes behind the pack",
            with(&[good.as_slice(), b"and more"].concat()),
            "not one that git takes",
        ),
        (
            "commands behind the pack",
            with(&[good.as_slice(), &second].concat()),
            "not one that git takes",
        ),
        (
            "commands before the pack",
            with(&[second.as_slice(), &good].concat()),
            "not one that git takes",
        ),
        (
            "a removal with a pack",
            [command(&tip, ZERO, &own("")), good.clone()].concat(),
            "removed",
        ),
        (
            "a knock with a pack",
            [b"0000".as_slice(), &good].concat(),
            "has a pack",
        ),
    ] {
        let (status, words) = push(&world, body).await;
        assert!(words.contains(word), "{what}: {status} {words}");
    }
    assert!(world.pushed().is_empty());
    assert!(world.left_behind().is_empty(), "{:?}", world.left_behind());
    let (_, words) = push(&world, with(&good)).await;
    assert!(
        words.contains("unpack ok") && words.contains("ok refs/heads/"),
        "the control: {words}"
    );
    assert_eq!(world.pushed().len(), 1);
}

#[tokio::test]
async fn a_pack_must_bring_all_that_its_commits_need_and_nothing_else() {
    let (world, work) = World::cloned(Wish::default()).await;
    let (tip, names) = honest(&work).await;
    let start = command(ZERO, &tip, &own(""));
    for at in 0..names.len() {
        let mut fewer = names.clone();
        fewer.remove(at);
        let (_, words) = push(&world, [start.clone(), pack(&work, &fewer).await].concat()).await;
        assert!(words.contains("ng refs/heads/"), "without {}: {words}", names[at]);
    }
    std::fs::write(work.join("smuggled"), "a secret nobody refers to").unwrap();
    let stray = ok(&work, &["hash-object", "-w", "smuggled"]).await;
    let more = [names.as_slice(), &[stray]].concat();
    let (_, words) = push(&world, [start.clone(), pack(&work, &more).await].concat()).await;
    assert!(words.contains("1 objects that none of its commits needs"), "{words}");
    assert_eq!(world.gate.last().2, "stockade.git.stray");
    // What the server has already may come again.
    let known = ok(&work, &["rev-parse", "origin/main^{tree}"]).await;
    let again = [names.as_slice(), &[known]].concat();
    assert!(world.pushed().is_empty());
    // With the server's list read, as every client reads it.
    let list = "/octo/hello.git/info/refs?service=git-receive-pack";
    assert_eq!(send(&world, "GET", list, None, Vec::new()).await.0, StatusCode::OK);
    let (_, words) = push(&world, [start, pack(&work, &again).await].concat()).await;
    assert!(words.contains("ok refs/heads/"), "{words}");
}

#[tokio::test]
async fn a_branch_is_a_commit() {
    let (world, work) = World::cloned(Wish::default()).await;
    let tree = ok(&work, &["rev-parse", "HEAD^{tree}"]).await;
    let (_, names) = honest(&work).await;
    let (_, words) = push(
        &world,
        [command(ZERO, &tree, &own("")), pack(&work, &names).await].concat(),
    )
    .await;
    assert!(words.contains("would be a tree"), "{words}");
    let nobody = "1".repeat(40);
    let (_, words) = push(
        &world,
        [command(ZERO, &nobody, &own("")), pack(&work, &names).await].concat(),
    )
    .await;
    assert!(words.contains("does not bring"), "{words}");
    let (_, words) = push(
        &world,
        [command(ZERO, &"1".repeat(64), &own("")), pack(&work, &names).await].concat(),
    )
    .await;
    assert!(
        words.contains("another hash") || words.contains("two lengths"),
        "{words}"
    );
    assert!(world.pushed().is_empty());
}

/// A client that says an old commit it has not, to make a force push look like an update.
#[tokio::test]
async fn a_lie_about_the_old_commit_gains_nothing() {
    let (world, work) = World::cloned(Wish::default()).await;
    ok(&work, &["push", "origin", &format!("HEAD:{}", own(""))]).await;
    let tip = world.on_server(&own("")).await.unwrap();
    let main = ok(&work, &["rev-parse", "origin/main"]).await;
    ok(&work, &["checkout", "--quiet", "-b", "rewrite", "origin/main"]).await;
    commit(&work, "other", "x", "other").await;
    let (new, names) = honest(&work).await;
    let body = [command(&main, &new, &own("")), pack(&work, &names).await].concat();
    let (_, words) = push(&world, body).await;
    assert_eq!(
        world.gate.last().1,
        Verdict::Allow,
        "to the Guard it is a fast-forward of what the client says"
    );
    assert!(words.contains("ng refs/heads/"), "and the server compares: {words}");
    assert_eq!(world.on_server(&own("")).await, Some(tip));
}

#[tokio::test]
async fn other_spellings_and_protocols_do_not_pass() {
    let world = World::new().await;
    let kind = Some("application/x-git-receive-pack-request");
    for (method, path) in [
        ("POST", "/octo/hello.git/git-receive-pac%6b"),
        ("POST", "/octo/hello.git/git-receive-pack/"),
        ("POST", "/octo/hello.git//git-receive-pack"),
        ("POST", "/octo/./hello.git/git-receive-pack"),
        ("PUT", "/octo/hello.git/git-receive-pack"),
        ("GET", "/octo/hello.git/info/refs"),
        ("GET", "/octo/hello.git/HEAD"),
        ("GET", "/octo/hello.git/objects/info/packs"),
        ("POST", "/octo/hello.git/info/lfs/objects/batch"),
    ] {
        let (status, _) = send(&world, method, path, kind, b"0000".to_vec()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    assert!(world.server.seen().is_empty());
    let upload = Some("application/x-git-upload-pack-request");
    let path = "/octo/hello.git/git-upload-pack";
    for body in [&b"0003"[..], b"fff1", b"000ahello!", b"0014command=ls-refs\n", b"zzzz"] {
        let (status, words) = send(&world, "POST", path, upload, body.to_vec()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{body:?}: {words}");
    }
    assert!(world.server.seen().is_empty());
}

/// A client that sends half a push and goes away.
#[tokio::test]
async fn half_a_push_leaves_nothing() {
    let (world, work) = World::cloned(Wish {
        spool_memory: 10,
        ..Wish::default()
    })
    .await;
    let (tip, names) = honest(&work).await;
    let body = [command(ZERO, &tip, &own("")), pack(&work, &names).await].concat();
    let host = world
        .url
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let head = format!(
        "POST /octo/hello.git/git-receive-pack HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\ncontent-type: application/x-git-receive-pack-request\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..body.len() - 10]).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(world.left_behind().len(), 1, "it is being kept");
    drop(stream);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(world.left_behind().is_empty());
    assert!(world.pushed().is_empty());
    let output = git(&work, &["push", "origin", &format!("HEAD:{}", own(""))]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}
