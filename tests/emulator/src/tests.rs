//! The emulator tested over its own sockets, as the product will meet it.

mod api;
mod csp;
mod fault;
mod http;
mod kubernetes;
mod oauth2;
mod servicemax;
mod tencent;
mod veeam;

use std::time::Duration;

/// Whatever is awaited comes within this.
const DEADLINE: Duration = Duration::from_secs(10);
