//! The vendor dialects that are compiled in: one data file each, in the format that a user can
//! write too (`provider = "custom"`).

/// Name and text of every vendor dialect.
pub const ALL: [(&str, &str); 4] = [
    ("servicemax-max", include_str!("vendor/servicemax-max.toml")),
    ("vmware-csp", include_str!("vendor/vmware-csp.toml")),
    ("veeam-azure", include_str!("vendor/veeam-azure.toml")),
    ("tencent-ciam", include_str!("vendor/tencent-ciam.toml")),
];

/// The text of the dialect called `name`.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
