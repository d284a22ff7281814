//! A configuration with one mistake, and what is said about it.

use std::path::PathBuf;

use bearerd::config::{self, Config};
use tempfile::TempDir;

/// Valid: a test changes one thing in it. `HOME` stands for a directory of the test's own.
pub(crate) const VALID: &str = r#"[server]
listen = ["127.0.0.1:8080"]
admin = "127.0.0.1:9901"

[credentials.orders]
token_url = "https://idp.example/oauth2/token"
grant = "client_credentials"
client_id = "orders-sidecar"
client_secret = { file = "HOME/secret" }

[[routes]]
name = "orders"
upstream = "https://api.example.com"
credential = "orders"
"#;

/// Where the documentation puts secrets and stores.
const DIRECTORIES: [&str; 4] = ["var/run/secrets", "var/lib/bearerd", "run/totp", "etc/bearerd"];

/// A directory for what a configuration refers to; at first it holds a `secret`.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self(tempfile::tempdir().expect("a temporary directory"));
        home.write("secret", "not-told-to-anybody");
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the directories that it is in.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("inside the home")).expect("writable");
        std::fs::write(path, content).expect("writable");
    }

    /// Reads `text` as the configuration file of this directory, as `bearerd check` does.
    ///
    /// # Errors
    /// The message, in which `HOME` stands for this directory.
    pub(crate) fn load(&self, text: &str) -> Result<Config, String> {
        let directory = self.0.path().display().to_string();
        self.write("bearerd.toml", &text.replace("HOME", &directory));
        config::load(&self.path("bearerd.toml"))
            .map_err(|error| chain(&error).replace(&directory, "HOME"))
    }

    /// `text` with the absolute paths of the documentation moved in here, where each one exists:
    /// a secret is a file, a store is in a directory.
    pub(crate) fn with_paths_of(&self, text: &str) -> String {
        for quoted in text.split('"').skip(1).step_by(2) {
            if let Some(secret) = quoted.strip_prefix('/').filter(|path| in_documents(path)) {
                self.write(secret, "not-told-to-anybody");
            } else if let Some(store) = quoted.strip_prefix("file:/") {
                self.write(&format!("{store}.lock"), "");
            }
        }
        DIRECTORIES.iter().fold(text.to_owned(), |text, directory| {
            text.replace(&format!("/{directory}/"), &format!("HOME/{directory}/"))
        })
    }

    /// What is said about `text`, which must not be valid.
    pub(crate) fn told(&self, text: &str) -> String {
        let told = self.load(text).expect_err("a mistake");
        assert!(!told.contains("not-told-to-anybody"), "a secret is in the message: {told}");
        told
    }
}

/// An error as `bearerd check` tells it: with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn in_documents(path: &str) -> bool {
    DIRECTORIES.iter().any(|directory| path.starts_with(directory))
}

/// What is said about [`VALID`] with `from` replaced by `to`.
pub(crate) fn told(from: &str, to: &str) -> String {
    Home::new().told(&changed(from, to))
}

/// [`VALID`] with `from` replaced by `to`.
pub(crate) fn changed(from: &str, to: &str) -> String {
    assert!(VALID.contains(from), "there is no {from:?} to change");
    VALID.replace(from, to)
}

/// A configuration whose only credential says `lines`, with a route that uses it.
pub(crate) fn with_credential(lines: &str) -> String {
    format!(
        "[credentials.c]\n{lines}\n\n[[routes]]\nupstream = \"https://api.example\"\n\
         credential = \"c\"\n"
    )
}
