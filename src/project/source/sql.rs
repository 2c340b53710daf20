//! The `:name` parameters of a query, without understanding SQL: strings, quoted names, comments and `::casts` are stepped over.

use std::ops::Range;

/// Each parameter once, in order, with where it first stands.
pub fn parameters(text: &str) -> Vec<(String, Range<usize>)> {
    let bytes = text.as_bytes();
    let mut found: Vec<(String, Range<usize>)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match rest[0] {
            quote @ (b'\'' | b'"' | b'`') => at += quoted(rest, quote),
            b'-' if rest.starts_with(b"--") => at += until(rest, b"\n"),
            b'/' if rest.starts_with(b"/*") => at += until(rest, b"*/"),
            b'$' => at += dollar_quoted(text, at),
            b':' if rest.starts_with(b"::") || rest.starts_with(b":=") => at += 2,
            b':' => {
                let length = rest[1..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
                    .count();
                let name = &text[at + 1..at + 1 + length];
                // `12:30` and `a[1:n]` are not parameters; a parameter follows a space, a bracket or an operator.
                let follows_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
                let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                if is_name && !follows_word && !found.iter().any(|(seen, _)| seen == name) {
                    found.push((name.to_owned(), at..at + 1 + length));
                }
                at += 1 + length;
            }
            _ => at += 1,
        }
    }
    found
}

/// Length of the quoted text that `rest` starts with; a doubled quote stands for itself.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        if rest[at] == quote {
            if rest.get(at + 1) == Some(&quote) {
                at += 1;
            } else {
                return at + 1;
            }
        }
        at += 1;
    }
    rest.len()
}

/// Length up to and with `end`, or to the end of the text.
fn until(rest: &[u8], end: &[u8]) -> usize {
    rest.windows(end.len())
        .position(|window| window == end)
        .map_or(rest.len(), |at| at + end.len())
}

/// Length of PostgreSQL's `$tag$ … $tag$`, or 1.
fn dollar_quoted(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let Some(tag_end) = rest[1..].find('$').map(|end| end + 2) else {
        return 1;
    };
    let tag = &rest[..tag_end];
    if !tag[1..tag_end - 1]
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return 1;
    }
    rest[tag_end..].find(tag).map_or(1, |end| end + 2 * tag_end)
}

/// The query's tokens for a key: comments dropped, white space outside of quotes made one space.
pub fn normalized(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            quote @ (b'\'' | b'"' | b'`') => quoted(rest, quote),
            b'-' if rest.starts_with(b"--") => {
                at += until(rest, b"\n");
                shown.push(' ');
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                at += until(rest, b"*/");
                shown.push(' ');
                continue;
            }
            b'$' => dollar_quoted(text, at),
            byte if byte.is_ascii_whitespace() => {
                shown.push(' ');
                at += 1;
                continue;
            }
            _ => text[at..].chars().next().map_or(1, char::len_utf8),
        };
        shown.push_str(&text[at..at + length]);
        at += length;
    }
    let squeezed = squeeze(&shown);
    squeezed.trim().trim_end_matches(';').trim_end().to_owned()
}

/// Runs of spaces outside quotes become one.
fn squeeze(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let length = match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => quoted(&bytes[at..], quote),
            b'$' => dollar_quoted(text, at),
            b' ' if shown.ends_with(' ') => {
                at += 1;
                continue;
            }
            _ => text[at..].chars().next().map_or(1, char::len_utf8),
        };
        shown.push_str(&text[at..at + length]);
        at += length;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parameters(text).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn parameters_and_what_only_looks_like_them() {
        let query = "select a::date, ':no', \"x:y\" -- :comment\n from t /* :nor */ where b = :since and c in (:kinds) and d>:since and e = '12:30'";
        assert_eq!(names(query), ["since", "kinds"]);
        assert_eq!(names("select $$ :body $$, $t$ :x $t$, :real"), ["real"]);
        assert_eq!(names("select 'it''s :not' , :yes, 12:30"), ["yes"]);
    }

    #[test]
    fn layout_and_comments_leave_no_trace() {
        let one = "select a,  'b  c'\n-- why\nfrom t;\n";
        let other = "select a, 'b  c' /* other */ from t";
        assert_eq!(normalized(one), normalized(other));
        assert_ne!(normalized(one), normalized("select a, 'b c' from t"));
    }
}
