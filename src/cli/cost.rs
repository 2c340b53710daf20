//! What `mlrails lock` says of a lock beyond its versions: its cost in MB, libraries that nobody will use, wheels that will not load.

use serde_json::{Value, json};
use uv_normalize::GroupName;

use super::{Failure, Session};
use crate::index::{accelerator, numpy};
use crate::lock::cost::{Cost, Cuda, Size, cost};
use crate::lock::{Lock, SERVING_GROUP};
use crate::python::target::Target;
use crate::resolve::{Inputs, Options};

/// CUDA libraries below this are not worth a warning, in bytes.
const NOTABLE: u64 = 50_000_000;

/// One platform's production.
pub struct Weighed {
    target: Target,
    cost: Cost,
    findings: Vec<numpy::Finding>,
}

/// Weighs the lock for each of the image's platforms; those that it does not cover are left out.
pub fn weigh(
    lock: &Lock,
    inputs: &Inputs,
    options: &Options,
    session: &Session,
) -> Result<Vec<Weighed>, Failure> {
    let Some(python) = lock.mlrails.python else {
        return Ok(Vec::new());
    };
    let serving = |group: &&GroupName| group.as_ref() == SERVING_GROUP;
    let groups: Vec<GroupName> = lock.dependency_groups.iter().filter(serving).cloned().collect();
    let roots = inputs.roots()?;
    let mut all = Vec::new();
    for (platform, libc) in &options.platforms {
        let target = Target {
            platform: *platform,
            python,
            libc: *libc,
        };
        let Ok(cost) = cost(lock, &target, &groups, &roots, &accelerator::is_family) else {
            continue;
        };
        let selected = lock.select(&target, &groups, &[]).unwrap_or_default();
        // A store that cannot be opened says nothing about any wheel.
        let store = session.store().ok();
        let findings = numpy::built_against_1(&selected, &target, store.as_deref());
        all.push(Weighed {
            target,
            cost,
            findings,
        });
    }
    Ok(all)
}

/// Warns of what would be a surprise in production. `accelerator` is what the project says it runs on.
pub fn warn(all: &[Weighed], accelerator: Option<&str>, session: &Session) {
    let printer = session.printer();
    for one in all.iter().filter(|_| accelerator.is_none()) {
        let Cost { cuda, total, .. } = &one.cost;
        let sum = sum(cuda.iter());
        if sum.bytes < NOTABLE && sum.unknown == 0 {
            continue;
        }
        let mut by: Vec<&str> = cuda
            .iter()
            .flat_map(|library| library.by.iter().map(String::as_str))
            .collect();
        by.sort_unstable();
        by.dedup();
        let brought = by.join(", ");
        printer.warn(&format!(
            "{}: {} of {} are CUDA libraries ({}), brought by {brought}, and no [image] accelerator says that there is a GPU",
            one.target.platform,
            megabytes(sum),
            megabytes(*total),
            listed(cuda),
        ));
        let (avoidable, fixed): (Vec<&Cuda>, Vec<&Cuda>) = cuda.iter().partition(|library| library.avoidable);
        if !avoidable.is_empty() {
            let saved = self::sum(avoidable.into_iter());
            printer.say(&format!(
                "  accelerator = \"cpu\" in [image] would save at least {}; \"cu130\" or the like keeps them without this warning",
                megabytes(saved)
            ));
        }
        if !fixed.is_empty() {
            let names: Vec<&str> = fixed.iter().map(|library| library.name.as_str()).collect();
            printer.say(&format!("  no accelerator leaves out {}", names.join(", ")));
        }
    }
    let mut said = Vec::new();
    for finding in all.iter().flat_map(|one| &one.findings) {
        let numpy::Finding {
            package,
            name,
            numpy,
            certain,
        } = finding;
        let what = match certain {
            true => format!("{package} is built against numpy 1 and does not load with numpy {numpy}"),
            false => format!(
                "{package} needs numpy and is older than numpy 2: if it is compiled against numpy 1, it does not load with numpy {numpy}"
            ),
        };
        let line = format!("{what}; ask for a newer {name}, or for numpy<2");
        if !said.contains(&line) {
            printer.warn(&line);
            said.push(line);
        }
    }
}

/// One line for each platform: what production downloads there, and how much more or less than before.
pub fn totals(before: &[Weighed], after: &[Weighed]) -> Vec<String> {
    let line = |one: &Weighed| {
        let total = one.cost.total;
        let old = before
            .iter()
            .find(|old| old.target.platform == one.target.platform);
        let more = match old.map(|old| i128::from(total.bytes) - i128::from(old.cost.total.bytes)) {
            None => String::new(),
            Some(0) => ", as before".to_owned(),
            Some(more) => {
                let amount = Size {
                    bytes: u64::try_from(more.unsigned_abs()).unwrap_or(u64::MAX),
                    unknown: 0,
                };
                let word = if more > 0 { "more" } else { "less" };
                format!(", {} {word} than before", megabytes(amount))
            }
        };
        format!(
            "production on {} downloads {}{more}",
            one.target.platform,
            megabytes(total)
        )
    };
    after.iter().map(line).collect()
}

/// `--explain-size`, as text.
pub fn explain(all: &[Weighed], session: &Session) {
    let printer = session.printer();
    for (at, one) in all.iter().enumerate() {
        if at > 0 {
            printer.data("");
        }
        let Cost {
            total, rows, shared, ..
        } = &one.cost;
        printer.data(&format!(
            "{}, CPython {}: {} of wheels, before what serving does not reach is left out",
            one.target.platform,
            one.target.python.minor_only(),
            megabytes(*total)
        ));
        printer.data(&format!("{:>14}  {:>14}", "alone", "with shared"));
        for row in rows {
            printer.data(&format!(
                "{:>14}  {:>14}  {}",
                megabytes(row.own),
                megabytes(row.with_shared),
                row.name
            ));
        }
        if *shared != Size::default() {
            printer.data(&format!(
                "{:>14}  {:>14}  brought by more than one",
                megabytes(*shared),
                ""
            ));
        }
        if total.unknown > 0 {
            printer.data(&format!(
                "+ {}: the index does not say how large they are",
                counted(total.unknown)
            ));
        }
    }
}

/// `--explain-size`, as JSON.
pub fn as_json(all: &[Weighed]) -> Value {
    let list: Vec<Value> = all
        .iter()
        .map(|one| {
            json!({
                "platform": one.target.platform.to_string(),
                "python": one.target.python.minor_only().to_string(),
                "cost": one.cost,
            })
        })
        .collect();
    Value::Array(list)
}

fn sum<'a>(libraries: impl Iterator<Item = &'a Cuda>) -> Size {
    libraries.fold(Size::default(), |mut all, library| {
        all += library.size;
        all
    })
}

/// The largest three by name, and how many more.
fn listed(libraries: &[Cuda]) -> String {
    let mut names: Vec<String> = libraries
        .iter()
        .take(3)
        .map(|library| library.name.clone())
        .collect();
    if libraries.len() > names.len() {
        names.push(format!("{} more", libraries.len() - names.len()));
    }
    names.join(", ")
}

/// `2,690.1 MB`, `12.0 MB +2` with two wheels of unknown size.
fn megabytes(size: Size) -> String {
    let tenths = (size.bytes + 50_000) / 100_000;
    let whole = (tenths / 10).to_string();
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let unknown = match size.unknown {
        0 => String::new(),
        count => format!(" +{count}"),
    };
    format!("{grouped}.{} MB{unknown}", tenths % 10)
}

fn counted(wheels: usize) -> String {
    match wheels {
        1 => "1 wheel".to_owned(),
        count => format!("{count} wheels"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_megabytes() {
        let shown = |bytes, unknown| megabytes(Size { bytes, unknown });
        assert_eq!(shown(0, 0), "0.0 MB");
        assert_eq!(shown(49_999, 0), "0.0 MB");
        assert_eq!(shown(999_950_000, 0), "1,000.0 MB");
        assert_eq!(shown(2_690_123_456, 2), "2,690.1 MB +2");
    }
}
