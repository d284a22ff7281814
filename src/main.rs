//! The bearerd program; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bearerd::process::harden();
    bearerd::process::raise_open_files();
    bearerd::cli::main()
}
