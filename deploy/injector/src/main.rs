//! The program is [`injector::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bearerd::process::harden();
    injector::cli::main()
}
