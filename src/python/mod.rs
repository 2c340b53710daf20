//! Python's vocabulary: targets and their tags, requirements, metadata, wheels. No I/O, and no other room is imported.

pub mod archive;
pub mod entry_point;
pub(crate) mod marker_size;
pub mod metadata;
pub mod record;
pub mod requirement;
pub mod target;
pub mod wheel;

/// The file name that a URL ends in, percent-decoded once; `None` if that is no plain file name. A name that is still
/// encoded after one decoding (`..%252f`) is not plain.
pub fn file_name_of(url: &url::Url) -> Option<String> {
    let last = url.path_segments()?.next_back()?;
    if !last.contains('%') {
        return is_plain_file_name(last).then(|| last.to_owned());
    }
    let mut bytes = Vec::with_capacity(last.len());
    let mut rest = last.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let digit = |at: usize| more.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (digit(0), digit(1)) {
            (Some(high), Some(low)) if first == b'%' => {
                bytes.push((high << 4 | low) as u8);
                rest = &more[2..];
            }
            _ => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|name| is_plain_file_name(name))
}

/// Whether `name` may name a distribution's file: ASCII letters, digits and `-_.+!`, not starting with a dot.
pub fn is_plain_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+!~".contains(&byte))
}
