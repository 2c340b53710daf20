//! Requirements and markers, parsed within limits: the text comes from indexes and project files.
//!
//! The grammar is `uv-pep508`'s, whose parser recurses on parentheses; a text that nests too deep or is too long is
//! refused before it gets there. Source: the dependency-specifiers specification (PEP 508).

pub use uv_pep508::VersionOrUrl;
use uv_pep508::{MarkerTree, Pep508Error, Pep508Url};

/// A PEP 508 requirement. A URL in it is kept as written: no variable in it is expanded.
pub type Requirement = uv_pep508::Requirement<url::Url>;

/// The longest requirement that is read. The longest real ones, with markers listing environments, are under 2 KB.
const LONGEST: usize = 16 << 10;
/// The deepest nesting of parentheses that is read.
const DEEPEST: usize = 64;

/// The largest decision diagram of a marker, in nodes.
const LARGEST: u64 = 1 << 16;

/// Text that is not a requirement or a marker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {reason}")]
pub struct InvalidRequirement {
    what: &'static str,
    text: String,
    reason: String,
}

/// Parses `name[extra] >=1 ; marker` or `name @ url`.
pub fn parse(text: &str) -> Result<Requirement, InvalidRequirement> {
    parse_limited("requirement", text)
}

/// Parses an environment marker, PEP 751's `extras` and `dependency_groups` included.
pub fn parse_marker(text: &str) -> Result<MarkerTree, InvalidRequirement> {
    parse_limited("marker", text)
}

fn parse_limited<T: std::str::FromStr<Err = Pep508Error<U>>, U: Pep508Url>(
    what: &'static str,
    text: &str,
) -> Result<T, InvalidRequirement> {
    let refuse = |reason: String| InvalidRequirement {
        what,
        text: text.chars().take(160).collect(),
        reason,
    };
    if text.len() > LONGEST {
        return Err(refuse(format!("it is longer than {LONGEST} bytes")));
    }
    let mut depth = 0usize;
    for byte in text.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(refuse(format!("its parentheses nest deeper than {DEEPEST}")));
        }
    }
    let size = super::marker_size::bound(text.split_once(';').map_or(text, |(_, marker)| marker));
    if size > LARGEST {
        return Err(refuse(
            "its marker joins too many extras, groups or `in`".to_owned(),
        ));
    }
    // Only the message: the error's own text has a caret below the input, and panics where that holds wide white space.
    text.parse::<T>().map_err(|error| {
        refuse(
            error
                .message
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    })
}

/// The versions a requirement admits; `None` if it names a URL or admits any.
pub fn version_specifiers(requirement: &Requirement) -> Option<&uv_pep440::VersionSpecifiers> {
    match &requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => Some(specifiers),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold() {
        assert!(parse("requests[security]>=2.8.1 ; python_version > '3.8'").is_ok());
        let deep = format!("a ; {}os_name == 'posix'{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(parse(&deep).unwrap_err().to_string().contains("nest deeper"));
        let long = format!("a ; {}", "os_name == 'posix' and ".repeat(10_000));
        assert!(parse(&long).unwrap_err().to_string().contains("longer than"));
        let pairs: Vec<String> = (0..40)
            .map(|at| format!("('{at}' in os_name and '{at}' in sys_platform)"))
            .collect();
        let wide = format!("a ; {}", pairs.join(" or "));
        assert!(parse(&wide).unwrap_err().to_string().contains("joins too many"));
        assert!(parse("a >> 1").is_err());
        assert!(parse("\u{2028}").is_err() && parse("a \u{3000}; \u{2028}").is_err());
        assert!(parse_marker("'dev' in dependency_groups").is_ok());
    }
}
