//! Dependency groups (PEP 735): names normalised, `include-group` replaced by what it names, cycles refused.

use std::str::FromStr;

use toml::de::DeValue;
use uv_normalize::GroupName;

use super::document::Table;
use super::mistake::{Mistake, Rule};
use super::place::Place;
use super::pyproject::{Declared, parse_one};

/// The most entries that all groups together may have, includes replaced: a chain of doubling includes is 2^n long.
const MOST_ENTRIES: usize = 20_000;
/// The most groups, or extras, that a project may have: each is a variable of every marker in its lock.
pub(super) const MOST_NAMES: usize = 200;

enum Entry {
    Requirement(Declared),
    Include(GroupName, Place),
}

struct Group {
    name: GroupName,
    written: String,
    entries: Vec<Entry>,
}

/// Reads `[dependency-groups]` of the document.
pub fn read(root: &Table<'_>, mistakes: &mut Vec<Mistake>) -> Vec<(GroupName, Vec<Declared>)> {
    let Some(table) = root.table("dependency-groups", "[dependency-groups]", mistakes) else {
        return Vec::new();
    };
    let mut groups: Vec<Group> = Vec::new();
    for (key, value) in table.entries() {
        let Ok(name) = GroupName::from_str(key.value) else {
            let what = format!("`{}` is not the name of a group", key.value.escape_debug());
            mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(key.place));
            continue;
        };
        // PEP 735: names that normalise to one are an error.
        if let Some(first) = groups.iter().find(|group| group.name == name) {
            let rule = Rule::DuplicateGroup {
                name: name.to_string(),
                first: first.written.clone(),
                second: key.value.to_owned(),
            };
            mistakes.push(Mistake::new(rule).at(key.place));
            continue;
        }
        let Some(items) = value.get_ref().as_array() else {
            mistakes.push(table.wrong_type(key.value, "a list", value));
            continue;
        };
        let mut entries = Vec::new();
        for item in items.iter().take(MOST_ENTRIES) {
            match item.get_ref() {
                DeValue::Table(_) => {
                    let Some(include) = table.as_table(key.value, "an include", item, mistakes) else {
                        continue;
                    };
                    let Some(included) = include.string("include-group", mistakes) else {
                        include.finish(mistakes);
                        continue;
                    };
                    include.finish(mistakes);
                    match GroupName::from_str(&included.value) {
                        Ok(name) => entries.push(Entry::Include(name, included.place)),
                        Err(_) => mistakes.push(unknown(&included.value, included.place, &[])),
                    }
                }
                _ => {
                    if let Some(text) = table.as_string(key.value, item, mistakes)
                        && let Some(declared) = parse_one(&text, mistakes)
                    {
                        entries.push(Entry::Requirement(declared));
                    }
                }
            }
        }
        groups.push(Group {
            name,
            written: key.value.to_owned(),
            entries,
        });
    }
    if groups.len() > MOST_NAMES {
        let rule = Rule::TooMany {
            table: table.name().to_owned(),
            limit: MOST_NAMES,
        };
        mistakes.push(Mistake::new(rule).at(table.place().clone()));
        return Vec::new();
    }
    expand(&groups, table.place(), mistakes)
}

fn expand(groups: &[Group], place: &Place, mistakes: &mut Vec<Mistake>) -> Vec<(GroupName, Vec<Declared>)> {
    let mut done: Vec<Option<Vec<Declared>>> = groups.iter().map(|_| None).collect();
    let mut total = 0;
    for start in 0..groups.len() {
        // Depth first without recursion: 100,000 groups in a chain are as good as two.
        let mut trail = vec![(start, 0usize, Vec::new())];
        while let Some((index, at, found)) = trail.last_mut() {
            if done[*index].is_some() {
                trail.pop();
                continue;
            }
            let Some(entry) = groups[*index].entries.get(*at) else {
                let (index, _, found) = trail.pop().unwrap_or_default();
                total += found.len();
                done[index] = Some(found);
                if total > MOST_ENTRIES {
                    let rule = Rule::TooMany {
                        table: "[dependency-groups]".to_owned(),
                        limit: MOST_ENTRIES,
                    };
                    mistakes.push(Mistake::new(rule).at(place.clone()));
                    return Vec::new();
                }
                continue;
            };
            match entry {
                Entry::Requirement(declared) => {
                    found.push(declared.clone());
                    *at += 1;
                }
                Entry::Include(name, place) => {
                    let Some(target) = groups.iter().position(|group| group.name == *name) else {
                        let known: Vec<_> = groups.iter().map(|group| group.written.clone()).collect();
                        mistakes.push(unknown(name.as_str(), place.clone(), &known));
                        *at += 1;
                        continue;
                    };
                    if let Some(included) = &done[target] {
                        found.extend(included.iter().cloned());
                        *at += 1;
                        continue;
                    }
                    let place = place.clone();
                    if let Some(first) = trail.iter().position(|(index, _, _)| *index == target) {
                        let mut cycle: Vec<String> = trail[first..]
                            .iter()
                            .map(|(index, _, _)| groups[*index].written.clone())
                            .collect();
                        cycle.push(groups[target].written.clone());
                        mistakes.push(Mistake::new(Rule::GroupCycle { cycle }).at(place));
                        if let Some((_, at, _)) = trail.last_mut() {
                            *at += 1;
                        }
                        continue;
                    }
                    trail.push((target, 0, Vec::new()));
                }
            }
        }
    }
    groups
        .iter()
        .zip(done)
        .map(|(group, found)| (group.name.clone(), found.unwrap_or_default()))
        .collect()
}

fn unknown(name: &str, place: Place, known: &[String]) -> Mistake {
    Mistake::new(Rule::UnknownGroup {
        name: name.escape_debug().to_string(),
        known: known.to_vec(),
    })
    .at(place)
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::super::place::SourceText;
    use super::*;

    fn read_text(text: &str) -> (Vec<String>, Vec<String>) {
        let source = SourceText::new("pyproject.toml", text);
        let mut mistakes = Vec::new();
        let document = document::parse(&source, &mut mistakes).unwrap();
        let groups = read(&Table::root(&source, &document), &mut mistakes);
        let shown = groups
            .iter()
            .map(|(name, declared)| {
                let names: Vec<_> = declared.iter().map(|d| d.requirement.to_string()).collect();
                format!("{name}: {}", names.join(", "))
            })
            .collect();
        (shown, mistakes.iter().map(Mistake::to_string).collect())
    }

    #[test]
    fn includes_are_replaced_in_place() {
        let (groups, mistakes) = read_text(
            "[dependency-groups]\nall = [{include-group = \"Te_st\"}, \"mlflow\"]\nte-st = [\"pytest>=8\"]\n",
        );
        assert_eq!(groups, ["all: pytest>=8, mlflow", "te-st: pytest>=8"]);
        assert_eq!(mistakes, Vec::<String>::new());
    }

    #[test]
    fn cycles_unknown_and_doubled_groups_are_refused() {
        let (_, mistakes) = read_text(
            "[dependency-groups]\na = [{include-group = \"b\"}]\nb = [{include-group = \"a\"}]\nc = [{include-group = \"tset\"}]\nC = []\n",
        );
        assert_eq!(
            mistakes,
            [
                "pyproject.toml:5:1: dependency group `c` is written twice: `c` and `C` are one name",
                "pyproject.toml:3:23: dependency groups include each other: a → b → a",
                "pyproject.toml:4:23: there is no dependency group `tset`",
            ]
        );
    }

    #[test]
    fn doubling_includes_stop_at_the_limit() {
        let mut text = "[dependency-groups]\ng0 = [\"a\", \"b\"]\n".to_owned();
        for level in 1..40 {
            let before = level - 1;
            text.push_str(&format!(
                "g{level} = [{{include-group = \"g{before}\"}}, {{include-group = \"g{before}\"}}]\n"
            ));
        }
        let (_, mistakes) = read_text(&text);
        assert!(mistakes[0].contains("more than 20000"), "{mistakes:?}");
    }
}
