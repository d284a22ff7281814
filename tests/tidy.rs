//! What no compiler holds: which module may know which, how long a file may be, who may name what,
//! and that the example configuration lists every key.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which modules each module may name. `lib` and `main` are the roots; what is missing here is
/// forbidden.
const ARROWS: [(&str, &[&str]); 24] = [
    // Leaves.
    ("clock", &[]),
    ("dial", &["stream"]),
    ("dpop", &["clock", "secret"]),
    ("process", &[]),
    ("secret", &[]),
    ("stream", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
    ("traces", &["clock", "dial", "tls"]),
    ("token", &["clock", "dpop", "secret"]),
    // When, who, where from, where to.
    ("schedule", &["clock", "token"]),
    ("credential", &["clock", "dpop", "secret", "token"]),
    ("source", &["clock", "credential", "dial", "dpop", "secret", "tls", "token"]),
    ("store", &["clock", "dial", "secret", "source", "telemetry", "tls", "token"]),
    (
        "refresher",
        &[
            "clock",
            "credential",
            "metrics",
            "schedule",
            "secret",
            "source",
            "store",
            "telemetry",
            "token",
        ],
    ),
    ("metrics", &[]),
    // The outside.
    (
        "config",
        &["credential", "dial", "schedule", "secret", "source", "store", "telemetry", "tls"],
    ),
    (
        "proxy",
        &[
            "clock",
            "config",
            "credential",
            "dial",
            "dpop",
            "metrics",
            "secret",
            "stream",
            "telemetry",
        ],
    ),
    ("login", &["clock", "config", "secret", "source", "store"]),
    ("token_socket", &["clock", "credential"]),
    ("admin", &["clock", "credential", "metrics", "proxy"]),
    (
        "server",
        &[
            "admin",
            "clock",
            "config",
            "credential",
            "dial",
            "metrics",
            "proxy",
            "refresher",
            "secret",
            "source",
            "store",
            "telemetry",
            "tls",
            "token_socket",
            "traces",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "config",
            "credential",
            "login",
            "metrics",
            "proxy",
            "refresher",
            "secret",
            "server",
            "source",
            "store",
            "telemetry",
            "token_socket",
        ],
    ),
    ("main", &["cli", "process"]),
];

/// The most lines that a file may have before its tests.
const MAX_LINES: usize = 400;

#[test]
fn modules_name_only_what_the_arrows_allow() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = file.module();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            assert_eq!(module, "lib", "{} is in no row of ARROWS", file.name);
            continue;
        };
        for named in file.modules_named() {
            if named != module && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{} names crate::{named}", file.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_arrow_in_the_table_is_unused() {
    let sources = sources();
    for (module, allowed) in ARROWS.iter().filter(|(module, _)| *module != "main") {
        let files = sources.iter().filter(|file| file.module() == *module);
        let named: BTreeSet<String> = files.flat_map(Source::modules_named).collect();
        for arrow in *allowed {
            assert!(named.contains(*arrow), "nothing in {module} names {arrow} any more");
        }
    }
}

#[test]
fn files_are_short() {
    for file in sources_of_programs() {
        let lines = file.code.len();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", file.name);
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for file in sources_of_programs() {
        assert!(file.text.starts_with("//! "), "{} does not begin with //!", file.name);
    }
}

#[test]
fn only_those_that_own_a_thing_name_it() {
    let owners: [(&str, &[&str]); 3] = [
        ("arc_swap", &["credential.rs"]),
        ("toml::", &["config.rs", "config/"]),
        ("pingora_core", &["server.rs", "server/", "proxy/listener.rs"]),
    ];
    for (thing, owners) in owners {
        for file in sources() {
            let owned = owners.iter().any(|owner| {
                file.name == *owner || (owner.ends_with('/') && file.name.starts_with(owner))
            });
            assert!(owned || !file.names(thing), "{} names {thing}", file.name);
        }
    }
}

/// What the upstream said may be compared with: that is no answer of ours. Nor is it one when an
/// upstream's consent to a WebSocket is said in the words of the caller's protocol.
#[test]
fn only_reject_chooses_a_status_in_the_proxy() {
    for file in sources().iter().filter(|file| file.module() == "proxy") {
        let chooses = ["proxy/reject.rs", "proxy/websocket.rs"].contains(&file.name.as_str());
        for line in file.code.iter().filter(|_| !chooses) {
            let chosen = line.replace("== StatusCode::", "").replace("!= StatusCode::", "");
            let constant = chosen.split("StatusCode::").nth(1).and_then(|rest| rest.chars().next());
            let constant = constant.is_some_and(|first| first.is_ascii_uppercase());
            assert!(!constant, "{}: {}", file.name, line.trim());
        }
    }
}

#[test]
fn nothing_unwraps_outside_tests() {
    for file in sources_of_programs() {
        for call in [".unwrap()", ".expect("] {
            assert!(!file.names(call), "{} calls {call}", file.name);
        }
    }
}

#[test]
fn the_example_configuration_lists_every_key() {
    let example = keys_in(&read(&root().join("config.example.toml")));
    let missing: Vec<String> =
        keys_read().into_iter().filter(|key| !example.contains(key)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// One file of `src` that is no test, without the tests and comments in it.
struct Source {
    /// Relative to `src`, such as `proxy/hop.rs`.
    name: String,
    text: String,
    code: Vec<String>,
}

impl Source {
    /// The module at the root that it belongs to.
    fn module(&self) -> String {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }

    fn names(&self, text: &str) -> bool {
        self.code.iter().any(|line| line.contains(text))
    }

    fn modules_named(&self) -> BTreeSet<String> {
        let prefix = if self.module() == "main" { "bearerd::" } else { "crate::" };
        let named = self.code.iter().flat_map(|line| line.split(prefix).skip(1));
        let named = named.map(|rest| rest.split(|c: char| !is_word(c)).next().unwrap_or_default());
        let module = |name: &&str| !name.is_empty() && name.chars().all(|c| !c.is_uppercase());
        named.filter(module).map(str::to_owned).collect()
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> Vec<Source> {
    sources_in("src")
}

/// Those of bearerd and of the injector.
fn sources_of_programs() -> Vec<Source> {
    ["src", "deploy/injector/src"].into_iter().flat_map(sources_in).collect()
}

fn sources_in(directory: &str) -> Vec<Source> {
    let top = root().join(directory);
    let mut names = Vec::new();
    collect(&top, &mut names);
    names.sort();
    let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    names.retain(|path| !path.strip_prefix(&top).is_ok_and(|path| path.iter().any(is_test)));
    let source = |path: PathBuf| {
        let text = read(&path);
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        let without_comment = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        let name = path.strip_prefix(&top).expect("below it").display().to_string();
        let code = code.map(without_comment).collect();
        Source { name, text, code }
    };
    names.into_iter().map(source).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The keys that the readers of the configuration take, and those of the dialects.
fn keys_read() -> BTreeSet<String> {
    // Everything that takes a key is called in one of these ways.
    const CALLS: [&str; 6] =
        ["take(\"", "require(\"", "(&section, \"", "size(\"", "seconds(\"", "key(\""];
    let readers = |file: &&Source| {
        let dialect = file.name.starts_with("config/dialect");
        let reader = file.name.starts_with("config/") && !dialect;
        reader || file.name == "config.rs" || file.name == "source/oauth2.rs"
    };
    let mut keys = BTreeSet::new();
    for file in sources().iter().filter(readers) {
        for line in &file.code {
            for call in CALLS {
                let taken = line.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                keys.extend(taken.map(str::to_owned));
            }
        }
    }
    assert!(keys.len() > 60, "the readers are called in other ways now: {keys:?}");
    for (_, dialect) in bearerd::source::vendor::ALL {
        let dialect = bearerd::config::parse_dialect(dialect).expect("compiled in");
        keys.extend(dialect.keys.into_iter().map(|key| key.name));
    }
    keys
}

/// Every key in a TOML text, also in comments: words before an equals sign, and tables.
fn keys_in(text: &str) -> BTreeSet<String> {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !is_word(c)).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let mut keys = BTreeSet::new();
    for line in text.lines().map(|line| line.trim_start_matches('#')) {
        if line.starts_with('[') {
            keys.extend(words(line));
        }
        let parts: Vec<&str> = line.split(" = ").collect();
        let before = parts.iter().take(parts.len() - 1);
        keys.extend(before.filter_map(|part| words(part).pop()));
    }
    keys
}

/// `module::test` in SECURITY.md; a module may be left out in front, as of a file in a folder.
#[test]
fn every_test_that_security_md_names_exists() {
    let text = read(&root().join("SECURITY.md"));
    let mut tests = Vec::new();
    rust_files(&root().join("tests"), &mut tests);
    rust_files(&root().join("src"), &mut tests);
    let all: String = tests.iter().map(|path| read(path)).collect();
    let named = text.split('`').skip(1).step_by(2).filter(|code| code.contains("::"));
    let mut count = 0;
    for name in named {
        let last = name.rsplit("::").next().unwrap_or_default();
        let module = all.contains(&format!("mod {last};"));
        assert!(module || all.contains(&format!("fn {last}()")), "there is no test {name}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
