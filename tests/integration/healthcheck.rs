//! `bearerd healthcheck`: what exec probes and hooks rely on.

use emulator::Step;

use crate::stage::Stage;
use crate::support::{Daemon, bearerd};

/// Not on the runtime's threads: the program is waited for.
async fn healthcheck(daemon: &Daemon, more: &[&str]) -> i32 {
    let admin = daemon.admin.to_string();
    let more: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
    let run = move || {
        let mut arguments = vec!["healthcheck", "--admin", &admin];
        arguments.extend(more.iter().map(String::as_str));
        bearerd(&arguments).0
    };
    tokio::task::spawn_blocking(run).await.expect("it ran")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_token_lives_and_is_not_ready() {
    let stage = Stage::new();
    stage.idp.set_always(Some(Step::Hang));
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &stage.route("")));
    assert_eq!(healthcheck(&daemon, &[]).await, 0);
    assert_eq!(healthcheck(&daemon, &["--ready"]).await, 1);
    assert_eq!(healthcheck(&daemon, &["--ready", "--wait", "1"]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_when_the_token_has_come() {
    let stage = Stage::new();
    stage.idp.set_always(Some(Step::Status(503)));
    let daemon = Daemon::start(&stage.home, &(stage.credential("") + &stage.route("")));
    daemon.wait_for_log("503");
    assert_eq!(healthcheck(&daemon, &["--ready"]).await, 1);
    stage.idp.set_always(None);
    assert_eq!(healthcheck(&daemon, &["--ready", "--wait", "20"]).await, 0);
}

#[test]
fn nobody_there_is_not_healthy() {
    // Port 1 is nobody's.
    assert_eq!(bearerd(&["healthcheck", "--admin", "127.0.0.1:1", "--wait", "1"]).0, 1);
}
