//! The bearerd program; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bearerd::process::harden();
    bearerd::cli::main()
}
