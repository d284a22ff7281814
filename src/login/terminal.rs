//! What the person reads and writes. What comes from outside is shown only if a terminal shows it as
//! it is.

use std::io::{self, BufRead, Write};

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The longest text from outside that is shown: the address of a sign-in names many a scope.
const MAX_SHOWN: usize = 8192;

/// Says something to the person.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever closed it does not want to read it.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Asks for one line; `None` if there is nobody to answer. Dropped, it leaves a thread behind that
/// still waits for the line: reading from a terminal cannot be given up.
pub(super) async fn ask(question: String) -> io::Result<Option<Secret>> {
    let answer = spawn_blocking(move || {
        {
            let mut out = io::stdout().lock();
            let _ = write!(out, "{question}").and_then(|()| out.flush());
        }
        let mut line = Zeroizing::new(String::new());
        io::stdin().lock().read_line(&mut line)?;
        let line = Some(line.trim()).filter(|line| !line.is_empty());
        Ok(line.map(|line| Secret::new(line.to_owned())))
    });
    answer.await.map_err(io::Error::other)?
}

/// `text` if it is visible ASCII: no control sequence, no look-alike from another script.
pub(super) fn shown(text: &str) -> Option<&str> {
    let visible = |c: char| c.is_ascii_graphic() || c == ' ';
    Some(text).filter(|text| text.len() <= MAX_SHOWN && text.chars().all(visible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_not_shown() {
        assert_eq!(shown("WDJB-MJHT"), Some("WDJB-MJHT"));
        for text in ["\u{1b}]0;x\u{7}", "a\nb", "\u{202e}moc", "раураl", "\u{9b}31m"] {
            assert_eq!(shown(text), None, "{text:?}");
        }
        assert_eq!(shown(&"a".repeat(9000)), None);
    }
}
