//! The anchors of an HTML page, for indexes that only speak PEP 503: a small reader of tags, not a parser of HTML.
//!
//! It reads `<a>` and `<base>` with their attributes and the text up to `</a>`; comments and scripts are skipped.

/// An anchor: its attributes with entities decoded, and its text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    pub href: String,
    pub text: String,
    /// `data-*` attributes, by lower-case name; a missing value is empty.
    pub data: Vec<(String, String)>,
}

/// What a page holds for us.
#[derive(Debug, Default)]
pub struct Document {
    pub base: Option<String>,
    pub anchors: Vec<Anchor>,
    /// Whether the page calls itself an index: a `repository-version` in its head, or a title "Links for …".
    pub says_index: bool,
}

/// Reads a page. It never fails: what is not understood is text.
pub fn read(page: &str) -> Document {
    let mut document = Document {
        says_index: page.contains("repository-version") || page.contains("Links for"),
        ..Document::default()
    };
    let mut rest = page;
    let mut open: Option<Anchor> = None;
    let mut broken = 0;
    while let Some(at) = rest.find('<') {
        if let Some(anchor) = &mut open {
            anchor.text.push_str(&decode(&rest[..at]));
        }
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.find("-->").map_or("", |end| &after[end + 3..]);
            continue;
        }
        let Some(tag) = Tag::read(rest) else {
            broken += 1;
            if broken > MOST_BROKEN {
                break;
            }
            rest = &rest[1..];
            continue;
        };
        rest = &rest[tag.length..];
        match tag.name.as_str() {
            "a" => {
                document.anchors.extend(open.take());
                let mut anchor = Anchor::default();
                for (name, value) in tag.attributes {
                    if name == "href" {
                        anchor.href = value;
                    } else if name.starts_with("data-") {
                        anchor.data.push((name, value));
                    }
                }
                open = Some(anchor);
            }
            "/a" => document.anchors.extend(open.take()),
            "base" if document.base.is_none() => {
                document.base = tag
                    .attributes
                    .into_iter()
                    .find(|(name, _)| name == "href")
                    .map(|(_, value)| value);
            }
            "script" | "style" => {
                let end = format!("</{}", tag.name);
                let is_end = |at: &usize| {
                    let there = rest.as_bytes().get(*at..at + end.len());
                    there.is_some_and(|there| there.eq_ignore_ascii_case(end.as_bytes()))
                };
                let mut ends = rest.match_indices("</").map(|(at, _)| at);
                rest = ends.find(is_end).map_or("", |at| &rest[at..]);
            }
            _ => {}
        }
    }
    document.anchors.extend(open);
    for anchor in &mut document.anchors {
        anchor.text = anchor.text.trim().to_owned();
    }
    document
}

/// The longest tag that is read, in bytes. Those of real pages have a few hundred.
const LONGEST_TAG: usize = 4 << 10;

/// The most `<` that begin no tag; after more, the rest of the page says nothing.
const MOST_BROKEN: usize = 1_000;

struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
    /// In bytes, both angle brackets included.
    length: usize,
}

impl Tag {
    fn read(text: &str) -> Option<Self> {
        // A tag that does not end is text, and looked for again behind its bracket: not to the end of the page each time.
        let text = &text[..text.floor_char_boundary(LONGEST_TAG)];
        let bytes = text.as_bytes();
        let mut at = 1;
        let name_end = at
            + bytes[at..]
                .iter()
                .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'/'))?;
        let name = text[at..name_end].to_ascii_lowercase();
        if name.is_empty() {
            return None;
        }
        at = name_end;
        let mut attributes = Vec::new();
        loop {
            at += bytes[at..]
                .iter()
                .position(|byte| !byte.is_ascii_whitespace() && *byte != b'/')?;
            if bytes[at] == b'>' {
                return Some(Self {
                    name,
                    attributes,
                    length: at + 1,
                });
            }
            let end = at
                + bytes[at..]
                    .iter()
                    .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/'))?;
            let key = text.get(at..end.max(at + 1))?.to_ascii_lowercase();
            at = end.max(at + 1);
            let spaces = bytes[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace())
                .count();
            if bytes.get(at + spaces) != Some(&b'=') {
                attributes.push((key, String::new()));
                continue;
            }
            at += spaces + 1;
            at += bytes[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace())
                .count();
            let value = match *bytes.get(at)? {
                quote @ (b'"' | b'\'') => {
                    let start = at + 1;
                    let end = start + bytes[start..].iter().position(|byte| *byte == quote)?;
                    at = end + 1;
                    &text[start..end]
                }
                _ => {
                    let end = at
                        + bytes[at..]
                            .iter()
                            .position(|byte| byte.is_ascii_whitespace() || *byte == b'>')?;
                    let value = &text[at..end];
                    at = end;
                    value
                }
            };
            attributes.push((key, decode(value)));
        }
    }
}

/// Decodes the entities that index pages use; others stay as they are.
fn decode(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let near = &rest.as_bytes()[..rest.len().min(11)];
        let entity = near
            .iter()
            .position(|byte| *byte == b';')
            .map(|end| &rest[1..end]);
        let character = entity.and_then(|entity| match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some(' '),
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)
            }
        });
        match (character, entity) {
            (Some(character), Some(entity)) => {
                decoded.push(character);
                rest = &rest[entity.len() + 2..];
            }
            _ => {
                decoded.push('&');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_read_as_browsers_read_them() {
        let page = r##"<!DOCTYPE html><html><head><base href='https://h.example/'/><title>Links for a</title></head>
            <!-- <a href="commented">x</a> --><script>"<a href='no'>"</script>
            <A HREF="a-1.tar.gz#sha256=00" data-requires-python="&gt;=3.8,&#60;4" data-yanked>a-1.tar.gz</A><br/>
            <a href=a-2.whl data-core-metadata="sha256=11" > a-2.whl </a><a href="x" 1 < 2"##;
        let document = read(page);
        assert_eq!(document.base.as_deref(), Some("https://h.example/"));
        assert!(document.says_index);
        assert_eq!(document.anchors.len(), 2);
        let first = &document.anchors[0];
        assert_eq!(
            (first.href.as_str(), first.text.as_str()),
            ("a-1.tar.gz#sha256=00", "a-1.tar.gz")
        );
        assert_eq!(first.data[0], ("data-requires-python".into(), ">=3.8,<4".into()));
        assert_eq!(first.data[1], ("data-yanked".into(), String::new()));
        assert_eq!(document.anchors[1].href, "a-2.whl");
        assert_eq!(document.anchors[1].text, "a-2.whl");
    }

    #[test]
    fn pages_that_open_and_never_close_are_read_once() {
        for part in [
            "<a ",
            "<a href=\"",
            "<",
            "&",
            "<a>&",
            "<script></script>",
            "<style>",
            "<!--",
            "</",
            "<a href='x'",
            "<script></é",
        ] {
            read(&part.repeat(200_000 / part.len()));
        }
    }
}
