//! What the process asks of the kernel before it holds a secret.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// No core dumps, and no reading of this process's memory or environment by its own user. Best
/// effort: a kernel that refuses is no reason not to serve.
pub fn harden() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// As many open files as the process may have at most: each connection is one or two, and the usual
/// first limit of 1,024 is kept only for programs that use `select`.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
