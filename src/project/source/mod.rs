//! Facts read from Python source, never executed.
//!
//! Owns the parsed modules of the package. `graph` finds nodes and the cut, `imports` what serving needs, `keys` what a node's
//! value depends on, `names` which definitions a piece of code reaches.

pub mod constants;
pub mod cut;
pub mod distributions;
pub mod entry;
pub mod graph;
pub mod imports;
pub mod keys;
pub mod literal;
pub mod named;
pub mod names;
mod paths;
pub mod pickle;
pub mod reach;
pub mod schema;
pub mod sql;
pub mod stdlib;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruff_python_ast::token::TokenKind;
use ruff_python_ast::{ModModule, Stmt};
use ruff_python_parser::{Mode, Parsed, lexer, parse_unchecked_source};
use ruff_text_size::{Ranged, TextRange};

use super::mistake::{Mistake, Rule};
use super::place::{Place, SourceText};

/// The deepest nesting that is parsed, in operators, calls, brackets and blocks on one path. CPython's compiler gives up at about
/// as many, and 100 blocks; a tree of this depth can be walked and dropped on a thread's ordinary stack.
const DEEPEST: usize = 1000;
const DEEPEST_BLOCK: usize = 100;

/// One parsed module.
#[derive(Debug)]
pub struct Module {
    /// Dotted: `churn.features`.
    pub name: String,
    pub source: Arc<SourceText>,
    pub parsed: Parsed<ModModule>,
    /// Whether the file is an `__init__.py`.
    pub is_package: bool,
}

impl Module {
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    pub fn body(&self) -> &[Stmt] {
        &self.parsed.syntax().body
    }

    pub fn place(&self, ranged: impl Ranged) -> Place {
        let range: TextRange = ranged.range();
        self.source
            .place(range.start().to_usize()..range.end().to_usize())
    }

    pub fn text(&self, ranged: impl Ranged) -> &str {
        &self.source.text[ranged.range()]
    }

    /// The dotted name that a relative import of `level` dots starts from.
    /// Source: the language reference, "Package Relative Imports".
    pub fn relative_base(&self, level: u32) -> Option<String> {
        let mut parts: Vec<&str> = self.name.split('.').collect();
        let mut drop = level as usize;
        if self.is_package {
            drop = drop.saturating_sub(1);
        }
        if drop >= parts.len() && drop > 0 {
            return None;
        }
        parts.truncate(parts.len() - drop);
        Some(parts.join("."))
    }
}

/// The package's modules by dotted name.
#[derive(Debug, Default)]
pub struct Sources {
    modules: BTreeMap<String, Module>,
    /// The project's package; empty where there is none.
    root: String,
    /// Top-level names of the project: its package, or the modules that were saved with a model.
    own: BTreeSet<String>,
}

impl Sources {
    /// Parses `files`: module name, whether it is a package's `__init__`, text.
    pub fn parse(
        root: &str,
        files: Vec<(String, bool, Arc<SourceText>)>,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut modules = BTreeMap::new();
        for (name, is_package, source) in files {
            match parse(&source) {
                Ok(parsed) => {
                    let module = Module {
                        name: name.clone(),
                        source,
                        parsed,
                        is_package,
                    };
                    modules.insert(name, module);
                }
                Err(found) => mistakes.extend(found),
            }
        }
        Self {
            modules,
            root: root.to_owned(),
            own: BTreeSet::from([root.to_owned()]),
        }
    }

    /// As [`Sources::parse`], of modules that share no package.
    pub fn parse_all(files: Vec<(String, bool, Arc<SourceText>)>, mistakes: &mut Vec<Mistake>) -> Self {
        let top = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let own = files.iter().map(|(name, ..)| top(name)).collect();
        Self {
            own,
            ..Self::parse("", files, mistakes)
        }
    }

    pub fn get(&self, name: &str) -> Option<&Module> {
        self.modules.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    /// The package's own name.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Whether a dotted name belongs to the project's package.
    pub fn is_own(&self, dotted: &str) -> bool {
        dotted.split('.').next().is_some_and(|top| self.own.contains(top))
    }
}

/// Parses one file. Its first syntax error is the mistake: it is the cause of most others.
pub fn parse(source: &Arc<SourceText>) -> Result<Parsed<ModModule>, Vec<Mistake>> {
    if too_deep(&source.text) {
        let at = deep_offset(&source.text);
        let mistake = Mistake::new(Rule::SourceTooDeep { limit: DEEPEST });
        return Err(vec![mistake.at(source.place(at..at + 1))]);
    }
    let parsed = parse_unchecked_source(&source.text, ruff_python_ast::PySourceType::Python);
    if parsed.errors().is_empty() {
        return Ok(parsed);
    }
    let first = parsed.errors().iter().min_by_key(|error| error.location.start());
    let mistakes = first.map(|error| {
        let range = error.location.start().to_usize()..error.location.end().to_usize();
        let message = error.error.to_string();
        Mistake::new(Rule::Syntax { message }).at(source.place(range))
    });
    Err(mistakes.into_iter().collect())
}

/// What one open bracket adds to the depth.
#[derive(Default)]
struct Level {
    /// Operators of the current element.
    operators: usize,
    /// Those of them that a comma does not end: the bracket itself, and `lambda a, b:`.
    kept: usize,
}

/// Whether a tree of `text` could be deeper than the limit. Counts tokens, without recursion, and errs on the strict side: every
/// operator of one expression counts, whichever way it nests.
fn too_deep(text: &str) -> bool {
    use TokenKind as Kind;
    let mut lexer = lexer::lex(text, Mode::Module);
    let mut open = vec![Level::default()];
    let mut total = 0usize;
    let mut blocks = 0usize;
    let mut ends_operand = false;
    loop {
        let kind = lexer.next_token();
        let mut operator = false;
        match kind {
            Kind::EndOfFile => return false,
            Kind::Indent => blocks += 1,
            Kind::Dedent => blocks = blocks.saturating_sub(1),
            Kind::Newline => {
                open.truncate(1);
                open[0] = Level::default();
                total = 0;
            }
            Kind::Comma => {
                if let Some(current) = open.last_mut() {
                    total -= current.operators - current.kept;
                    current.operators = current.kept;
                }
            }
            Kind::Lambda => {
                if let Some(current) = open.last_mut() {
                    current.operators += 1;
                    current.kept += 1;
                    total += 1;
                }
            }
            Kind::Lpar | Kind::Lsqb | Kind::Lbrace | Kind::FStringStart | Kind::TStringStart => {
                // A call or subscript nests what stands before it, and outlives its bracket.
                if ends_operand && let Some(current) = open.last_mut() {
                    current.operators += 1;
                    total += 1;
                }
                open.push(Level {
                    operators: 1,
                    kept: 1,
                });
                total += 1;
            }
            Kind::Rpar | Kind::Rsqb | Kind::Rbrace | Kind::FStringEnd | Kind::TStringEnd => {
                if open.len() > 1 {
                    total -= open.pop().unwrap_or_default().operators;
                }
            }
            Kind::Name
            | Kind::Int
            | Kind::Float
            | Kind::Complex
            | Kind::String
            | Kind::Comment
            | Kind::NonLogicalNewline
            | Kind::FStringMiddle
            | Kind::TStringMiddle
            | Kind::True
            | Kind::False
            | Kind::None
            | Kind::Ellipsis
            | Kind::Equal
            | Kind::Colon
            | Kind::Semi
            | Kind::As
            | Kind::Unknown => {}
            _ => operator = true,
        }
        if operator && let Some(current) = open.last_mut() {
            current.operators += 1;
            total += 1;
        }
        ends_operand = match kind {
            Kind::NonLogicalNewline | Kind::Comment => ends_operand,
            Kind::Name | Kind::Rpar | Kind::Rsqb | Kind::Rbrace | Kind::String | Kind::FStringEnd => true,
            _ => false,
        };
        if total > DEEPEST || blocks > DEEPEST_BLOCK {
            return true;
        }
    }
}

/// Where a text that is too deep gets too deep, by bisection: the lexer does not tell positions.
fn deep_offset(text: &str) -> usize {
    let (mut low, mut high) = (0, text.len());
    while low + 1 < high {
        let mut middle = low + (high - low) / 2;
        while !text.is_char_boundary(middle) {
            middle -= 1;
        }
        if middle <= low {
            break;
        }
        if too_deep(&text[..middle]) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high.saturating_sub(1)
}

/// The module name of a Python file at `relative` inside the package folder, and whether it is an `__init__`. `None` for a file that
/// no import statement can reach.
pub fn module_name(package: &str, relative: &Path) -> Option<(String, bool)> {
    let stem = relative.file_stem()?.to_str()?;
    let mut name = package.to_owned();
    let folders: PathBuf = relative.parent().map(Path::to_path_buf).unwrap_or_default();
    for part in folders.components() {
        let part = part.as_os_str().to_str()?;
        if !is_identifier(part) {
            return None;
        }
        name.push('.');
        name.push_str(part);
    }
    if stem == "__init__" {
        return Some((name, true));
    }
    if !is_identifier(stem) {
        return None;
    }
    Some((format!("{name}.{stem}"), false))
}

/// Whether `text` is a Python name. Letters of other scripts are accepted as the language does, approximately.
pub fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && characters.all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth_of(text: &str) -> bool {
        parse(&SourceText::new("a.py", text)).is_err()
    }

    #[test]
    fn what_no_stack_bears_is_refused_before_parsing() {
        let hostile = [
            format!("x = {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("x = {}1", "-".repeat(100_000)),
            format!("x = {}1", "not ".repeat(100_000)),
            format!("x = 1{}", "+1".repeat(100_000)),
            format!("x = a{}", ".b".repeat(100_000)),
            format!("x = f{}", "()".repeat(100_000)),
            format!("x = f{}", "[0]".repeat(100_000)),
            format!("x = {}1", "lambda: ".repeat(100_000)),
            format!("x = {}1", "lambda a, b: ".repeat(100_000)),
            format!("x = {}1", "1 if x else ".repeat(100_000)),
            format!("x = {}", "f'{".repeat(100_000)),
            format!("x = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        ];
        for text in hostile {
            let head: String = text.chars().take(20).collect();
            assert!(depth_of(&text), "{head}");
        }
        let mut blocks = String::new();
        for depth in 0..2000 {
            blocks.push_str(&format!("{}if x:\n", " ".repeat(depth)));
        }
        assert!(depth_of(&blocks));
    }

    #[test]
    fn large_but_flat_is_accepted_and_the_deepest_accepted_tree_fits_a_small_stack() {
        let long_list = format!("x = [{}]", "1 + 2, ".repeat(50_000));
        assert!(!depth_of(&long_list));
        assert!(!depth_of(&"x = a.b.c(1)[2] + 3\n".repeat(20_000)));
        for (open, close) in [("(", ")"), ("-", ""), ("lambda: ", ""), ("f(", ")"), ("[", "]")] {
            let text = format!("x = {}1{}", open.repeat(490), close.repeat(490));
            let walked = std::thread::Builder::new()
                .stack_size(2 << 20)
                .spawn(move || depth_of(&text))
                .unwrap();
            assert!(!walked.join().unwrap(), "{open}");
        }
    }

    #[test]
    fn the_place_is_where_it_gets_too_deep() {
        let text = format!("x = 1\ny = {}1", "-".repeat(5000));
        let found = parse(&SourceText::new("a.py", text)).unwrap_err();
        assert!(found[0].to_string().starts_with("a.py:2:1005:"), "{}", found[0]);
    }

    #[test]
    fn module_names() {
        let name = |path: &str| module_name("churn", Path::new(path));
        assert_eq!(name("features.py"), Some(("churn.features".into(), false)));
        assert_eq!(name("data/__init__.py"), Some(("churn.data".into(), true)));
        assert_eq!(name("data/a-b.py"), None);
    }
}
