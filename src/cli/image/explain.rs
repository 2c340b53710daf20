//! `image --explain`: why each distribution is in, why each declared one is out, and what that costs or saves.

use super::Session;
use super::decide::Plan;
use crate::project::Project;

/// One line per distribution, largest first within its kind; on stderr, so that stdout stays the digest.
pub fn production(project: &Project, plan: &Plan, session: &Session) {
    let printer = session.printer();
    let included = &plan.production.included;
    let total: u64 = included.iter().filter_map(|one| one.wheel.size).sum();
    printer.say(&format!(
        "{}: {} distributions, {}",
        plan.platform.name(),
        included.len(),
        megabytes(Some(total))
    ));
    let width = included
        .iter()
        .map(|one| one.package.label().len())
        .max()
        .unwrap_or_default();
    for one in included {
        let label = one.package.label();
        printer.say(&format!(
            "  {label:width$}  {:>9}  {}",
            megabytes(one.wheel.size),
            one.reason
        ));
    }
    if !plan.production.left_out.is_empty() {
        printer.say("left out: declared, and not reached from predict");
        for one in &plan.production.left_out {
            printer.say(&format!(
                "  {:width$}  {:>9}",
                one.name.to_string(),
                megabytes(one.size)
            ));
        }
    }
    if let Ok((_, left)) = project.shipped(&plan.closure)
        && !left.is_empty()
    {
        printer.say("files that do not ship");
        for file in left {
            printer.say(&format!("  {}  ({})", file.path.display(), file.reason));
        }
    }
}

fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
}
