//! What git's credential helpers are told about a credential (gitcredentials, git-credential): `erase`
//! when an upstream refused it, `store` when it is put in force.

use zeroize::Zeroizing;

/// What a helper can be told, and `git credential` itself.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    /// The word for a helper, whose command ends with `get`.
    pub(super) helpers: &'static str,
    /// The word for `git credential`, whose command ends with `fill`.
    gits: &'static str,
}

pub(super) const STORE: Operation = Operation { helpers: "store", gits: "approve" };
pub(super) const ERASE: Operation = Operation { helpers: "erase", gits: "reject" };

/// The command for `operation`; `None` if `command` asks in no way that has a counterpart.
pub(super) fn counterpart(command: &[String], operation: Operation) -> Option<Vec<String>> {
    let (last, before) = command.split_last()?;
    let word = match last.as_str() {
        "get" => operation.helpers,
        "fill" => operation.gits,
        _ => return None,
    };
    Some(before.iter().cloned().chain([word.to_owned()]).collect())
}

/// Whose password is not good any more.
pub(super) fn erased(input: &str, password: &str) -> Zeroizing<Vec<u8>> {
    let printed = Zeroizing::new(format!("password={password}\n"));
    stored(input, printed.as_bytes())
}

/// What was asked for and what came, each field once, ended by an empty line.
pub(super) fn stored(input: &str, printed: &[u8]) -> Zeroizing<Vec<u8>> {
    let printed = Zeroizing::new(String::from_utf8_lossy(printed).into_owned());
    let name = |line: &str| line.split_once('=').map(|(name, _)| name.to_owned());
    let came: Vec<String> = printed.lines().filter_map(name).collect();
    let asked = input.lines().filter(|line| name(line).is_some_and(|n| !came.contains(&n)));
    let mut lines = Zeroizing::new(Vec::new());
    for line in asked.chain(printed.lines().filter(|line| line.contains('='))) {
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }
    lines.push(b'\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn helpers_and_git_itself_have_their_own_words() {
        let told = |command, operation| counterpart(&words(command), operation);
        assert_eq!(told("git-credential-x get", STORE), Some(words("git-credential-x store")));
        assert_eq!(told("git-credential-x get", ERASE), Some(words("git-credential-x erase")));
        assert_eq!(told("git credential fill", STORE), Some(words("git credential approve")));
        assert_eq!(told("git credential fill", ERASE), Some(words("git credential reject")));
        assert_eq!(told("print-a-token", STORE), None);
        assert_eq!(counterpart(&[], STORE), None);
    }

    #[test]
    fn what_came_goes_before_what_was_asked_for() {
        let input = "protocol=https\nhost=git.example\nusername=me\n\n";
        let printed = b"username=other\npassword=a=b\n";
        let lines = stored(input, printed);
        let expected = "protocol=https\nhost=git.example\nusername=other\npassword=a=b\n\n";
        assert_eq!(std::str::from_utf8(&lines), Ok(expected));
        let lines = erased("protocol=https\nhost=h\n", "p");
        assert_eq!(std::str::from_utf8(&lines), Ok("protocol=https\nhost=h\npassword=p\n\n"));
    }
}
