//! Configurations.

use bearerd::config::{Problem, parse};

use super::assert_tellable;

/// A configuration that can be run, or mistakes that say where they are and quote no secret.
pub fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    match parse(text) {
        Ok(config) => {
            assert!(!config.server.listen.is_empty());
            assert_eq!(config.in_order_of_chains().len(), config.credentials.len());
            for route in &config.routes {
                let known = config.credentials.iter().any(|c| c.name == route.credential);
                assert!(known && route.path_prefix.starts_with('/'));
            }
            config.warnings.iter().for_each(|warning| assert_tellable(warning));
            let _ = (config.files(), config.shaping_files().count());
            true
        }
        Err(problems) => check_problems(text, &problems),
    }
}

pub(crate) fn check_problems(text: &str, problems: &[Problem]) -> bool {
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(problem.line <= text.lines().count() + 1, "{problem}");
        assert_tellable(&problem.to_string());
    }
    false
}
