//! The lines of files, read without a TOML parser.
//!
//! Nine tenths of a lock are lines like `    { upload-time = …, url = "…", size = …, hashes = { sha256 = "…" } },`, as
//! `write` writes them and no other way. They are lifted out of the text; what remains is TOML for the parser. Whatever is
//! not exactly of that form, in a place where it is surely an entry of a package's `wheels`, lifts nothing at all, and the
//! parser reads the whole. So this is a short cut and never another reading: `tests` holds the two against each other.

use super::read::RawFile;

/// A text without the lists of wheels that were lifted, and those lists: one per `[[packages]]`, in their order.
pub(super) struct Lifted {
    pub rest: String,
    pub wheels: Vec<Option<Vec<RawFile>>>,
}

const HEADER: &str = "[[packages]]";

/// `None` where the text is not of the writer's form.
pub(super) fn lift(text: &str) -> Option<Lifted> {
    // Inside of a text of several lines, a line is not what it looks like.
    if text.contains("\"\"\"") || text.contains("'''") || text.contains('\r') {
        return None;
    }
    let mut lifted = Lifted {
        rest: String::with_capacity(text.len() / 4),
        wheels: Vec::new(),
    };
    let mut in_package = false;
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if line.starts_with('[') {
            in_package = line.trim_end() == HEADER;
            if in_package {
                lifted.wheels.push(None);
            }
        }
        if line != "wheels = [\n" {
            lifted.rest.push_str(line);
            continue;
        }
        let slot = lifted
            .wheels
            .last_mut()
            .filter(|slot| in_package && slot.is_none())?;
        let mut files = Vec::new();
        loop {
            match lines.next()? {
                "]\n" => break,
                entry => files.push(file(entry)?),
            }
        }
        *slot = Some(files);
    }
    Some(lifted)
}

/// One line of the list, with its comma and its end.
fn file(line: &str) -> Option<RawFile> {
    let mut rest = line.strip_prefix("    { ")?;
    let mut file = RawFile::default();
    if let Some(after) = rest.strip_prefix("name = ") {
        (file.name, rest) = text(after).map(|(value, rest)| (Some(value), rest))?;
        rest = rest.strip_prefix(", ")?;
    }
    if let Some(after) = rest.strip_prefix("upload-time = ") {
        let (time, after) = after.split_once(", ")?;
        file.upload_time = Some(time.parse().ok().filter(|_| is_toml_time(time))?);
        rest = after;
    }
    let place = if let Some(after) = rest.strip_prefix("url = ") {
        rest = after;
        &mut file.url
    } else {
        rest = rest.strip_prefix("path = ")?;
        &mut file.path
    };
    let (value, after) = text(rest)?;
    *place = Some(value);
    rest = after.strip_prefix(", ")?;
    if let Some(after) = rest.strip_prefix("size = ") {
        let (size, after) = after.split_once(", ")?;
        let plain = size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        // What TOML's integers hold.
        file.size = Some(
            size.parse()
                .ok()
                .filter(|size| plain && *size <= i64::MAX as u64)?,
        );
        rest = after;
    }
    let (hex, after) = text(rest.strip_prefix("hashes = { sha256 = ")?)?;
    file.hashes.sha256 = Some(toml::Value::String(hex));
    (after == " } },\n").then_some(file)
}

/// `2026-07-01T17:11:54Z`, with or without a fraction: what the writer writes, and TOML reads as well.
fn is_toml_time(time: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let Some(time) = time.strip_suffix('Z') else {
        return false;
    };
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    whole.len() == SHAPE.len()
        && digits(fraction)
        && whole.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

/// A basic string without escapes, and what follows it.
fn text(rest: &str) -> Option<(String, &str)> {
    let (value, rest) = rest.strip_prefix('"')?.split_once('"')?;
    let plain = !value.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control());
    plain.then(|| (value.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "    { upload-time = 2026-07-01T17:11:54.055058Z, url = \"https://h.example/a-1.0-py3-none-any.whl\", \
        size = 15042, hashes = { sha256 = \"0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f\" } },\n";

    #[test]
    fn a_line_of_the_writers_is_what_the_parser_reads() {
        let check = |line: &str| {
            let toml = format!("file = {}", line.trim().trim_end_matches(','));
            let mut parsed: std::collections::BTreeMap<String, RawFile> = toml::from_str(&toml).unwrap();
            assert_eq!(file(line), parsed.remove("file"), "{line}");
        };
        check(LINE);
        check(&LINE.replace("size = 15042, ", ""));
        check(&LINE.replace("{ upload", "{ name = \"b.whl\", upload"));
        check(&LINE.replace("url = \"https://h.example/", "path = \"wheels/"));
        check(&LINE.replace("    { upload-time = 2026-07-01T17:11:54.055058Z, ", "    { "));
    }

    #[test]
    fn what_is_written_otherwise_is_the_parsers() {
        let refused = |line: &str| assert_eq!(file(line), None, "{line}");
        refused(&LINE.replace("size", " size"));
        refused(&LINE.replace(":54.055058Z", "Z"));
        refused(&LINE.replace("T17", " 17"));
        refused(&LINE.replace("15042", "1_5042"));
        refused(&LINE.replace("15042", "015042"));
        refused(&LINE.replace("15042", "9223372036854775808"));
        refused(&LINE.replace("h.example", "h\\u002eexample"));
        refused(&LINE.replace("} }", "}, size = 1 }"));
        refused(&LINE.replace("},\n", "}\n"));
        refused(&LINE.replace(
            "url = ",
            "url = \"https://h.example/b-1.0-py3-none-any.whl\", url = ",
        ));
        let lifts = |text: &str| lift(text).is_some();
        let package = format!("[[packages]]\nname = \"a\"\nwheels = [\n{LINE}]\n");
        assert!(lifts(&package));
        assert!(!lifts(&format!("wheels = [\n{LINE}]\n")));
        assert!(!lifts(&format!(
            "[[packages]]\n[packages.tool.x]\nwheels = [\n{LINE}]\n"
        )));
        assert!(!lifts(&format!("{package}wheels = [\n{LINE}]\n")));
        assert!(!lifts(&format!("x = '''\n{package}'''\n")));
        assert!(!lifts(&package.replace("]\n", "# no more\n]\n")));
        assert!(!lifts(&package.trim_end().replace(']', "")));
    }
}
