//! What the browser shows at the end: one plain page, with nothing in it from anywhere else.

/// How the login ended, for the person in front of the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The refresh token is kept.
    SignedIn,
    /// The person, or the identity provider, said no.
    Refused,
    /// The terminal says why.
    Failed,
    /// This login has had its answer already.
    Over,
    /// No answer to this login.
    Unknown,
}

impl Ending {
    /// The status that goes with it.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::SignedIn | Self::Refused => 200,
            Self::Failed => 502,
            Self::Over => 409,
            Self::Unknown => 400,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::SignedIn => ("Signed in", "You can close this page. bearerd has what it needs."),
            Self::Refused => {
                ("Not signed in", "The sign-in was refused. The terminal says what to do.")
            }
            Self::Failed => ("Not signed in", "Something went wrong. The terminal says what."),
            Self::Over => ("Already done", "This sign-in has been answered. Close this page."),
            Self::Unknown => {
                ("Not this sign-in", "This page is not the answer that bearerd waits for.")
            }
        }
    }
}

/// The page for `credential`.
pub(super) fn page(ending: Ending, credential: &str) -> String {
    let (title, text) = ending.words();
    let credential = credential.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><title>{title} - bearerd</title>\
         <style>body{{font:17px system-ui;margin:15vh auto;max-width:30em;padding:0 1em}}</style>\
         <h1>{title}</h1><p>{text}<p>Credential: <strong>{credential}</strong></html>\n"
    )
}
