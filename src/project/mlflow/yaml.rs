//! MLflow's YAML files as trees with places: MLmodel, conda.yaml, python_env.yaml.
//!
//! Takes text within [`reading`](crate::project::reading)'s limits, possibly hostile. Gives one tree, or the first mistake. A tag makes
//! nothing: values are text, lists and maps. An alias is taken for a copy of what it names, and copies count: a few lines that stand for a
//! billion are refused where they pass the limit, and nesting before anybody's stack meets it.
//!
//! Source: YAML 1.2.2, chapters 6 to 8. What text means (null, a number) is the reader's affair, for PyYAML writes by YAML 1.1.

use std::collections::BTreeMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::project::mistake::{Mistake, Rule};
use crate::project::place::{Place, SourceText};

/// The deepest nesting. What MLflow writes nests under ten.
const DEEPEST: usize = 32;
/// The most values in one file, copies included. A signature of ten thousand columns is one value: a text of JSON.
const MOST: usize = 20_000;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Yaml {
    pub kind: Kind,
    pub place: Place,
    /// How many values it holds, itself included.
    size: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing, `~` or `null`, not in quotes.
    Null,
    Text(String),
    List(Vec<Yaml>),
    /// In the order of the file; no key twice.
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    /// The value at `key` of a map; `None` where there is none, or it is null.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        let (_, found) = entries.iter().find(|(name, _)| name == key)?;
        (found.kind != Kind::Null).then_some(found)
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The text at `key`; `None` where there is none. Anything but a text is a mistake.
    pub fn text_at(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<&str> {
        let found = self.get(key)?;
        if found.text().is_none() {
            mistakes.push(found.wrong_type(key, "a text"));
        }
        found.text()
    }

    /// The map at `key`; `None` where there is none. Anything but a map is a mistake.
    pub fn map_at(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<&Self> {
        let found = self.get(key)?;
        if !matches!(found.kind, Kind::Map(_)) {
            mistakes.push(found.wrong_type(key, "a mapping"));
            return None;
        }
        Some(found)
    }

    pub fn wrong_type(&self, key: &str, expected: &str) -> Mistake {
        let found = match &self.kind {
            Kind::Null => "nothing",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        };
        let rule = Rule::WrongType {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        Mistake::new(rule).at(self.place.clone())
    }
}

/// Reads the one document of `source`.
pub fn parse(source: &Arc<SourceText>) -> Result<Yaml, Mistake> {
    let lines = Lines::new(source);
    let mut builder = Builder {
        open: Vec::new(),
        anchors: BTreeMap::new(),
        values: 0,
        root: None,
    };
    for event in Parser::new_from_str(&source.text) {
        let (event, span) = event.map_err(|error| {
            let place = lines.place(error.marker());
            // The parser looks ahead, to where its own limit is, before it tells of the first level.
            if error.info().contains("recursion limit") {
                return too_deep(place);
            }
            broken(error.info(), place)
        })?;
        let place = lines.place(&span.start);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if is_null {
                    Kind::Null
                } else {
                    Kind::Text(text.into_owned())
                };
                builder.put(kind, 1, anchor, place)?;
            }
            Event::SequenceStart(anchor, _) => builder.start(Kind::List(Vec::new()), anchor, place)?,
            Event::MappingStart(anchor, _) => builder.start(Kind::Map(Vec::new()), anchor, place)?,
            Event::SequenceEnd | Event::MappingEnd => builder.end()?,
            Event::Alias(anchor) => {
                let Some(copy) = builder.anchors.get(&anchor).cloned() else {
                    return Err(broken("an alias names what it stands in", place));
                };
                builder.put(copy.kind, copy.size, 0, place)?;
            }
            Event::DocumentStart(_) if builder.root.is_some() => {
                return Err(broken("a second document begins", place));
            }
            _ => {}
        }
    }
    builder
        .root
        .ok_or_else(|| broken("the file is empty", source.place(0..0)))
}

fn too_deep(place: Place) -> Mistake {
    let rule = Rule::YamlLimit {
        what: "levels of nesting".to_owned(),
        limit: DEEPEST,
    };
    Mistake::new(rule).at(place)
}

fn broken(message: &str, place: Place) -> Mistake {
    let message = message.to_owned();
    Mistake::new(Rule::Yaml { message }).at(place)
}

/// A list or a map that is being read.
struct Open {
    kind: Kind,
    /// The key that waits for its value.
    key: Option<String>,
    anchor: usize,
    place: Place,
    size: usize,
}

struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Yaml>,
    values: usize,
    root: Option<Yaml>,
}

impl Builder {
    fn start(&mut self, kind: Kind, anchor: usize, place: Place) -> Result<(), Mistake> {
        if self.open.len() >= DEEPEST {
            return Err(too_deep(place));
        }
        if let Some(open) = self.open.last()
            && matches!(open.kind, Kind::Map(_))
            && open.key.is_none()
        {
            return Err(broken("a key is a list or a mapping", place));
        }
        self.open.push(Open {
            kind,
            key: None,
            anchor,
            place,
            size: 1,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        match self.open.pop() {
            // What is in it was counted when it was read.
            Some(open) => {
                self.values -= open.size - 1;
                self.put(open.kind, open.size, open.anchor, open.place)
            }
            None => Ok(()),
        }
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, kind: Kind, size: usize, anchor: usize, place: Place) -> Result<(), Mistake> {
        self.values += size;
        if self.values > MOST {
            let rule = Rule::YamlLimit {
                what: "values".to_owned(),
                limit: MOST,
            };
            return Err(Mistake::new(rule).at(place));
        }
        let value = Yaml { kind, place, size };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        open.size += size;
        match (&mut open.kind, open.key.take()) {
            (Kind::List(items), _) => items.push(value),
            (Kind::Map(entries), Some(key)) => entries.push((key, value)),
            (Kind::Map(entries), None) => {
                let key = match value.kind {
                    Kind::Text(text) => text,
                    Kind::Null => String::new(),
                    Kind::List(_) | Kind::Map(_) => {
                        return Err(broken("a key is a list or a mapping", value.place));
                    }
                };
                if entries.iter().any(|(known, _)| *known == key) {
                    let message = format!("the key `{}` is there twice", key.escape_debug());
                    return Err(broken(&message, value.place));
                }
                open.key = Some(key);
            }
            (Kind::Null | Kind::Text(_), _) => {}
        }
        Ok(())
    }
}

/// From the parser's lines and columns, in characters, to bytes.
struct Lines<'a> {
    source: &'a Arc<SourceText>,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(source: &'a Arc<SourceText>) -> Self {
        let breaks = source.text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            source,
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    fn place(&self, marker: &Marker) -> Place {
        let line = marker.line().saturating_sub(1).min(self.starts.len() - 1);
        let start = self.starts[line];
        let text = self.source.text[start..].lines().next().unwrap_or_default();
        let at = text
            .char_indices()
            .nth(marker.col())
            .map_or(text.len(), |(at, _)| at);
        let end = if at < text.len() {
            text.trim_end().len().max(at + 1)
        } else {
            at
        };
        self.source.place(start + at..start + end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Yaml, String> {
        parse(&SourceText::new("MLmodel", text)).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn what_mlflow_writes_is_read_with_places() {
        let text = "flavors:\n  sklearn:\n    code: null\n    pickled_model: model.pkl\nsignature:\n  inputs: '[{\"a\": 1,\n    \"b\": 2}]'\n- x\n";
        assert!(read(text).is_err());
        let root = read(&text.replace("- x\n", "tags: &a [x, \"null\"]\nmore: *a\n")).unwrap();
        let sklearn = root
            .get("flavors")
            .and_then(|flavors| flavors.get("sklearn"))
            .unwrap();
        assert_eq!(sklearn.get("code"), None);
        let file = sklearn.get("pickled_model").unwrap();
        assert_eq!(
            (file.text(), file.place.to_string()),
            (Some("model.pkl"), "MLmodel:4:20".to_owned())
        );
        let inputs = root
            .get("signature")
            .and_then(|signature| signature.get("inputs"))
            .unwrap();
        assert_eq!(inputs.text(), Some("[{\"a\": 1, \"b\": 2}]"));
        let texts: Vec<_> = root.get("more").unwrap().items().iter().map(Yaml::text).collect();
        assert_eq!(texts, [Some("x"), Some("null")]);
    }

    #[test]
    fn hostile_files_end_at_a_limit() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for at in 1..12 {
            let alias = format!("*a{}", at - 1);
            bomb.push_str(&format!("a{at}: &a{at} [{}]\n", vec![alias; 10].join(", ")));
        }
        let cases = [
            (bomb, "more than 20000 values"),
            (
                format!("a: {}", "[".repeat(100_000)),
                "more than 32 levels of nesting",
            ),
            ("- ".repeat(100_000), "more than 32 levels of nesting"),
            (
                format!("a: {}", "{b: ".repeat(50_000)),
                "more than 32 levels of nesting",
            ),
            (format!("a: [{}]", "x, ".repeat(30_000)), "more than 20000 values"),
            ("a: &a [*a]".to_owned(), "an alias names what it stands in"),
            ("a: *b".to_owned(), "MLmodel:1:"),
            ("a: 1\na: 2".to_owned(), "the key `a` is there twice"),
            ("? [a]\n: 1".to_owned(), "a key is a list or a mapping"),
            ("a: 1\n---\nb: 2".to_owned(), "a second document begins"),
            (String::new(), "the file is empty"),
            ("a: 'x".to_owned(), "MLmodel:1:"),
        ];
        for (text, expected) in cases {
            let found = read(&text).unwrap_err();
            let head: String = text.chars().take(20).collect();
            assert!(found.contains(expected), "{head}: {found}");
        }
    }

    #[test]
    fn a_tag_makes_nothing() {
        let root = read("a: !!python/object/apply:os.system [\"true\"]").unwrap();
        assert_eq!(root.get("a").unwrap().items().len(), 1);
    }
}
