//! Everything works for an ordinary user.

use crate::{
    demo::assert_kept,
    support::installation::{Installation, is_root},
};

/// A user nobody else is.
const USER: u32 = 54_321;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_keeps_its_promises_for_an_ordinary_user() {
    let mut installation = Installation::bare();
    // When the tests run as root they become somebody else; otherwise they already are.
    if is_root() {
        installation.belongs_to(USER);
    }
    let ran = installation.run(&["demo", "--yes"]).await.expect(0);
    assert_kept(&ran);
    assert!(
        ran.stderr.contains("rootless"),
        "it did not run as an ordinary user:\n{}",
        ran.stderr
    );
    let doctor = installation.run(&["doctor"]).await.expect(0);
    assert!(doctor.stdout.contains("rootless"), "{}", doctor.stdout);
}
