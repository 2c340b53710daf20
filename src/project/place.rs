//! Where something stands in a project's text: file, line, column, and the text itself for an excerpt.
//!
//! Owns the texts that were read (shared, never copied). Knows nothing of TOML or Python.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One text file of the project, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Relative to the project's folder, with `/` between folders.
    pub path: PathBuf,
    pub text: String,
}

impl SourceText {
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            path: path.into(),
            text: text.into(),
        })
    }

    /// The place of the bytes `range`, clamped to the text.
    pub fn place(self: &Arc<Self>, range: Range<usize>) -> Place {
        let end = floor_boundary(&self.text, range.end);
        let start = floor_boundary(&self.text, range.start.min(end));
        Place {
            source: self.clone(),
            range: start..end,
        }
    }
}

/// The largest character boundary that is not after `offset`.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A stretch of one file's text. Shown as `src/churn/data.py:12:5`.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    source: Arc<SourceText>,
    range: Range<usize>,
}

impl Place {
    /// The file, relative to the project's folder.
    pub fn file(&self) -> &Path {
        &self.source.path
    }

    /// The whole text of the file.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    pub fn source(&self) -> &Arc<SourceText> {
        &self.source
    }

    /// Bytes of [`Place::text`].
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// What places are sorted by: the file, then where in it.
    pub fn order(&self) -> (&Path, usize) {
        (self.file(), self.range.start)
    }

    /// Counted from 1.
    pub fn line(&self) -> usize {
        let before = &self.source.text.as_bytes()[..self.range.start];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Counted from 1, in characters.
    pub fn column(&self) -> usize {
        let before = &self.source.text[..self.range.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        before[line_start..].chars().count() + 1
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}:{}",
            self.file().display(),
            self.line(),
            self.column()
        )
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl serde::Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut place = serializer.serialize_struct("Place", 3)?;
        place.serialize_field("file", &self.file().to_string_lossy())?;
        place.serialize_field("line", &self.line())?;
        place.serialize_field("column", &self.column())?;
        place.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let source = SourceText::new("a.py", "x = 1\nß = f(y)\n");
        let at = source.text.find("f(y)").unwrap();
        assert_eq!(source.place(at..at + 4).to_string(), "a.py:2:5");
        assert_eq!(source.place(900..901).to_string(), "a.py:3:1");
    }
}
