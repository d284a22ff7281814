//! What the person reads and writes. What comes from outside is shown only if a terminal shows it as
//! it is.

use std::io::{self, BufRead, Write};

/// The longest text from outside that is shown.
const MAX_SHOWN: usize = 2048;

/// Says something to the person.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever closed it does not want to read it.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Asks for one line; `None` if there is nobody to answer.
pub(super) fn ask(question: &str) -> io::Result<Option<String>> {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{question}").and_then(|()| out.flush());
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(Some(line.trim().to_owned()).filter(|line| !line.is_empty()))
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
        assert_eq!(shown(&"a".repeat(3000)), None);
    }
}
