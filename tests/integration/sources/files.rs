//! Secrets on disk that are replaced, while bearerd runs, by what cannot be one: told at the next use,
//! without a hang, and the token in force goes on.

use std::path::Path;

use super::{Told, token};
use crate::support::eventually;
use crate::vendors::{Rig, credential, told};

/// Puts something in the place of a file.
type Replace = fn(&Path);

fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}

const UNFIT: [(&str, Replace, &str); 9] = [
    ("empty", |path| write(path, b""), "is empty"),
    ("newlines alone", |path| write(path, b"\r\n\n"), "is empty"),
    ("two lines", |path| write(path, b"canary-one\ncanary-two\n"), "contains more than one line"),
    ("a NUL", |path| write(path, b"canary\0two"), "contains a NUL byte"),
    ("no UTF-8", |path| write(path, b"canary\xff\xfe"), "is not UTF-8 text"),
    ("over a megabyte", |path| write(path, &vec![b'a'; (1 << 20) + 1]), "is larger than 1 MiB"),
    ("gone", |path| std::fs::remove_file(path).unwrap(), "cannot read"),
    (
        "a directory",
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
        "is not a regular file",
    ),
    (
        "a FIFO that nobody writes to",
        |path| {
            std::fs::remove_file(path).unwrap();
            let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
            assert!(made.success());
        },
        "is not a regular file",
    ),
];

/// Lines for each kind of key that is read again at each use, with a place for the file.
const USES: [&str; 3] = [
    "grant = \"client_credentials\"\nclient_id = \"c\"\nclient_secret = { file = \"FILE\" }\n",
    "grant = \"client_credentials\"\nclient_id = \"c\"\nclient_auth = \"assertion_file\"\n\
     assertion_file = \"FILE\"\n",
    "grant = \"token_exchange\"\nsubject = { file = \"FILE\" }\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_becomes_unfit_is_told_and_keeps_the_token_in_force() {
    for (index, (name, replace, problem)) in UNFIT.iter().enumerate() {
        let rig = Rig::new();
        rig.tokens.issue("granted", None);
        let idp = Told::start(|_| token("granted", 600));
        let file = rig.home.write("watched", "first\r\n");
        let lines = USES[index % USES.len()].replace("FILE", &file);
        let lines = format!("token_url = \"{}\"\n{lines}", idp.url("/token"));
        let daemon = rig.started(&lines).await;
        replace(Path::new(&file));
        let status = rig.keeps_the_token(&daemon, "transient").await;
        told(&status, &["(input)", problem, "watched"], false);
        assert_eq!(idp.asked().len(), 1, "{name}: nothing is sent without it");
        assert!(!daemon.logs().contains("canary"), "{name}");
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_editors_add_to_a_secret_is_not_sent() {
    let rig = Rig::new();
    rig.tokens.issue("granted", None);
    let idp = Told::start(|_| token("granted", 600));
    let file = rig.home.write("watched", "\u{feff}a secret\r\n\r\n");
    let lines = USES[2].replace("FILE", &file);
    let daemon = rig.started(&format!("token_url = \"{}\"\n{lines}", idp.url("/token"))).await;
    assert_eq!(idp.forms()[0].value("subject_token"), Some("a secret"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_becomes_unfit_keeps_the_token_in_force_and_its_successor_is_taken_up() {
    let rig = Rig::new();
    rig.tokens.issue("first", None);
    rig.tokens.issue("second", None);
    let file = rig.home.write("watched", "first\n");
    let daemon = rig.started(&format!("provider = \"file\"\npath = \"{file}\"\n")).await;
    for (name, replace, problem) in &UNFIT[2..4] {
        replace(Path::new(&file));
        eventually(name, async || {
            let status = credential(&daemon).await;
            status["last"]["detail"].as_str().unwrap_or_default().contains(problem)
        })
        .await;
        assert_eq!(daemon.get("/orders").await.status, 200, "{name}");
        rig.home.write("watched", "first\n");
        eventually("it is fit again", async || {
            credential(&daemon).await["last"]["outcome"] == "ok"
        })
        .await;
    }
    rig.home.write("watched", "second\n");
    eventually("the new one is in force", async || {
        daemon.get("/orders").await;
        let sent = rig.api.last_request().expect("one").header("authorization");
        sent.as_deref() == Some("Bearer second")
    })
    .await;
    assert!(daemon.stop().success());
}
