//! What the program is built of: nothing with a known hole, nothing from elsewhere than the registry,
//! no licence and no second version that `deny.toml` does not name, and nothing that could log what
//! it carries.

// Tests panic by trade.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

/// The first versions without a hole that an advisory names.
const AT_LEAST: [(&str, [u64; 3]); 6] = [
    ("bytes", [1, 11, 1]),
    ("h2", [0, 4, 16]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
    ("tokio", [1, 44, 2]),
    ("tracing-subscriber", [0, 3, 20]),
];

/// Features that must stay off, and what they would do.
const OFF: [(&str, &str, &str); 3] = [
    ("hyper", "tracing", "logs what it parses"),
    ("rustls", "logging", "logs handshakes"),
    ("rustls", "log", "logs handshakes"),
];

/// The packages of `Cargo.lock`: name, version, source.
static LOCKED: LazyLock<Vec<(String, String, String)>> = LazyLock::new(|| {
    let lock: toml::Table = read("Cargo.lock").parse().expect("TOML");
    let packages = lock["package"].as_array().expect("packages").iter();
    let text = |package: &toml::Value, key| {
        package.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
    };
    packages.map(|p| (text(p, "name"), text(p, "version"), text(p, "source"))).collect()
});

/// What cargo makes of the manifests and the lock file.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
});

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

fn deny() -> toml::Table {
    read("deny.toml").parse().expect("TOML")
}

fn packages() -> impl Iterator<Item = &'static Value> {
    METADATA["packages"].as_array().expect("packages").iter()
}

/// The nodes that the program is built of, by id; without what only tests need.
fn built() -> BTreeSet<&'static str> {
    let nodes = METADATA["resolve"]["nodes"].as_array().expect("nodes");
    let nodes: HashMap<_, _> = nodes.iter().map(|n| (n["id"].as_str().expect("id"), n)).collect();
    let program = packages().find(|package| package["name"] == "bearerd").expect("bearerd");
    let (mut seen, mut left) = (BTreeSet::new(), vec![program["id"].as_str().expect("id")]);
    while let Some(id) = left.pop() {
        if seen.insert(id) {
            let wanted = nodes[id]["deps"].as_array().expect("deps").iter().filter(|dependency| {
                let kinds = dependency["dep_kinds"].as_array().expect("kinds");
                kinds.iter().any(|kind| kind["kind"] != "dev")
            });
            left.extend(wanted.map(|dependency| dependency["pkg"].as_str().expect("id")));
        }
    }
    seen
}

fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().expect("a number")).collect()
}

#[test]
fn nothing_has_a_known_hole() {
    for (name, least) in AT_LEAST {
        let mut versions = LOCKED.iter().filter(|(locked, ..)| locked == name).peekable();
        assert!(versions.peek().is_some(), "{name} is not in the tree");
        for (_, version, _) in versions {
            assert!(numbers(version) >= least.to_vec(), "{name} {version}");
        }
    }
}

#[test]
fn everything_comes_from_one_registry() {
    let sources: BTreeSet<&str> = LOCKED.iter().map(|(.., source)| source.as_str()).collect();
    let foreign: Vec<_> = sources.iter().filter(|source| !source.is_empty()).collect();
    assert!(foreign.len() == 1 && foreign[0].starts_with("registry+"), "{foreign:?}");
    let own: BTreeSet<_> =
        LOCKED.iter().filter(|(.., source)| source.is_empty()).map(|(name, ..)| name).collect();
    assert!(own.iter().all(|name| name.starts_with("bearerd")), "{own:?}");
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let deny = deny();
    let allowed: Vec<Licensee> = deny["licenses"]["allow"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|text| Licensee::parse(text.as_str().expect("text")).expect("SPDX"))
        .collect();
    for package in packages() {
        let text = package["license"].as_str().unwrap_or_default();
        let expression = Expression::parse_mode(text, ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{}: {error}", package["name"]));
        let fits =
            expression.evaluate(|wanted| allowed.iter().any(|allowed| allowed.satisfies(wanted)));
        assert!(fits, "{} is under {text}", package["name"]);
    }
}

#[test]
fn a_second_version_is_named_in_deny_toml_with_its_reason() {
    let built = built();
    let mut versions: BTreeMap<&str, Vec<Vec<u64>>> = BTreeMap::new();
    for package in packages().filter(|package| built.contains(package["id"].as_str().expect("id")))
    {
        let version = numbers(package["version"].as_str().expect("version"));
        versions.entry(package["name"].as_str().expect("name")).or_default().push(version);
    }
    let mut behind = BTreeSet::new();
    for (name, versions) in &mut versions {
        versions.sort();
        versions.pop();
        behind.extend(versions.iter().map(|version| (*name, version.clone())));
    }
    let deny = deny();
    for skip in deny["bans"]["skip"].as_array().expect("a list") {
        let (name, version) =
            skip["crate"].as_str().and_then(|c| c.split_once('@')).expect("name@");
        assert!(skip.get("reason").is_some(), "{name} needs a reason");
        let before = behind.len();
        behind.retain(|(n, v)| *n != name || !v.starts_with(&numbers(version)));
        assert!(behind.len() < before, "{name}@{version} is not in the tree any more");
    }
    assert_eq!(behind, BTreeSet::new(), "not in deny.toml");
}

#[test]
fn nothing_can_log_what_it_carries() {
    let built = built();
    let nodes = METADATA["resolve"]["nodes"].as_array().expect("nodes");
    let features = |name: &str| {
        let package = packages()
            .find(|p| p["name"] == name && built.contains(p["id"].as_str().expect("id")))
            .unwrap_or_else(|| panic!("{name} is not in the tree"));
        let node = nodes.iter().find(|node| node["id"] == package["id"]).expect("a node");
        node["features"].as_array().expect("features").clone()
    };
    for (name, feature, does) in OFF {
        assert!(!features(name).iter().any(|on| on == feature), "{name}'s `{feature}` {does}");
    }
}
