//! A token that a program prints: Kubernetes' `ExecCredential`, what `gcloud` and `az` print, git's
//! credential helpers.
//!
//! The program is run without a shell, with a minimal environment, in a process group of its own: where
//! the attempt ends first, all of the group ends with it. What a program leaves running when it ends by
//! itself is left alone: git's credential cache is such a process. What it prints is read by the same rules as an identity provider's
//! answer; what it complains about goes nowhere, since that may hold anything.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use http::HeaderMap;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::answer::{self, Answer};
use super::dialect::{BodyKind, Ok as OkRules};
use super::expiry::{Rule, Shape};
use super::json::Document;
use super::oauth2::standard_ok;
use super::{Attempt, Bounds, Class, FetchError, Fetched, Reason, TokenSource, Traits};
use crate::secret::{Fingerprint, Secret, SecretRef};
use crate::token::{AccessToken, MAX_LIFETIME};

mod git;

/// What a program is told that prints an `ExecCredential` (`client.authentication.k8s.io`).
const EXEC_INFO: (&str, &str) = (
    "KUBERNETES_EXEC_INFO",
    r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}}"#,
);
const API_VERSIONS: [&str; 2] =
    ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// What a credential helper may take that is told what became of a credential: who is told `store` has
/// given the token already, and requests wait for it.
const TELLING: Duration = Duration::from_secs(5);
/// What a program inherits; without these hardly any finds its parts.
const INHERITED: [&str; 2] = ["PATH", "HOME"];

/// What to run and how to read what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment, beside [`INHERITED`].
    pub environment: Vec<(String, SecretRef)>,
    /// What it reads from its standard input.
    pub input: String,
    /// When it is ended.
    pub timeout: Duration,
    /// What it prints.
    pub output: Output,
}

/// What a program prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An `ExecCredential` if it begins like JSON, else nothing but the token.
    Guess,
    /// `ExecCredential`.
    ExecCredential,
    /// Nothing but the token.
    Text,
    /// JSON, with a pointer to the token and rules for its expiry.
    Json(String, Vec<Rule>),
    /// Lines such as `password=…` (gitcredentials).
    GitCredential,
}

/// Runs a program for each token.
pub struct ExecSource {
    program: Program,
    bounds: Bounds,
}

impl ExecSource {
    /// Runs `program`; a token whose expiry it does not tell lives for the default of `bounds`.
    #[must_use]
    pub fn new(program: Program, bounds: Bounds) -> Self {
        Self { program, bounds }
    }

    /// Runs `command` to its end, at most for as long as `within`, and gives what it printed.
    async fn run(
        &self,
        command: &[String],
        input: &[u8],
        within: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let mut running = self.spawn(command)?;
        let finished = timeout(within, running.finish(input, self.bounds.answer_bytes)).await;
        let (printed, status) = finished.unwrap_or_else(|_| {
            let mut error = FetchError::new(Class::Transient, Reason::Timeout);
            error.hint = Some("the command took too long and was ended".to_owned());
            Err(error)
        })?;
        if !status.success() {
            let mut error = FetchError::new(Class::Transient, Reason::Command);
            error.hint = Some(format!("the command ended with {status}"));
            return Err(error);
        }
        Ok(printed)
    }

    /// Tells a credential helper what became of a credential; whether it cares is its own affair.
    async fn tell(&self, operation: git::Operation, lines: &[u8]) {
        let Some(command) = git::counterpart(&self.program.command, operation) else { return };
        let within = self.program.timeout.min(TELLING);
        if let Err(error) = self.run(&command, lines, within).await {
            tracing::warn!(operation = operation.helpers, %error, "the credential helper failed");
        }
    }

    fn spawn(&self, command: &[String]) -> Result<Running, FetchError> {
        let [program, arguments @ ..] = command else {
            return Err(unusable("there is no command to run"));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for name in INHERITED {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        if matches!(self.program.output, Output::Guess | Output::ExecCredential) {
            command.envs([EXEC_INFO]);
        }
        for (name, secret) in &self.program.environment {
            command.env(name, secret.read()?.expose());
        }
        command.spawn().map(Running).map_err(|error| {
            let mut failure = FetchError::new(Class::Transient, Reason::Command).caused_by(error);
            failure.hint = Some(format!("{program} cannot be run"));
            failure
        })
    }

    fn read(
        &self,
        printed: Zeroizing<Vec<u8>>,
        attempt: Attempt<'_>,
    ) -> Result<Fetched, FetchError> {
        let output = match &self.program.output {
            Output::Guess if printed.trim_ascii_start().starts_with(b"{") => {
                &Output::ExecCredential
            }
            Output::Guess => &Output::Text,
            output => output,
        };
        let (body, ok, lifetime) = match output {
            Output::ExecCredential => {
                is_exec_credential(&printed)?;
                let expiry = rule("/status/expirationTimestamp", Shape::Rfc3339);
                // Without an expiry it is good until it is refused.
                (printed, rules("/status/token", vec![expiry]), MAX_LIFETIME)
            }
            Output::Json(pointer, expiry) => {
                let mut ok = rules(pointer, expiry.clone());
                // Who names the place of the token knows what it is, such as an id_token.
                if pointer != "/access_token" {
                    ok.token_type.accept.clear();
                }
                (printed, ok, self.bounds.default_lifetime)
            }
            Output::GitCredential => {
                let expiry = rule("/password_expiry_utc", Shape::EpochSeconds);
                let ok = OkRules { body: BodyKind::Form, ..rules("/password", vec![expiry]) };
                (form_of_lines(&printed), ok, self.bounds.default_lifetime)
            }
            Output::Text | Output::Guess => {
                let ok = OkRules { body: BodyKind::Text, ..rules("", Vec::new()) };
                (printed, ok, self.bounds.default_lifetime)
            }
        };
        let answer = Answer { status: 200, headers: HeaderMap::new(), body };
        let bounds = Bounds { default_lifetime: lifetime, ..self.bounds };
        answer::read(&answer, &ok, &[], attempt.now, bounds).map_err(|refusal| {
            let mut error = refusal.error;
            error.status = None;
            error.ambiguous = false;
            error
        })
    }
}

impl TokenSource for ExecSource {
    async fn fetch(&mut self, attempt: Attempt<'_>) -> Result<Fetched, FetchError> {
        let (command, input) = (&self.program.command, &self.program.input);
        let git = self.program.output == Output::GitCredential;
        if let (true, true, Some(held)) = (git, attempt.refused, attempt.held) {
            self.tell(git::ERASE, &git::erased(input, held.value().expose())).await;
        }
        let printed = self.run(command, input.as_bytes(), self.program.timeout).await?;
        let kept = git.then(|| git::stored(input, &printed));
        let fetched = self.read(printed, attempt)?;
        // Before the token is published, since nothing runs here between two attempts: a helper that
        // stores what it gave is done in no time, and one that hangs costs no more than its bound.
        if let Some(kept) = kept {
            self.tell(git::STORE, &kept).await;
        }
        Ok(fetched)
    }

    /// A program has no way to take a token back.
    async fn revoke(&mut self, _: &AccessToken) -> Result<(), FetchError> {
        Ok(())
    }

    fn inputs(&self) -> Fingerprint {
        let mut all = Zeroizing::new(String::new());
        for (_, secret) in &self.program.environment {
            all.push_str(secret.read().ok().as_ref().map_or("", Secret::expose));
            all.push('\n');
        }
        Fingerprint::of(all.as_bytes())
    }

    fn traits(&self) -> Traits {
        Traits::default()
    }
}

/// A program that runs. Dropped while it does, it ends, and whatever it has started in its group with it.
struct Running(Child);

impl Running {
    /// Gives it its input and takes what it prints, up to a bound, and how it ended.
    async fn finish(
        &mut self,
        input: &[u8],
        bound: usize,
    ) -> Result<(Zeroizing<Vec<u8>>, ExitStatus), FetchError> {
        let io = |error: std::io::Error| {
            FetchError::new(Class::Transient, Reason::Command).caused_by(error)
        };
        let (stdin, stdout) = (self.0.stdin.take(), self.0.stdout.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // One that does not read its input does not want it.
                let _ = stdin.write_all(input).await;
            }
        };
        let take = async {
            match stdout {
                Some(stdout) => read_bounded(stdout, bound).await.map_err(io),
                None => Ok(Zeroizing::default()),
            }
        };
        let ((), printed) = tokio::join!(give, take);
        let printed = printed?;
        if printed.len() > bound {
            return Err(unusable("the command printed more than limits.answer_bytes"));
        }
        let status = self.0.wait().await.map_err(io)?;
        Ok((printed, status))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its group, while it is still there to hold the number: after its end there is none, and what
        // it left running then stays.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn read_bounded(
    stdout: impl AsyncRead + Unpin,
    bound: usize,
) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut printed = Zeroizing::new(Vec::new());
    stdout.take(bound as u64 + 1).read_to_end(&mut printed).await?;
    Ok(printed)
}

/// The version and kind must be known; a program that speaks another one says something else.
fn is_exec_credential(printed: &[u8]) -> Result<(), FetchError> {
    let document = Document::parse(printed);
    let text = |pointer| document.as_ref().and_then(|document| document.text(pointer));
    let known = text("/apiVersion").is_some_and(|version| API_VERSIONS.contains(&version));
    if known && text("/kind") == Some("ExecCredential") {
        return Ok(());
    }
    Err(unusable("the command printed no ExecCredential of client.authentication.k8s.io/v1"))
}

/// `a=b` lines as the form that has the same fields.
fn form_of_lines(printed: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for line in String::from_utf8_lossy(printed).lines() {
        if let Some((name, value)) = line.split_once('=') {
            form.append_pair(name, value);
        }
    }
    Zeroizing::new(form.finish().into_bytes())
}

fn rules(pointer: &str, mut expiry: Vec<Rule>) -> OkRules {
    expiry.push(rule("", Shape::JwtExp));
    OkRules { access_token: pointer.to_owned(), refresh_token: None, expiry, ..standard_ok() }
}

fn rule(at: &str, shape: Shape) -> Rule {
    Rule { at: at.to_owned(), shape, issued: None, zero_is_never: false }
}

fn unusable(hint: &str) -> FetchError {
    let mut error = FetchError::new(Class::Transient, Reason::Unusable);
    error.hint = Some(hint.to_owned());
    error
}
