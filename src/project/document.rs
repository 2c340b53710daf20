//! A TOML document read key by key, each with its place; what is wrong is noted and reading goes on.
//!
//! Takes text within [`reading`](super::reading)'s limits. Gives typed values. Knows no key by name: `pyproject` and `config` do.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::mistake::{Mistake, Rule};
use super::place::{Place, SourceText};

/// The deepest nesting of brackets that is handed to the parser. Real documents nest under ten.
const DEEPEST: usize = 64;

/// Parses `source`. Syntax errors and duplicate keys are noted with line and column, several at once.
pub fn parse<'a>(source: &'a Arc<SourceText>, mistakes: &mut Vec<Mistake>) -> Option<Spanned<DeTable<'a>>> {
    if let Some(at) = too_deep(&source.text) {
        mistakes.push(Mistake::new(Rule::TomlTooDeep { limit: DEEPEST }).at(source.place(at..at + 1)));
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    if errors.is_empty() {
        return Some(table);
    }
    for error in errors.iter().take(20) {
        let span = error.span().unwrap_or(0..0);
        let message = error
            .message()
            .lines()
            .next()
            .unwrap_or("invalid TOML")
            .to_owned();
        mistakes.push(Mistake::new(Rule::Toml { message }).at(source.place(span)));
    }
    None
}

/// Where the text nests deeper than the limit, if it does: the parser must not find out with its stack. Dotted keys nest too.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut dots, mut at) = (0usize, 0usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'#' => {
                at += bytes[at..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .unwrap_or(bytes.len() - at)
            }
            quote @ (b'"' | b'\'') => at = string_end(bytes, at, quote),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'.' => dots += 1,
            b'=' | b'\n' | b',' => dots = 0,
            _ => {}
        }
        if depth > DEEPEST || dots > DEEPEST {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// The index of the last byte of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if triple { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !triple => return at,
            byte if byte == quote && !triple => return at,
            byte if byte == quote && bytes[at..].starts_with(&[quote; 3]) => return at + 2,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    pub value: T,
    pub place: Place,
}

/// One table of a document, with the keys that were asked for.
pub struct Table<'a> {
    source: &'a Arc<SourceText>,
    /// As people write it: `[project]`, `[tool.uv]`, or the file's name for the root.
    name: String,
    entries: &'a DeTable<'a>,
    place: Place,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    pub fn root(source: &'a Arc<SourceText>, document: &'a Spanned<DeTable<'a>>) -> Self {
        Self {
            source,
            name: source.path.display().to_string(),
            entries: document.get_ref(),
            place: source.place(0..0),
            known: RefCell::default(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    fn at(&self, span: Range<usize>) -> Place {
        self.source.place(span)
    }

    /// The value of `key`, which becomes a known key.
    pub fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key);
        self.entries.get(key)
    }

    /// Keys and values in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = (Placed<&'a str>, &'a Spanned<DeValue<'a>>)> {
        let source = self.source;
        self.entries.iter().map(move |(key, value)| {
            let place = source.place(key.span());
            let value_of_key: &'a str = key.get_ref();
            (
                Placed {
                    value: value_of_key,
                    place,
                },
                value,
            )
        })
    }

    /// The table at `key`, named `name` in messages.
    pub fn table(&self, key: &'static str, name: &str, mistakes: &mut Vec<Mistake>) -> Option<Self> {
        let value = self.value(key)?;
        self.as_table(key, name, value, mistakes)
    }

    pub fn as_table(
        &self,
        key: &str,
        name: &str,
        value: &'a Spanned<DeValue<'a>>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(entries) => Some(Self {
                source: self.source,
                name: name.to_owned(),
                entries,
                place: self.at(value.span()),
                known: RefCell::default(),
            }),
            _ => {
                mistakes.push(self.wrong_type(key, "a table", value));
                None
            }
        }
    }

    pub fn string(&self, key: &'static str, mistakes: &mut Vec<Mistake>) -> Option<Placed<String>> {
        let value = self.value(key)?;
        self.as_string(key, value, mistakes)
    }

    pub fn as_string(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Placed<String>> {
        match value.get_ref().as_str() {
            Some(text) => Some(Placed {
                value: text.to_owned(),
                place: self.at(value.span()),
            }),
            None => {
                mistakes.push(self.wrong_type(key, "a string", value));
                None
            }
        }
    }

    pub fn boolean(&self, key: &'static str, mistakes: &mut Vec<Mistake>) -> Option<bool> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            mistakes.push(self.wrong_type(key, "true or false", value));
        }
        found
    }

    pub fn array(&self, key: &'static str, mistakes: &mut Vec<Mistake>) -> Option<&'a DeArray<'a>> {
        let value = self.value(key)?;
        let found = value.get_ref().as_array();
        if found.is_none() {
            mistakes.push(self.wrong_type(key, "a list", value));
        }
        found
    }

    /// A list of strings; what is not a string in it is noted and skipped.
    pub fn strings(&self, key: &'static str, mistakes: &mut Vec<Mistake>) -> Vec<Placed<String>> {
        let Some(array) = self.array(key, mistakes) else {
            return Vec::new();
        };
        array
            .iter()
            .filter_map(|value| self.as_string(key, value, mistakes))
            .collect()
    }

    /// Notes each key that was never asked for.
    pub fn finish(&self, mistakes: &mut Vec<Mistake>) {
        let known = self.known.borrow();
        for (key, _) in self.entries() {
            if !known.contains(key.value) {
                let rule = Rule::UnknownKey {
                    key: key.value.to_owned(),
                    table: self.name.clone(),
                    known: known.iter().map(|key| (*key).to_owned()).collect(),
                };
                mistakes.push(Mistake::new(rule).at(key.place));
            }
        }
    }

    pub fn wrong_type(&self, key: &str, expected: &str, value: &Spanned<DeValue<'_>>) -> Mistake {
        Mistake::new(Rule::WrongType {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: kind(value.get_ref()).to_owned(),
        })
        .at(self.at(value.span()))
    }

    pub fn place_of(&self, value: &Spanned<DeValue<'_>>) -> Place {
        self.at(value.span())
    }

    pub fn source(&self) -> &'a Arc<SourceText> {
        self.source
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The value as JSON; dates become strings. `None` for an integer or number that JSON cannot hold (infinity, 2^64).
pub fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::from(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => serde_json::Number::from_f64(number.as_str().parse().ok()?)?.into(),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(items) => items
            .iter()
            .map(|item| json(item.get_ref()))
            .collect::<Option<_>>()?,
        DeValue::Table(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, value)| Some((key.get_ref().to_string(), json(value.get_ref())?)))
                .collect::<Option<_>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_mistake(text: &str) -> String {
        let source = SourceText::new("p.toml", text);
        let mut mistakes = Vec::new();
        assert!(parse(&source, &mut mistakes).is_none());
        mistakes[0].to_string()
    }

    #[test]
    fn mistakes_have_line_and_column() {
        assert!(first_mistake("a = 1\na = 2\n").starts_with("p.toml:2:1: duplicate key"));
        assert!(first_mistake("a = 1\nb = \n").starts_with("p.toml:2:"));
    }

    #[test]
    fn depth_is_bounded_before_parsing() {
        let brackets = format!("a = {}", "[".repeat(100_000));
        assert!(first_mistake(&brackets).contains("p.toml:1:69: brackets nest deeper"));
        let dots = format!("{}a = 1", "a.".repeat(100_000));
        assert!(first_mistake(&dots).contains("nest deeper"));
        let tables = format!("[{}a]", "a.".repeat(100_000));
        assert!(first_mistake(&tables).contains("nest deeper"));
        let harmless = format!("a = \"{0}\" # {0}\nb = '''\n{0}'''\n", "[".repeat(1000));
        let source = SourceText::new("p.toml", harmless);
        assert!(parse(&source, &mut Vec::new()).is_some());
    }
}
