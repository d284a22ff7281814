//! What the documentation shows must be valid.

use bearerd::config::{Config, SourceConfig};

use crate::support::Home;

/// One credential for each vendor, as its users are told to write it.
const VENDORS: [(&str, &str); 6] = [
    (
        "servicemax-max",
        r#"host = "mydomain.io"
base_path = "/sec"
client_id = "57d22b28e0c5962541889195"
refresh_token = { file = "/var/run/secrets/max/refresh-token" }"#,
    ),
    (
        "vmware-csp",
        r#"api_token = { file = "/var/run/secrets/csp/api-token" }
passcode = { file = "/run/totp/csp" }"#,
    ),
    (
        "vmware-csp",
        r#"grant = "client_credentials"
client_id = "app"
client_secret = { file = "/var/run/secrets/csp/client-secret" }
org_id = "57d22b28""#,
    ),
    (
        "veeam-azure",
        r#"host = "51.11.247.127"
username = "administrator"
password = { file = "/var/run/secrets/veeam/password" }
refresh_token = { file = "/var/run/secrets/veeam/refresh-token" }
token_path = "/api/oauth2/token"
short_lived_refresh_token = false
spelling = "capital"
store = "file:/var/lib/bearerd/veeam.json"
tls = { pin_sha256 = ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="] }"#,
    ),
    (
        "tencent-ciam",
        r#"host = "sample.portal.tencentciam.com"
client_id = "TENANT_CLIENT_ID"
client_secret = { file = "/var/run/secrets/ciam/client-secret" }
refresh_token = { file = "/var/run/secrets/ciam/refresh-token" }
client_auth = "post"
grant = "refresh_token"
store = "file:/var/lib/bearerd/ciam.json""#,
    ),
    (
        "tencent-ciam",
        r#"host = "sample.portal.tencentciam.com"
grant = "client_credentials"
client_auth = "basic"
client_id = "TENANT_CLIENT_ID"
client_secret = { file = "/var/run/secrets/ciam/client-secret" }"#,
    ),
];

#[test]
fn every_vendor_sample_is_valid_alone() {
    for (provider, lines) in VENDORS {
        let text = format!(
            "[credentials.c]\nprovider = \"{provider}\"\n{lines}\n\
             [[routes]]\nupstream = \"https://api.example\"\ncredential = \"c\"\n"
        );
        let config = moved_home(&text).unwrap_or_else(|told| panic!("{provider}: {told}"));
        assert_eq!(config.credentials[0].provider, provider);
        assert!(matches!(
            &config.credentials[0].source,
            SourceConfig::Dialect { dialect, .. } if dialect.name == provider
        ));
        assert_eq!(config.warnings, Vec::<String>::new(), "{provider}");
    }
}

#[test]
fn every_vendor_sample_is_valid_beside_the_others() {
    let credentials = VENDORS.iter().zip(0..).map(|((provider, lines), index)| {
        format!("[credentials.c{index}]\nprovider = \"{provider}\"\n{lines}\n")
    });
    let mut text = credentials.collect::<Vec<_>>().concat();
    text += "[[routes]]\nupstream = \"https://vmc.example.com\"\ncredential = \"c1\"\n\
             header = \"csp-auth-token\"\nscheme = \"\"\n";
    let config = moved_home(&text).unwrap_or_else(|told| panic!("{told}"));
    assert_eq!(config.credentials.len(), VENDORS.len());
}

#[test]
fn every_configuration_in_the_readme_is_valid() {
    let readme = include_str!("../../README.md");
    let mut providers = Vec::new();
    for block in readme.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        let config = moved_home(text).unwrap_or_else(|told| panic!("{text}\n{told}"));
        assert_eq!(config.warnings, Vec::<String>::new(), "{text}");
        providers.extend(config.credentials.into_iter().map(|credential| credential.provider));
    }
    for (provider, _) in VENDORS {
        assert!(providers.iter().any(|shown| shown == provider), "no sample for {provider}");
    }
}

#[test]
fn the_configurations_in_the_kubernetes_manifests_are_valid() {
    for manifest in [
        include_str!("../../deploy/kubernetes/sidecar.yaml"),
        include_str!("../../deploy/kubernetes/rotating.yaml"),
        include_str!("../../deploy/kubernetes/legacy.yaml"),
        include_str!("../../deploy/kubernetes/job.yaml"),
    ] {
        let after = manifest.split("bearerd.toml: |\n").nth(1).expect("a configuration");
        let lines = after.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
        let config = moved_home(&lines.map(str::trim_start).collect::<Vec<_>>().join("\n"));
        let config = config.unwrap_or_else(|told| panic!("{told}"));
        assert_eq!(config.warnings, Vec::<String>::new());
    }
}

/// Loads `text` with every absolute path moved into a home where it exists.
fn moved_home(text: &str) -> Result<Config, String> {
    let home = Home::new();
    home.load(&home.with_paths_of(text))
}
