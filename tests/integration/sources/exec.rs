//! `provider = "exec"`: programs that print tokens, and what they do instead.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Daemon, eventually, read};
use crate::vendors::{Rig, credential, failed, lives, told};

/// A script in the rig's home, and the lines of a credential that runs it.
fn script(rig: &Rig, text: &str, more: &str) -> String {
    let path = rig.home.write("program", &format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("provider = \"exec\"\ncommand = [\"{path}\", \"two words\", \"$HOME;\"]\n{more}\n")
}

/// Runs `text`, whose token is `token`.
async fn printed(rig: &Rig, text: &str, more: &str, token: &str) -> Daemon {
    rig.tokens.issue(token, None);
    let daemon = rig.started(&script(rig, text, more)).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_credential_is_understood_with_its_expiry() {
    let rig = Rig::new();
    let text = r#"printf '%s' "$KUBERNETES_EXEC_INFO" > "$(dirname "$0")/told"
cat <<END
{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
 "status":{"token":"k8s-token","expirationTimestamp":"2999-01-01T00:00:00Z"}}
END"#;
    let daemon = printed(&rig, text, "", "k8s-token").await;
    let info: serde_json::Value = serde_json::from_str(&read(rig.home.path("told"))).unwrap();
    assert_eq!(info["apiVersion"], "client.authentication.k8s.io/v1");
    assert_eq!(info["spec"]["interactive"], false);
    lives(&credential(&daemon).await, 366 * 24 * 3600);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_credential_without_an_expiry_is_good_until_it_is_refused_then_run_again() {
    let rig = Rig::new();
    let text = r#"n=$(cat "$(dirname "$0")/count" 2>/dev/null || echo 0); n=$((n + 1))
echo $n > "$(dirname "$0")/count"
printf '{"apiVersion":"client.authentication.k8s.io/v1beta1","kind":"ExecCredential","status":{"token":"k8s-%s"}}' $n"#;
    let daemon = printed(&rig, text, "", "k8s-1").await;
    lives(&credential(&daemon).await, 366 * 24 * 3600);
    rig.tokens.revoke("k8s-1");
    rig.tokens.issue("k8s-2", None);
    assert_eq!(daemon.get("/orders").await.status, 200);
    assert_eq!(read(rig.home.path("count")).trim(), "2");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_token_json_and_a_git_credential_are_understood() {
    let until = 4_102_444_800_u64;
    let gcloud = r#"printf '{"credential":{"access_token":"gcloud-token","token_expiry":"2999-01-01T00:00:00Z"}}'"#;
    let az = format!(
        r#"printf '{{"accessToken":"az-token","expires_on":{until},"tokenType":"Bearer"}}'"#
    );
    let google = format!(
        r#"printf '{{"version":1,"success":true,"token_type":"urn:ietf:params:oauth:token-type:id_token","id_token":"google-token","expiration_time":{until}}}'"#
    );
    let git = format!(
        r"grep -q '^host=git.example$' || exit 1
printf 'protocol=https\nusername=x\npassword=git+to%%20ken\npassword_expiry_utc={until}\n'"
    );
    for (text, more, token, told_life) in [
        ("echo bare-token", "", "bare-token", false),
        ("printf '\\357\\273\\277bare-token\\r\\n'", "output = \"text\"", "bare-token", false),
        (
            gcloud,
            "output = \"json\"\ntoken = \"/credential/access_token\"\n\
             expiry = { at = \"/credential/token_expiry\", as = \"rfc3339\" }",
            "gcloud-token",
            true,
        ),
        (
            &az,
            "output = \"json\"\ntoken = \"/accessToken\"\n\
             expiry = [{ at = \"/expires_on\", as = \"epoch_seconds\" }]",
            "az-token",
            true,
        ),
        (
            &google,
            "output = \"json\"\ntoken = \"/id_token\"\n\
             expiry = [{ at = \"/expiration_time\", as = \"epoch_seconds\" }]",
            "google-token",
            true,
        ),
        (
            &git,
            "output = \"git_credential\"\ninput = \"protocol=https\\nhost=git.example\\n\\n\"",
            "git+to%20ken",
            true,
        ),
    ] {
        let rig = Rig::new();
        let daemon = printed(&rig, text, more, token).await;
        let life = if told_life { 366 * 24 * 3600 } else { 300 };
        lives(&credential(&daemon).await, life);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_its_arguments_untouched_and_hardly_any_environment() {
    let rig = Rig::new();
    let text = r#"printf '%s|%s\n' "$1" "$2" > "$(dirname "$0")/arguments"
/usr/bin/env > "$(dirname "$0")/environment"
echo token"#;
    let more = format!(
        "environment = {{ PLAIN = \"text\", SECRET = {}, HANDED_ON = {{ env = \"CARGO_PKG_NAME\" }} }}",
        rig.secret("secret", "s3cret\n")
    );
    rig.tokens.issue("token", None);
    let config = rig.config(&script(&rig, text, &more));
    let environment = [("NOT_ITS_BUSINESS", "x"), ("CARGO_PKG_NAME", "handed")];
    let daemon = Daemon::start_in(&rig.home, &config, &environment);
    daemon.ready().await;
    assert_eq!(read(rig.home.path("arguments")).trim(), "two words|$HOME;");
    let environment = read(rig.home.path("environment"));
    let mut names: Vec<_> =
        environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name)); // the shell's own
    names.sort_unstable();
    assert_eq!(names, ["HANDED_ON", "HOME", "KUBERNETES_EXEC_INFO", "PATH", "PLAIN", "SECRET"]);
    assert!(environment.contains("SECRET=s3cret\n") && environment.contains("HANDED_ON=handed\n"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_end_is_ended_with_all_that_it_started() {
    let rig = Rig::new();
    let text = r#"sleep 600 &
echo $! > "$(dirname "$0")/child"
sleep 600"#;
    let daemon = rig.start(&script(&rig, text, "timeout_seconds = 1"));
    let status = failed(&daemon, "transient").await;
    told(&status, &["(timeout)", "took too long and was ended"], false);
    let child = read(rig.home.path("child")).trim().to_owned();
    eventually("its child is gone", async || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // A zombie waits for whoever adopts it; it runs no more.
        !Path::new(&format!("/proc/{child}")).exists() || state.contains(") Z ")
    })
    .await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_program_that_runs() {
    let rig = Rig::new();
    let text = r#"echo $$ > "$(dirname "$0")/self.new"; mv "$(dirname "$0")/self.new" "$(dirname "$0")/self"
exec sleep 600"#;
    let daemon = rig.start(&script(&rig, text, "timeout_seconds = 600"));
    let path = rig.home.path("self");
    eventually("it runs", async || path.exists()).await;
    let process = read(path).trim().to_owned();
    assert!(daemon.stop().success());
    eventually("it ended", async || {
        let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_does_wrong_is_told_without_what_it_printed() {
    for (text, more, parts) in [
        ("echo secret-thing; exit 3", "", &["(command)", "ended with exit status: 3"][..]),
        ("kill -9 $$", "", &["(command)", "signal: 9"]),
        ("true", "", &["(unusable)", "holds no access token"]),
        ("printf 'secret-thing and more'", "", &["(unusable)", "other than visible ASCII"]),
        ("head -c 2000000 /dev/zero", "", &["(unusable)", "more than limits.answer_bytes"]),
        ("echo '{\"token\":\"secret-thing\"}'", "", &["(unusable)", "no ExecCredential"]),
        (
            "echo '{\"apiVersion\":\"client.authentication.k8s.io/v2\",\"kind\":\"ExecCredential\",\
             \"status\":{\"token\":\"secret-thing\"}}'",
            "",
            &["no ExecCredential"],
        ),
        ("echo secret-thing", "output = \"json\"", &["(unusable)", "not in the form"]),
        (
            "echo '{\"version\":1,\"success\":false,\"code\":\"x\",\"message\":\"secret-thing\"}'",
            "output = \"json\"\ntoken = \"/id_token\"",
            &["(unusable)", "holds no access token"],
        ),
        ("echo secret-thing >&2; exit 1", "", &["exit status: 1"]),
    ] {
        let rig = Rig::new();
        let daemon = rig.start(&script(&rig, text, more));
        told(&failed(&daemon, "transient").await, parts, false);
        assert!(!daemon.logs().contains("secret-thing"), "{text}");
        assert!(daemon.stop().success());
    }
}

/// A credential helper that notes what it is asked and told, and prints one password after the other.
const HELPER: &str = r#"home=$(dirname "$0")
operation=$(for last; do :; done; echo "$last")
{ echo "$operation"; cat; } >> "$home/told.$operation"
[ "$operation" = get ] || exit 0
n=$(cat "$home/count" 2>/dev/null || echo 0); n=$((n + 1))
echo $n > "$home/count"
printf 'username=x\npassword=git-%s\npassword_expiry_utc=4102444800\noauth_refresh_token=r\n' $n"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_git_credential_is_stored_when_it_comes_and_erased_when_an_upstream_refuses_it() {
    let rig = Rig::new();
    let path = rig.home.write("program", &format!("#!/bin/sh\n{HELPER}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let lines = format!(
        "provider = \"exec\"\ncommand = [\"{path}\", \"--flag\", \"get\"]\n\
         output = \"git_credential\"\ninput = \"protocol=https\\nhost=git.example\\n\\n\"\n"
    );
    rig.tokens.issue("git-1", None);
    let daemon = rig.started(&lines).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    let came = |n: u32| {
        format!(
            "store\nprotocol=https\nhost=git.example\nusername=x\npassword=git-{n}\n\
             password_expiry_utc=4102444800\noauth_refresh_token=r\n\n"
        )
    };
    assert_eq!(read(rig.home.path("told.store")), came(1));
    assert!(!rig.home.path("told.erase").exists());
    rig.tokens.revoke("git-1");
    rig.tokens.issue("git-2", None);
    assert_eq!(daemon.get("/orders").await.status, 200);
    let erased = "erase\nprotocol=https\nhost=git.example\npassword=git-1\n\n";
    assert_eq!(read(rig.home.path("told.erase")), erased);
    assert_eq!(read(rig.home.path("told.store")), came(1) + &came(2));
    assert!(!daemon.logs().contains("git-1"), "a password is no log line");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_does_not_care_what_becomes_of_a_credential_is_asked_all_the_same() {
    let rig = Rig::new();
    let path = rig.home.write(
        "program",
        "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = get ] || exit 1\necho password=git-token\n",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    rig.tokens.issue("git-token", None);
    let lines = format!(
        "provider = \"exec\"\ncommand = [\"{path}\", \"get\"]\noutput = \"git_credential\"\n"
    );
    let daemon = rig.started(&lines).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    daemon.wait_for_log("the credential helper failed");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_hangs_when_it_is_told_does_not_keep_the_token_back() {
    let rig = Rig::new();
    let path = rig.home.write(
        "program",
        "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = get ] || exec sleep 600\n\
         echo password=git-token\n",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    rig.tokens.issue("git-token", None);
    let lines = format!(
        "provider = \"exec\"\ncommand = [\"{path}\", \"get\"]\noutput = \"git_credential\"\n\
         timeout_seconds = 600\n"
    );
    let daemon = rig.started(&lines).await;
    assert_eq!(daemon.get("/orders").await.status, 200);
    assert!(daemon.wait_for_log("the credential helper failed").contains("took too long"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_leaves_running_when_it_ends_is_left_alone() {
    let rig = Rig::new();
    let text = r#"sleep 600 >/dev/null 2>&1 </dev/null &
echo $! > "$(dirname "$0")/child"
echo token"#;
    let daemon = printed(&rig, text, "", "token").await;
    let child = read(rig.home.path("child")).trim().to_owned();
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).expect("it runs");
    assert!(!state.contains(") Z "), "{state}");
    assert!(daemon.stop().success());
    let ended = std::process::Command::new("kill").arg(&child).status();
    assert!(ended.expect("kill runs").success(), "it was still there");
}
