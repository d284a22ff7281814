//! `provider = "exec"`: a program that prints a token.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::dialect::expiry;
use crate::config::reader::{Item, Section};
use crate::config::server::number;
use crate::secret::{Secret, SecretRef};
use crate::source::exec::{Output, Program};

/// The words for what a program prints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    ExecCredential,
    Text,
    Json,
    GitCredential,
}

pub(super) fn read(section: &Section<'_>) -> Option<Program> {
    let command = section
        .require("command", "command = [\"/usr/bin/program\", \"argument\"]")
        .and_then(|item| command(&item));
    let environment = section.take("environment").map_or(Some(Vec::new()), |i| environment(&i));
    let input = section.take("input").map_or(Some(String::new()), |item| item.text());
    let timeout = number(section, "timeout_seconds", 30, 1..=600).map(Duration::from_secs);
    let output = output(section);
    Some(Program {
        command: command?,
        environment: environment?,
        input: input?,
        timeout: timeout?,
        output: output?,
    })
}

fn command(item: &Item<'_>) -> Option<Vec<String>> {
    let command = item.texts()?;
    let Some(program) = command.first() else {
        item.wrong("is empty; write [\"/usr/bin/program\", \"argument\"]");
        return None;
    };
    if !places(program).iter().any(|path| is_program(path)) {
        if program.contains(' ') && command.len() == 1 {
            item.wrong("is run without a shell; write program and arguments one by one");
            return None;
        }
        item.wrong(format!("{program:?} is no program that can be run; write its whole path"));
        return None;
    }
    Some(command)
}

/// Where a program of that name may be.
fn places(program: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).collect()
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Text, or a secret as everywhere else; `{ env = "NAME" }` hands a variable on.
fn environment(item: &Item<'_>) -> Option<Vec<(String, SecretRef)>> {
    item.each_entry(|name, item| {
        if name.is_empty() || name.contains(['=', '\0']) {
            item.wrong("is no name of an environment variable");
            return None;
        }
        let value = if item.has("file") || item.has("env") || item.has("value") {
            item.secret(SecretRef::read)?
        } else {
            SecretRef::Value(Secret::new(item.text()?))
        };
        Some((name, value))
    })
}

fn output(section: &Section<'_>) -> Option<Output> {
    let word = section.take("output").map_or(Some(None), |item| {
        let words = [
            ("exec_credential", Word::ExecCredential),
            ("text", Word::Text),
            ("json", Word::Json),
            ("git_credential", Word::GitCredential),
        ];
        item.choice(&words).map(Some)
    });
    let (token, expiries) = (section.take("token"), section.take("expiry"));
    if let (Some(word), Some(item)) = (word, token.as_ref().or(expiries.as_ref()))
        && word != Some(Word::Json)
    {
        item.wrong("is for JSON; write output = \"json\" too");
        return None;
    }
    Some(match word? {
        None => Output::Guess,
        Some(Word::ExecCredential) => Output::ExecCredential,
        Some(Word::Text) => Output::Text,
        Some(Word::GitCredential) => Output::GitCredential,
        Some(Word::Json) => {
            let pointer = token.map_or(Some("/access_token".to_owned()), |item| pointer(&item))?;
            let rules = expiries.map_or(Some(Vec::new()), |item| item.each(expiry));
            Output::Json(pointer, rules?)
        }
    })
}

/// RFC 6901 §3.
fn pointer(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    if !text.starts_with('/') {
        item.wrong("is no JSON pointer; write one such as \"/credential/access_token\"");
        return None;
    }
    Some(text)
}
