//! Credentials that are chained: `subject = { credential = "…" }`.

use crate::config::CredentialConfig;
use crate::config::reader::{Item, Section};

/// Whether every credential that another one asks with is there, and none asks with itself; what is
/// not so is told.
pub(super) fn sound(section: &Section<'_>, all: &[CredentialConfig]) -> bool {
    let mut sound = true;
    for credential in all {
        for subject in credential.subjects() {
            let others = all.iter().map(|one| one.name.as_str());
            let others: Vec<&str> = others.filter(|name| *name != credential.name).collect();
            let problem = if reaches(subject, &credential.name, all) {
                format!("{subject:?} asks with this one in turn; write another credential")
            } else if others.is_empty() {
                format!("is {subject:?}, but there is no other credential; write a table for it")
            } else if !others.contains(&subject) {
                format!("is {subject:?}; write one of the credentials {}", others.join(", "))
            } else {
                continue;
            };
            sound = false;
            if let Some(item) = section.take(&credential.name) {
                place(&item, subject).unwrap_or(item).wrong(problem);
            }
        }
    }
    sound
}

/// The `credential = …` that names `subject`.
fn place<'a>(credential: &Item<'a>, subject: &str) -> Option<Item<'a>> {
    let chained = credential.section()?.entries().into_iter().map(|(_, item)| item);
    let mut named = chained.filter(|item| item.has("credential"));
    named.find_map(|item| {
        let item = item.section()?.take("credential")?;
        (item.text().as_deref() == Some(subject)).then_some(item)
    })
}

/// Whether `from` asks with `to`, itself or through others.
fn reaches(from: &str, to: &str, all: &[CredentialConfig]) -> bool {
    let mut seen = vec![from];
    let mut next = 0;
    while let Some(name) = seen.get(next).copied() {
        if name == to {
            return true;
        }
        let credential = all.iter().find(|credential| credential.name == name);
        for subject in credential.into_iter().flat_map(CredentialConfig::subjects) {
            if !seen.contains(&subject) {
                seen.push(subject);
            }
        }
        next += 1;
    }
    false
}
