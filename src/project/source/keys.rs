//! Freshness: a key per node, equal exactly while what its value depends on is equal.
//!
//! Scheme 1 hashes tokens, not a parser's tree, so that a newer parser makes nothing stale: the tokens of the node's function and of all
//! project code that it reaches, without comments, layout, docstrings, quote styles, trailing commas and brackets around a whole
//! right-hand side (what formatters change), the names it takes from other packages, a query's text, settings, and the keys of
//! its inputs. docs/decisions/freshness.md has the reasons.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::token::{Token, TokenKind};
use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::{Ranged, TextRange};
use serde::Serialize;

use super::cut::{Cut, TrainingPlan};
use super::graph::{Graph, NodeId, Phase};
use super::reach::{Index, Unit};
use super::{Module, sql};
use crate::digest::Hasher;
use crate::project::record::RunRecord;
use crate::project::settings::Resolved;

/// The scheme's number. Another scheme makes every recorded key stale, so it changes only for a wrong one.
const SCHEME: u8 = 1;

/// The key of each step of `plan`: `1:<64 hexadecimal digits>`.
pub fn keys(
    index: &Index<'_>,
    graph: &Graph,
    plan: &TrainingPlan,
    settings: &Resolved,
) -> BTreeMap<NodeId, String> {
    let mut keys: BTreeMap<NodeId, String> = BTreeMap::new();
    for step in &plan.steps {
        let node = graph.node(step.node);
        let mut hasher = Hasher::new();
        let mut field = |label: &str, value: &str| {
            // Lengths keep one field from reading as two.
            hasher.update(format!("{label} {}\n", value.len()).as_bytes());
            hasher.update(value.as_bytes());
            hasher.update(b"\n");
        };
        field("phase", node.phase.name());
        field("name", &node.name);
        if node.phase == Phase::Sql {
            field("query", &sql::normalized(node.place.text()));
        } else {
            let reach = index.reach(index.definitions(&node.module, &node.function));
            for (module, code) in code(index, &reach.units) {
                field("module", module);
                field("code", &code);
            }
            for name in &reach.external {
                field("external", name);
            }
        }
        let mut values: Vec<_> = settings.of(step.node).iter().collect();
        values.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, given) in values {
            field("setting", name);
            field("value", &canonical(&given.value.record()));
        }
        for (parameter, input) in &step.inputs {
            field("input", parameter);
            field("key", keys.get(input).map_or("", String::as_str));
        }
        keys.insert(step.node, format!("{SCHEME}:{}", hasher.finish().hex()));
    }
    keys
}

/// JSON with sorted keys; numbers as TOML and Python write them do not differ by form.
fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(entries) => {
            let sorted: BTreeMap<_, _> = entries
                .iter()
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            let parts: Vec<_> = sorted
                .iter()
                .map(|(key, value)| format!("{key:?}:{value}"))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// The normalised tokens of each unit, sorted so that moving a function inside its module changes nothing.
fn code<'a>(index: &'a Index<'_>, units: &'a BTreeSet<Unit>) -> Vec<(&'a str, String)> {
    let mut code: Vec<(&str, String)> = units
        .iter()
        .filter_map(|unit| {
            let module = index.sources().get(&unit.module)?;
            let statement = module.body().get(unit.index)?;
            Some((unit.module.as_str(), tokens(module, statement)))
        })
        .collect();
    code.sort();
    code
}

/// A statement's tokens in one line of text each, normalised.
fn tokens(module: &Module, statement: &Stmt) -> String {
    let mut docstrings = Docstrings(Vec::new());
    docstrings.visit_stmt(statement);
    let range = match statement {
        // Decorators belong to the function, and its range begins with them.
        Stmt::FunctionDef(function) => function.range(),
        other => other.range(),
    };
    let kept: Vec<Token> = module
        .parsed
        .tokens()
        .in_range(range)
        .iter()
        .copied()
        .filter(|token| {
            !matches!(token.kind(), TokenKind::Comment | TokenKind::NonLogicalNewline)
                && !docstrings
                    .0
                    .iter()
                    .any(|range| range.contains_range(token.range()))
        })
        .collect();
    let dropped = layout(&kept);
    let mut text = String::new();
    for (at, token) in kept.iter().enumerate() {
        if dropped.contains(&at) {
            continue;
        }
        match token.kind() {
            // A docstring leaves the end of its line behind.
            TokenKind::Newline
                if ["\u{1}\n", "\u{2}\n", "\u{3}\n"]
                    .iter()
                    .any(|mark| text.ends_with(mark)) => {}
            TokenKind::Newline => text.push_str("\u{1}\n"),
            TokenKind::Indent => text.push_str("\u{2}\n"),
            TokenKind::Dedent => text.push_str("\u{3}\n"),
            TokenKind::String => {
                text.push_str(&string(&module.source.text[token.range()]));
                text.push('\n');
            }
            TokenKind::FStringStart | TokenKind::TStringStart => {
                let prefix = module.source.text[token.range()].trim_end_matches(['"', '\'']);
                text.push_str(&prefix.to_ascii_lowercase());
                text.push_str("\u{4}\n");
            }
            TokenKind::FStringEnd | TokenKind::TStringEnd => text.push_str("\u{5}\n"),
            TokenKind::Int | TokenKind::Float | TokenKind::Complex => {
                text.push_str(&module.source.text[token.range()].to_ascii_lowercase());
                text.push('\n');
            }
            _ => {
                text.push_str(&module.source.text[token.range()]);
                text.push('\n');
            }
        }
    }
    text
}

/// A string literal without its quotes' style: prefix, a mark, the text between with quotes unescaped.
fn string(literal: &str) -> String {
    let quote_at = literal.find(['"', '\'']).unwrap_or(0);
    let (prefix, rest) = literal.split_at(quote_at);
    let prefix = prefix.to_ascii_lowercase();
    let quotes = if rest.len() >= 6 && (rest.starts_with("\"\"\"") || rest.starts_with("'''")) {
        3
    } else {
        1
    };
    let inner = rest
        .get(quotes..rest.len().saturating_sub(quotes))
        .unwrap_or_default();
    let inner = if prefix.contains('r') {
        inner.to_owned()
    } else {
        inner.replace("\\\"", "\"").replace("\\'", "'")
    };
    // `u` means nothing in Python 3.
    format!("{}\u{6}{inner}", prefix.trim_matches('u'))
}

/// Indices of tokens that formatters add and remove: a comma before a closing bracket, unless it makes a tuple of one, and brackets
/// around the whole of what an assignment, a `return`, a condition takes.
fn layout(tokens: &[Token]) -> BTreeSet<usize> {
    let mut dropped = BTreeSet::new();
    // Open brackets: index of the token, whether it follows a value (a call or a subscript), how many commas it holds.
    let mut open: Vec<(usize, bool, usize)> = Vec::new();
    let mut closes = BTreeMap::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.kind() {
            TokenKind::Lpar | TokenKind::Lsqb | TokenKind::Lbrace => {
                let before = at.checked_sub(1).map(|before| tokens[before].kind());
                let follows = matches!(
                    before,
                    Some(
                        TokenKind::Name
                            | TokenKind::Rpar
                            | TokenKind::Rsqb
                            | TokenKind::Type
                            | TokenKind::Match
                            | TokenKind::Case
                    )
                );
                open.push((at, follows, 0));
            }
            TokenKind::Comma => {
                if let Some((_, _, commas)) = open.last_mut() {
                    *commas += 1;
                }
            }
            TokenKind::Rpar | TokenKind::Rsqb | TokenKind::Rbrace => {
                let Some((start, follows, commas)) = open.pop() else {
                    continue;
                };
                closes.insert(start, (at, commas));
                if at > 0 && tokens[at - 1].kind() == TokenKind::Comma {
                    let makes_tuple = match tokens[start].kind() {
                        TokenKind::Lpar => !follows && commas == 1,
                        TokenKind::Lsqb => follows && commas == 1,
                        _ => false,
                    };
                    if !makes_tuple {
                        dropped.insert(at - 1);
                    }
                }
            }
            _ => {}
        }
    }
    for (start, (end, _)) in &closes {
        if tokens[*start].kind() != TokenKind::Lpar || *end == start + 1 || *start == 0 {
            continue;
        }
        let opens_value = matches!(
            tokens[start - 1].kind(),
            TokenKind::Equal
                | TokenKind::PlusEqual
                | TokenKind::MinusEqual
                | TokenKind::Return
                | TokenKind::If
                | TokenKind::Elif
                | TokenKind::While
                | TokenKind::Assert
                | TokenKind::In
        );
        let ends_value = matches!(
            tokens.get(end + 1).map(Token::kind),
            None | Some(TokenKind::Newline | TokenKind::Colon)
        );
        // A generator needs its brackets; an assignment inside a call (`f(a=(1, 2))`) ends otherwise.
        let inner = &tokens[start + 1..*end];
        let generator = inner.iter().any(|token| token.kind() == TokenKind::For);
        if opens_value && ends_value && !generator {
            dropped.insert(*start);
            dropped.insert(*end);
        }
    }
    dropped
}

/// Where the docstrings of a statement and of all in it stand. Source: PEP 257.
struct Docstrings(Vec<TextRange>);

impl<'a> Visitor<'a> for Docstrings {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        let body = match statement {
            Stmt::FunctionDef(function) => &function.body,
            Stmt::ClassDef(class) => &class.body,
            _ => {
                visitor::walk_stmt(self, statement);
                return;
            }
        };
        if let Some(Stmt::Expr(first)) = body.first()
            && matches!(&*first.value, Expr::StringLiteral(_))
        {
            self.0.push(first.range());
        }
        for statement in body {
            self.visit_stmt(statement);
        }
    }

    fn visit_expr(&mut self, _: &'a Expr) {}
}

/// A node whose trained value no longer follows from the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stale {
    pub node: String,
    pub why: String,
}

/// The frozen nodes and their ancestors whose key is not the recorded one, inputs before users.
pub fn stale(
    graph: &Graph,
    cut: &Cut,
    plan: &TrainingPlan,
    keys: &BTreeMap<NodeId, String>,
    settings: &Resolved,
    record: &RunRecord,
) -> Vec<Stale> {
    let mut wanted: BTreeSet<NodeId> = cut.frozen.iter().copied().collect();
    for step in plan.steps.iter().rev() {
        if wanted.contains(&step.node) {
            wanted.extend(step.inputs.iter().map(|(_, input)| *input));
        }
    }
    let mut stale: Vec<(NodeId, Stale)> = Vec::new();
    for step in plan.steps.iter().filter(|step| wanted.contains(&step.node)) {
        let node = graph.node(step.node);
        let why = match record.nodes.get(&node.name) {
            None => "it is new since the last run".to_owned(),
            Some(recorded) if Some(&recorded.key) == keys.get(&step.node) => continue,
            Some(recorded) => {
                let changed_setting = settings.of(step.node).iter().find_map(|(name, given)| {
                    let now = given.value.record();
                    let then = recorded.settings.get(name);
                    (then.map(canonical) != Some(canonical(&now))).then(|| {
                        let then = then.map_or("not there".to_owned(), |then| then.to_string());
                        format!("its setting `{name}` was {then} and is {now}")
                    })
                });
                let changed_input = step
                    .inputs
                    .iter()
                    .find(|(_, input)| stale.iter().any(|(id, _)| id == input))
                    .map(|(parameter, _)| format!("its input `{parameter}` changed"));
                changed_setting
                    .or(changed_input)
                    .unwrap_or_else(|| "its code, or code that it uses, changed".to_owned())
            }
        };
        let name = node.name.clone();
        stale.push((step.node, Stale { node: name, why }));
    }
    stale.into_iter().map(|(_, stale)| stale).collect()
}

/// Whether golden rows still speak of this code: the keys of what is recomputed, and of `predict`, are the recorded ones.
pub fn golden_is_current(
    graph: &Graph,
    plan: &TrainingPlan,
    keys: &BTreeMap<NodeId, String>,
    record: &RunRecord,
) -> bool {
    plan.steps.iter().all(|step| {
        let recorded = record.nodes.get(&graph.node(step.node).name);
        recorded.is_some_and(|recorded| Some(&recorded.key) == keys.get(&step.node))
    })
}
