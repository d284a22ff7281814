//! Opens the person's browser: the program that `BROWSER` names, else the desktop's own.

use std::process::{Command, Stdio};

/// True if there is a desktop to open one on, or `BROWSER` says which.
#[must_use]
pub fn can_be_opened() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    set("BROWSER") || cfg!(target_os = "macos") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Opens `url`; true if a program for that was started. It is an argument, and no shell sees it.
#[allow(clippy::zombie_processes)] // this process ends soon; a browser does not have to
pub(super) fn open(url: &str) -> bool {
    let named = std::env::var("BROWSER").ok().filter(|name| !name.is_empty());
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let program = named.unwrap_or_else(|| usual.to_owned());
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok()
}
