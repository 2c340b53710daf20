//! How large a marker's decision diagram can become, estimated from its text before it is built.
//!
//! A marker is kept as a decision diagram. Comparisons of one variable with several values share a node, but each
//! membership (`'x' in os_name`), extra and group is a variable of its own: twenty pairs of them, joined by `or`, are a
//! million nodes. Lists of them, as locks and published metadata write, stay linear. The estimate is an upper bound; it
//! takes one pass and no recursion.

use std::collections::HashSet;

use uv_pep508::{MarkerTree, MarkerTreeKind};

/// A part of a marker.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// At most this many nodes.
    nodes: u64,
    /// Memberships, extras and groups in it.
    variables: u64,
}

/// Parts joined by one operator.
#[derive(Debug, Clone, Copy, Default)]
struct Joined {
    nodes: u64,
    variables: u64,
    /// Every part so far had one variable at most: then the whole is a chain.
    is_chain: bool,
}

impl Joined {
    fn join(self, part: Size) -> Self {
        let is_simple = part.variables <= 1;
        if self.nodes == 0 {
            return Self {
                nodes: part.nodes,
                variables: part.variables,
                is_chain: is_simple,
            };
        }
        let is_chain = self.is_chain && is_simple;
        Self {
            nodes: match is_chain {
                true => self.nodes.saturating_add(part.nodes),
                false => self.nodes.saturating_mul(part.nodes),
            },
            variables: self.variables + part.variables,
            is_chain,
        }
    }

    fn size(self) -> Size {
        Size {
            // What has no variable of its own does not multiply others.
            nodes: if self.variables == 0 { 1 } else { self.nodes.max(1) },
            variables: self.variables,
        }
    }
}

/// One open bracket: the disjunction so far, and the conjunction that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    either: Joined,
    both: Joined,
}

impl Level {
    fn end_conjunction(&mut self) {
        if self.both.nodes > 0 {
            self.either = self.either.join(self.both.size());
            self.both = Joined::default();
        }
    }

    fn close(mut self) -> Size {
        self.end_conjunction();
        self.either.size()
    }
}

/// How many nodes the diagram of `marker` has, counted up to `most`.
pub(crate) fn nodes(marker: MarkerTree, most: usize) -> usize {
    let mut seen = HashSet::from([marker]);
    let mut pending = vec![marker];
    let mut add = |child: MarkerTree, pending: &mut Vec<MarkerTree>| {
        if seen.len() < most && seen.insert(child) {
            pending.push(child);
        }
    };
    while let Some(marker) = pending.pop() {
        match marker.kind() {
            MarkerTreeKind::True | MarkerTreeKind::False => {}
            MarkerTreeKind::Version(tree) => tree.edges().for_each(|(_, child)| add(child, &mut pending)),
            MarkerTreeKind::String(tree) => tree.children().for_each(|(_, child)| add(child, &mut pending)),
            MarkerTreeKind::In(tree) => tree.children().for_each(|(_, child)| add(child, &mut pending)),
            MarkerTreeKind::Contains(tree) => tree.children().for_each(|(_, child)| add(child, &mut pending)),
            MarkerTreeKind::List(tree) => tree.children().for_each(|(_, child)| add(child, &mut pending)),
            MarkerTreeKind::Extra(tree) => tree.children().for_each(|(_, child)| add(child, &mut pending)),
        }
    }
    seen.len()
}

/// At most how many nodes the diagram of `marker` has. Text that is no marker gives some number.
pub(super) fn bound(marker: &str) -> u64 {
    let mut levels = vec![Level::default()];
    // The comparison that is being read: whether there is one, and whether it is a variable of its own.
    let mut comparison: Option<bool> = None;
    let mut rest = marker;
    loop {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        let mark = after.chars().next();
        match word {
            "" => {}
            "and" | "or" => {
                end_comparison(&mut levels, &mut comparison);
                if word == "or"
                    && let Some(level) = levels.last_mut()
                {
                    level.end_conjunction();
                }
            }
            "in" | "extra" | "extras" | "dependency_groups" => comparison = Some(true),
            _ => comparison = Some(comparison.unwrap_or(false)),
        }
        match mark {
            None => break,
            Some('(') => levels.push(Level::default()),
            Some(')') => {
                end_comparison(&mut levels, &mut comparison);
                if levels.len() > 1
                    && let Some(level) = levels.pop()
                    && let Some(outer) = levels.last_mut()
                {
                    outer.both = outer.both.join(level.close());
                }
            }
            Some(quote @ ('\'' | '"')) => {
                let text = &after[1..];
                rest = text.find(quote).map_or("", |end| &text[end + 1..]);
                comparison = Some(comparison.unwrap_or(false));
                continue;
            }
            Some(_) => {}
        }
        rest = &after[mark.map_or(0, char::len_utf8)..];
    }
    end_comparison(&mut levels, &mut comparison);
    let mut size = Size {
        nodes: 1,
        variables: 0,
    };
    while let Some(mut level) = levels.pop() {
        level.both = level.both.join(size);
        size = level.close();
    }
    size.nodes
}

fn end_comparison(levels: &mut [Level], comparison: &mut Option<bool>) {
    if let (Some(is_variable), Some(level)) = (comparison.take(), levels.last_mut()) {
        level.both = level.both.join(Size {
            nodes: if is_variable { 2 } else { 1 },
            variables: u64::from(is_variable),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(count: usize, operator: &str, part: impl Fn(usize) -> String) -> String {
        let parts: Vec<String> = (0..count).map(part).collect();
        parts.join(operator)
    }

    #[test]
    fn lists_are_small_and_products_are_not() {
        let small = [
            joined(200, " or ", |at| format!("'g{at}' in dependency_groups")),
            joined(200, " or ", |at| {
                format!("(sys_platform == 'x' and extra == 'e{at}')")
            }),
            format!(
                "python_version < '3.12' and ({})",
                joined(100, " or ", |at| format!("extra == 'e{at}'"))
            ),
            joined(300, " or ", |at| {
                format!("(os_name == 'a{at}' and sys_platform == 'b{at}' and platform_machine == 'c{at}')")
            }),
            joined(64, "", |_| "(".to_owned()) + "os_name == ') or ( in extra'",
            "extra == 'a' and extra != 'b' or 'c' in extras and 'd' not in extras".to_owned(),
        ];
        for marker in small {
            assert!(bound(&marker) < 2_000, "{}: {marker}", bound(&marker));
        }
        let large = [
            joined(40, " or ", |at| {
                format!("('a{at}' in os_name and 'a{at}' in sys_platform)")
            }),
            joined(40, " and ", |at| {
                format!("(extra == 'a{at}' or os_name == 'x' or extra == 'b{at}')")
            }),
            joined(40, " or ", |at| {
                format!("(os_name == 'q' and ('a{at}' in extras) and (('b{at}' in extras)))")
            }),
        ];
        for marker in large {
            assert!(bound(&marker) > 1 << 20, "{}: {marker}", bound(&marker));
        }
    }

    #[test]
    fn any_text_gives_a_number() {
        for text in [
            "",
            ")))",
            "(((",
            "'",
            "or and",
            "é in 'ü",
            "a\u{0}b",
            "\"'\"'",
            ") or (",
        ] {
            bound(text);
        }
    }
}
