//! What the API demands and how it behaves: the switches.

use super::challenge::Challenge;

#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) header: String,
    pub(super) scheme: Option<String>,
    pub(super) challenge: Challenge,
    pub(super) always_unauthorized: bool,
    pub(super) early_verdict: bool,
    pub(super) sends_continue: bool,
    pub(super) cookies_forbidden: bool,
    pub(super) csrf_header: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            header: "authorization".to_owned(),
            scheme: Some("Bearer".to_owned()),
            challenge: Challenge::InvalidToken,
            always_unauthorized: false,
            early_verdict: false,
            sends_continue: true,
            cookies_forbidden: false,
            csrf_header: None,
        }
    }
}
