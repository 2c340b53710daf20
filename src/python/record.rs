//! RECORD: a wheel's own list of its files, and the one that an installer leaves behind.
//!
//! Source: the "Recording installed projects" and "Binary distribution format" specifications (PEP 376, 427).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::Digest;

/// One line: a path, and the digest and size of what is there. RECORD itself has neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub path: String,
    pub digest: Option<Digest>,
    /// In bytes.
    pub size: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct RecordError {
    pub line: usize,
    pub rule: &'static str,
}

/// Parses a RECORD: CSV with `,` and `"`.
pub fn parse(text: &str) -> Result<Vec<Row>, RecordError> {
    let mut rows = Vec::new();
    for (index, line) in logical_lines(text).into_iter().enumerate() {
        let refuse = |rule| RecordError {
            line: index + 1,
            rule,
        };
        if line.is_empty() {
            continue;
        }
        let fields = fields(line).ok_or_else(|| refuse("a quote is not closed"))?;
        let [path, hash, size] = &fields[..] else {
            return Err(refuse("it has not three fields"));
        };
        let digest = match hash.split_once('=') {
            None if hash.is_empty() => None,
            Some(("sha256", value)) => Some(decode(value).ok_or_else(|| refuse("its sha256 is not one"))?),
            _ => return Err(refuse("its hash is not a sha256")),
        };
        let size = match size.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| refuse("its size is not a number"))?),
        };
        rows.push(Row {
            path: path.clone(),
            digest,
            size,
        });
    }
    Ok(rows)
}

fn decode(value: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

/// Lines, of which a quoted field may hold several.
fn logical_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => {
                lines.push(text[start..at].trim_end_matches('\r'));
                start = at + 1;
            }
            _ => {}
        }
    }
    lines.push(text[start..].trim_end_matches('\r'));
    lines
}

fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(mut quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            loop {
                let (part, after) = quoted.split_once('"')?;
                value.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        value.push('"');
                        quoted = more;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
            fields.push(value);
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            fields.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// Writes rows in the given order.
pub fn write(rows: &[Row]) -> String {
    let mut text = String::with_capacity(rows.len() * 100);
    for row in rows {
        if row.path.contains([',', '"', '\n', '\r']) {
            let _ = write!(text, "\"{}\"", row.path.replace('"', "\"\""));
        } else {
            text.push_str(&row.path);
        }
        text.push(',');
        if let Some(digest) = &row.digest {
            text.push_str("sha256=");
            URL_SAFE_NO_PAD.encode_string(digest.bytes(), &mut text);
        }
        text.push(',');
        if let Some(size) = row.size {
            let _ = write!(text, "{size}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let row = |path: &str| Row {
            path: path.to_owned(),
            digest: Some(Digest::of(path.as_bytes())),
            size: Some(3),
        };
        let mut rows = vec![
            row("a/b.py"),
            row("with, comma.txt"),
            row("say \"x\".txt"),
            row("two\nlines"),
        ];
        rows.push(Row {
            path: "a-1.dist-info/RECORD".to_owned(),
            digest: None,
            size: None,
        });
        assert_eq!(parse(&write(&rows)), Ok(rows.clone()));
        assert_eq!(
            parse(&write(&rows).replace('\n', "\r\n").replace("two\r\n", "two\n")),
            Ok(rows)
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (text, rule) in [
            ("a,b", "three fields"),
            ("a,md5=xx,1", "not a sha256"),
            ("a,sha256=AAAA,1", "sha256 is not one"),
            ("a,,x", "not a number"),
            ("\"a,,", "not closed"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }
}
