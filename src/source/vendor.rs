//! The vendor dialects that are compiled in: one data file each, in the format that a user can
//! write too (`provider = "custom"`).

/// Name and text of every vendor dialect.
pub const ALL: [(&str, &str); 13] = [
    ("servicemax-max", include_str!("vendor/servicemax-max.toml")),
    ("vmware-csp", include_str!("vendor/vmware-csp.toml")),
    ("veeam-azure", include_str!("vendor/veeam-azure.toml")),
    ("tencent-ciam", include_str!("vendor/tencent-ciam.toml")),
    ("google-service-account", include_str!("vendor/google-service-account.toml")),
    ("google-impersonation", include_str!("vendor/google-impersonation.toml")),
    ("google-metadata", include_str!("vendor/google-metadata.toml")),
    ("azure-imds", include_str!("vendor/azure-imds.toml")),
    ("azure-app-service", include_str!("vendor/azure-app-service.toml")),
    ("vault", include_str!("vendor/vault.toml")),
    ("vault-identity", include_str!("vendor/vault-identity.toml")),
    ("github-app", include_str!("vendor/github-app.toml")),
    ("salesforce", include_str!("vendor/salesforce.toml")),
];

/// The text of the dialect called `name`.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
